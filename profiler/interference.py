"""What spoils a measurement, made on purpose: a parent that spins, others on our cores."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from profiler.affinity import allowed_cores

_SPIN = """
import os, sys
try:
    os.sched_setaffinity(0, {int(sys.argv[1])})
except (AttributeError, OSError):
    pass
while os.getppid() == int(sys.argv[2]):
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def spinning_thread() -> Iterator[None]:
    """A thread of this process that does nothing, as fast as it can."""
    is_over = threading.Event()

    def spin() -> None:
        while not is_over.is_set():
            pass

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def spinning_processes() -> Iterator[None]:
    """A process on each core that this one may use, doing nothing as fast as it can."""
    spinning: list[subprocess.Popen[bytes]] = []
    try:
        for core in sorted(allowed_cores()):
            spinning.append(_spinning_on(core))
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def _spinning_on(core: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own few lines
        [sys.executable, "-c", _SPIN, str(core), str(os.getpid())]
    )
