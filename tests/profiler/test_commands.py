"""The commands as a user runs them, with the real worker on small points."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from domain.measurement import MeasuringPlan, PlannedPoint
from domain.store import load, read_journal, save
from profiler.session import Session
from tests.profiler.conftest import ROOT
from tests.profiler.networks import forced


def profiler(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "profiler", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def measured_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of two points; the third needs what this profiler cannot do."""
    folder = tmp_path_factory.mktemp("run")
    plan = folder / "plan.json"
    cannot = PlannedPoint(**{**dict(forced("compiled")), "runtime": "compiled"})
    points = (forced("packed"), forced("masked", executor="masked"), cannot)
    save(MeasuringPlan(name="tiny", runs=1, points=points), plan)
    done = profiler(
        "run", "--plan", str(plan), "--out", str(folder / "out"), "--threads", "1",
        "--device", "cpu", "--format", "json", "--seed", "4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["status"] for row in sorted(rows, key=lambda row: row["point"])] == [
        "failed",
        *(row["status"] for row in rows if row["point"] == "masked"),
        *(row["status"] for row in rows if row["point"] == "packed"),
    ]
    assert "minimum counts relaxed" in done.stderr
    assert "3/3" in done.stderr
    assert "\x1b" not in done.stderr
    return folder / "out"


def test_a_run_stores_records_with_the_machine_they_come_from(measured_folder: Path) -> None:
    records = {record.point: record for record in read_journal(measured_folder / "journal.jsonl")}
    session = load(measured_folder / "session.json", Session)
    assert records["packed"].samples_s  # on a busy machine they are there, if not to be fitted
    assert records["packed"].environment == session.environment
    assert records["packed"].rates == session.rates
    assert records["packed"].environment.device_id.startswith("cpu-")
    assert records["packed"].environment.threads == 1
    assert records["packed"].seed == session.seed == 4
    assert records["packed"].workload.routing == records["masked"].workload.routing
    assert "runtime compiled" in records["compiled"].reason


def test_packing_and_masking_have_the_same_routed_work_but_not_executed(
    measured_folder: Path,
) -> None:
    records = {record.point: record for record in read_journal(measured_folder / "journal.jsonl")}
    for packed, masked in zip(records["packed"].depths, records["masked"].depths, strict=True):
        assert packed.routed_flop == packed.executed_flop == masked.routed_flop
    assert records["masked"].depths[3].executed_flop > records["packed"].depths[3].executed_flop


def test_resume_of_a_finished_run_measures_nothing(measured_folder: Path) -> None:
    before = (measured_folder / "journal.jsonl").read_bytes()
    done = profiler("resume", str(measured_folder), "--format", "csv")
    assert done.returncode == 0
    assert "3 measured, 0 left" in done.stderr
    assert done.stdout.startswith("point,")
    assert (measured_folder / "journal.jsonl").read_bytes() == before


def test_ctrl_c_ends_with_130_and_the_command_that_goes_on(tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    save(MeasuringPlan(name="tiny", runs=3, points=(forced("one"),)), plan)
    process = subprocess.Popen(
        [sys.executable, "-m", "profiler", "run", "--device", "cpu", "--threads", "1",
         "--plan", str(plan), "--out", str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    while "1/3" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert stdout == ""
    assert f"python -m profiler resume {out}" in stderr
    done = profiler("resume", str(out))
    assert done.returncode == 0, done.stderr
    assert [record.run for record in read_journal(out / "journal.jsonl")] == [1, 2, 3]


def test_export_writes_parquet_with_sums_that_hold(measured_folder: Path) -> None:
    done = profiler("export", str(measured_folder))
    assert done.returncode == 0
    sums = json.loads((measured_folder / "manifest.json").read_text())
    assert set(sums) == {"measurements.parquet", "depths.parquet", "journal.jsonl"}
    for name, stated in sums.items():
        assert hashlib.sha256((measured_folder / name).read_bytes()).hexdigest() == stated
    table = pq.read_table(
        measured_folder / "depths.parquet", page_checksum_verification=True
    ).to_pylist()
    assert len(table) == 10
    assert all(row["energy_j"] is None and row["energy_j_unknown"] for row in table)


def test_a_compact_export_reads_like_the_journal_and_nothing_is_added_to_it(
    measured_folder: Path, tmp_path: Path
) -> None:
    done = profiler("export", str(measured_folder), "--compact")
    compact = measured_folder / "journal.jsonl.xz"
    assert (done.returncode, done.stdout) == (0, f"{compact}\n"), done.stderr
    journal = measured_folder / "journal.jsonl"
    assert read_journal(compact) == read_journal(journal)
    assert compact.stat().st_size < journal.stat().st_size
    sent = tmp_path / "sent"
    sent.mkdir()
    for path in (compact, measured_folder / "session.json"):
        (sent / path.name).write_bytes(path.read_bytes())
    compact.unlink()
    refused = profiler("resume", str(sent))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "nothing is added" in refused.stderr
    assert profiler("export", str(sent)).returncode == 0


def test_a_plan_of_a_budget_can_be_stored_and_read(tmp_path: Path) -> None:
    done = profiler("plan", "--budget", "3", "--write", str(tmp_path / "plan.json"))
    assert done.returncode == 0, done.stderr
    assert "about 3 min" in done.stderr
    assert "tells apart: arithmetic" in done.stderr
    again = profiler("plan", "--plan", str(tmp_path / "plan.json"))
    assert again.stdout == done.stdout


def test_a_folder_that_holds_a_session_is_not_overwritten(measured_folder: Path) -> None:
    plan = measured_folder.parent / "plan.json"
    done = profiler("run", "--device", "cpu", "--plan", str(plan), "--out", str(measured_folder))
    assert done.returncode == 2
    assert "python -m profiler resume" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "--device", "a10o"), 2, "nearest"),
        (("run", "--quick", "--rigorous"), 2, "one of --quick"),
        (("run", "--format", "xml"), 2, "unknown format"),
        (("plan", "--plan", "/nowhere.json"), 6, "cannot read"),
        (("plan", "--budget", "0.5"), 2, "min at --quick"),
        (("plan", "--plan", "/nowhere.json", "--budget", "5"), 2, "measured whole"),
        (("plan", "--reference", "--budget", "5"), 2, "a plan of its own"),
        (("resume", "/nowhere"), 2, "session.json"),
        (("export", "/nowhere"), 6, "cannot read"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(arguments, code, said):
    done = profiler(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_help_loads_no_torch():
    code = (
        "import sys; sys.argv = ['profiler', '--help']; import profiler.__main__ as shell\n"
        "try: shell.main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
