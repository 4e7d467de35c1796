"""How often a verdict in lockstep is wrong: real pairs alike, real pairs with a slowdown, and replayed.

alike      a point against itself under another name, run now
slower     the same, every pass of the second longer by a slowdown that is really waited for
replayed   recorded runs of pairs that are alike, before and after drawn by lot in each run, the
           seconds of `after` times 1 + slowdown; they go through the same quartets and verdict
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from domain.comparison import Comparisons, Verdict
from domain.complaint import Complaint
from domain.lockstep import LockstepRun
from domain.measurement import MeasuringPlan
from domain.record import Unknown
from domain.statistics import share_interval
from profiler.comparison import Terms
from profiler.lockstep import Side, all_judged, judged_runs
from profiler.protocol import SETTINGS, Settings
from profiler.quartets import quartets
from profiler.selftest import (
    LARGEST_FALSE_ALARMS,
    LEAST_FOUND,
    SIDES,
    SLOWDOWN,
    Check,
    trial_checks,
)
from profiler.trials import Trial

# Of each pair in each run: a third of a second to get warm, one to three seconds of quartets. Half of
# that left a run's median uncertain by 1-2.5 %, and too few slowdowns of 5 % were found.
SHORT_TURNS = Settings(
    **{
        **dict(SETTINGS["quick"]),
        "runs": 5,
        "least_warmup_s": 0.05,
        "most_warmup_s": 0.2,
        "least_s": 1.0,
        "most_s": 1.5,
    }
)
NAMES = ("alike", "slower")


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Recorded runs of two things that are alike, each as the seconds of both."""

    runs: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    template: LockstepRun


def trial_pairs(plan: MeasuringPlan) -> tuple[tuple[Side, Side], ...]:
    """Of every `<name>-a` of the plan two pairs: itself again, and itself with a slowdown."""
    alike, slower = NAMES
    pairs = []
    for point in plan.points:
        stem, _, side = point.id.rpartition("-")
        if side == SIDES[0]:
            for name, slowdown in ((alike, 0.0), (slower, SLOWDOWN)):
                after = point.model_copy(update={"id": f"{stem}-{name}"})
                pairs.append((Side(point=point), Side(point=after, slowdown=slowdown)))
    return tuple(pairs)


def real_checks(records: Sequence[LockstepRun]) -> tuple[Check, ...]:
    """Pairs alike called different, and slowdowns found: as many as were run."""
    seen = all_judged(records, SIDES, Terms())
    alike, slower = NAMES
    return (
        _real(
            f"in lockstep: real A/A pairs called different by {SHORT_TURNS.runs} runs",
            f"at most {LARGEST_FALSE_ALARMS:.0%}, none INVALID",
            _verdicts(seen, alike),
            ("FASTER", "SLOWER"),
            lambda share: share <= LARGEST_FALSE_ALARMS,
        ),
        _real(
            f"in lockstep: real {SLOWDOWN:.0%} slowdowns found by {SHORT_TURNS.runs} runs",
            f"at least {LEAST_FOUND:.0%}, none INVALID",
            _verdicts(seen, slower),
            ("SLOWER",),
            lambda share: share >= LEAST_FOUND,
        ),
    )


def replayed_checks(records: Sequence[LockstepRun], pairs: int) -> tuple[Check, ...]:
    """Verdicts on pairs made of the recorded runs of real pairs that are alike."""
    name = "in lockstep, recorded noise"
    try:
        alarms, hits = (trial(records, pairs=pairs, slowdown=each) for each in (0.0, SLOWDOWN))
    except Complaint as reason:
        unknown = Unknown(reason=str(reason))
        return (Check(name=name, bar="tried", seen=unknown, samples=0, passed=False),)
    return trial_checks(name, alarms, hits)


def trial(
    records: Sequence[LockstepRun],
    *,
    pairs: int,
    slowdown: float,
    seed: int = 0,
    terms: Terms | None = None,
) -> Trial:
    """Verdicts on `pairs` pairs. Raises Complaint for records without pairs that are alike."""
    wanted = terms or Terms()
    known = [turns for turns in _alike(records) if len(turns.runs) >= wanted.least_runs]
    if not known:
        raise Complaint("wanted recorded runs in lockstep of things that are alike, got none")
    random = np.random.default_rng(seed)
    counts: Counter[Verdict] = Counter()
    for number in range(pairs):
        turns = known[number % len(known)]
        drawn = [_replayed(turns.template, *run, slowdown, random) for run in turns.runs]
        counts[judged_runs(drawn, wanted).verdict] += 1
    return Trial(
        pairs=pairs,
        runs=min(len(turns.runs) for turns in known),
        slowdown=slowdown,
        level=wanted.level,
        counts=tuple(sorted(counts.items())),
    )


def _alike(records: Sequence[LockstepRun]) -> list[Turns]:
    runs: dict[str, list[LockstepRun]] = defaultdict(list)
    for record in records:
        if record.is_usable and record.after.id.endswith(f"-{NAMES[0]}"):
            runs[record.after.id].append(record)
    return [
        Turns(runs=tuple((run.before_s, run.after_s) for run in each), template=each[0])
        for each in runs.values()
    ]


def _replayed(
    template: LockstepRun,
    ones: Sequence[float],
    others: Sequence[float],
    slowdown: float,
    random: np.random.Generator,
) -> LockstepRun:
    if random.random() < 0.5:
        ones, others = others, ones
    before_s, after_s = quartets(
        lambda place: ones[place],
        lambda place: others[place] * (1 + slowdown),
        lambda before, after: len(before) >= len(ones),
    )
    return template.model_copy(update={"before_s": tuple(before_s), "after_s": tuple(after_s)})


def _real(
    name: str,
    bar: str,
    verdicts: Sequence[Verdict],
    wanted: Sequence[Verdict],
    passes: Callable[[float], bool],
) -> Check:
    if not verdicts:
        nothing = Unknown(reason="no pair was run")
        return Check(name=name, bar=bar, seen=nothing, samples=0, passed=False)
    hits = sum(verdict in wanted for verdict in verdicts)
    return Check(
        name=name,
        bar=bar,
        seen=share_interval(hits, len(verdicts)),
        samples=len(verdicts),
        passed="INVALID" not in verdicts and passes(hits / len(verdicts)),
    )


def _verdicts(seen: Comparisons, name: str) -> list[Verdict]:
    return [each.verdict for each in seen.points if each.point.endswith(f"-{name}")]
