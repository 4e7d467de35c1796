"""Verdicts on repeated measurements. Pure: records in, verdicts with their evidence out.

FASTER, SLOWER   the interval of the ratio excludes 1, and the ratio is further than `margin` from it
SAME             else, the whole interval is within `same_within` of 1 (equivalence; Schuirmann 1987,
                 doi:10.1007/BF01068419, with the interval of the verdict in place of his 90 %)
AMBIGUOUS        else: more runs would tell
INVALID          nothing may be compared, and why

The five of nvbench (github.com/NVIDIA/nvbench: SAME, FAST, SLOW, AMBG, ????). "Within m" means
from 1 / (1 + m) to 1 + m, so that before and after may change places.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from domain.comparison import Comparison, Comparisons, Verdict
from domain.measurement import Measurement
from domain.record import Estimate
from domain.statistics import median
from profiler.environment import difference as environments_differ
from profiler.likeness import Pair, by_work, matched, other_work, refusal_of
from profiler.variation import Difference, Runs, Variation, variation_of

# At a level of 0.95 the noise of the reference journal, whose tails are longer than a t
# distribution's, makes 5-6 % false alarms; at 0.97 about 3 % (`profiler.trials`).
MARGIN, SAME_WITHIN, LEVEL, LEAST_RUNS = 0.02, 0.05, 0.97, 3
# A longer interval than this says nothing, and exp() of it might be no number.
WIDEST_LOG = 50.0
# A change of the kernel's speed that is worth a word.
TOLD_KERNEL = 0.02


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What is called a difference, what the same, and how surely; what may be compared at all."""

    margin: float = MARGIN
    same_within: float = SAME_WITHIN
    level: float = LEVEL
    least_runs: int = LEAST_RUNS
    allow_env_diff: bool = False


@dataclass(frozen=True, kw_only=True)
class Repeatability:
    """How far the times of points moved, as |ratio - 1|: at one kernel speed, and by the clock."""

    points: int
    median: float
    p95: float
    clock_median: float
    clock_p95: float


def compared(
    before: Sequence[Measurement],
    after: Sequence[Measurement],
    terms: Terms,
    names: tuple[str, str] = ("before", "after"),
) -> Comparisons:
    """A verdict for every point of two sessions; what is on one side only is INVALID, and named.

    Sides of one session (a point under two names, say) are paired by run.
    """
    pairs = matched(before, after)
    refusals = [
        refusal_of(pair, least_runs=terms.least_runs, allow_env_diff=terms.allow_env_diff)
        for pair in pairs
    ]
    groups = [
        _runs(side, session * (not pair.is_one_session), has_kernel=pair.is_one_machine)
        for pair, refusal in zip(pairs, refusals, strict=True)
        if not refusal
        for session, side in enumerate(pair.usable)
    ]
    variation = variation_of(groups) if groups else None
    verdicts: list[Comparison] = []
    judged = 0
    for pair, refusal in zip(pairs, refusals, strict=True):
        if variation is None or refusal:
            verdicts.append(_invalid(pair, refusal))
        else:
            places = (2 * judged, 2 * judged + 1)
            verdicts.append(_judged(pair, variation, places, terms))
            judged += 1
    return _comparisons(verdicts, names, terms)


def compared_points(
    before: Sequence[Measurement],
    after: Sequence[Measurement],
    points: tuple[str, str],
    terms: Terms,
) -> Comparisons:
    """One verdict: point `points[1]` of `after` against point `points[0]` of `before`.

    Two points of one session are paired by run. All points of both sessions say how much runs vary.
    """
    pair = Pair(
        point=points[1],
        before=tuple(record for record in before if record.point == points[0]),
        after=tuple(record for record in after if record.point == points[1]),
    )
    reason = refusal_of(
        pair,
        least_runs=terms.least_runs,
        allow_env_diff=terms.allow_env_diff,
        is_same_work=False,
    )
    if reason:
        return _comparisons([_invalid(pair, reason)], points, terms)
    groups, places = _company(pair, before, () if pair.is_one_session else after)
    return _comparisons([_judged(pair, variation_of(groups), places, terms)], points, terms)


def repeatability(
    comparisons: Comparisons, pairs: Sequence[Pair], *, precise: bool
) -> Repeatability | None:
    """How far points moved that have a ratio; with `precise`, those precise in every run."""
    chosen = [
        (abs(comparison.ratio.value - 1), abs(math.exp(_clock_log_ratio(pair)) - 1))
        for comparison, pair in zip(comparisons.points, pairs, strict=True)
        if comparison.ratio is not None and (pair.has_met_precision or not precise)
    ]
    if not chosen:
        return None
    adjusted, clock = zip(*chosen, strict=True)
    return Repeatability(
        points=len(chosen),
        median=median(adjusted),
        p95=float(np.quantile(adjusted, 0.95)),
        clock_median=median(clock),
        clock_p95=float(np.quantile(clock, 0.95)),
    )


