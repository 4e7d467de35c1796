"""The child that measures: JSON lines in, JSON lines out, one process for each run.

It never outlives its parent, ignores Ctrl-C (the parent decides), and answers every task: with
numbers, or with the status that says why there are none.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from domain.measurement import Measurement, Status
from domain.record import Record, Unknown
from profiler.messages import Preparation, Prepared, Task, failed
from profiler.supervisor import PARENT_VARIABLE

if TYPE_CHECKING:
    from profiler.telemetry import Meter

_SET_PARENT_DEATH_SIGNAL = 1


def main() -> int:
    """Measure points until the parent closes the pipe."""
    bench = Bench()
    return answering(
        lambda line, preparation: bench.measurement(Task.model_validate_json(line), preparation)
    )


def answering(answer: Callable[[str, Preparation], Record]) -> int:
    """Prepare, then answer every line until the parent closes the pipe."""
    _die_with(parent=int(os.environ.get(PARENT_VARIABLE, os.getppid())))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    preparation = Preparation.model_validate_json(sys.stdin.readline())
    _say(answers, _prepared(preparation))
    for line in sys.stdin:
        _say(answers, answer(line, preparation))
    return 0


def _prepared(preparation: Preparation) -> Prepared:
    from profiler.affinity import pin
    from profiler.environment import fingerprint, measured_rates, usable_cores
    from profiler.limits import limit_memory

    cores = usable_cores()
    pinned = pin(preparation.threads, cores)  # before torch starts threads, which inherit it

    import torch

    torch.set_num_threads(preparation.threads)
    if preparation.kind == "cuda" and not torch.cuda.is_available():
        return Prepared(
            complaint=f"torch {torch.__version__} cannot use {preparation.gpu_name} in a worker; "
            "try `python -m profiler doctor`"
        )
    torch.backends.cuda.matmul.allow_tf32 = False
    rates = measured_rates(preparation.kind) if preparation.wants_rates else None
    if preparation.memory_limit_bytes is not None:
        limit_memory(preparation.kind, preparation.memory_limit_bytes)
    return Prepared(
        environment=fingerprint(
            preparation.choice,
            torch.get_num_threads(),
            cores=cores,
            affinity=pinned,
            clocks=preparation.locked_clocks,
        ),
        rates=rates,
    )


class Bench:
    """One device from point to point: its meter, and what it drew before the first of them."""

    def __init__(self, meter: "Meter | None" = None) -> None:
        self._meter = meter
        self._idle_w: float | Unknown | None = None

    def measurement(self, task: Task, preparation: Preparation) -> Measurement:
        """The record of a point, with numbers or the reason for none.

        On a device that is lost nothing is tried.
        """
        from profiler.clock import CLOCKS
        from profiler.energy import idle_draw_w
        from profiler.passes import measured

        meter = self._meter = self._meter or meter_of(preparation)
        if gone := meter.lost():
            return failed(task, "failed", gone)
        kind = preparation.kind
        if self._idle_w is None:
            self._idle_w = idle_draw_w(meter, task.settings.energy_s, CLOCKS[kind]())
        try:
            return measured(task, kind, meter, preparation.source, self._idle_w)
        except Exception as error:  # whatever a point dies of is its result; the next one goes on
            status, reason = failure_of(error)
            gone = meter.lost()
            return failed(task, *(("failed", f"{gone}; {reason}") if gone else (status, reason)))


def meter_of(preparation: Preparation) -> "Meter":
    """The meter of the device that is measured."""
    from profiler.telemetry import RaplMeter, nvml_meter

    return nvml_meter(preparation.gpu_uuid) if preparation.kind == "cuda" else RaplMeter()


def failure_of(error: Exception) -> tuple[Status, str]:
    """Status and reason of a point that died of `error`."""
    import torch

    from domain.complaint import Complaint
    from profiler.limits import is_memory_limited
    from profiler.subjects import CannotRun

    if isinstance(error, CannotRun | Complaint):
        return "failed", str(error)
    # A CPU without room raises a plain RuntimeError, and oneDNN does not say of what it lacks.
    signs = ("memory", "could not create a primitive") if is_memory_limited() else ("memory",)
    text = str(error).lower()
    # "An illegal memory access" is a fault of a kernel: a larger batch may well run.
    says_memory = (
        isinstance(error, RuntimeError)
        and any(sign in text for sign in signs)
        and "memory access" not in text
    )
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or says_memory:
        return "oom", str(error) or "out of memory"
    return "failed", f"{type(error).__name__}: {error}"


def _say(answers: TextIO, record: Record) -> None:
    answers.write(record.model_dump_json() + "\n")
    answers.flush()


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, where it can."""
    try:
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
