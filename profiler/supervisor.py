"""The parent's side of a worker: blocks on its pipe, ends it when it is late, says why it died."""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from profiler.messages import Preparation

WORKER = (sys.executable, "-m", "profiler.worker")
PARENT_VARIABLE = "MORSIZER_PARENT"
START_S = 180.0
MERCY_S = 10.0


class WorkerDied(Exception):
    """The worker ended without an answer."""

    def __init__(self, reason: str, *, is_out_of_memory: bool = False) -> None:
        super().__init__(reason)
        self.is_out_of_memory = is_out_of_memory


class WorkerLate(Exception):
    """The worker gave no answer in time and was ended."""


class Worker:
    """A child process that answers one line with one line. Use it in a `with` block, or `end` it.

    Its standard error goes to a file, whose last line says why it died.
    """

    def __init__(
        self,
        preparation: Preparation,
        command: Sequence[str] = WORKER,
        oom_counters: Path = Path("/proc/vmstat"),
    ) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._oom_counters = oom_counters
        self._kills_before = _oom_kills(oom_counters)
        self._answers = b""
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=worker_environment(os.environ, preparation),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def ask(self, line: str, timeout_s: float) -> str:
        """The answer to a line. Raises WorkerDied or WorkerLate; the worker is gone then."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None
        return self._answer(timeout_s)

    def kill(self) -> None:
        """End it at once; a call that waits for an answer raises WorkerDied. Safe in a handler."""
        self._process.kill()

    def end(self) -> None:
        """Let it go: end of input, then SIGTERM, then SIGKILL."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(MERCY_S)
        except subprocess.TimeoutExpired:
            self._force()
        self._close()

    def _answer(self, timeout_s: float) -> str:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        until_s = time.monotonic() + timeout_s
        while b"\n" not in self._answers:
            # Waiting for the pipe, not for the clock: a parent that spins slows its child.
            ready, _, _ = select.select([pipe], [], [], max(0.0, until_s - time.monotonic()))
            if not ready:
                self._force()
                self._close()
                raise WorkerLate(f"no answer in {timeout_s:g} s; the worker was ended")
            came = os.read(pipe, 1 << 16)
            if not came:
                raise self._died()
            self._answers += came
        answer, _, self._answers = self._answers.partition(b"\n")
        return answer.decode(errors="replace")

    def _died(self) -> WorkerDied:
        try:
            self._process.wait(MERCY_S)
        except subprocess.TimeoutExpired:
            self._force()
        code = self._process.returncode
        how = f"signal {_signal_named(-code)}" if code < 0 else f"exit status {code}"
        last = self._last_complaint()
        kills = _oom_kills(self._oom_counters)
        is_oom = code == -signal.SIGKILL and kills > self._kills_before
        why = "the kernel killed the worker for memory" if is_oom else f"the worker died: {how}"
        self._close()
        return WorkerDied(f"{why}; {last}" if last else why, is_out_of_memory=is_oom)

    def _force(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(MERCY_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _last_complaint(self) -> str:
        self._complaints.seek(0)
        lines = self._complaints.read()[-4000:].decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._complaints):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def worker_environment(ours: Mapping[str, str], preparation: Preparation) -> dict[str, str]:
    """Environment of a worker: threads pinned, one GPU visible, this checkout importable."""
    threads = str(preparation.threads)
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, [ours.get("PYTHONPATH")])]
    variables = {
        **ours,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # A parent may die before its worker can ask who that was.
        PARENT_VARIABLE: str(os.getpid()),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    if preparation.gpu_uuid:
        variables["CUDA_VISIBLE_DEVICES"] = preparation.gpu_uuid
    return variables


def _signal_named(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return str(number)


def _oom_kills(counters: Path) -> int:
    """Processes that the kernel has killed for memory since it started; 0 where it does not say."""
    with suppress(OSError, ValueError):
        for line in counters.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0
