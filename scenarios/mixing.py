"""Fleets of several kinds: a site's images split over boards and servers, with more rented at peaks.

The split is static: boards serve some cameras, or some share of the images, servers the rest; a
cloud serves what comes beyond a level of the shift calendar. Each part keeps the whole promise
with spares of its own, and so surely that all of them together keep it as surely as was asked.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from costmodel.ownership import summed
from domain.demand import Demand, Stage
from domain.device import DeviceSpec
from domain.prices import HourlyRate
from domain.record import Unknown
from domain.scenario import CostLine, Finance, FleetOption, Ownership, Promise, Scenario
from domain.units import significant
from scenarios.arrivals import described, thinned
from scenarios.candidates import Forecasts
from scenarios.choosing import (
    Found,
    added,
    candidate_of,
    changed,
    images_of,
    local_part,
    nearer,
    rent_by_load,
    up_to,
)
from scenarios.cloud import cheapest_rates, to_rent
from scenarios.demand import Times
from scenarios.fleet import SEED
from scenarios.sensitivity import Holding, holding_of, scaled
from scenarios.sizing import option_of

# Splits that are tried: so many steps from all boards to all servers.
STEPS, STEPS_OF_A_TRACE = 16, 8
# Of a recorded trace, what a rate can be told from.
FEWEST_INSTANTS = 2
# As sure as a scenario may ask to be.
MOST_SURE = 0.999


@dataclass(frozen=True, kw_only=True, eq=False)
class Half:
    """A scenario with its share of the demand; of a recorded trace the images that are its own."""

    scenario: Scenario
    recorded_s: Times | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kind of device with the share of the demand that it serves, and its fleet."""

    half: Half
    option: FleetOption

    @property
    def scenario(self) -> Scenario:
        """What it serves."""
        return self.half.scenario

    @property
    def cost(self) -> Ownership:
        """Of owning it."""
        assert isinstance(self.option.ownership, Ownership), "only priced parts are kept"
        return self.option.ownership