def findable(comparisons: Comparisons, share: float = 0.9) -> float | None:
    """Slowdown that these runs would find in `share` of cases, at the median point (0.05 is 5 %)."""
    widths = [
        math.log(each.ratio.high / each.ratio.low) / 2
        for each in comparisons.points
        if each.ratio is not None
    ]
    if not widths:
        return None
    width = median(widths)
    deviation = width / float(special.ndtri((1 + comparisons.level) / 2))
    needed = max(width, math.log1p(comparisons.margin)) + float(special.ndtri(share)) * deviation
    return math.expm1(min(needed, WIDEST_LOG))


def verdict_of(seen: Difference, terms: Terms) -> Verdict:
    """What a difference in log and its interval say.

    >>> verdict_of(Difference(log_ratio=0.05, half_width=0.02, sd=0.01, kernel=0.0), Terms())
    'SLOWER'
    """
    beyond_chance = abs(seen.log_ratio) > seen.half_width
    if beyond_chance and abs(seen.log_ratio) > math.log1p(terms.margin):
        return "SLOWER" if seen.log_ratio > 0 else "FASTER"
    reach = abs(seen.log_ratio) + seen.half_width
    return "SAME" if reach < math.log1p(terms.same_within) else "AMBIGUOUS"


def within_reach(seen: Difference) -> tuple[float, float, float]:
    """Low, value and high of the ratio."""
    low, value, high = (
        math.exp(max(-WIDEST_LOG, min(WIDEST_LOG, seen.log_ratio + away)))
        for away in (-seen.half_width, 0.0, seen.half_width)
    )
    return low, value, high


def _runs(records: Sequence[Measurement], session: int, *, has_kernel: bool) -> Runs:
    """The run values of one side; the kernel counts where it ran beside every sample."""
    has_kernel &= all(each.has_kernels for each in records)
    return Runs(
        point=f"{records[0].workload.key()} {records[0].subject}",
        session=session,
        numbers=tuple(record.run for record in records),
        log_s=tuple(median(np.log(record.samples_s)) for record in records),
        log_kernel=tuple(median(np.log(record.calibration_s)) for record in records)
        if has_kernel
        else None,
    )


def _company(
    pair: Pair, before: Sequence[Measurement], after: Sequence[Measurement]
) -> tuple[list[Runs], tuple[int, int]]:
    """Runs of every point of one or two sessions, and where the two of `pair` stand among them."""
    groups: list[Runs] = []
    places = {}
    for session, records in enumerate((before, after)):
        usable = [record for record in records if record.is_usable]
        for runs in by_work(usable, by_name=True).values():
            if len(runs) > 1 and len({record.environment.key() for record in runs}) == 1:
                places[session, runs[0].point] = len(groups)
                groups.append(_runs(runs, session, has_kernel=pair.is_one_machine))
    last = 1 if after else 0
    return groups, (places[0, pair.before[0].point], places[last, pair.after[0].point])


def _judged(pair: Pair, variation: Variation, places: tuple[int, int], terms: Terms) -> Comparison:
    is_paired = pair.shared_runs >= terms.least_runs
    seen = (variation.paired if is_paired else variation.difference)(*places, terms.level)
    low, value, high = within_reach(seen)
    one, other = pair.usable
    return Comparison(
        point=pair.point,
        verdict=verdict_of(seen, terms),
        ratio=Estimate(value=value, low=low, high=high, level=terms.level),
        runs_before=len(one),
        runs_after=len(other),
        is_paired=is_paired,
        evidence=_evidence(pair, seen, is_paired),
    )


def _evidence(pair: Pair, seen: Difference, is_paired: bool) -> str:
    one, other = pair.usable
    said = [f"runs repeat within {math.expm1(seen.sd):.1%}"]
    if is_paired:
        said[0] = f"paired by run, {said[0]}"
    if abs(seen.kernel) > TOLD_KERNEL:
        said.append(f"the kernel took {math.expm1(seen.kernel):+.0%}, which is allowed for")
    work = other_work(one[0], other[0])
    if work:
        said.append(work)
    environments = environments_differ(one[0].environment, other[0].environment)
    if environments:
        said.append(f"DIFFERENT ENVIRONMENTS: {environments}; the kernel is not allowed for")
    return "; ".join(said)


def _invalid(pair: Pair, reason: str) -> Comparison:
    one, other = pair.usable
    return Comparison(
        point=pair.point,
        verdict="INVALID",
        ratio=None,
        runs_before=len(one),
        runs_after=len(other),
        evidence=reason[:2000],
    )


def _comparisons(
    verdicts: Sequence[Comparison], names: tuple[str, str], terms: Terms
) -> Comparisons:
    return Comparisons(
        before=names[0],
        after=names[1],
        margin=terms.margin,
        same_within=terms.same_within,
        level=terms.level,
        least_runs=terms.least_runs,
        points=tuple(verdicts),
    )


def _clock_log_ratio(pair: Pair) -> float:
    one, other = (
        float(np.mean([median(np.log(record.samples_s)) for record in side]))
        for side in pair.usable
    )
    return other - one
