"""Statistics of timings: medians, order statistics and cluster bootstrap, in numpy."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from domain.record import Estimate

# Least number of samples for an upper confidence bound (99 %) of a percentile with one exceedance
# (MLPerf LoadGen's early stopping, recomputed from the binomial).
LEAST_SAMPLES_OF = {0.5: 11, 0.9: 64, 0.95: 130, 0.99: 662, 0.999: 6636}


def median(samples: ArrayLike) -> float:
    """Median of one sample or more."""
    # Of some tens of samples, sorted numbers are many times as fast as numpy's median.
    ordered: list[float] = sorted(np.asarray(samples, dtype=float).ravel().tolist())
    if not ordered:
        raise ValueError("wanted one sample at least, got none")
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def median_bounds(samples: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the median, from order statistics; None for fewer than six samples.

    It reaches 0.98·√n ranks to both sides of the middle.

    >>> median_bounds([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    (1.0, 6.0)
    """
    count = len(samples)
    if count < 6:
        return None
    ordered = sorted(samples)
    reach = 0.98 * math.sqrt(count)
    low = max(0, math.floor(count / 2 - reach))
    high = min(count - 1, math.ceil(count / 2 + reach) - 1)
    return ordered[low], ordered[high]


def share_interval(hits: int, count: int, level: float = 0.95) -> Estimate:
    """A share with its exact interval (Clopper and Pearson 1934), by bisection of the binomial's tails.

    >>> share_interval(0, 20).low, round(share_interval(0, 20).high, 3)
    (0.0, 0.168)
    """
    if not 0 <= hits <= count or not count:
        raise ValueError(f"wanted hits out of one or more, got {hits} of {count}")
    places = np.arange(count + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(places[1:]))])
    ways = factorials[-1] - factorials - factorials[::-1]

    def chance(share: float, some: slice) -> float:
        drawn = places[some]
        log_chances = ways[some] + drawn * math.log(share) + (count - drawn) * math.log1p(-share)
        return float(np.exp(log_chances).sum())

    def share_where(some: slice, *, rises: bool) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            is_below = (chance(middle, some) < (1 - level) / 2) == rises
            low, high = (middle, high) if is_below else (low, middle)
        return low

    return Estimate(
        value=hits / count,
        low=share_where(slice(hits, None), rises=True) if hits else 0.0,
        high=share_where(slice(None, hits + 1), rises=False) if hits < count else 1.0,
        level=level,
    )


def upper_percentile(samples: Sequence[float], share: float) -> float | None:
    """Upper 99 % confidence bound of the percentile `share`, or None where samples are too few.

    The order statistic with the smallest rank k for which P(Binomial(n, share) < k) >= 0.99.

    >>> upper_percentile([1.0] * 63, 0.9) is None
    True
    """
    count = len(samples)
    least = LEAST_SAMPLES_OF.get(share, math.ceil(math.log(0.01) / math.log(share)))
    if count < least:
        return None
    below = 0.0
    for rank in range(count):
        below += math.exp(
            math.lgamma(count + 1)
            - math.lgamma(rank + 1)
            - math.lgamma(count - rank + 1)
            + rank * math.log(share)
            + (count - rank) * math.log1p(-share)
        )
        if below >= 0.99:
            # P(at most `rank` of n lie below the quantile) >= 0.99: the next one bounds it.
            return sorted(samples)[min(rank, count - 1)]
    return None


def median_of_runs(
    runs: Sequence[Sequence[float]], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Median of run medians with a bootstrap interval over runs (clusters), not samples.

    Samples within a run are correlated, so a run is what is drawn. Returns (value, low, high).

    >>> median_of_runs([[1.0, 1.0], [3.0], [2.0]])[0]
    2.0
    """
    medians = np.array([median(run) for run in runs])
    value = float(np.median(medians))
    if len(medians) == 1:
        return value, value, value
    random = np.random.default_rng(seed)
    drawn = np.median(random.choice(medians, size=(draws, len(medians))), axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return value, float(low), float(high)


def relative_spread(samples: ArrayLike) -> float:
    """Interquartile range over the median."""
    values = np.asarray(samples, dtype=float)
    first, third = np.quantile(values, [0.25, 0.75])
    return float((third - first) / np.median(values))


def stage_medians(
    stages: Mapping[str, Sequence[float]], clean: Sequence[float]
) -> dict[str, float]:
    """Median seconds of each stage, scaled so that together they are the median of the clean passes.

    The pass that is split into stages is a little slower; its shares are what it is asked for.

    >>> stage_medians({"a": [1.0], "b": [3.0]}, [2.0])
    {'a': 0.5, 'b': 1.5}
    """
    medians = {stage: median(samples) for stage, samples in stages.items()}
    scale = median(clean) / math.fsum(medians.values())
    return {stage: seconds * scale for stage, seconds in medians.items()}


def relative_errors(predicted: ArrayLike, seen: ArrayLike) -> NDArray[np.float64]:
    """Signed relative error of each prediction."""
    truth = np.asarray(seen, dtype=float)
    return np.asarray((np.asarray(predicted, dtype=float) - truth) / truth)
