"""A load worker in virtual time: a batch takes 10 ms. `die`: killed at a rate; `busy`: contended,
`restless`: at first."""

import os
import signal
import sys
from itertools import count

from domain.loadtest import LoadResult
from domain.record import Unknown
from profiler.load import Cut, VirtualServer, poisson_arrivals_s, served, streamed
from profiler.load_evidence import most_late
from profiler.loading import LoadTask, failed_load
from profiler.messages import Preparation, Prepared
from tests.profiler.fake_worker import tell
from tests.profiler.networks import ENVIRONMENT, RATES

SERVICE_S = 0.010


def answered(task: LoadTask, number: int) -> LoadResult:
    if "die" in sys.argv and task.rate_per_s:
        os.kill(os.getpid(), signal.SIGKILL)
    server = VirtualServer(lambda first, count: SERVICE_S)
    if task.rate_per_s is not None:
        arrivals = poisson_arrivals_s(task.rate_per_s, task.queries, task.seeds.arrivals)
        cut = Cut(at_s=arrivals[-1] * 1.5 + 10)
        if task.stops_when_broken and task.promise:
            late = max(0, most_late(task.queries, task.promise.share))
            cut = Cut(at_s=cut.at_s, latency_s=task.promise.latency_s, most_late=late)
        seen = served(arrivals, task.batching, server, cut)
    elif task.scenario == "offline":
        seen = served((0.0,) * round(task.seconds / SERVICE_S), task.batching, server)
    else:
        seen = streamed(server, task.seconds, 10**6)
    is_disturbed = task.rate_per_s and (
        "busy" in sys.argv or ("restless" in sys.argv and number < 4)
    )
    return LoadResult(
        **{
            **dict(failed_load(task, "failed", "blank")),
            "status": "contended" if is_disturbed else "ok",
            "reason": "others" if is_disturbed else "",
            "arrivals_s": tuple(seen.arrivals_s),
            "batch_queries": tuple(seen.batch_queries),
            "started_s": tuple(seen.started_s),
            "done_s": tuple(seen.done_s),
            "conditions": Unknown(reason="virtual time"),
        }
    )


def main() -> None:
    Preparation.model_validate_json(sys.stdin.readline())
    tell(sys.stdout, Prepared(environment=ENVIRONMENT, rates=RATES))
    for number, line in zip(count(1), sys.stdin, strict=False):
        tell(sys.stdout, answered(LoadTask.model_validate_json(line), number))


if __name__ == "__main__":
    main()
