"""Whether this profiler can be trusted, asked of itself: each check with its bar and what was seen.

harness overhead     the sampling loop around a pass that does nothing, and one of exactly 1 ms
depth instrumentation   a pass split by stage over a clean one of the same batch, in turn
depth sum            what the stages leave of the pass that they are stages of
in lockstep          real pairs alike, real pairs with a slowdown (profiler.lockstep_trials)
real A/A pairs       the same point measured twice in every run of a session
recorded noise       verdicts on synthetic pairs of one session (profiler.swaps) and of two that
                     lie apart in time (profiler.trials)
interference         a parent that spins and a busy neighbour, found by a real worker
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from domain.architecture import Architecture
from domain.comparison import Comparisons
from domain.complaint import Complaint
from domain.measurement import Environment, Measurement, MeasuringPlan, PlannedPoint, Rates
from domain.record import Count, Estimate, Record, Sentence, Unknown
from domain.statistics import median, share_interval
from domain.tables import Cell
from profiler.affinity import allowed_cores, physical_cores
from profiler.clock import RealClock
from profiler.comparison import Terms, compared
from profiler.interference import spinning_processes, spinning_thread
from profiler.messages import Preparation, Task
from profiler.protocol import SETTINGS, Run, Settings, sample
from profiler.session import prepared_worker
from profiler.supervisor import WorkerDied, WorkerLate

if TYPE_CHECKING:
    from profiler.trials import Trial

LEVEL = 0.95
TARGET_S = 1e-3
LARGEST_HARNESS, LARGEST_SPLIT, LARGEST_REST = 0.02, 0.01, 0.02
LARGEST_FALSE_ALARMS, LEAST_FOUND, SLOWDOWN = 0.05, 0.90, 0.05

SIDES = ("a", "b")
# Small networks that differ in what they spend their time on: 20 pairs of a few milliseconds.
WIDTHS, BATCHES = (96, 192), (1, 2, 4, 8, 16)
SURVIVALS = {"mild": (1.0, 0.6, 0.3), "strong": (0.7, 0.3, 0.1)}


class Check(Record):
    """One question to the profiler: the bar, what was seen of so many samples, and the answer."""

    name: Sentence
    bar: Sentence
    seen: Estimate | Unknown
    samples: Count
    passed: bool


class SelfTest(Record):
    """All checks on one machine. Stored as JSON."""

    format: Literal[1] = 1
    taken_at: str
    is_quick: bool
    environment: Environment
    source_commit: str
    checks: tuple[Check, ...]

    @property
    def has_passed(self) -> bool:
        """Whether every check did."""
        return all(check.passed for check in self.checks)


def rows_of(tested: SelfTest) -> list[dict[str, Cell]]:
    """A row for each check, shares in percent."""
    return [
        {
            "check": check.name,
            "bar": check.bar,
            "seen": _percent(check.seen, "value"),
            "low": _percent(check.seen, "low"),
            "high": _percent(check.seen, "high"),
            "samples": check.samples,
            "verdict": "PASS" if check.passed else "FAIL",
            "note": check.seen.reason if isinstance(check.seen, Unknown) else "",
        }
        for check in tested.checks
    ]


def _percent(seen: Estimate | Unknown, name: str) -> Cell:
    return None if isinstance(seen, Unknown) else f"{getattr(seen, name):.2%}"


def median_interval(values: ArrayLike, draws: int = 2000, seed: int = 0) -> Estimate:
    """The median with its 95 % bootstrap interval, over blocks: neighbours in time are alike.

    Blocks of the cube root of the count, in a circle (Politis and Romano 1992).

    >>> median_interval([1.0] * 30).high
    1.0
    """
    series = np.asarray(values, dtype=float)
    count, length = len(series), max(1, round(len(series) ** (1 / 3)))
    random = np.random.default_rng(seed)
    starts = random.integers(0, count, (draws, math.ceil(count / length)))
    places = (starts[:, :, None] + np.arange(length)) % count
    drawn = np.median(series[places.reshape(draws, -1)[:, :count]], axis=1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = median(series)
    return Estimate(
        value=value, low=min(value, float(low)), high=max(value, float(high)), level=LEVEL
    )


def within(name: str, values: Sequence[float], largest: float) -> Check:
    """Passed where the whole interval of the median is nearer to nothing than the bar."""
    seen = median_interval(values)
    return Check(
        name=name,
        bar=f"at most {largest:.0%}",
        seen=seen,
        samples=len(values),
        passed=max(abs(seen.low), abs(seen.high)) <= largest,
    )


def harness_checks(kernel: Run, most_s: float) -> tuple[Check, ...]:
    """What the sampling loop adds to a pass, over the millisecond that a sample lasts at least.

    It samples for `most_s` seconds each, and asks after every sample whether there are enough.
    """
    clock = RealClock()

    def nothing() -> None:
        pass

    def spin() -> None:
        until_s = clock.now_s() + TARGET_S
        while clock.now_s() < until_s:
            pass

    never_precise = Settings(
        **{
            **dict(SETTINGS["quick"]),
            "least_samples": 10,
            "least_s": 0.0,
            "most_s": most_s,
            "half_width": 1e-12,
        }
    )

    def sampled(run: Run) -> list[float]:
        return sample(run, kernel, 1, 1, clock, never_precise).samples_s

    return (
        within(
            "harness around a pass that does nothing, over 1 ms",
            [each / TARGET_S for each in sampled(nothing)],
            LARGEST_HARNESS,
        ),
        within(
            "harness around a pass of 1 ms, its excess",
            [each / TARGET_S - 1.0 for each in sampled(spin)],
            LARGEST_HARNESS,
        ),
    )


def aa_plan(pairs: int, runs: int) -> MeasuringPlan:
    """So many different points, each twice: `<name>-a` and `<name>-b`, alike but for the name."""
    names = [(width, batch, how) for width in WIDTHS for batch in BATCHES for how in SURVIVALS]
    if not 1 <= pairs <= len(names):
        raise ValueError(f"wanted 1 to {len(names)} pairs, got {pairs}")
    return MeasuringPlan(
        name="selftest-aa",
        runs=runs,
        points=tuple(
            _small(f"mor-w{width}-b{batch}-{how}-{side}", width, batch, SURVIVALS[how])
            for width, batch, how in names[:pairs]
            for side in SIDES
        ),
    )


def aa_check(records: Sequence[Measurement]) -> tuple[Check, Comparisons]:
    """How many points were called different from themselves."""
    sides = [[each for each in records if each.point.endswith(f"-{side}")] for side in SIDES]
    verdicts = compared(sides[0], sides[1], Terms(), names=SIDES)
    judged = [each for each in verdicts.points if each.verdict != "INVALID"]
    different = sum(each.verdict in ("FASTER", "SLOWER") for each in judged)
    name = "real A/A pairs called different"
    bar = f"at most {LARGEST_FALSE_ALARMS:.0%}, none INVALID"
    if not judged:
        why = Unknown(reason=f"no pair could be judged: {verdicts.points[0].evidence}")
        return Check(name=name, bar=bar, seen=why, samples=0, passed=False), verdicts
    check = Check(
        name=name,
        bar=bar,
        seen=share_interval(different, len(judged)),
        samples=len(judged),
        passed=len(judged) == len(verdicts.points)
        and different <= LARGEST_FALSE_ALARMS * len(judged),
    )
    return check, verdicts


def noise_checks(recorded: Callable[[], Sequence[Measurement]], pairs: int) -> tuple[Check, ...]:
    """Verdicts on two sessions at a time, apart in time, made of the recorded runs."""
    from profiler.trials import false_alarms, found

    name = "sessions apart, recorded noise"
    try:
        records = recorded()
        alarms = false_alarms(records, pairs=pairs)
        hits = found(records, slowdown=SLOWDOWN, pairs=pairs)
    except Complaint as reason:
        return (_not_tried(name, str(reason)),)
    return trial_checks(name, alarms, hits)


def swap_checks(records: Sequence[Measurement], pairs: int) -> tuple[Check, ...]:
    """Verdicts on two points of one session, made of recorded A/A pairs with sides drawn by lot."""
    from profiler.swaps import swapped

    name = "one session, recorded noise"
    try:
        alarms = swapped(records, pairs=pairs)
        hits = swapped(records, pairs=pairs, slowdown=SLOWDOWN)
    except Complaint as reason:
        return (_not_tried(name, str(reason)),)
    return trial_checks(name, alarms, hits)


def _not_tried(name: str, reason: str) -> Check:
    return Check(name=name, bar="tried", seen=Unknown(reason=reason), samples=0, passed=False)


def trial_checks(name: str, alarms: "Trial", hits: "Trial") -> tuple[Check, ...]:
    """Things alike called different, and slowdowns found, of so many trials."""
    return (
        Check(
            name=f"{name}: A/A pairs called different",
            bar=f"at most {LARGEST_FALSE_ALARMS:.0%}",
            seen=share_interval(round(alarms.rate * alarms.pairs), alarms.pairs),
            samples=alarms.pairs,
            passed=alarms.rate <= LARGEST_FALSE_ALARMS,
        ),
        Check(
            name=f"{name}: {SLOWDOWN:.0%} slowdowns found by {hits.runs} runs",
            bar=f"at least {LEAST_FOUND:.0%}",
            seen=share_interval(round(hits.rate * hits.pairs), hits.pairs),
            samples=hits.pairs,
            passed=hits.rate >= LEAST_FOUND,
        ),
    )


INTERFERENCE: tuple[tuple[str, Callable[[], AbstractContextManager[None]], str], ...] = (
    ("an undisturbed point is not called contended", nullcontext, ""),
    ("a parent that spins is found", spinning_thread, "the parent process used"),
    ("processes on every core are found", spinning_processes, "other processes used"),
)


def interference_checks(rates: Rates) -> tuple[Check, ...]:
    """A real worker measures a small point alone, then beside each kind of trouble."""
    threads = len(physical_cores(allowed_cores()))
    worker, environment, _ = prepared_worker(Preparation(kind="cpu", threads=threads))
    checks = []
    try:
        for name, trouble, sign in INTERFERENCE:
            task = Task(
                point=_small("disturbed", 96, 4, SURVIVALS["mild"]),
                run=1,
                session="selftest",
                seed=0,
                settings=_tried_once(SETTINGS["quick"]) if sign else SETTINGS["quick"],
                environment=environment,
                rates=rates,
            )
            try:
                with trouble():
                    answer = worker.ask(task.model_dump_json(), task.settings.timeout_s)
            except (WorkerDied, WorkerLate) as error:
                checks.append(_not_tried(name, str(error)))
                break
            record = Measurement.model_validate_json(answer)
            found = record.status == "contended" and sign in record.reason
            is_right = found if sign else record.is_usable
            checks.append(
                Check(
                    name=name,
                    bar="yes",
                    seen=Unknown(reason=f"{record.status}: {record.reason or 'nothing seen'}"),
                    samples=len(record.samples_s),
                    passed=is_right,
                )
            )
    finally:
        worker.end()
    return tuple(checks)


def _tried_once(settings: Settings) -> Settings:
    # Trouble is there at every try; a passing stranger is not, and a session tries again too.
    return Settings(**{**dict(settings), "retries": 0})


def _small(id: str, width: int, batch: int, survival: tuple[float, ...]) -> PlannedPoint:
    return PlannedPoint(
        id=id,
        architecture=Architecture(
            name=f"mor-w{width}",
            image_size=28,
            patch_size=4,
            channels=1,
            classes=10,
            width=width,
            heads=3,
            mlp_width=4 * width,
            layers_before=1,
            shared_layers=2,
            recursions=3,
            layers_after=1,
        ),
        weights="random",
        batch=batch,
        routing_source="forced-distribution",
        survival=survival,
        spread=0.5,
    )
