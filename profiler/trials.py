"""How often the verdict is wrong: recorded noise replayed through the real protocol and judged.

noise     every usable run of a journal: its samples over the level of its point, its kernel over
          the kernel's typical seconds, in order, so that what follows what is kept
a pair    one point in two sessions; the runs of both are drawn, no run twice, from its own recorded
          ones and those of the points nearest to it in duration
replay    `protocol.sample` on a scripted clock: sample, kernel, sample, kernel, …
judge     `comparison.compared`, all points of the two sessions at once

The level of a point is the mean of its runs at one speed of the kernel. A run is as far from it as
it was recorded, and a little further: level and slopes were fitted to the same few runs (see
`Variation.away`). So what set a run apart, the kernel's speed in it included, is in the trials as it
was in the session.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, cycle

import numpy as np

from domain.comparison import Verdict
from domain.complaint import Complaint
from domain.measurement import Measurement
from domain.statistics import median
from profiler.clock import ScriptedClock
from profiler.comparison import Terms, compared
from profiler.protocol import SETTINGS, Settings, sample
from profiler.variation import Runs, variation_of

LEAST_POOL = 15


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Verdicts on pairs of which the second is slower by `slowdown` (0.05 is 5 %)."""

    pairs: int
    runs: int
    slowdown: float
    level: float
    counts: tuple[tuple[Verdict, int], ...]

    def share(self, *verdicts: Verdict) -> float:
        """Share of pairs with one of these verdicts."""
        return sum(count for verdict, count in self.counts if verdict in verdicts) / self.pairs

    @property
    def rate(self) -> float:
        """Share called SLOWER where there was a slowdown; called different where there was none."""
        return self.share("SLOWER") if self.slowdown else self.share("SLOWER", "FASTER")


@dataclass(frozen=True, kw_only=True)
class Noise:
    """One recorded run: each sample and the kernel after it, relative to their usual seconds."""

    samples: tuple[float, ...]
    kernels: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class _Point:
    template: Measurement
    level_s: float
    kernel_s: float
    noise: tuple[Noise, ...]


def false_alarms(
    records: Sequence[Measurement],
    *,
    pairs: int = 200,
    runs: int = 5,
    seed: int = 0,
    terms: Terms | None = None,
) -> Trial:
    """A/A: the same thing twice, under the noise that `records` hold. A bar is 5 %."""
    return trial(records, pairs=pairs, runs=runs, slowdown=0.0, seed=seed, terms=terms)


def found(
    records: Sequence[Measurement],
    *,
    slowdown: float = 0.05,
    pairs: int = 200,
    runs: int = 5,
    seed: int = 0,
    terms: Terms | None = None,
) -> Trial:
    """A/B: every pass of the second session slower by `slowdown`. A bar is 90 % of 5 %."""
    return trial(records, pairs=pairs, runs=runs, slowdown=slowdown, seed=seed, terms=terms)


def trial(
    records: Sequence[Measurement],
    *,
    pairs: int,
    runs: int,
    slowdown: float,
    seed: int,
    terms: Terms | None = None,
) -> Trial:
    """Verdicts on `pairs` pairs. Raises Complaint for a journal with too few runs to draw from."""
    points = _points(records)
    if sum(len(point.noise) for point in points) < max(2 * runs, LEAST_POOL):
        raise Complaint(
            f"wanted {max(2 * runs, LEAST_POOL)} usable runs with a kernel beside their samples, of "
            f"points with 3 runs, got {sum(len(point.noise) for point in points)}; measure more points"
        )
    random = np.random.default_rng(seed)
    wanted = terms or Terms()
    counts: Counter[Verdict] = Counter()
    left = pairs
    while left:
        chosen = points[:left]
        before, after = _sessions(chosen, points, runs, slowdown, random)
        verdicts = compared(before, after, wanted).points
        counts.update(comparison.verdict for comparison in verdicts)
        left -= len(chosen)
    return Trial(
        pairs=pairs,
        runs=runs,
        slowdown=slowdown,
        level=wanted.level,
        counts=tuple(sorted(counts.items())),
    )


