"""`python -m profiler resume`, with the fast worker, a note of each acknowledged row, and a death.

The death is named in `FAULTS_DEATH` as place:number: at the number-th worker or row, at that place.
"""

import fcntl
import os
import signal
import sys
import termios
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

from domain import store
from domain.lines import line_of
from domain.measurement import Measurement
from profiler.messages import Preparation
from profiler.progress import Progress
from profiler.supervisor import Worker

ACKNOWLEDGED_VARIABLE, DEATH_VARIABLE, TERMINAL_VARIABLE, REAL_VARIABLE = (
    f"FAULTS_{name}" for name in ("ACKNOWLEDGED", "DEATH", "TERMINAL", "REAL")
)
FAST = (sys.executable, "-m", "tests.faults.fast_worker")
PLACES = ("starting", "asked", "half-line", "written", "synced", "reported", "set-aside")

_counts = dict.fromkeys(PLACES, 0)


def acknowledgement(record: Measurement) -> str:
    """What is noted of a row once it was reported."""
    return f"{record.point} {record.run} {zlib.crc32(record.model_dump_json().encode())}"


def passing(place: str) -> None:
    """Die here where this is the place and the time."""
    named, _, number = os.environ.get(DEATH_VARIABLE, "").partition(":")
    _counts[place] += 1
    if named == place and _counts[place] == int(number):
        os.kill(os.getpid(), signal.SIGKILL)


class DyingWorker(Worker):
    def __init__(self, preparation: Preparation, command: Any = None) -> None:
        real = os.environ.get(REAL_VARIABLE)
        super().__init__(preparation, command if real else FAST)
        passing("starting")

    def ask(self, line: str, timeout_s: float) -> str:
        if '"point"' in line[:20]:
            assert self._process.stdin is not None
            if os.environ.get(DEATH_VARIABLE, "").startswith("asked"):
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()
                passing("asked")
                return self._answer(timeout_s)
        return super().ask(line, timeout_s)


class DyingJournal(store.Journal[Measurement]):
    def append(self, record: Measurement) -> None:
        death = os.environ.get(DEATH_VARIABLE, "").partition(":")[0]
        line = line_of(record, self._lines + 1)
        if death in ("half-line", "written") and _counts[death] + 1 == self._death_number():
            os.write(self._file.fileno(), line if death == "written" else line[: len(line) // 2])
        passing("half-line")
        passing("written")
        super().append(record)
        passing("synced")

    @staticmethod
    def _death_number() -> int:
        return int(os.environ[DEATH_VARIABLE].partition(":")[2])


def main(folder: str) -> None:
    if TERMINAL_VARIABLE in os.environ:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    noted = os.open(os.environ[ACKNOWLEDGED_VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    point = Progress.point

    def reported(self: Progress, record: Measurement, number: int, total: int) -> None:
        point(self, record, number, total)
        os.write(noted, f"{acknowledgement(record)}\n".encode())
        passing("reported")

    written = store.write_whole  # before it is replaced

    def set_aside(path: Path, content: bytes) -> None:
        written(path, content)
        if path.name.endswith(".torn"):
            passing("set-aside")

    sys.argv = ["profiler", "resume", folder]
    from profiler.__main__ import main as command

    with (
        mock.patch("profiler.session.Worker", DyingWorker),
        mock.patch("profiler.session.Journal", DyingJournal),
        mock.patch("profiler.starting.store_beside", return_value=None),
        mock.patch("domain.store.write_whole", set_aside),
        mock.patch.object(Progress, "point", reported),
    ):
        command()


if __name__ == "__main__":
    main(sys.argv[1])
