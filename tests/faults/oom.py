"""Out of memory (R1): in the real worker under a limit, and by the kernel, as the parent sees it.

A point without room is a record of status oom; the sweep goes on in the same worker, larger batches
are implied and not tried, and no batch is ever changed.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from domain.architecture import Architecture
from domain.measurement import Measurement, MeasuringPlan, PlannedPoint
from domain.store import read_journal
from profiler.messages import Preparation
from profiler.session import JOURNAL, Session, Stop, measure, prepared_worker
from profiler.supervisor import WORKER, Worker, WorkerDied
from tests.faults.running import seeded
from tests.faults.tally import Fault, Tally
from tests.profiler.networks import forced, network, session

LIMIT_BYTES = 2_500_000_000
# A hidden layer so wide that one batch of 64 asks 3.3 GB, while the weights stay small.
HIDDEN, SMALL, LARGE, LARGER = 65_536, 2, 64, 128


def oom(tries: int, seed: int) -> Iterator[Fault]:
    """So many networks without room in one sweep, and so many kills by the kernel."""
    yield _in_the_worker(tries, seed)
    yield _by_the_kernel(tries)


def _in_the_worker(tries: int, seed: int) -> Fault:
    tally = Tally("no memory, in the worker")
    toy = _session_of(tries, seed)
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        measure(toy, Path(name), stop=Stop(), report=lambda *_: None)
        records = {record.point: record for record in read_journal(Path(name) / JOURNAL)}
    for number in range(tries):
        large, larger = (records.get(f"{size}-{number}") for size in ("large", "larger"))
        wrong = [_wrong(large, LARGE, is_implied=False), _wrong(larger, LARGER, is_implied=True)]
        tally.count(*wrong, lost=(large is None) + (larger is None))
    small = [record for id, record in records.items() if id.startswith("small")]
    went_on = sum(record.is_usable and record.workload.batch == SMALL for record in small)
    if went_on < len(small) or not small:
        tally.count(f"only {went_on} of {len(small)} small points were measured beside")
    return tally.result(f"{went_on} small points were measured between")


def _session_of(tries: int, seed: int) -> Session:
    points = []
    for number in range(tries):
        wide = Architecture(**{**dict(network(197, name=f"wide-{number}")), "mlp_width": HIDDEN})
        points += [_point(f"large-{number}", wide, LARGE), _point(f"larger-{number}", wide, LARGER)]
        if number % 20 == 0:
            points.append(_point(f"small-{number}", network(17), SMALL))
    preparation = Preparation(
        kind="cpu", threads=1, wants_rates=False, memory_limit_bytes=LIMIT_BYTES
    )
    worker, environment, _ = prepared_worker(preparation, WORKER)
    worker.end()
    # A larger batch is implied where the smaller one came first: the order is the plan's.
    fields = {"environment": environment, "preparation": preparation, "seed": seed}
    plan = MeasuringPlan(name="oom", runs=1, points=tuple(points))
    return Session(**{**dict(session("a")), **fields, "plan": _in_order(plan, seed)})


def _in_order(plan: MeasuringPlan, seed: int) -> MeasuringPlan:
    """The points so arranged that the sweep's own shuffle asks the smaller batch first."""
    from profiler.session import order_of

    wanted = list(plan.points)
    place_of = {id: place for place, id in enumerate(each.id for each in order_of(plan, 1, seed))}
    return MeasuringPlan(
        name=plan.name,
        runs=plan.runs,
        points=tuple(wanted[place_of[point.id]] for point in plan.points),
    )


def _point(id: str, net: Architecture, batch: int) -> PlannedPoint:
    return PlannedPoint(**{**dict(forced(id, batch=batch)), "architecture": net})


def _wrong(record: Measurement | None, batch: int, *, is_implied: bool) -> str:
    if record is None:
        return "its row is lost"
    if record.workload.batch != batch:
        return f"batch {batch} became {record.workload.batch}"
    if record.status != "oom":
        return f"status {record.status}: {record.reason[:100]}"
    return "" if record.reason.startswith("implied") == is_implied else record.reason[:100]


def _by_the_kernel(tries: int) -> Fault:
    """A worker that is killed while the kernel's counter goes up; every fourth while it does not."""
    tally = Tally("killed by the kernel for memory")
    random = seeded("kernel")
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        counters = Path(name) / "vmstat"
        for number in range(tries):
            before, is_oom = random.randrange(1000), number % 4 != 3
            counters.write_text(f"nr_free_pages 5\noom_kill {before}\n")
            dying = (
                "import os, sys; sys.stdin.readline(); "
                f"open(sys.argv[1], 'w').write('oom_kill {before + is_oom}\\n'); "
                "os.kill(os.getpid(), 9)"
            )
            worker = Worker(
                Preparation(kind="cpu", threads=1),
                (sys.executable, "-S", "-c", dying, str(counters)),
                counters,
            )
            try:
                worker.ask("go", 30.0)
                tally.count("it answered")
            except WorkerDied as died:
                is_right = died.is_out_of_memory == is_oom
                tally.count("" if is_right else f"taken for the other: {died}")
    return tally.result()
