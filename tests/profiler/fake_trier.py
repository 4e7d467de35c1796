"""A worker whose memory law is known: room for a batch up to the first argument, and how it says no.

oom: answers so · killed: SIGKILL · bad-alloc: dies as C++ does · hang-N, failed-N: at batch N instead.
"""

import os
import signal
import sys
import time

from domain.measurement import Measurement
from profiler.messages import Preparation, Prepared, Task, failed
from tests.profiler.networks import ENVIRONMENT, RATES


def main(room: int, how: str) -> None:
    preparation = Preparation.model_validate_json(sys.stdin.readline())
    rates = RATES if preparation.wants_rates else None
    tell(Prepared(environment=ENVIRONMENT, rates=rates).model_dump_json())
    task = Task.model_validate_json(sys.stdin.readline())
    batch = task.point.batch
    kind, _, where = how.partition("-")
    if where == str(batch):
        if kind == "hang":
            time.sleep(600)
        tell(failed(task, "failed", "cannot").model_dump_json())
    elif batch <= room:
        blank = dict(failed(task, "failed", "blank"))
        ok = {"status": "ok", "reason": f"pid {os.getpid()}", "samples_s": (0.001,)}
        tell(Measurement(**{**blank, **ok}).model_dump_json())
    elif how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "bad-alloc":
        sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n")
        sys.stderr.flush()
        os.abort()
    else:
        tell(failed(task, "oom", "no room").model_dump_json())
    sys.stdin.readline()


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
