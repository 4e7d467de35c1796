"""How often a paired verdict is wrong: recorded A/A pairs replayed, their sides drawn by lot.

a pair     one point under two names in one session, so that every run measured both
a trial    of each run's two recordings one is called A by lot; both are replayed through
           `protocol.sample` on a scripted clock, the passes of B slower by `slowdown`
judge      `comparison.compared`, all pairs of the session at once

Nothing is resampled but the names: what a run did to both, and to one of them only, stays in it.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domain.comparison import Verdict
from domain.complaint import Complaint
from domain.measurement import Measurement
from domain.statistics import median
from profiler.comparison import LEAST_RUNS, Terms, compared
from profiler.trials import Noise, Trial, replayed


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Both recordings of each run of a pair, in the order of runs, and their usual seconds."""

    sides: tuple[tuple[Measurement, Measurement], ...]
    level_s: float
    kernel_s: float


def recorded_pairs(
    records: Sequence[Measurement], names: tuple[str, str] = ("a", "b")
) -> tuple[Recorded, ...]:
    """The pairs `<point>-a` and `<point>-b` of a session with enough usable runs on both sides."""
    runs: dict[str, dict[str, dict[int, Measurement]]] = defaultdict(
        lambda: {name: {} for name in names}
    )
    for record in records:
        stem, _, side = record.point.rpartition("-")
        if side in names and record.is_usable and record.has_kernels:
            runs[stem][side][record.run] = record
    found = [_recorded(sides, names) for sides in runs.values()]
    return tuple(pair for pair in found if len(pair.sides) >= LEAST_RUNS)


def swapped(
    records: Sequence[Measurement],
    *,
    pairs: int = 200,
    slowdown: float = 0.0,
    seed: int = 0,
    terms: Terms | None = None,
) -> Trial:
    """Verdicts on `pairs` pairs of which B is slower by `slowdown`. A bar is 5 %, and 90 % of 5 %.

    Raises Complaint for records without pairs.
    """
    known = recorded_pairs(records)
    if not known:
        raise Complaint(
            f"wanted points measured twice in a session, as <name>-a and <name>-b with "
            f"{LEAST_RUNS} usable runs, got none; `python -m profiler selftest` makes such"
        )
    random = np.random.default_rng(seed)
    wanted = terms or Terms()
    counts: Counter[Verdict] = Counter()
    left = pairs
    while left:
        chosen = known[:left]
        drawn = [_drawn(pair, slowdown, random) for pair in chosen]
        before, after = ([each for pair in drawn for each in pair[side]] for side in (0, 1))
        counts.update(comparison.verdict for comparison in compared(before, after, wanted).points)
        left -= len(chosen)
    return Trial(
        pairs=pairs,
        runs=min(len(pair.sides) for pair in known),
        slowdown=slowdown,
        level=wanted.level,
        counts=tuple(sorted(counts.items())),
    )


def _recorded(sides: Mapping[str, Mapping[int, Measurement]], names: tuple[str, str]) -> Recorded:
    one, other = (sides[name] for name in names)
    both = tuple((one[run], other[run]) for run in sorted(one.keys() & other.keys()))
    records = [record for pair in both for record in pair]
    logs = [median(np.log(record.samples_s)) for record in records]
    return Recorded(
        sides=both,
        level_s=math.exp(float(np.mean(logs))) if logs else 1.0,
        kernel_s=median([s for record in records for s in record.calibration_s])
        if records
        else 1.0,
    )


def _drawn(
    pair: Recorded, slowdown: float, random: np.random.Generator
) -> tuple[list[Measurement], list[Measurement]]:
    before: list[Measurement] = []
    after: list[Measurement] = []
    for one, other in pair.sides:
        recordings = (one, other) if random.random() < 0.5 else (other, one)
        # The names stay with the sides; the noise under them is what was drawn.
        for template, noisy, told, slower in (
            (one, recordings[0], before, 1.0),
            (other, recordings[1], after, 1.0 + slowdown),
        ):
            told.append(
                replayed(
                    template,
                    _noise(noisy, pair),
                    level_s=pair.level_s * slower,
                    kernel_s=pair.kernel_s,
                    run=template.run,
                )
            )
    return before, after


def _noise(record: Measurement, pair: Recorded) -> Noise:
    return Noise(
        samples=tuple(each / pair.level_s for each in record.samples_s),
        kernels=tuple(each / pair.kernel_s for each in record.calibration_s),
    )
