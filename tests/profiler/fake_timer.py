"""A worker without torch that answers operators at once: one sample each, in microseconds of the run.

An operator whose width is 666 kills it; an argument `slow` makes each answer take half a second.
"""

import os
import signal
import sys
import time

from domain.microbenchmark import OperatorTiming
from profiler.messages import Preparation, Prepared
from profiler.microbench import OperatorTask, untimed
from tests.profiler.networks import ENVIRONMENT, RATES


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Preparation.model_validate_json(sys.stdin.readline())
    tell(Prepared(environment=ENVIRONMENT, rates=RATES).model_dump_json())
    for line in sys.stdin:
        task = OperatorTask.model_validate_json(line)
        if task.point.width == 666:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.5 * ("slow" in sys.argv))
        blank = dict(untimed(task, "failed", "blank"))
        timed = {"status": "ok", "reason": "", "samples_s": (1e-6 * task.run,)}
        tell(OperatorTiming(**{**blank, **timed}).model_dump_json())


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
