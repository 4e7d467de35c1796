"""Two points in lockstep: one worker shows both in turn, so what the machine does hits both alike.

for each run       one worker; which of the two is made and shown first, in turn
  quartets         before, after, after, before, each after the same fixed kernel
value of a run     median over its quartets of log(after / before), seconds of one image
verdict            mean over runs, Student's t with runs - 1 degrees of freedom

Runs of different processes on a shared machine differ by 5-8 % even where a kernel beside the samples
is allowed for; the medians of quartets within runs differ by half a percent. So this finds with five
short runs what `compare` of two sessions cannot. It cannot tell two versions of this program apart:
both sides run in one process.
"""

import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from domain.comparison import Comparison, Comparisons
from domain.lockstep import LockstepRun
from domain.measurement import Environment, PlannedPoint, Status
from domain.record import Estimate, Identifier, PositiveCount, Record
from profiler.comparison import Terms, verdict_of, within_reach
from profiler.errands import Errands
from profiler.messages import SHIPPED_SOURCE, Preparation, Source, now_utc
from profiler.protocol import Settings
from profiler.quartets import median_and_error
from profiler.session import Stop
from profiler.supervisor import Worker
from profiler.variation import Difference, student

JOURNAL = "lockstep.jsonl"
WORKER = (sys.executable, "-m", "profiler.alternating")


class Side(Record):
    """A point, its checkpoint and images; `slowdown` is what a self-test adds to each pass."""

    point: PlannedPoint
    source: Source = SHIPPED_SOURCE
    slowdown: Annotated[float, Field(ge=0, le=1)] = 0.0


class LockstepTask(Record):
    """A line to the worker: two sides and how hard to look. The answer is a LockstepRun."""

    before: Side
    after: Side
    after_first: bool
    run: PositiveCount
    session: Identifier
    seed: int
    settings: Settings
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Pairs of sides, and where and how often they are shown."""

    session: Identifier
    pairs: tuple[tuple[Side, Side], ...]
    settings: Settings
    seed: int
    preparation: Preparation
    environment: Environment

    def tasks(self) -> Iterator[LockstepTask]:
        """Every pair of every run, in an order of its own."""
        for run in range(1, self.settings.runs + 1):
            pairs = list(self.pairs)
            order = random.Random(f"lockstep:{self.seed}:{run}")  # noqa: S311 - an order, no secret
            order.shuffle(pairs)
            for before, after in pairs:
                yield LockstepTask(
                    before=before,
                    after=after,
                    after_first=run % 2 == 0,
                    run=run,
                    session=self.session,
                    seed=self.seed,
                    settings=self.settings,
                    environment=self.environment,
                )


def contested(
    wanted: Contest,
    journal_at: Path,
    *,
    stop: Stop,
    report: Callable[[LockstepRun], None],
    first_worker: Worker | None = None,
    command: Sequence[str] = WORKER,
) -> tuple[LockstepRun, ...]:
    """Every run of every pair; what is done when somebody stops is in the journal and given."""
    errands = Errands(
        command=command,
        preparation=wanted.preparation,
        environment=wanted.environment,
        answer=LockstepRun,
        unanswered=not_run,
        timeout_s=wanted.settings.timeout_s,
    )
    return errands.done(
        wanted.tasks(), journal_at, stop=stop, report=report, first_worker=first_worker
    )


def judged_runs(runs: Sequence[LockstepRun], terms: Terms) -> Comparison:
    """The verdict on the runs of one pair: seconds of one image after over those before."""
    usable = [run for run in runs if run.is_usable]
    name = runs[0].after.id
    if len(usable) < terms.least_runs:
        why = next((run.reason for run in runs if not run.is_usable), "too few were asked for")
        return Comparison(
            point=name,
            verdict="INVALID",
            ratio=None,
            runs_before=len(usable),
            runs_after=len(usable),
            evidence=f"wanted {terms.least_runs} usable runs, got {len(usable)}: {why}"[:2000],
        )
    batch = math.log(runs[0].before.batch / runs[0].after.batch)
    seen = difference_of([median_and_error(run.before_s, run.after_s) for run in usable], terms)
    seen = Difference(**{**vars(seen), "log_ratio": seen.log_ratio + batch})
    low, value, high = within_reach(seen)
    return Comparison(
        point=name,
        verdict=verdict_of(seen, terms),
        ratio=Estimate(value=value, low=low, high=high, level=terms.level),
        runs_before=len(usable),
        runs_after=len(usable),
        is_paired=True,
        evidence=_evidence(usable, seen),
    )


def difference_of(values: Sequence[tuple[float, float]], terms: Terms) -> Difference:
    """Runs' median log ratios, each with its standard error, together.

    A few runs that agree by chance are not believed to agree better than each of them is known.
    """
    logs, errors = np.array(values).T
    variance = max(float(logs.var(ddof=1)), float((errors**2).mean()))
    reach = student(terms.level, len(logs) - 1.0)
    return Difference(
        log_ratio=float(logs.mean()),
        half_width=reach * math.sqrt(variance / len(logs)),
        sd=math.sqrt(variance),
        kernel=0.0,
    )


def all_judged(records: Sequence[LockstepRun], names: tuple[str, str], terms: Terms) -> Comparisons:
    """A verdict for every pair of the records, in the order of their names."""
    pairs = sorted({(record.before.id, record.after.id) for record in records})
    return Comparisons(
        before=names[0],
        after=names[1],
        margin=terms.margin,
        same_within=terms.same_within,
        level=terms.level,
        least_runs=terms.least_runs,
        points=tuple(
            judged_runs(
                [each for each in records if (each.before.id, each.after.id) == pair], terms
            )
            for pair in pairs
        ),
    )


def _evidence(runs: Sequence[LockstepRun], seen: Difference) -> str:
    quartets = sum(len(run.before_s) for run in runs) // 2
    said = [f"in lockstep, {quartets} quartets, runs repeat within {math.expm1(seen.sd):.1%}"]
    before, after = runs[0].before, runs[0].after
    if before.batch != after.batch:
        said.append(f"seconds of an image, of batches of {before.batch} and {after.batch}")
    unsettled = sum(not run.precision_met for run in runs)
    if unsettled:
        said.append(f"{unsettled} of {len(runs)} runs ended before they were precise")
    return "; ".join(said)


def not_run(task: LockstepTask, status: Status, reason: str) -> LockstepRun:
    """The record of a pair that gave no number, and why."""
    return LockstepRun(
        before=task.before.point,
        after=task.after.point,
        before_weights=f"{task.before.point.weights}, not run",
        after_weights=f"{task.after.point.weights}, not run",
        run=task.run,
        session=task.session,
        taken_at=now_utc(),
        environment=task.environment,
        status=status,
        reason=" ".join(reason.split())[:600] or "no reason was given",
        after_first=task.after_first,
        seed=task.seed,
    )
