"""How images arrive: all cameras in step with the takt of a line, or at random."""

from collections.abc import Iterator

import numpy as np

from domain.scenario import Arrivals, Demand
from domain.units import HOURS_PER_YEAR

# Squared coefficient of variation of the time between arrivals, bursts counted as one arrival:
# a takt has none, Poisson arrivals have one.
VARIATION_OF: dict[Arrivals, float] = {"takt": 0.0, "poisson": 1.0}


def burst_of(demand: Demand) -> int:
    """Images that arrive at the same instant: of every camera in step, or of one at random.

    >>> burst_of(Demand(cameras=40, period_s=2.0, arrivals="takt"))
    40
    """
    return demand.cameras if demand.arrivals == "takt" else 1


def bursts_per_s(demand: Demand) -> float:
    """Instants per second at which images arrive, while the line runs."""
    return demand.peak_img_per_s / burst_of(demand)


def running_share(demand: Demand) -> float:
    """Share of the 8,760 hours of a year in which the line runs; a leap year counts as all.

    >>> running_share(Demand(cameras=1, period_s=1.0, arrivals="takt", hours_per_day=12.0))
    0.5
    """
    return min(1.0, demand.hours_per_day * demand.days_per_year / HOURS_PER_YEAR)


def gaps_s(demand: Demand, random: np.random.Generator) -> Iterator[float]:
    """Seconds from one burst to the next, without end."""
    mean_s = 1.0 / bursts_per_s(demand)
    while True:
        yield mean_s if demand.arrivals == "takt" else float(random.exponential(mean_s))
