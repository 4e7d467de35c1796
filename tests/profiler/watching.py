"""A process that computes for a while under a Watch and prints what it saw: conditions, verdict."""

import sys
import time

from profiler.conditions import Watch, judged

SPAN_S = 1.0


def main() -> None:
    sys.stdin.readline()  # until the parent is ready to do what it should not
    watch = Watch()
    until_s = time.process_time() + SPAN_S / 2
    began_s = time.perf_counter()
    while time.process_time() < until_s or time.perf_counter() - began_s < SPAN_S:
        pass
    seen = watch.seen()
    judgement = judged(seen, len(watch.cores))
    sys.stdout.write(seen.model_dump_json() + "\n" + "; ".join(judgement.causes) + "\n")


if __name__ == "__main__":
    main()
