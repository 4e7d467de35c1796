"""A sweep as a process that can be killed, what it left, and who of its processes is still there."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import IO

from domain.measurement import Measurement
from domain.store import records_so_far, save
from profiler.session import JOURNAL, SESSION, Session
from tests.faults.fast_worker import ASKED_VARIABLE
from tests.faults.sweep import ACKNOWLEDGED_VARIABLE, acknowledgement
from tests.profiler.conftest import ROOT
from tests.profiler.networks import session

MARK_VARIABLE = "FAULTS_MARK"
ORPHAN_S = 5.0


class Sweep:
    """A session's folder, and the process that measures there, if one does."""

    def __init__(self, folder: Path, toy: Session) -> None:
        self.folder = folder
        self.session = toy
        self.mark = secrets.token_hex(8)
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        save(toy, folder / SESSION)

    def start(
        self,
        more: Mapping[str, str] | None = None,
        terminal: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Measure what is left, in a session of its own; standard error goes to `said.txt`."""
        said: IO[bytes] | int
        with (self.folder / "said.txt").open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.sweep", str(self.folder)],
                cwd=ROOT,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    MARK_VARIABLE: self.mark,
                    ASKED_VARIABLE: str(self.folder / "asked.txt"),
                    ACKNOWLEDGED_VARIABLE: str(self.folder / "acknowledged.txt"),
                    **(more or {}),
                },
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=said if terminal is None else terminal,
                stderr=said if terminal is None else terminal,
                start_new_session=True,
            )
        return self.process

    def wait_for(self, seen: int, within_s: float = 60.0) -> bool:
        """Whether so many rows were acknowledged while the process lived."""
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s and self.process is not None:
            if len(self.acknowledged) >= seen:
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.005)
        return False

    @property
    def said(self) -> str:
        """All that it said on standard error."""
        return (self.folder / "said.txt").read_text(errors="replace")

    @property
    def acknowledged(self) -> list[str]:
        """Rows that were reported."""
        return _lines(self.folder / "acknowledged.txt")

    @property
    def asked(self) -> list[str]:
        """Points that a worker began."""
        return _lines(self.folder / "asked.txt")

    @property
    def records(self) -> tuple[Measurement, ...]:
        """The valid rows of the journal."""
        journal = self.folder / JOURNAL
        return records_so_far(journal, Measurement) if journal.exists() else ()

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """Point and run of each row."""
        return [(record.point, record.run) for record in self.records]

    def journal(self) -> bytes:
        """The bytes of the valid rows."""
        path = self.folder / JOURNAL
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return b"".join(lines[: len(self.records)])

    def lost(self) -> set[str]:
        """Acknowledged rows that are not in the journal as they were."""
        return set(self.acknowledged) - {acknowledgement(record) for record in self.records}

    def workers(self) -> list[int]:
        """Processes of this sweep beside its own."""
        own = None if self.process is None else self.process.pid
        return [pid for pid in processes_marked(self.mark) if pid != own]


def toy_session(points: int, runs: int = 2, kind: str = "p") -> Session:
    """A session of so many small points."""
    return session(*(f"{kind}-{number:02}" for number in range(points)), runs=runs)


def processes_marked(mark: str) -> list[int]:
    """Living processes with that mark in their environment."""
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:  # gone meanwhile
                continue
    return found


def orphans_of(sweep: Sweep) -> str:
    """Processes that outlive the sweep by five seconds, as a problem; ends them. Empty for none."""
    until_s = time.monotonic() + ORPHAN_S
    left = processes_marked(sweep.mark)
    while left and time.monotonic() < until_s:
        time.sleep(0.02)
        left = processes_marked(sweep.mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return f"{len(left)} processes left after {ORPHAN_S:g} s" if left else ""


def problems_of(sweep: Sweep) -> list[str]:
    """What a sweep's folder should never look like."""
    twice = [pair for pair, count in Counter(sweep.pairs).items() if count > 1]
    lost = sweep.lost()
    return [
        f"{len(lost)} acknowledged rows lost" if lost else "",
        f"{twice} measured twice" if twice else "",
        "a traceback" if "Traceback" in sweep.said else "",
    ]


def seeded(*seeds: object) -> Random:
    """A source of chance that is the same for the same seeds."""
    return Random(":".join(map(str, seeds)))  # noqa: S311 - an order of events, not a secret


def pause(random: Random, most_s: float) -> None:
    """Wait a random while."""
    time.sleep(random.uniform(0.0, most_s))


def _lines(path: Path) -> list[str]:
    text = path.read_text() if path.exists() else ""
    return text.splitlines()
