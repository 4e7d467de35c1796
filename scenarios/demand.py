"""How images arrive: in step with a takt, at random, as recorded, or whenever there is room."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from domain.demand import Arrivals, Demand
from domain.units import HOURS_PER_YEAR
from scenarios.arrivals import at_rate

# Squared coefficient of variation of the time between arrivals, bursts counted as one arrival:
# a takt has none, Poisson arrivals have one.
VARIATION_OF: dict[Arrivals, float] = {"takt": 0.0, "poisson": 1.0}

Times = NDArray[np.float64]


def burst_of(demand: Demand) -> int:
    """Images that arrive at the same instant: of every camera in step, or of one at random.

    >>> burst_of(Demand(cameras=40, period_s=2.0, arrivals="takt"))
    40
    """
    if demand.recording is not None:
        return demand.recording.largest_burst
    return demand.cameras if demand.arrivals == "takt" else 1


def bursts_per_s(demand: Demand) -> float:
    """Instants per second at which images arrive, while the line runs."""
    return demand.peak_img_per_s / burst_of(demand)


def running_share(demand: Demand) -> float:
    """Share of the 8,760 hours of a year in which the line runs; a leap year counts as all.

    >>> running_share(Demand(cameras=1, period_s=1.0, arrivals="takt", hours_per_day=12.0))
    0.5
    """
    return min(1.0, demand.running_hours_per_year / HOURS_PER_YEAR)


def load_share(demand: Demand) -> float:
    """Mean rate over all hours of a year, as a share of the rate at the busiest."""
    return min(1.0, demand.full_load_hours_per_year / HOURS_PER_YEAR) / demand.peak_factor


def gaps_s(demand: Demand, random: np.random.Generator) -> Iterator[float]:
    """Seconds from one burst to the next, without end."""
    mean_s = 1.0 / bursts_per_s(demand)
    while True:
        yield mean_s if demand.arrivals == "takt" else float(random.exponential(mean_s))


def arrivals_s(
    demand: Demand, images: int, random: np.random.Generator, recorded_s: Times | None = None
) -> Times:
    """Instants at which `images` arrive at the busiest rate, the first at zero.

    A recording is stretched to the rate and played from a random place on, round and round.
    """
    if demand.arrivals == "trace":
        if recorded_s is None:
            raise ValueError("wanted the recorded arrivals of a trace, got none")
        return _recorded(at_rate(recorded_s, demand.peak_img_per_s), demand, images, random)
    burst = burst_of(demand)
    bursts = -(-images // burst)
    if demand.arrivals == "poisson":
        gaps = random.exponential(1.0 / bursts_per_s(demand), bursts - 1)
        starts = np.concatenate([[0.0], np.cumsum(gaps)])
    else:
        starts = np.arange(bursts) / bursts_per_s(demand)
    return np.repeat(starts, burst)[:images]


def _recorded(once_s: Times, demand: Demand, images: int, random: np.random.Generator) -> Times:
    span_s = len(once_s) / demand.peak_img_per_s
    rounds = -(-images // len(once_s)) + 1
    several = np.concatenate([once_s + k * span_s for k in range(rounds)])
    # Never from the middle of a burst.
    starts = np.flatnonzero(np.diff(once_s, prepend=-1.0) > 0)
    first = int(random.choice(starts))
    played = several[first : first + images]
    return np.asarray(played - played[0])
