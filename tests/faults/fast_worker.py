"""A worker without torch that answers in milliseconds, notes what it was asked, and dies as it must.

`slow-…` takes half a minute, `long-…` half a second; the others about `FAULTS_PACE_S`.
"""

import os
import signal
import sys
import time

from profiler.messages import Preparation, Prepared, Task
from profiler.supervisor import PARENT_VARIABLE
from profiler.worker import _die_with
from tests.profiler.fake_worker import answered, tell
from tests.profiler.networks import ENVIRONMENT, RATES

ASKED_VARIABLE, PACE_VARIABLE = "FAULTS_ASKED", "FAULTS_PACE_S"
SECONDS = {"slow": 30.0, "long": 0.5}


def main() -> None:
    _die_with(parent=int(os.environ[PARENT_VARIABLE]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Preparation.model_validate_json(sys.stdin.readline())
    tell(sys.stdout, Prepared(environment=ENVIRONMENT, rates=RATES))
    asked = os.open(os.environ[ASKED_VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pace_s = float(os.environ.get(PACE_VARIABLE, "0.01"))
    for line in sys.stdin:
        task = Task.model_validate_json(line)
        os.write(asked, f"{task.point.id} {task.run}\n".encode())
        time.sleep(SECONDS.get(task.point.id.split("-")[0], pace_s))
        tell(sys.stdout, answered(task))


if __name__ == "__main__":
    main()
