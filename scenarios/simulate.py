"""A fleet in simulated time: every image from its arrival to its answer. Checks the closed forms."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from domain.demand import Demand
from domain.record import Estimate
from scenarios.demand import arrivals_s, burst_of, gaps_s
from scenarios.replay import GROUPS, over_groups, warm_up_of


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Waits and latencies of the images after the warm-up, in order of arrival."""

    waits_s: NDArray[np.float64]
    latencies_s: NDArray[np.float64]

    def p99_s(self, level: float = 0.9) -> Estimate:
        """99th percentile of latency, with its interval."""
        return over_groups(self.latencies_s, lambda group: float(np.quantile(group, 0.99)), level)

    def mean_wait_s(self, level: float = 0.9) -> Estimate:
        """Mean wait, with its interval."""
        return over_groups(self.waits_s, lambda group: float(group.mean()), level)

    def waiting_share(self, level: float = 0.9) -> Estimate:
        """Share of images that had to wait, with its interval."""
        return over_groups(self.waits_s, lambda group: float((group > 1e-12).mean()), level)


def simulate(
    demand: Demand,
    *,
    servers: int,
    batch: int,
    service_s: float | Sequence[float],
    service_variation: float = 0.0,
    timeout_s: float = 0.0,
    images: int = 20_000,
    seed: int = 0,
    recorded_s: NDArray[np.float64] | None = None,
) -> Simulated:
    """`images` through `servers` that each take up to `batch` of the queue.

    A free server starts when a full batch waits, or the first image has waited `timeout_s`. A
    batch takes `service_s` on average, full or not, or `service_s[n - 1]` with n images in it,
    gamma-distributed with the squared coefficient of variation `service_variation`.
    """
    curve = [service_s] * batch if isinstance(service_s, float | int) else list(service_s)
    if servers < 1 or batch < 1 or len(curve) != batch or images < 2 * GROUPS:
        raise ValueError(
            f"wanted a server, a batch with its times and {2 * GROUPS} images or more, got "
            f"{servers}, {batch}, {len(curve)} times and {images}"
        )
    if not min(curve) > 0 or not timeout_s >= 0:
        raise ValueError(f"wanted times above 0, got {min(curve)} and a time-out of {timeout_s}")
    random = np.random.default_rng(seed)
    clock = simpy.Environment()
    queue, idle = simpy.Store(clock), simpy.Store(clock)
    idle.items.extend(range(servers))
    arrived, started, done = (np.zeros(images) for _ in range(3))
    left, finished = [images], clock.event()

    def arrivals() -> Generator[simpy.Event, None, None]:
        for number, wait_s in enumerate(_waits_s(demand, images, random, recorded_s)):
            if wait_s:
                yield clock.timeout(wait_s)
            arrived[number] = clock.now
            queue.put(number)

    def dispatcher() -> Generator[simpy.Event, Any, None]:
        while True:
            yield idle.get()
            taken = [(yield queue.get())]
            closes = clock.timeout(max(0.0, arrived[taken[0]] + timeout_s - clock.now))
            while len(taken) < batch:
                if not queue.items:
                    if not timeout_s or closes.processed:
                        break
                    coming = queue.get()
                    yield coming | closes
                    if not coming.triggered:
                        coming.cancel()
                        break
                    taken.append(coming.value)
                else:
                    taken.append((yield queue.get()))
            clock.process(service(taken))

    def service(taken: list[int]) -> Generator[simpy.Event, None, None]:
        started[taken] = clock.now
        yield clock.timeout(next(services) * curve[len(taken) - 1] / curve[-1])
        done[taken] = clock.now
        idle.put(0)
        left[0] -= len(taken)
        if left[0] == 0:
            finished.succeed()

    services = _services_s(curve[-1], service_variation, random)
    clock.process(arrivals())
    clock.process(dispatcher())
    clock.run(until=finished)
    kept = slice(warm_up_of(images), None)
    return Simulated(waits_s=(started - arrived)[kept], latencies_s=(done - arrived)[kept])


def _waits_s(
    demand: Demand,
    images: int,
    random: np.random.Generator,
    recorded_s: NDArray[np.float64] | None,
) -> Iterator[float]:
    """Seconds from each image to the next; none before the first and within a burst."""
    if demand.arrivals == "trace":
        yield from np.diff(arrivals_s(demand, images, random, recorded_s), prepend=0.0).tolist()
        return
    burst, gaps = burst_of(demand), gaps_s(demand, random)
    for number in range(images):
        yield 0.0 if number == 0 or number % burst else next(gaps)


def _services_s(mean_s: float, variation: float, random: np.random.Generator) -> Iterator[float]:
    while True:
        if variation == 0:
            yield mean_s
        else:
            yield float(random.gamma(1 / variation, mean_s * variation))
