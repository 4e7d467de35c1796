"""A fleet in simulated time: every image from its arrival to its answer. Checks the closed forms."""

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np
import simpy
from numpy.typing import NDArray

from domain.record import Estimate
from domain.scenario import Demand
from scenarios.demand import burst_of, gaps_s

# Student's t for 90 %, two sides, with GROUPS − 1 = 9 degrees of freedom.
GROUPS, STUDENT_90 = 10, 1.833
# The queue starts empty; its first tenth is not typical.
WARM_UP_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Waits and latencies of the images after the warm-up, in order of arrival."""

    waits_s: NDArray[np.float64]
    latencies_s: NDArray[np.float64]

    def p99_s(self) -> Estimate:
        """99th percentile of latency, with its 90 % interval."""
        return _over_groups(self.latencies_s, lambda group: float(np.quantile(group, 0.99)))

    def mean_wait_s(self) -> Estimate:
        """Mean wait, with its 90 % interval."""
        return _over_groups(self.waits_s, lambda group: float(group.mean()))

    def waiting_share(self) -> Estimate:
        """Share of images that had to wait, with its 90 % interval."""
        return _over_groups(self.waits_s, lambda group: float((group > 1e-12).mean()))


def simulate(
    demand: Demand,
    *,
    servers: int,
    batch: int,
    service_s: float,
    service_variation: float = 0.0,
    images: int = 20_000,
    seed: int = 0,
) -> Simulated:
    """`images` through `servers` that each take up to `batch` of the queue as soon as they are free.

    A batch takes `service_s` on average, full or not, gamma-distributed with the squared
    coefficient of variation `service_variation`.
    """
    if servers < 1 or batch < 1 or not service_s > 0 or images < 2 * GROUPS:
        raise ValueError(
            f"wanted a server, a batch, time above 0 and {2 * GROUPS} images or more, got "
            f"{servers}, {batch}, {service_s} and {images}"
        )
    random = np.random.default_rng(seed)
    clock = simpy.Environment()
    queue = simpy.Store(clock)
    arrived, started, done = (np.zeros(images) for _ in range(3))
    left, finished = [images], clock.event()

    def arrivals() -> Generator[simpy.Event, None, None]:
        burst, gaps, number = burst_of(demand), gaps_s(demand, random), 0
        while number < images:
            for _ in range(min(burst, images - number)):
                arrived[number] = clock.now
                queue.put(number)
                number += 1
            yield clock.timeout(next(gaps))

    def server() -> Generator[simpy.Event, int, None]:
        while True:
            taken = [(yield queue.get())]
            while queue.items and len(taken) < batch:
                taken.append((yield queue.get()))
            started[taken] = clock.now
            yield clock.timeout(next(services))
            done[taken] = clock.now
            left[0] -= len(taken)
            if left[0] == 0:
                finished.succeed()

    services = _services_s(service_s, service_variation, random)
    clock.process(arrivals())
    for _ in range(servers):
        clock.process(server())
    clock.run(until=finished)
    kept = slice(math.ceil(images * WARM_UP_SHARE), None)
    return Simulated(waits_s=(started - arrived)[kept], latencies_s=(done - arrived)[kept])


def _over_groups(
    samples: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], float]
) -> Estimate:
    """The statistic of all samples; its interval from consecutive groups, as neighbours are alike."""
    groups = [statistic(group) for group in np.array_split(samples, GROUPS)]
    value = statistic(samples)
    half = STUDENT_90 * float(np.std(groups, ddof=1)) / math.sqrt(GROUPS)
    return Estimate(value=value, low=value - half, high=value + half)


def _services_s(mean_s: float, variation: float, random: np.random.Generator) -> Iterator[float]:
    while True:
        if variation == 0:
            yield mean_s
        else:
            yield float(random.gamma(1 / variation, mean_s * variation))
