"""The fewest devices that keep a promise: closed forms first, then the queue image by image.

The latency that counts is that of the promised probability: a fleet sized for the likely one would
break its promise every other time.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from domain.demand import Demand
from domain.record import Estimate
from domain.scenario import Promise
from domain.units import shown
from scenarios.demand import Times, arrivals_s, burst_of, bursts_per_s
from scenarios.queueing import batched_quantile_s, burst_latency_s
from scenarios.replay import Line, Replayed, over_groups, replay_in_time
from scenarios.service import Service

MOST_DEVICES = 100_000
PROMISED_SHARE = 0.99
# Images of one replay, and what is too much for one.
REPLAYED_IMAGES, MOST_IMAGES, MOST_REPLAYED_SERVERS = 20_000, 200_000, 1_500
# Bursts of a takt are alike where images are.
BURSTS_ALIKE = 12
# Sums of times differ in their last digits.
ROUNDING = 1 + 1e-9
# Spreads of the latency from its middle within which a probability is looked for.
FARTHEST = 4.0
SEED = 20_261_124


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Devices of one site that serve, spares aside; its p99 by closed form and as replayed.

    `busy_share` is the share of the busiest time in which a device works, at likely latencies.
    """

    servers: int
    batch: int
    utilisation: float
    p99_latency_s: float
    replayed_p99_s: Estimate | None = None
    busy_share: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Queue:
    """One demand on one device, to be asked of any number of servers.

    `arrived_s` are the instants of the images, None where they are too many to follow one by one;
    `stretch` is how much longer than the mean each batch takes, for its images.
    """

    demand: Demand
    promise: Promise
    service: Service
    arrived_s: Times | None
    stretch: Times | None
    _seen: dict[tuple[int, float], Replayed] = field(default_factory=dict, init=False, repr=False)

    @property
    def factor(self) -> float:
        """Latency of the promised probability over the likely one."""
        return self.service.factor(self.promise.confidence)

    def is_replayable(self, servers: int) -> bool:
        """Whether images can be followed one by one in good time."""
        return self.arrived_s is not None and servers <= MOST_REPLAYED_SERVERS

    def replayed(self, servers: int, factor: float) -> Replayed:
        """The queue with every batch `factor` times as long as is likely."""
        found = self._replayed(servers, factor, 1.0)
        assert found is not None, "no more than all can be late"
        return found

    def p99_s(self, servers: int, factor: float) -> Estimate:
        """99th percentile of latency, with its 90 % interval from consecutive groups."""
        return over_groups(
            self.replayed(servers, factor).typical_s,
            lambda group: float(np.quantile(group, PROMISED_SHARE)),
            0.9,
        )

    def holds(self, servers: int, factor: float) -> bool:
        """Whether 99 of 100 images are answered in time; if not, it is known early on."""
        seen = self._replayed(servers, factor, 1 - PROMISED_SHARE)
        return seen is not None and bool(self._late(seen).mean() <= 1 - PROMISED_SHARE)

    def _late(self, seen: Replayed) -> NDArray[np.bool_]:
        return seen.typical_s > self._limit_s

    @property
    def _limit_s(self) -> float:
        return self.promise.p99_latency_s * ROUNDING

    def _replayed(self, servers: int, factor: float, most_late: float) -> Replayed | None:
        """The queue to its end, once; None where more than that share are late."""
        assert self.arrived_s is not None, "asked before"
        if (servers, factor) not in self._seen:
            line = Line(
                self.arrived_s,
                self.service.times(factor),
                servers=servers,
                timeout_s=self.promise.batch_timeout_s,
                stretch=self.stretch,
            )
            found = replay_in_time(line, self._limit_s, most_late)
            if found is None:
                return None
            self._seen[servers, factor] = found
        return self._seen[servers, factor]


