"""A worker without torch: answers at once, or misbehaves on the points whose name says how.

die-…: killed · exit-…: ends with a word on stderr · hang-…: never answers · oom-…, failed-…: that
status · noise-…: no record · other-…: another batch · elsewhere-… as argument: another environment.
"""

import os
import signal
import sys
import time
from typing import TextIO

from domain.measurement import Measurement, PlannedPoint
from domain.record import Record
from profiler.messages import Preparation, Prepared, Task, failed
from tests.profiler.networks import ENVIRONMENT, RATES


def answered(task: Task) -> Measurement:
    blank = failed(task, "failed", "blank")
    samples = (0.001 * task.run, 0.0011)
    return Measurement(
        **{**dict(blank), "status": "ok", "reason": "", "samples_s": samples, "warmup_s": samples}
    )


def main() -> None:
    say = sys.stdout
    Preparation.model_validate_json(sys.stdin.readline())
    where = {**dict(ENVIRONMENT), "torch": "9.9"} if "elsewhere" in sys.argv else dict(ENVIRONMENT)
    tell(say, Prepared(environment=type(ENVIRONMENT)(**where), rates=RATES))
    slow_s = float(os.environ.get("FAKE_WORKER_SLOW_S", "0"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        task = Task.model_validate_json(line)
        time.sleep(slow_s)
        match task.point.id.split("-")[0]:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                sys.stderr.write("Traceback\nRuntimeError: the end\n")
                sys.exit(3)
            case "hang":
                time.sleep(600)
            case "oom":
                tell(say, failed(task, "oom", "no room"))
            case "failed":
                tell(say, failed(task, "failed", "cannot"))
            case "other":
                other = PlannedPoint(**{**dict(task.point), "batch": task.point.batch + 1})
                tell(say, answered(Task(**{**dict(task), "point": other})))
            case "noise":
                say.write('{"format": 1, "samples_s": [NaN]}\n')
                say.flush()
            case _:
                tell(say, answered(task))


def tell(say: TextIO, record: Record) -> None:
    say.write(record.model_dump_json() + "\n")
    say.flush()


if __name__ == "__main__":
    main()
