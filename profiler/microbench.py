"""One operator after the other, each alone: in what order, for how long, and what came of it.

for each run       points in an order of its own, drawn from the seed; one worker
  for each point   the same share of the time ─ append the answer to the journal (on disk) ─ next

Which operators there are is in `profiler.operators`, what is run for each in `profiler.kernels`.
"""

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from domain.complaint import AllFailed, Complaint
from domain.measurement import Environment, Rates, Status
from domain.microbenchmark import OperatorPoint, OperatorTiming
from domain.record import Identifier, Positive, PositiveCount, Record, Unknown
from domain.statistics import median_of_runs
from domain.tables import Cell
from domain.units import GIGA, MICRO
from profiler.errands import Errands
from profiler.messages import Preparation, now_utc
from profiler.operators import least_s, shape_of, work_of
from profiler.session import Stop
from profiler.supervisor import Worker

JOURNAL = "operators.jsonl"
WORKER = (sys.executable, "-m", "profiler.kernels")
RUNS = 3
# Seconds to start a worker and to lay out operands: not the points' own.
START_S, LAY_OUT_S = 6.0, 0.03
# The least time of a point in a run, and the passes that it should have in it.
LEAST_SHARE_S, LEAST_PASSES = 0.12, 8
TIMEOUT_S = 120.0


class OperatorTask(Record):
    """A line to the worker: one operator, and for how long. The answer is an OperatorTiming."""

    point: OperatorPoint
    run: PositiveCount
    session: Identifier
    seed: int
    share_s: Positive
    environment: Environment
    rates: Rates


def fitting(
    points: Sequence[OperatorPoint], budget_s: float, rates: Rates, runs: int = RUNS
) -> tuple[OperatorPoint, ...]:
    """The points that fit: the same share of each class, so that each has its least time; no slow one.

    A point is fast enough if its time has room for several passes at the machine's rates. Raises
    Complaint where none fits.
    """
    most = int(time_for_points_s(budget_s, runs) / runs / LEAST_SHARE_S)
    if most < 1:
        raise Complaint(
            f"{budget_s / 60:g} min are too short for {runs} runs; give --minutes "
            f"{(runs * (START_S + 20 * LEAST_SHARE_S)) / 60:.1f} or more"
        )
    chosen = _thinned(points, most)
    share_s = share_of(len(chosen), budget_s, runs)
    fast = tuple(point for point in chosen if LEAST_PASSES * least_s(point, rates) <= share_s)
    if not fast:
        raise Complaint(f"no operator is fast enough for {budget_s / 60:g} min; give --minutes")
    return fast


