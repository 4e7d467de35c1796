"""A fleet as one queue, image by image, without a clock: quick enough to search with.

The same rules as `scenarios.simulate`, by another method (Kiefer and Wolfowitz: the earliest free
server takes the next batch), so that each checks the other.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.record import Estimate

# Student's t with GROUPS − 1 = 9 degrees of freedom, two sides, by level.
GROUPS, STUDENT = 10, {0.9: 1.833, 0.99: 3.250}
# The queue starts empty; its first tenth is not typical.
WARM_UP_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """Latency of each image in order of arrival, and the seconds that servers were busy."""

    latencies_s: NDArray[np.float64]
    busy_s: float


def replay(
    arrived_s: NDArray[np.float64],
    service_s: Sequence[float],
    *,
    servers: int,
    timeout_s: float = 0.0,
    stretch: NDArray[np.float64] | None = None,
) -> Replayed:
    """Images through `servers`, each of which takes up to `len(service_s)` of the queue.

    `service_s[n − 1]` is the time of a batch of n. A free server starts when a full batch waits,
    or the first of it has waited `timeout_s`. `stretch` multiplies the time of each batch in turn.

    >>> replay(np.array([0.0, 0.0, 0.0]), [1.0, 1.0], servers=1).latencies_s
    array([1., 1., 2.])
    """
    if servers < 1 or not len(service_s) or min(service_s) <= 0 or timeout_s < 0:
        raise ValueError(
            f"wanted a server, times above 0 and a time-out of 0 or more, got {servers}, "
            f"{list(service_s)[:3]} and {timeout_s}"
        )
    images, most = len(arrived_s), len(service_s)
    arrived = arrived_s.tolist()
    factors = [1.0] * images if stretch is None else stretch.tolist()
    free = [0.0] * min(servers, images)
    done = np.empty(images)
    first, batches, busy_s = 0, 0, 0.0
    while first < images:
        ready = heapq.heappop(free)
        start = arrived[first]
        if timeout_s:
            fills = arrived[first + most - 1] if first + most <= images else start + timeout_s
            start = min(start + timeout_s, fills)
        if ready > start:
            start = ready
        last = first + 1
        while last < images and last - first < most and arrived[last] <= start:
            last += 1
        seconds = service_s[last - first - 1] * factors[batches]
        done[first:last] = start + seconds
        heapq.heappush(free, start + seconds)
        busy_s += seconds
        batches += 1
        first = last
    return Replayed(latencies_s=done - arrived_s, busy_s=busy_s)


def over_groups(
    samples: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], float],
    level: float,
) -> Estimate:
    """The statistic of all samples; its interval from consecutive groups, as neighbours are alike."""
    groups = [statistic(group) for group in np.array_split(samples, GROUPS)]
    value = statistic(samples)
    half = STUDENT[level] * float(np.std(groups, ddof=1)) / math.sqrt(GROUPS)
    return Estimate(value=value, low=value - half, high=value + half, level=level)