def queue_of(
    demand: Demand,
    promise: Promise,
    service: Service,
    recorded_s: Times | None = None,
    *,
    seed: int = SEED,
    images: int = REPLAYED_IMAGES,
) -> Queue:
    """The queue with its arrivals drawn; without where a burst is too large or no image is asked.

    A recorded trace is always followed: of that the closed form knows too little.
    """
    random = np.random.default_rng(seed)
    burst, variation = burst_of(demand), service.variation / service.batch
    arrived_s = stretch = None
    if demand.arrivals == "takt" and images:
        bursts = -(-images // burst) if variation else BURSTS_ALIKE
        images = max(3, bursts) * burst
    if demand.arrivals == "trace":
        images = images or REPLAYED_IMAGES
    if demand.arrivals != "offline" and 0 < images <= MOST_IMAGES:
        arrived_s = arrivals_s(demand, images, random, recorded_s)
        if variation:
            stretch = random.gamma(1 / variation, variation, len(arrived_s))
    return Queue(
        demand=demand, promise=promise, service=service, arrived_s=arrived_s, stretch=stretch
    )


def fleet_of(queue: Queue, most: int = MOST_DEVICES) -> Fleet | str:
    """The fewest devices up to `most` that keep utilisation and p99, or in words why none do."""
    demand, promise, service = queue.demand, queue.promise, queue.service
    latency_s = service.full_s * queue.factor
    closed = least_fleet(demand, promise, latency_s, service.batch, service.variation)
    floor = least_for_load(demand, promise, latency_s, service.batch)
    if floor is None or floor > most:
        return f"more than {most:,} devices would be needed"
    servers = None if isinstance(closed, str) else closed.servers
    if queue.is_replayable(floor) and latency_s <= promise.p99_latency_s:
        # Of a recorded trace the closed form knows too little to start from.
        start = floor if demand.arrivals == "trace" else servers
        servers = _replayed_least(queue, floor, start, most)
    if servers is None or servers > most:
        return closed if isinstance(closed, str) else f"more than {most:,} devices would be needed"
    return described(queue, servers)


def described(queue: Queue, servers: int) -> Fleet:
    """So many servers as a fleet: its load and its p99, whether it keeps the promise or not."""
    demand, service = queue.demand, queue.service
    latency_s = service.full_s * queue.factor
    fleet = Fleet(
        servers=servers,
        batch=service.batch,
        utilisation=utilisation(demand, latency_s, service.batch, servers),
        p99_latency_s=p99_latency_s(
            demand, latency_s, service.batch, servers, service.variation, queue.promise
        ),
    )
    if not queue.is_replayable(servers):
        return fleet
    likely = queue.replayed(servers, 1.0)
    # Not until the last answer: the last burst's period is of the queue too.
    span_s = len(likely.latencies_s) / demand.peak_img_per_s
    return replace(
        fleet,
        replayed_p99_s=queue.p99_s(servers, queue.factor),
        busy_share=min(1.0, likely.busy_s / span_s / servers),
    )


def promise_probability(queue: Queue, servers: int) -> float:
    """That so many servers keep the promise, given how sure the latency is."""

    def holds(factor: float) -> bool:
        if queue.is_replayable(servers):
            return queue.holds(servers, factor)
        latency_s, service = queue.service.full_s * factor, queue.service
        return (
            p99_latency_s(
                queue.demand, latency_s, service.batch, servers, service.variation, queue.promise
            )
            <= queue.promise.p99_latency_s
        )

    spread = queue.service.log_sd
    if not spread:
        return 1.0 if holds(1.0) else 0.0
    low, high = -FARTHEST * spread, FARTHEST * spread
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(math.exp(middle)) else (low, middle)
    return queue.service.probability(math.exp(low))


def _replayed_least(queue: Queue, floor: int, ceiling: int | None, most: int) -> int | None:
    """The fewest servers from `floor` on whose replay keeps the promise.

    `ceiling` is where the closed form says so; the search goes beyond it where the queue does not.
    """

    @cache
    def holds(servers: int) -> bool:
        return queue.holds(servers, queue.factor)

    high = max(floor, ceiling or floor)
    low = floor - 1
    while not holds(high):
        if high >= min(most, MOST_REPLAYED_SERVERS):
            return None
        low, high = high, min(high + max(1, high // 4), most)
    return _least_between(holds, low, high)


def _least_between(suffices: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest number above `low` that suffices, where `high` does; near `high` first."""
    step = 1
    while high - low > 1:
        probe = max(low + 1, high - step)
        if suffices(probe):
            high, step = probe, 2 * step
        else:
            low, step = probe, 1
    return high


def least_for_load(demand: Demand, promise: Promise, latency_s: float, batch: int) -> int | None:
    """The fewest devices that keep the utilisation; None where no number up to the most does."""
    alone = utilisation(demand, latency_s, batch, 1)
    if not alone <= MOST_DEVICES * promise.target_utilisation:
        return None
    return max(1, math.ceil(alone / promise.target_utilisation * (1 - 1e-12)))


def least_fleet(
    demand: Demand, promise: Promise, latency_s: float, batch: int, variation: float
) -> Fleet | str:
    """The fewest devices that keep utilisation and p99 by closed form, or why no number does."""
    if demand.arrivals != "offline" and latency_s > promise.p99_latency_s:
        return (
            f"one batch of {batch} takes up to {shown(latency_s, 's')}, the promise is "
            f"{shown(promise.p99_latency_s, 's')}" + "; a smaller batch may keep it" * (batch > 1)
        )

    def suffices(servers: int) -> bool:
        return (
            utilisation(demand, latency_s, batch, servers) <= promise.target_utilisation
            and p99_latency_s(demand, latency_s, batch, servers, variation, promise)
            <= promise.p99_latency_s
        )

    servers = _least(suffices, MOST_DEVICES)
    if servers is None:
        return f"more than {MOST_DEVICES:,} devices would be needed"
    return Fleet(
        servers=servers,
        batch=batch,
        utilisation=utilisation(demand, latency_s, batch, servers),
        p99_latency_s=p99_latency_s(demand, latency_s, batch, servers, variation, promise),
    )


def utilisation(demand: Demand, latency_s: float, batch: int, servers: int) -> float:
    """Share of the busiest time in which a device works, with batches as full as a burst allows.

    Other arrivals are taken as full batches: under load the queue fills them.
    """
    if demand.arrivals == "takt":
        batches_per_s = bursts_per_s(demand) * -(-burst_of(demand) // batch)
    else:
        batches_per_s = demand.peak_img_per_s / batch
    return batches_per_s * latency_s / servers


def p99_latency_s(
    demand: Demand,
    latency_s: float,
    batch: int,
    servers: int,
    variation: float,
    promise: Promise | None = None,
) -> float:
    """Latency that 99 of 100 images keep: of the last of a burst, or of random arrivals.

    A burst that is not done before the next one leaves a queue that never ends: infinite. A batch
    that waits to fill adds its time-out or the time it takes to fill, whichever is less. Offline
    images are promised nothing: the time of their batch. A recorded trace is taken as random here;
    its replay is what counts.
    """
    if demand.arrivals == "offline":
        return 0.0
    timeout_s = promise.batch_timeout_s if promise else 0.0
    if demand.arrivals in ("poisson", "trace"):
        fills_s = min(timeout_s, (batch - 1) / demand.peak_img_per_s)
        return (
            fills_s
            + latency_s
            + batched_quantile_s(
                PROMISED_SHARE,
                demand.peak_img_per_s,
                servers,
                batch,
                latency_s,
                service_variation=variation,
            )
        )
    burst = burst_of(demand)
    fills_s = min(timeout_s, demand.period_s) if burst % batch else 0.0
    last_s = fills_s + burst_latency_s(burst, servers, batch, latency_s)
    return last_s if last_s <= demand.period_s else float("inf")


def _least(suffices: Callable[[int], bool], most: int) -> int | None:
    """The smallest number up to `most` that suffices, where every larger one does too."""
    high = 1
    while not suffices(high):
        if high == most:
            return None
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high