def _thinned(points: Sequence[OperatorPoint], most: int) -> tuple[OperatorPoint, ...]:
    """At most so many points, in their order: of each class its share, drawn but always the same.

    Every n-th would leave out whole sizes, for the grid is regular.
    """
    kept: set[OperatorPoint] = set()
    for operator in dict.fromkeys(point.operator for point in points):
        alike = [point for point in points if point.operator == operator]
        count = max(1, len(alike) * most // len(points))
        kept |= set(random.Random(0).sample(alike, min(count, len(alike))))  # noqa: S311
    return tuple(point for point in points if point in kept)[:most]


def time_for_points_s(budget_s: float, runs: int = RUNS) -> float:
    """What is left of the time when workers are started."""
    return budget_s - runs * START_S


def share_of(points: int, budget_s: float, runs: int = RUNS) -> float:
    """Seconds of each of so many points in each run."""
    return max(time_for_points_s(budget_s, runs) / runs / points - LAY_OUT_S, 0.01)


def order_of(points: Sequence[OperatorPoint], run: int, seed: int) -> list[OperatorPoint]:
    """The points in the order of one run: shuffled, the same again for the same seed."""
    shuffled = list(points)
    random.Random(f"operators:{seed}:{run}").shuffle(shuffled)  # noqa: S311 - an order, no secret
    return shuffled


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to run, where, and for how long."""

    session: Identifier
    points: tuple[OperatorPoint, ...]
    runs: int
    share_s: float
    seed: int
    preparation: Preparation
    environment: Environment
    rates: Rates

    def tasks(self) -> Iterator[OperatorTask]:
        """Every point of every run, in order."""
        for run in range(1, self.runs + 1):
            for point in order_of(self.points, run, self.seed):
                yield OperatorTask(
                    point=point,
                    run=run,
                    session=self.session,
                    seed=self.seed,
                    share_s=self.share_s,
                    environment=self.environment,
                    rates=self.rates,
                )


def benchmarked(
    wanted: Benchmark,
    journal_at: Path,
    *,
    stop: Stop,
    report: Callable[[OperatorTiming, int, int], None],
    first_worker: Worker | None = None,
    command: Sequence[str] = WORKER,
    timeout_s: float = TIMEOUT_S,
) -> tuple[OperatorTiming, ...]:
    """Time every operator; what is done when somebody stops is in the journal and given.

    Raises AllFailed where not one could be timed, Complaint in another environment.
    """
    errands = Errands(
        command=command,
        preparation=wanted.preparation,
        environment=wanted.environment,
        answer=OperatorTiming,
        unanswered=untimed,
        timeout_s=timeout_s,
    )
    numbers, total = count(1), wanted.runs * len(wanted.points)
    records = errands.done(
        wanted.tasks(),
        journal_at,
        stop=stop,
        report=lambda record: report(record, next(numbers), total),
        first_worker=first_worker,
    )
    if records and not any(record.samples_s for record in records):
        raise AllFailed(f"all {len(records)} operators failed; the last: {records[-1].reason}")
    return records


def summary(runs: Sequence[OperatorTiming]) -> dict[str, Cell]:
    """All runs of one operator as a row; `share` is of the rate that a large one reached here.

    That is a large product of the same precision for gemm and attention, a large copy for what only
    moves.
    """
    first = runs[0]
    point = first.point
    row: dict[str, Cell] = {
        "operator": point.operator,
        "shape": shape_of(point),
        "precision": point.precision,
        "runs": len(runs),
        "status": " ".join(dict.fromkeys(record.status for record in runs)),
        "time_us": None,
        "low_us": None,
        "high_us": None,
        "gflop_per_s": None,
        "gb_per_s": None,
        "share": None,
    }
    timed = [record.samples_s for record in runs if record.status in ("ok", "unstable")]
    if timed:
        value_s, low_s, high_s = median_of_runs(timed)
        flop_per_s, bytes_per_s = first.flop / value_s, first.bytes_moved / value_s
        row |= {
            "time_us": value_s / MICRO,
            "low_us": low_s / MICRO,
            "high_us": high_s / MICRO,
            "gflop_per_s": flop_per_s / GIGA if first.flop else None,
            "gb_per_s": bytes_per_s / GIGA,
            "share": _share(first, flop_per_s, bytes_per_s),
        }
    return row


def _share(record: OperatorTiming, flop_per_s: float, bytes_per_s: float) -> float | None:
    """Of what a fixed kernel of that precision reached; None where there is no such kernel."""
    if not record.flop:
        return bytes_per_s / record.rates.copy_bytes_per_s
    peak = record.rates.peak_flop_per_s(record.point.precision)
    return None if isinstance(peak, Unknown) else flop_per_s / peak


def untimed(task: OperatorTask, status: Status, reason: str) -> OperatorTiming:
    """The record of an operator that gave no number, and why."""
    work = work_of(task.point)
    return OperatorTiming(
        point=task.point,
        run=task.run,
        session=task.session,
        taken_at=now_utc(),
        environment=task.environment,
        rates=task.rates,
        status=status,
        reason=" ".join(reason.split())[:600] or "no reason was given",
        flop=work.flop,
        bytes_moved=work.bytes_moved,
        seed=task.seed,
    )
