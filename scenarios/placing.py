"""Devices in hosts, which fail as units: how many of them, in how many hosts, keep enough running.

A host is filled up to a number that pays: all its places, or fewer, so that less goes down with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from domain.scenario import Demand, Host, Promise

# A host with so many devices that it is up for less of the time than this is not worth filling.
LEAST_UP = 0.5
LOOKED_AT = 64


@dataclass(frozen=True)
class Placement:
    """Hosts of up to `per_host` devices, and the devices a site under each demand, spares too."""

    per_host: int
    devices: Mapping[Demand, int]

    @property
    def hosts(self) -> dict[Demand, int]:
        """Hosts a site, the last of them perhaps not full."""
        return {demand: -(-count // self.per_host) for demand, count in self.devices.items()}

    def is_as_small_as(self, other: "Placement") -> bool:
        """Whether it has no more devices and no more hosts under any demand."""
        ours, theirs = self.hosts, other.hosts
        return all(
            self.devices[demand] <= other.devices[demand] and ours[demand] <= theirs[demand]
            for demand in self.devices
        )


def placements_of(servers: Mapping[Demand, int], promise: Promise, host: Host) -> list[Placement]:
    """Ways to fill hosts that keep `servers` running, but those that another beats under every demand.

    From one device a host, the fewest devices, to the fullest, mostly the fewest hosts.
    """
    found: list[Placement] = []
    for per_host in range(1, most_in_a_host(promise, host.devices_per_host) + 1):
        tried = Placement(
            per_host,
            {each: count + spares_for(count, promise, per_host) for each, count in servers.items()},
        )
        if not any(each.is_as_small_as(tried) for each in found):
            found = [each for each in found if not tried.is_as_small_as(each)] + [tried]
    return found


def most_in_a_host(promise: Promise, places: int) -> int:
    """Of so many places in a host, how many may be filled so that it is up at least half the time."""
    filled = 1
    while filled < places and promise.device_availability ** (filled + 1) >= LEAST_UP:
        filled += 1
    return filled


@lru_cache(maxsize=65_536)
def spares_for(servers: int, promise: Promise, per_host: int = 1) -> int:
    """Devices beside `servers` so that `servers` run for the promised share of the time.

    Each device is up for `device_availability` of the time, and one that is down takes its host
    with it: all `per_host` devices, or those of the last host, which may have fewer. Where as many
    hosts fail as the promise has spare devices, the fullest, `servers` run still. Never fewer than
    with a host for each device: what is up with fuller hosts is up there too.

    >>> spares_for(10, Promise(p99_latency_s=1.0, spare_devices=0, availability=0.999))
    2
    >>> spares_for(4, Promise(p99_latency_s=1.0, spare_devices=1), per_host=4)
    4
    """
    alone = _alone(servers, promise)
    if per_host == 1:
        return alone
    first, many = servers + alone, LOOKED_AT
    while True:
        counts = np.arange(first, first + many)
        enough = (_after_failures(counts, promise.spare_devices, per_host) >= servers) & (
            _up_enough(counts, servers, promise.device_availability, per_host)
            >= promise.availability
        )
        if enough.any():
            return int(counts[int(enough.argmax())]) - servers
        first, many = first + many, 2 * many


def _alone(servers: int, promise: Promise) -> int:
    """With a host for each device: they fail one by one, the binomial tail."""

    def suffices(spares: int) -> bool:
        down = binom.sf(spares, servers + spares, 1 - promise.device_availability)
        return bool(1 - down >= promise.availability)

    low, high = promise.spare_devices - 1, promise.spare_devices
    while not suffices(high):
        low, high = high, 2 * high + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _after_failures(devices: NDArray[np.int64], failures: int, per_host: int) -> NDArray[np.int64]:
    """Devices left where so many of the fullest hosts have failed."""
    full = devices // per_host
    return np.where(failures > full, 0, devices - np.minimum(failures, full) * per_host)


def _up_enough(
    devices: NDArray[np.int64], servers: int, up: float, per_host: int
) -> NDArray[np.float64]:
    """Probability that hosts with `servers` devices or more are up, the last one perhaps not full.

    `u^r · P(k·X + r ≥ n) + (1 − u^r) · P(k·X ≥ n)`, X binomial over the full hosts with `u^k`.
    """
    full, rest = np.divmod(devices, per_host)
    last_up = up**rest
    with_last = binom.sf(-(-(servers - rest) // per_host) - 1, full, up**per_host)
    without = binom.sf(-(-servers // per_host) - 1, full, up**per_host)
    return np.asarray(last_up * with_last + (1 - last_up) * without)


def devices_to_rent(servers: int, sites: int, promise: Promise, in_instance: int) -> int:
    """Devices that serve all sites from one place, in instances that fail as units too.

    The spares of every site with its devices failing one by one, and as many as instances of so
    many devices ask for where all sites are one.
    """
    per_instance = most_in_a_host(promise, in_instance)
    together = servers * sites
    return max(
        sites * (servers + spares_for(servers, promise)),
        together + spares_for(together, promise, per_instance),
    )
