"""How sure a purchase is: costs drawn, what swings them, and what knowing more is worth.

All draws of a fleet are one array: the cost of ownership is a sum of products (`costmodel.unitcost`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from costmodel.drawn import Power, power_of
from costmodel.unitcost import UnitCost, unit_cost
from domain.demand import Demand
from domain.device import DeviceSpec
from domain.record import Estimate, Unknown
from domain.scenario import FleetOption, Host, Scenario
from scenarios.candidates import Candidate
from scenarios.demand import load_share
from scenarios.fleet import Fleet, least_fleet, p99_latency_s
from scenarios.limits import filled_with, host_within
from scenarios.placing import spares_for
from scenarios.pricing import demands_of
from scenarios.service import NORMAL_90

Draws = NDArray[np.float64]

# Points of the load at which the longest bearable latency is looked up, as spreads of the load.
LOAD_POINTS = (-3.0, -1.5, 0.0, 1.5, 3.0)
# Points of the latency at which a re-sized fleet is looked up when the worth of knowing it is asked.
KNOWN_POINTS = 41
FARTHEST = 4.0
# How closely the logarithm of the longest bearable latency is looked up.
LOOKED_UP = 1e-4
# Shares of a price's spread that all devices have together, and each on its own: 0.8² + 0.6² = 1.
PRICES_TOGETHER, PRICES_APART = 0.8, 0.6
# Below this, 95 of 100 absolute values of a standard normal lie.
HALF_NORMAL_95 = float(norm.ppf(0.975))


@dataclass(frozen=True, kw_only=True)
class World:
    """Draws that all fleets share: factors of load, prices, energy, currency; stray of routing."""

    load: Draws
    hardware: Draws
    energy: Draws
    currency: Draws
    stray: Draws

    @property
    def count(self) -> int:
        """How many draws."""
        return len(self.load)


def world_of(scenario: Scenario, count: int, random: np.random.Generator) -> World:
    """Draws of what is uncertain about a site: log-normal factors, half-normal stray."""
    bands, is_foreign = scenario.uncertainty, scenario.site.currency != "USD"

    def factor(band: float) -> Draws:
        return np.exp(log_sd(band) * random.standard_normal(count))

    return World(
        load=factor(bands.load_band),
        hardware=factor(scenario.finance.price_band) ** PRICES_TOGETHER,
        energy=factor(bands.energy_band),
        currency=factor(bands.currency_band) if is_foreign else np.ones(count),
        stray=np.clip(
            np.abs(random.standard_normal(count)) * bands.routing_band / HALF_NORMAL_95, 0, 1
        ),
    )


def log_sd(band: float) -> float:
    """Spread of the logarithm whose 90 % interval reaches up by `band`.

    >>> round(log_sd(0.2), 4)
    0.1108
    """
    return math.log1p(band) / NORMAL_90


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One fleet as it was sized, ready to be drawn."""

    scenario: Scenario
    device: DeviceSpec
    option: FleetOption
    candidate: Candidate
    host: Host
    unit: UnitCost
    power: Power
    price_usd: float

    @cached_property
    def busiest(self) -> Demand:
        """The year with the busiest site, whose promise is the hardest to keep."""
        return max(demands_of(self.scenario), key=_peak)

    @cached_property
    def bought_for(self) -> Demand:
        """The year with the most devices, which are what is bought: perhaps more, quieter sites."""
        years = demands_of(self.scenario)
        return max((each for each in years if each.sites == self.option.sites), key=_peak)

    @property
    def per_site(self) -> int:
        """Devices of one site in the year that the fleet is bought for, its spares among them."""
        return self.option.devices // self.option.sites

    @property
    def strain(self) -> float:
        """Time at full depth over typical time."""
        full = self.candidate.full
        return full.full_s / self.candidate.loaded.full_s if full is not None else 1.0

    def cost(self, world: World, latency: Draws, servers: Draws | int | None = None) -> Draws:
        """Cost of the fleet, or of `servers` a site instead, in each draw.

        `latency` is a factor of the likely time. As if the whole fleet stood from the first day,
        and in proportion to the exact cost, which knows of years and stages.
        """
        return np.asarray(self._scale * self._as_if_at_once(world, latency, servers))

    @cached_property
    def _scale(self) -> float:
        """The exact cost of the fleet over the cost as if it stood from the first day."""
        owned = self.option.ownership
        at_once = float(self._as_if_at_once(still(), np.ones(1), None)[0])
        if isinstance(owned, Unknown) or at_once == 0:
            return 1.0
        return float(owned.total) / at_once

    def _as_if_at_once(self, world: World, latency: Draws, servers: Draws | int | None) -> Draws:
        option, host = self.option, self.host
        per_site = self.per_site if servers is None else self.with_spares(servers)
        devices = np.asarray(option.sites * per_site, dtype=float)
        hosts = option.sites * -(-per_site // host.devices_per_host)
        busy = np.clip(self._busy_erlang(world, latency) / np.asarray(per_site), 0, 1)
        idle_w, busy_w = self.power.idle_w.value, self.power.peak_w.value
        own_w = hosts * host.power_w
        capital = (
            (devices * self.price_usd + hosts * float(host.price_usd))
            * float(self.scenario.site.currency_per_usd)
            * world.hardware
            * world.currency
        )
        mean_w = devices * (idle_w + busy * (busy_w - idle_w)) + own_w
        total = self.unit.total(
            devices=devices,
            capital=capital,
            mean_w=mean_w * world.energy,
            peak_w=devices * busy_w + own_w,
        )
        return np.asarray(np.broadcast_to(np.asarray(total), (world.count,)), dtype=float)

    def holds(self, world: World, latency: Draws) -> Draws:
        """Whether the promise holds in each draw: one or zero."""
        slower = latency * (1 + world.stray * (self.strain - 1))
        bearable = np.interp(np.log(world.load), *self.bearable)
        return np.asarray(np.log(slower) <= bearable + LOOKED_UP, dtype=float)

    @property
    def erlang(self) -> float:
        """Mean devices of one site at work over all hours, where nothing is off."""
        loaded, demand = self.candidate.loaded, self.bought_for
        rate = demand.peak_img_per_s * load_share(demand)
        return rate * loaded.full_s / loaded.batch

    @property
    def bearable(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Logarithms of a few loads, and of the longest latency factor that each bears."""
        loads = np.exp([point * self._load_sd for point in LOAD_POINTS])
        found = np.log(self._bearable(loads)).tolist()
        return tuple(np.log(loads).tolist()), tuple(found)

    @property
    def _load_sd(self) -> float:
        return max(log_sd(self.scenario.uncertainty.load_band), 1e-6)

    def with_spares(self, servers: Draws | int) -> Draws:
        """Devices a site for so many that serve, in hosts filled as the fleet's are."""
        counts, where = np.unique(np.asarray(servers, dtype=int), return_inverse=True)
        promise, per_host = self.scenario.promise, self.host.devices_per_host
        whole = [n + spares_for(n, promise, per_host) for n in counts.tolist()]
        return np.asarray(whole)[where]

    def _busy_erlang(self, world: World, latency: Draws) -> Draws:
        """Mean devices of one site at work over all hours."""
        slower = latency * (1 + world.stray * (self.strain - 1))
        return np.asarray(self.erlang * world.load * slower)

    def _bearable(self, loads: Draws) -> Draws:
        """Longest latency factor that the fleet bears at each load; by the replay at the mean."""
        service, option = self.candidate.promised, self.option
        at_mean = self._closed_bearable(1.0)
        chance = option.promise_probability
        seen = at_mean
        if not isinstance(chance, Unknown) and service.log_sd and 0 < chance < 1:
            seen = math.exp(float(norm.ppf(chance)) * service.log_sd)
        scale = seen / at_mean if at_mean > 0 else 1.0
        found = [
            self._closed_bearable(load) * scale if at_mean > 0 else seen / load for load in loads
        ]
        return np.asarray([max(each, 1e-9) for each in found])

    def _closed_bearable(self, load: float) -> float:
        demand, promise, service = self.busiest, self.scenario.promise, self.candidate.promised
        busier = scaled(demand, load)

        def bears(factor: float) -> bool:
            latency_s = service.full_s * factor
            return latency_s <= promise.p99_latency_s and (
                p99_latency_s(
                    busier,
                    latency_s,
                    service.batch,
                    self.option.servers,
                    service.variation,
                    promise,
                )
                <= promise.p99_latency_s
            )

        low, high = math.log(1e-3), math.log(promise.p99_latency_s / service.full_s + 1e-9)
        if demand.arrivals == "offline":
            return math.inf if load <= 1 else 1.0
        for _ in range(18):
            middle = (low + high) / 2
            low, high = (middle, high) if bears(math.exp(middle)) else (low, middle)
        return math.exp(low) if bears(math.exp(low)) else 0.0


def scaled(demand: Demand, factor: float) -> Demand:
    """The same demand with its rate times `factor`; a takt gains cameras, not speed."""
    fields = {name: getattr(demand, name) for name in Demand.model_fields}
    if demand.arrivals == "takt":
        cameras = max(1, math.ceil(demand.cameras * factor * (1 - 1e-12)))
        return Demand(**{**fields, "cameras": cameras})
    return Demand(**{**fields, "period_s": demand.period_s / factor})


def holding_of(
    scenario: Scenario, device: DeviceSpec, option: FleetOption, candidate: Candidate
) -> Holding | None:
    """The fleet of an option, or None where its price or power is unknown."""
    power = power_of(device, candidate.prediction.power_w)
    host = host_within(scenario.hosts.of(device.device_class), device)
    if isinstance(power, Unknown) or isinstance(device.price_usd, Unknown) or isinstance(host, str):
        return None
    return Holding(
        scenario=scenario,
        device=device,
        option=option,
        candidate=candidate,
        host=filled_with(host, option.devices_per_host),
        unit=unit_cost(scenario.site, scenario.finance, device.device_class),
        power=power,
        price_usd=device.price_usd.value,
    )


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Costs of every fleet in every draw, and whether each kept its promise there."""

    costs: Mapping[str, Draws]
    held: Mapping[str, Draws]

    def interval(self, name: str) -> Estimate:
        """Median cost with its 90 % interval."""
        low, value, high = np.quantile(self.costs[name], [0.05, 0.5, 0.95]).tolist()
        return Estimate(value=value, low=low, high=high)

    def cheaper(self, name: str, other: str) -> float:
        """Probability that one fleet costs less than another, in the same world."""
        return float((self.costs[name] < self.costs[other]).mean())

    def cheapest(self, name: str) -> float:
        """Probability that a fleet is the cheapest of all."""
        least = np.min(list(self.costs.values()), axis=0)
        return float((self.costs[name] <= least).mean())

    def promise(self, name: str) -> float:
        """Probability that a fleet keeps its promise."""
        return float(self.held[name].mean())


def drawn(scenario: Scenario, holdings: Sequence[Holding], count: int, seed: int) -> Drawn:
    """Draws of all fleets in one world; the latency and price of each device are its own.

    Alike wherever the device is drawn, whatever is drawn beside it.
    """
    world = world_of(scenario, count, np.random.default_rng(seed))
    costs: dict[str, Draws] = {}
    held: dict[str, Draws] = {}
    for holding in holdings:
        random = np.random.default_rng((seed, crc32(holding.option.device_id.encode())))
        spread = holding.candidate.promised.log_sd
        latency = np.exp(spread * random.standard_normal(count))
        own_sd = PRICES_APART * log_sd(scenario.finance.price_band)
        own = np.exp(own_sd * random.standard_normal(count))
        costs[holding.option.device_id] = holding.cost(_with_own_price(world, own), latency)
        held[holding.option.device_id] = holding.holds(world, latency)
    return Drawn(costs=costs, held=held)


def _with_own_price(world: World, own: Draws) -> World:
    """Prices move together, and each a little on its own."""
    return World(
        load=world.load,
        hardware=world.hardware * own,
        energy=world.energy,
        currency=world.currency,
        stray=world.stray,
    )


def resized(holding: Holding, *, latency: float = 1.0, load: float = 1.0) -> int | None:
    """Servers a site by closed form if the latency, promised probability and all, were that.

    Of the year that the fleet is bought for; None where the busiest site has no fleet.
    """
    certain = holding.candidate.promised.factor(holding.scenario.promise.confidence)
    return _servers(holding, certain * latency, load)


def _servers(holding: Holding, latency: float, load: float = 1.0) -> int | None:
    """Servers a site if batches took `latency` times the likely time, surely."""
    service, promise = holding.candidate.promised, holding.scenario.promise
    fleets = {
        demand: least_fleet(
            scaled(demand, load),
            promise,
            service.full_s * latency,
            service.batch,
            service.variation,
        )
        for demand in {holding.busiest, holding.bought_for}
    }
    busiest, bought = fleets[holding.busiest], fleets[holding.bought_for]
    return bought.servers if isinstance(busiest, Fleet) and isinstance(bought, Fleet) else None


def _peak(demand: Demand) -> float:
    return demand.peak_img_per_s


def still(count: int = 1, **factors: float) -> World:
    """A world in which nothing is off but what is named."""
    ones = np.ones(count)
    fields = {name: ones * factors.get(name, 1.0) for name in ("load", "hardware", "energy")}
    return World(
        **fields,
        currency=ones * factors.get("currency", 1.0),
        stray=ones * factors.get("stray", 0.0),
    )


def known_saving(
    holding: Holding, best_otherwise: float, now: float, measured_band: float
) -> tuple[float, float]:
    """Expected saving if the latency of a device were measured before buying, and its error.

    Today's choice costs `now`. Measured, the device needs the servers of its true latency and
    the little that stays open, and is bought only where that is cheaper than `best_otherwise`.
    The expectation is over the prediction, by points of equal width (Gauss would miss the steps).
    """
    service, promise = holding.candidate.promised, holding.scenario.promise
    if not service.log_sd:
        return 0.0, 0.0
    points = np.linspace(-FARTHEST, FARTHEST, KNOWN_POINTS)
    weights = norm.pdf(points)
    weights /= weights.sum()
    left = math.exp(float(norm.ppf(promise.confidence)) * log_sd(measured_band))
    costs = np.array(
        [
            min(best_otherwise, _cost_if(holding, math.exp(point * service.log_sd) * left))
            for point in points
        ]
    )
    # A device that could not keep the promise, and nothing else that can: nothing to save.
    costs = np.where(np.isfinite(costs), costs, now)
    expected = float(weights @ costs)
    return now - expected, float(np.sqrt(weights @ (costs - expected) ** 2))


def _cost_if(holding: Holding, latency: float) -> float:
    """Cost of the device's fleet if its batches took `latency` times the likely time, surely."""
    servers = _servers(holding, latency)
    if servers is None:
        return math.inf
    return float(holding.cost(still(), np.array([latency]), servers)[0])
