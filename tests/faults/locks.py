"""Locks (R13): crashes while a journal is locked, two sweeps in one folder, what a kill leaves."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from domain.complaint import STORAGE, StorageFailed
from domain.measurement import Measurement
from domain.store import Journal, read_journal, write_whole
from profiler.repair import repaired
from profiler.session import JOURNAL
from tests.domain.strategies import toy_measurement
from tests.faults.running import Sweep, seeded, toy_session
from tests.faults.tally import Fault, Tally


def locks(tries: int, seed: int) -> Iterator[Fault]:
    """So many crashes with the lock held; a tenth as many second sweeps."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        yield _crashes(Path(name), tries)
        yield _second_sweeps(Path(name), max(1, tries // 20), seed)
        yield _unfinished(Path(name), tries)


def _crashes(folder: Path, tries: int) -> Fault:
    tally = Tally("crash with the journal locked")
    path = folder / "locked.jsonl"
    for number in range(1, tries + 1):
        child = _child_with_the_lock(path, number)
        try:
            with Journal(path, Measurement):
                held = "the lock did not hold"
        except StorageFailed:
            held = ""
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        stuck = ""
        try:
            with Journal(path, Measurement):
                pass
        except StorageFailed as error:
            stuck = f"stuck: {error}"
        lost = number - len(read_journal(path))
        tally.count(held, stuck, f"{lost} rows lost" if lost else "", lost=lost)
    return tally.result()


def _child_with_the_lock(path: Path, run: int) -> int:
    """A process that appended a row and holds the journal until it is killed."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        with Journal(path, Measurement) as journal:
            journal.append(toy_measurement(run))
            os.write(told, b"x")
            time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    return child


def _second_sweeps(folder: Path, tries: int, seed: int) -> Fault:
    tally = Tally("two sweeps in one folder")
    for number in range(tries):
        sweep = Sweep(folder / f"sweep-{number}", toy_session(300, 2, kind="long"))
        first = sweep.start()
        sweep.wait_for(1)
        time.sleep(seeded(seed, number).uniform(0.0, 0.3))
        code = sweep.start().wait(180)
        tally.count(
            "" if code == STORAGE else f"exit status {code}",
            "" if "is being written by another run" in sweep.said else "it does not say why",
            "" if first.poll() is None else "the first sweep ended",
        )
        first.kill()
        first.wait()
    return tally.result()


def _die(handle: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _unfinished(folder: Path, tries: int) -> Fault:
    tally = Tally("killed while a file is written")
    place = folder / "results"
    write_whole(place / JOURNAL.replace("jsonl", "json"), b"old")
    for _ in range(tries):
        child = os.fork()
        if child == 0:
            with mock.patch("os.fsync", _die):
                write_whole(place / "journal.json", b"new" * 1000)
            os._exit(0)
        os.waitpid(child, 0)
        left = [path for path in place.iterdir() if path.name.startswith(".")]
        long_ago = time.time() - 60.0
        for path in left:
            os.utime(path, (long_ago, long_ago))
        found = repaired(place)
        tally.count(
            "" if len(left) == 1 else f"{len(left)} unfinished files",
            "" if (place / "journal.json").read_bytes() == b"old" else "the old file changed",
            "" if [path.name for path in place.iterdir()] == ["journal.json"] else "litter",
            "" if any(each.subject == "unfinished file" for each in found) else "nothing is said",
        )
    return tally.result()
