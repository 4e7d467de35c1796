"""A fleet as one queue, image by image, without a clock: quick enough to search with.

The same rules as `scenarios.simulate`, by another method (Kiefer and Wolfowitz: the earliest free
server takes the next batch), so that each checks the other.
"""

import heapq
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.record import Estimate

# Student's t with GROUPS − 1 = 9 degrees of freedom, two sides, by level.
GROUPS, STUDENT = 10, {0.9: 1.833, 0.99: 3.250}
# The queue starts empty; its first tenth is not typical.
WARM_UP_SHARE = 0.1
# Images after which a replay looks whether too many are late already.
LOOKED_AFTER = 1000

Times = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """Latency of each image in order of arrival, and the seconds that servers were busy."""

    latencies_s: Times
    busy_s: float

    @property
    def typical_s(self) -> Times:
        """Latencies without the first ones, which meet an empty queue."""
        return self.latencies_s[warm_up_of(len(self.latencies_s)) :]


def warm_up_of(images: int) -> int:
    """How many of so many images come first and do not count."""
    return math.ceil(images * WARM_UP_SHARE)


class Line:
    """Images that wait for `servers`, each of which takes up to `len(service_s)` of them.

    `service_s[n − 1]` is the time of a batch of n. A free server starts when a full batch waits,
    or the first of it has waited `timeout_s`. `stretch` multiplies the time of each batch in turn.
    """

    def __init__(
        self,
        arrived_s: Times,
        service_s: Sequence[float],
        *,
        servers: int,
        timeout_s: float = 0.0,
        stretch: Times | None = None,
    ) -> None:
        if servers < 1 or not len(service_s) or min(service_s) <= 0 or timeout_s < 0:
            raise ValueError(
                f"wanted a server, times above 0 and a time-out of 0 or more, got {servers}, "
                f"{list(service_s)[:3]} and {timeout_s}"
            )
        self.images, self.answered, self.busy_s = len(arrived_s), 0, 0.0
        self._arrived_s = arrived_s
        # Nobody comes after the last: no end to look out for.
        self._arrived = [*arrived_s.tolist(), math.inf]
        self._service, self._timeout_s = (0.0, *service_s), timeout_s
        self._factors = None if stretch is None else stretch.tolist()
        self._free = [0.0] * min(servers, self.images)
        self._batches = 0

    def serve(self, until: int) -> Times:
        """Latencies of the images now answered: at least up to number `until`, batches whole."""
        arrived, service, factors, free = self._arrived, self._service, self._factors, self._free
        images, most, timeout_s = self.images, len(service) - 1, self._timeout_s
        begun, first, busy_s, before = self.answered, self.answered, self.busy_s, self._batches
        ends: list[float] = []
        sizes: list[int] = []
        while first < until:
            start, last = arrived[first], first + 1
            if timeout_s:
                fills = first + most - 1
                start = min(start + timeout_s, arrived[fills] if fills < images else math.inf)
            if free[0] > start:  # quicker here than max
                start = free[0]
            if arrived[last] <= start:
                last = bisect_right(arrived, start, last, min(first + most, images))
            seconds = service[last - first]
            if factors is not None:
                seconds *= factors[before + len(ends)]
            end = start + seconds
            heapq.heapreplace(free, end)
            busy_s += seconds
            ends.append(end)
            sizes.append(last - first)
            first = last
        self.answered, self.busy_s, self._batches = first, busy_s, before + len(ends)
        return np.asarray(np.repeat(ends, sizes) - self._arrived_s[begun:first])


def replay(
    arrived_s: Times,
    service_s: Sequence[float],
    *,
    servers: int,
    timeout_s: float = 0.0,
    stretch: Times | None = None,
) -> Replayed:
    """All images through a `Line`.

    >>> replay(np.array([0.0, 0.0, 0.0]), [1.0, 1.0], servers=1).latencies_s
    array([1., 1., 2.])
    """
    line = Line(arrived_s, service_s, servers=servers, timeout_s=timeout_s, stretch=stretch)
    latencies_s = line.serve(line.images)
    return Replayed(latencies_s=latencies_s, busy_s=line.busy_s)


def replay_in_time(line: Line, limit_s: float, most_late: float) -> Replayed | None:
    """All images through a fresh line, or None as soon as more are late than that share may be.

    Of the images that are typical, so the answer is the one that all of them would give.
    """
    skipped, late, parts = warm_up_of(line.images), 0, []
    typical = max(1, line.images - skipped)
    while line.answered < line.images:
        begun = line.answered
        parts.append(line.serve(min(begun + LOOKED_AFTER, line.images)))
        late += int((parts[-1][max(0, skipped - begun) :] > limit_s).sum())
        if late / typical > most_late:
            return None
    return Replayed(latencies_s=np.concatenate(parts), busy_s=line.busy_s)


def over_groups(
    samples: Times,
    statistic: Callable[[Times], float],
    level: float,
) -> Estimate:
    """The statistic of all samples; its interval from consecutive groups, as neighbours are alike."""
    groups = [statistic(group) for group in np.array_split(samples, GROUPS)]
    value = statistic(samples)
    half = STUDENT[level] * float(np.std(groups, ddof=1)) / math.sqrt(GROUPS)
    return Estimate(value=value, low=value - half, high=value + half, level=level)
