"""The child that measures: JSON lines in, JSON lines out, one process for each run.

It never outlives its parent, ignores Ctrl-C (the parent decides), and answers every task: with
numbers, or with the status that says why there are none.
"""

import ctypes
import os
import signal
import sys
from typing import TextIO

from domain.measurement import Measurement
from domain.record import Record
from profiler.messages import Preparation, Prepared, Task, failed

_SET_PARENT_DEATH_SIGNAL = 1


def main() -> int:
    """Answer until the parent closes the pipe."""
    _die_with(parent=os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    preparation = Preparation.model_validate_json(sys.stdin.readline())
    _say(answers, _prepared(preparation))
    for line in sys.stdin:
        _say(answers, _measurement(Task.model_validate_json(line), preparation))
    return 0


def _prepared(preparation: Preparation) -> Prepared:
    import torch

    from profiler.environment import fingerprint, measured_rates

    torch.set_num_threads(preparation.threads)
    if preparation.kind == "cuda" and not torch.cuda.is_available():
        return Prepared(
            complaint=f"torch {torch.__version__} cannot use {preparation.gpu_name} in a worker; "
            "try `python -m profiler doctor`"
        )
    torch.backends.cuda.matmul.allow_tf32 = False
    rates = measured_rates(preparation.kind) if preparation.wants_rates else None
    return Prepared(
        environment=fingerprint(preparation.choice, torch.get_num_threads()), rates=rates
    )


def _measurement(task: Task, preparation: Preparation) -> Measurement:
    import torch

    from domain.complaint import Complaint
    from profiler.passes import measured
    from profiler.subjects import CannotRun
    from profiler.telemetry import RaplMeter, nvml_meter

    is_gpu = preparation.kind == "cuda"
    try:
        meter = nvml_meter(preparation.gpu_uuid) if is_gpu else RaplMeter()
        return measured(task, preparation.kind, meter, preparation.source)
    except (CannotRun, Complaint) as reason:
        return failed(task, "failed", str(reason))
    except (MemoryError, torch.OutOfMemoryError) as error:
        return failed(task, "oom", str(error) or "out of memory")
    except Exception as error:  # whatever a point dies of is its result; the next one goes on
        if "memory" in str(error).lower() and isinstance(error, RuntimeError):
            return failed(task, "oom", str(error))
        return failed(task, "failed", f"{type(error).__name__}: {error}")


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