def _sessions(
    chosen: Sequence[_Point],
    points: Sequence[_Point],
    runs: int,
    slowdown: float,
    random: np.random.Generator,
) -> tuple[list[Measurement], list[Measurement]]:
    before: list[Measurement] = []
    after: list[Measurement] = []
    for point in chosen:
        pool = _pool(point, points, max(2 * runs, LEAST_POOL))
        drawn = random.choice(len(pool), 2 * runs, replace=False)
        for place, number in enumerate(drawn):
            is_after = place >= runs
            record = replayed(
                point.template,
                pool[number],
                level_s=point.level_s * (1 + slowdown * is_after),
                kernel_s=point.kernel_s,
                run=place % runs + 1,
            )
            (after if is_after else before).append(record)
    return before, after


def replayed(
    template: Measurement, noise: Noise, *, level_s: float, kernel_s: float, run: int
) -> Measurement:
    """A record of `template`'s point as the protocol takes it under `noise`, over again if short."""
    samples = (level_s * one for one in cycle(noise.samples))
    kernels = (kernel_s * one for one in cycle(noise.kernels))
    laps = chain.from_iterable(zip(samples, kernels, strict=True))
    # The clock's script is as long as it takes.
    clock = ScriptedClock(accumulate(laps, initial=0.0))
    rotation = max(1, len(template.workload.routing.counts) // template.workload.batch)
    timings = sample(_nothing, _nothing, rotation, 1, clock, _settings(template))
    return Measurement(
        **{
            **dict(template),
            "run": run,
            "samples_s": tuple(timings.samples_s),
            "calibration_s": tuple(timings.calibration_s),
            "cpu_samples_s": (),
            "host_samples_s": (),
            "switches": (),
            "instrumented_s": (),
            "warmup_s": (),
            "depths": (),
            "precision_met": timings.precision_met,
            "status": "ok",
            "reason": "",
        }
    )


def _points(records: Sequence[Measurement]) -> list[_Point]:
    """Points with three usable runs or more, each with its level and its runs relative to it."""
    runs: dict[str, list[Measurement]] = defaultdict(list)
    for record in records:
        if record.is_usable and record.has_kernels:
            runs[record.point].append(record)
    known = {name: found for name, found in runs.items() if len(found) >= 3}
    if not known:
        return []
    groups = [_values(name, found) for name, found in known.items()]
    variation = variation_of(groups)
    kernel_s = median(
        [each for found in known.values() for run in found for each in run.calibration_s]
    )
    return [
        _Point(
            template=found[0],
            level_s=math.exp(level),
            kernel_s=kernel_s,
            noise=tuple(
                Noise(
                    samples=tuple(math.exp(away - value) * each for each in run.samples_s),
                    kernels=tuple(each / kernel_s for each in run.calibration_s),
                )
                for run, value, away in zip(found, group.log_s, aways, strict=True)
            ),
        )
        for found, group, (level, aways) in zip(
            known.values(), groups, map(variation.away, range(len(groups))), strict=True
        )
    ]


def _values(name: str, records: Sequence[Measurement]) -> Runs:
    return Runs(
        point=name,
        session=0,
        numbers=tuple(record.run for record in records),
        log_s=tuple(median(np.log(record.samples_s)) for record in records),
        log_kernel=tuple(median(np.log(record.calibration_s)) for record in records),
    )


def _pool(point: _Point, points: Sequence[_Point], least: int) -> list[Noise]:
    """Runs of the point and of those nearest in duration: noise depends on how long a pass takes."""
    nearest = sorted(points, key=lambda other: abs(math.log(other.level_s / point.level_s)))
    pool: list[Noise] = []
    for other in nearest:
        if len(pool) >= least:
            break
        pool.extend(other.noise)
    return pool


def _settings(template: Measurement) -> Settings:
    """The hardest mode whose least time a recorded run fills, so that little is shown twice."""
    recorded_s = sum(template.samples_s) + sum(template.calibration_s)
    fitting = [each for each in SETTINGS.values() if each.least_s <= recorded_s]
    return max(fitting or [SETTINGS["quick"]], key=lambda each: each.least_s)


def _nothing() -> None:
    pass