Parts = tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What parts are sized from, and which devices they may be of."""

    forecasts: Mapping[str, Forecasts]
    devices: Mapping[str, DeviceSpec]
    boards: Sequence[str]
    servers: Sequence[str]

    def part(self, half: Half, name: str, *, is_replayed: bool) -> Part | None:
        """The fleet of one device for one share of the demand; None where none keeps it."""
        option = option_of(
            half.scenario,
            self.devices[name],
            self.forecasts[name],
            half.recorded_s,
            is_replayed=is_replayed,
        )
        if option.reason or isinstance(option.ownership, Unknown):
            return None
        return Part(half=half, option=option)

    def again(self, parts: Parts) -> Parts | None:
        """The same, sized image by image."""
        sized = [self.part(each.half, each.option.device_id, is_replayed=True) for each in parts]
        return None if None in sized else tuple(each for each in sized if each is not None)

    def splits(self, whole: Half) -> Iterator[Parts]:
        """Boards and servers together, by closed form, at every step of the split.

        A recorded trace is followed image by image each time, so at fewer steps.
        """
        steps = STEPS if whole.recorded_s is None else STEPS_OF_A_TRACE
        for step in range(1, steps):
            halves = halves_of(whole, step / steps)
            if halves is None:
                continue
            boards = [self.part(halves[0], name, is_replayed=False) for name in self.boards]
            servers = [self.part(halves[1], name, is_replayed=False) for name in self.servers]
            for board in boards:
                for server in servers:
                    if board and server:
                        yield board, server

    def alone(self, whole: Half) -> Iterator[Parts]:
        """One kind of device for all."""
        for name in (*self.boards, *self.servers):
            if part := self.part(whole, name, is_replayed=False):
                yield (part,)


def halves_of(whole: Half, share: float) -> tuple[Half, Half] | None:
    """The scenario for boards with that share of the demand, and for servers with the rest.

    Of a takt whole cameras, in every stage; of a recorded trace each image by itself (thinning);
    None where a part would have none. What is paid once (people, network, installation, removal)
    is paid with the boards.
    """
    scenario = surer(whole.scenario)
    once = dict.fromkeys(
        ("staff_per_year", "network_price", "installation", "decommissioning"), Decimal(0)
    )
    finance = {name: getattr(scenario.finance, name) for name in Finance.model_fields}
    with_boards, with_servers = scenario, changed(scenario, finance=Finance(**{**finance, **once}))
    if whole.recorded_s is not None:
        random = np.random.default_rng((SEED, round(share * 1e9)))
        boards_s, servers_s = thinned(whole.recorded_s, share, random)
        halves = (
            _recorded(with_boards, whole, boards_s),
            _recorded(with_servers, whole, servers_s),
        )
        return None if halves[0] is None or halves[1] is None else (halves[0], halves[1])
    if scenario.demand.arrivals != "takt":
        return (
            Half(scenario=_slower(with_boards, share)),
            Half(scenario=_slower(with_servers, 1 - share)),
        )
    counts = [scenario.demand.cameras, *(stage.cameras for stage in scenario.stages)]
    some = [round(count * share) for count in counts]
    rest = [count - less for count, less in zip(counts, some, strict=True)]
    if not all([*some, *rest]):
        return None
    return (
        Half(scenario=_with_cameras(with_boards, some)),
        Half(scenario=_with_cameras(with_servers, rest)),
    )


def _recorded(scenario: Scenario, whole: Half, times_s: Times) -> Half | None:
    """The scenario with those images of the whole trace alone; None where they are too few."""
    assert whole.recorded_s is not None
    recording = scenario.demand.recording
    if recording is None or len(np.unique(times_s)) < FEWEST_INSTANTS:
        return None
    slower = _slower(scenario, len(times_s) / len(whole.recorded_s))
    fields = {name: getattr(slower.demand, name) for name in Demand.model_fields}
    own = described(times_s, recording.sha256)
    demand = Demand(**{**fields, "recording": own})
    return Half(scenario=changed(slower, demand=demand), recorded_s=times_s)


def _slower(scenario: Scenario, share: float) -> Scenario:
    fields = {name: getattr(scenario.demand, name) for name in Demand.model_fields}
    demand = Demand(**{**fields, "period_s": scenario.demand.period_s / share})
    return changed(scenario, demand=demand)


def _with_cameras(scenario: Scenario, counts: Sequence[int]) -> Scenario:
    """The scenario with other cameras, of the demand and of each stage."""
    fields = {name: getattr(scenario.demand, name) for name in Demand.model_fields}
    stages = tuple(
        Stage(**{**dict(stage), "cameras": count})
        for stage, count in zip(scenario.stages, counts[1:], strict=True)
    )
    demand = Demand(**{**fields, "cameras": counts[0]})
    return changed(scenario, demand=demand, stages=stages)


def surer(scenario: Scenario) -> Scenario:
    """The scenario for one of two parts that must keep the promise both: the root of its share."""
    promise = {name: getattr(scenario.promise, name) for name in Promise.model_fields}
    sure = min(MOST_SURE, math.sqrt(scenario.promise.confidence))
    return changed(scenario, promise=Promise(**{**promise, "confidence": sure}))


def mixed_ways(
    scenario: Scenario,
    forecasts: Mapping[str, Forecasts],
    devices: Mapping[str, DeviceSpec],
    owned: Sequence[Found],
    recorded_s: Times | None = None,
) -> tuple[list[Found], list[tuple[str, str]]]:
    """The cheapest split over boards and servers, and the cheapest base with a rented peak.

    Beside them what was not found, and why.
    """
    whole = Half(scenario=scenario, recorded_s=recorded_s)
    shop = Workshop(
        forecasts=forecasts,
        devices=devices,
        boards=[way.option.device_id for way in owned if way.kind == "edge"],
        servers=[way.option.device_id for way in owned if way.kind == "on-premises"],
    )
    found: list[Found] = []
    why_not: list[tuple[str, str]] = []
    split = min(shop.splits(whole), key=_total, default=None)
    if split is not None and (parts := shop.again(split)) is not None:
        found.append(_owned(scenario, parts, shop))
    else:
        why_not.append(("boards and servers together", _why_no_split(whole, shop)))
    away = nearer(scenario)
    loads = sorted({load for _, load in scenario.demand.hours_at_load})
    if scenario.stages or scenario.demand.growth_per_year:
        why_not += [("own the base, rent the peak", GROWS)] if len(loads) > 1 else []
    elif away is not None:
        bursts = [
            burst for level in loads[:-1] if (burst := _burst(whole, away, shop, level, loads))
        ]
        found += sorted(bursts, key=lambda each: each.cost.total)[:1]
    return found, why_not


GROWS = "where demand grows or comes in stages, what is rented beyond the base differs every year"


def _why_no_split(whole: Half, shop: Workshop) -> str:
    if not shop.boards or not shop.servers:
        return "wanted a fleet of boards and one of servers that keep the promise at a known price"
    if halves_of(whole, 1 / 2) is None:
        return "one camera, or too few recorded images, for two parts: nothing to split"
    return "no split keeps the promise in both of its parts as surely as both together must"


def _total(parts: Parts) -> Decimal:
    return sum((part.cost.total for part in parts), Decimal(0))


def _burst(
    whole: Half, away: Scenario, shop: Workshop, level: float, loads: Sequence[float]
) -> Found | None:
    """Own what serves up to `level` of the full rate, rent the rest while there is more.

    A trace keeps its pattern on both sides, at the rate of each: its bursts are not thinned.
    """
    scenario = whole.scenario
    base = Half(
        scenario=surer(changed(scenario, demand=up_to(scenario.demand, level))),
        recorded_s=whole.recorded_s,
    )
    quick = min([*shop.alone(base), *shop.splits(base)], key=_total, default=None)
    parts = None if quick is None else shop.again(quick)
    beyond = {load: max(0.0, load - level) for load in loads}
    rented = _rented(
        scenario, Half(scenario=surer(away), recorded_s=whole.recorded_s), shop, beyond
    )
    if parts is None or rented is None:
        return None
    rate, option, needed, rent = rented
    own = _owned(base.scenario, parts, shop)
    hours = sum(hours for hours, load in scenario.demand.hours_at_load if needed[load])
    return replace(
        own,
        option=_together([own.option, _farther(option, scenario)], devices=own.option.devices),
        cost=_added_up(scenario, [own.cost, rent]),
        rent=rent.total,
        local=local_part(rent),
        rate=rate,
        how=f"{own.how}; up to {max(needed.values())} × {option.device_name} more from "
        f"{rate.price.provider} {rate.price.instance} on demand in {significant(hours)} hours a "
        f"year, price of {rate.price.as_of}",
    )


def _rented(
    scenario: Scenario, whole: Half, shop: Workshop, beyond: Mapping[float, float]
) -> tuple[HourlyRate, FleetOption, dict[float, int], Ownership] | None:
    """The cheapest device by the hour for what comes beyond the base, at each load."""
    best, away = None, whole.scenario
    for name, forecasts in shop.forecasts.items():
        rate = cheapest_rates(name).get("on-demand")
        if rate is None:
            continue
        needed, most = {}, None
        for load, extra in sorted(beyond.items()):
            needed[load] = 0
            if extra:
                part = changed(away, demand=scaled(away.demand, extra))
                most = option_of(
                    part, shop.devices[name], forecasts, whole.recorded_s, is_replayed=False
                )
                if most.reason:
                    break
                needed[load] = to_rent(away, rate, most.servers, away.demand.sites)
        if most is None or most.reason:
            continue
        rent = rent_by_load(scenario, rate, needed, has_staff=False)
        if isinstance(rent, Ownership) and (best is None or rent.total < best[3].total):
            best = (rate, most, needed, rent)
    return best


def _owned(scenario: Scenario, parts: Parts, shop: Workshop) -> Found:
    """Parts as one way, each ready to be drawn."""
    option = _together([part.option for part in parts])
    share = [part.scenario.demand.peak_img_per_s / scenario.demand.peak_img_per_s for part in parts]
    how = " and ".join(
        f"{part.option.devices} × {part.option.device_name} for {of:.0%} of the images"
        if len(parts) > 1
        else f"{part.option.devices} × {part.option.device_name}"
        for part, of in zip(parts, share, strict=True)
    )
    return Found(
        kind="mixed",
        option=option,
        cost=_added_up(scenario, [part.cost for part in parts]),
        holdings=tuple(_held(part, shop) for part in parts),
        how=f"{how}, owned",
    )


def _held(part: Part, shop: Workshop) -> Holding:
    name = part.option.device_id
    candidate = candidate_of(part.scenario, shop.forecasts[name], part.option.batch)
    found = holding_of(part.scenario, shop.devices[name], part.option, candidate)
    assert found is not None, "a priced fleet has a price and a power"
    return found


def _farther(option: FleetOption, scenario: Scenario) -> FleetOption:
    """With the way to the cloud and back in its p99."""
    if isinstance(option.p99_latency_s, Unknown):
        return option
    fields = {name: getattr(option, name) for name in FleetOption.model_fields}
    return FleetOption(
        **{**fields, "p99_latency_s": option.p99_latency_s + scenario.cloud.network_s}
    )


def _slowness_s(option: FleetOption) -> float:
    seen = option.seen_p99_s
    return 0.0 if isinstance(seen, Unknown) else seen


def _together(options: Sequence[FleetOption], devices: int | None = None) -> FleetOption:
    """Several fleets as one: all must keep the promise, and the slowest is what people see."""
    if len(options) == 1:
        return options[0]
    slowest = max(options, key=_slowness_s)
    kept = [each.promise_probability for each in options]
    unknown = next((each for each in kept if isinstance(each, Unknown)), None)
    fields = {name: getattr(slowest, name) for name in FleetOption.model_fields}
    return FleetOption(
        **{
            **fields,
            "device_id": "+".join(dict.fromkeys(each.device_id for each in options))[:128],
            "device_name": " and ".join(dict.fromkeys(each.device_name for each in options)),
            "devices": sum(each.devices for each in options) if devices is None else devices,
            "ownership": Unknown(reason="of several fleets together"),
            "meets_full_depth": all(each.meets_full_depth for each in options),
            "promise_probability": unknown
            or math.prod(each for each in kept if not isinstance(each, Unknown)),
            "against": (),
            "notes": (),
        }
    )


def _added_up(scenario: Scenario, costs: Sequence[Ownership]) -> Ownership:
    """Costs line by line."""
    lines: dict[str, CostLine] = {}
    for cost in costs:
        for line in cost.lines:
            lines[line.name] = added(lines[line.name], line) if line.name in lines else line
    carbon = [cost.carbon_kg for cost in costs if cost.carbon_kg is not None]
    return summed(
        tuple(lines.values()),
        images_of(scenario),
        scenario.site,
        scenario.finance,
        costs[0].assumptions,
        sum(carbon) if carbon else None,
    )
