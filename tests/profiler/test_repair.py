import fcntl
import os
import time
import zlib
from pathlib import Path

import pytest

from domain.complaint import Complaint
from domain.measurement import Measurement
from domain.store import Journal, read_journal, save, unread_tail
from profiler.lease import Lease, start_of
from profiler.repair import left_behind, repaired
from profiler.session import JOURNAL
from tests.domain.strategies import toy_measurement


@pytest.fixture(autouse=True)
def _leases_of_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "mine"
    with Journal(folder / JOURNAL, Measurement) as journal:
        journal.append(toy_measurement(1))
        journal.append(toy_measurement(2))
    return folder


def unfinished(folder: Path, name: str = ".fit.json.ab12cd_4", age_s: float = 60.0) -> Path:
    path = folder / name
    path.write_bytes(b"half")
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_nothing_left_is_a_pass_and_changes_nothing(results: Path) -> None:
    before = {path: path.read_bytes() for path in results.iterdir()}
    for look in (left_behind, repaired):
        assert [(found.level, found.subject) for found in look(results)] == [("PASS", "leftovers")]
    assert {path: path.read_bytes() for path in results.iterdir()} == before


def test_the_doctor_says_what_repair_then_does(results: Path) -> None:
    path = unfinished(results)
    (said,) = left_behind(results)
    assert (said.level, said.subject) == ("WARN", "unfinished file")
    assert "doctor --repair" in said.cure
    assert path.exists()
    (done,) = repaired(results)
    assert done.level == "PASS"
    assert str(path) in done.found
    assert not path.exists()


def test_a_file_that_somebody_writes_or_owns_is_left_alone(results: Path) -> None:
    young = unfinished(results, ".plan.json.ab12cd_5", age_s=0.0)
    others = unfinished(results, ".bashrc")
    directory = results / ".x.json.ab12cd_6"
    directory.mkdir()
    held = unfinished(results, ".plan.json.ab12cd_7")
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        (found,) = repaired(results)
    assert found.level == "PASS"
    assert all(path.exists() for path in (young, others, directory, held))


def test_a_damaged_tail_is_set_aside_and_kept(results: Path) -> None:
    journal = results / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b"torn")
    (said,) = left_behind(results)
    assert "the last 4 bytes, after line 2, are damaged" in said.found
    assert journal.read_bytes() == whole + b"torn"
    assert {found.level for found in repaired(results)} == {"PASS", "WARN"}
    assert (journal.read_bytes(), unread_tail(journal)) == (whole, "")
    assert (results / f"{JOURNAL}.torn").read_bytes() == b"torn"
    # What was set aside is spoken of, and stays.
    assert [found.subject for found in repaired(results)] == ["set aside"]
    assert len(read_journal(journal)) == 2


def test_a_journal_that_is_being_written_is_left_alone(results: Path) -> None:
    journal = results / JOURNAL
    with Journal(journal, Measurement) as writing:
        with journal.open("ab") as file:
            file.write(b"half a li")
        assert [found.level for found in repaired(results)] == ["PASS"]
        assert writing.torn_bytes == 0
    assert journal.read_bytes().endswith(b"half a li")


def test_a_journal_of_a_later_format_is_spoken_of_and_not_cut(results: Path) -> None:
    journal = results / JOURNAL
    body = toy_measurement(3).model_dump_json().replace('"format":2', '"format":9')
    line = f'{{"line":3,"crc32":{zlib.crc32(body.encode())},"record":{body}}}\n'.encode()
    whole = journal.read_bytes() + line
    journal.write_bytes(whole)
    (found,) = repaired(results)
    assert (found.level, found.subject) == ("WARN", "journal")
    assert journal.read_bytes() == whole


def test_a_lease_of_a_living_process_is_no_leftover_and_a_dead_one_is(
    results: Path, tmp_path: Path
) -> None:
    lease = tmp_path / "state" / "morsizer" / "clocks-GPU-1.json"
    own = os.getpid()
    save(
        Lease(pid=own, process_start=start_of(own), uuid="GPU-1", clocks="base"),
        lease,
    )
    assert [found.level for found in left_behind(results)] == ["PASS"]
    save(Lease(pid=own, process_start="another boot:1", uuid="GPU-1", clocks="base"), lease)
    (found,) = left_behind(results)
    assert (found.level, found.subject) == ("WARN", "clocks")
    assert f"process {own}" in found.found


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Complaint, match="is no folder"):
        left_behind(tmp_path / "absent")
