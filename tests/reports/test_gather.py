import subprocess
import sys

import pytest
from typer.testing import CliRunner

from domain import store
from domain.compact import compacted
from domain.complaint import Complaint, CorruptFile
from reports.__main__ import COMMANDS, app, main
from reports.contents import Absent, Found
from reports.gather import contents_of
from tests.reports import records

WHEN = "2026-11-02 08:00 UTC"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MORSIZER_RESULTS", str(tmp_path))
    return tmp_path


def write_session(folder):
    with store.Journal(folder / "journal.jsonl", store.Measurement) as journal:
        for each in records.measurements():
            journal.append(each)
    store.save(records.decisions(), folder / "decisions.json")
    store.write_trace(records.routing(), folder / "routing.parquet")


def write_rest(root, validation="predictions/validation_pairs.json", fit="fits/toy.json"):
    store.save(records.fit(), root / fit)
    store.save(records.validation(), root / validation)
    store.save(records.offers(), root / "predictions/catalogue.json")
    store.save(records.plan(), root / "plans/line-1.json")
    store.save(records.designs(), root / "predictions/designs.json")


def test_without_results_every_part_says_what_to_run(root):
    for part in contents_of(None, WHEN).parts.values():
        assert isinstance(part, Absent)
        assert part.command


def test_what_was_stored_is_what_is_shown(root):
    write_session(root / "measurements" / "one")
    write_rest(root)
    parts = contents_of(None, WHEN).parts
    expected = records.full_contents().parts
    for name, part in parts.items():
        assert isinstance(part, Found)
        assert part.value == expected[name].value
        assert not part.is_reference
        assert part.source.startswith("results/")


def write_reference(root):
    """As committed: the journal compact in a folder of its own, what it led to beside that folder."""
    write_session(root / "reference")
    journal = root / "reference" / "journal.jsonl"
    compact = store.reference_journal()
    store.write_whole(compact, compacted(journal.read_bytes()))
    journal.unlink()
    write_rest(root / "reference", "validation_pairs.json", store.REFERENCE_FIT)
    return compact.parent


def test_the_reference_stands_in_and_says_so(root):
    session = write_reference(root)
    contents = contents_of(None, WHEN)
    for part in contents.parts.values():
        assert isinstance(part, Found)
        assert part.is_reference
        assert part.source.startswith("results/reference/")
    assert contents.measurements.value == records.measurements()
    assert contents.decisions.source == "results/reference/decisions.json"
    assert contents_of(session, WHEN).measurements.value == records.measurements()


def test_own_results_go_before_the_reference(root):
    write_session(root / "reference")
    write_session(root / "measurements" / "one")
    assert contents_of(None, WHEN).measurements.source == "results/measurements/one/journal.jsonl"


def test_a_damaged_file_becomes_a_sentence(root):
    write_session(root / "measurements" / "one")
    (root / "measurements" / "one" / "decisions.json").write_text('{"format": 1}')
    decisions = contents_of(None, WHEN).decisions
    assert isinstance(decisions, Absent)
    assert "is no RouterDecisions" in decisions.complaint


def test_a_named_session_must_have_a_journal_that_can_be_read(root):
    write_session(root / "measurements" / "one")
    with pytest.raises(Complaint, match="nearest: one"):
        contents_of(root / "measurements" / "on", WHEN)
    (root / "measurements" / "one" / "journal.jsonl").write_text("torn")
    with pytest.raises(CorruptFile):
        contents_of(root / "measurements" / "one", WHEN)


def test_the_command_writes_a_file_and_prints_its_path(root):
    write_session(root / "measurements" / "one")
    result = CliRunner().invoke(app, ["--language", "ja"])
    assert result.exit_code == 0
    assert result.stdout.strip() == str(root / "reports" / "20261101-toy.html")
    assert '<html lang="ja">' in (root / "reports" / "20261101-toy.html").read_text()


def test_without_a_session_the_file_is_named_by_the_time(root):
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    assert [path.suffix for path in (root / "reports").iterdir()] == [".html"]


def test_a_damaged_file_is_also_named_on_stderr(root, tmp_path):
    (root / "plans").mkdir()
    (root / "plans" / "bad.json").write_text("{}")
    result = CliRunner().invoke(app, ["--output", str(tmp_path / "out.html")])
    assert result.exit_code == 0
    assert "is no Plan" in result.stderr


def test_help_has_an_example():
    result = CliRunner().invoke(app, ["--help"])
    assert "Example: python -m reports" in result.stdout


def test_the_console_script_runs_the_report(root, monkeypatch, tmp_path, capsys):
    out = tmp_path / "out.html"
    monkeypatch.setattr(sys, "argv", ["morsizer", "report", "--output", str(out)])
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code
    assert capsys.readouterr().out.strip() == str(out)


def test_the_console_script_lists_its_commands(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["morsizer"])
    main()
    listed = capsys.readouterr().out
    assert all(f"python -m {module}" in listed for module in COMMANDS.values())


def test_an_unknown_word_names_the_nearest(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["morsizer", "reprot"])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == Complaint.exit_code
    assert "report" in capsys.readouterr().err


def test_the_console_script_runs_another_module(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "zen", "this")
    monkeypatch.setattr(sys, "argv", ["morsizer", "zen"])
    main()
    assert "Zen of Python" in capsys.readouterr().out


def test_a_command_that_is_not_installed_says_so(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "absent", "no_such_module")
    monkeypatch.setattr(sys, "argv", ["morsizer", "absent"])
    with pytest.raises(SystemExit):
        main()
    assert "not installed" in capsys.readouterr().err


def test_a_report_needs_no_torch():
    code = "import sys, reports.report, reports.gather; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
