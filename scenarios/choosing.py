"""Ways to serve one demand: own boards, own servers, rent, or own the base and rent the peak.

All with the same promise and the same spares. Pure: a scenario, predictions and prices in, ways out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from costmodel.ownership import summed
from costmodel.renting import instances_of
from domain.choice import WayKind
from domain.demand import Demand, Shift
from domain.device import DeviceSpec
from domain.prices import Contract, HourlyRate
from domain.record import Unknown
from domain.scenario import (
    CloudTerms,
    CostLine,
    Finance,
    FleetOption,
    Ownership,
    Promise,
    Scenario,
)
from scenarios.candidates import Candidate, Forecasts, candidates_of
from scenarios.cloud import cheapest_rates, rented, rented_by_year, to_rent
from scenarios.demand import Times
from scenarios.pricing import demands_of
from scenarios.sensitivity import Holding, holding_of, scaled
from scenarios.sizing import option_of, plan_of

# Of each kind, so many of the quickly sized fleets are sized again, image by image.
MOST_REFINED = 2
# Lines of renting that are paid at the site, in its own currency.
LOCAL = frozenset({"staff", "uplink"})
KIND_OF: dict[str, WayKind] = {"edge": "edge"}


@dataclass(frozen=True, kw_only=True)
class Found:
    """One way with its cost: `holdings` are what is owned of it, `rent` the cost of what is rented.

    `local` is what of that goes to people and lines, not to the cloud; `rate` is what is rented at.
    """

    kind: WayKind
    option: FleetOption
    cost: Ownership
    how: str
    holdings: tuple[Holding, ...] = ()
    rate: HourlyRate | None = None
    rent: Decimal = Decimal(0)
    local: Decimal = Decimal(0)


def owned_ways(
    scenario: Scenario,
    forecasts: Mapping[str, Forecasts],
    devices: Mapping[str, DeviceSpec],
    recorded_s: Times | None = None,
) -> tuple[list[Found], list[tuple[str, str]]]:
    """The cheapest fleets to own, boards and servers apart; and why others are none."""
    quick = plan_of(scenario, forecasts, devices, "quick", recorded_s, is_replayed=False)
    found: list[Found] = []
    refused = [
        (option.device_id, option.reason or _reason(option))
        for option in quick.options
        if option.reason or isinstance(option.ownership, Unknown)
    ]
    for kind in ("edge", "on-premises"):
        names = [
            option.device_id
            for option in quick.options
            if not option.reason
            and isinstance(option.ownership, Ownership)
            and _kind(devices[option.device_id]) == kind
        ][:MOST_REFINED]
        options = [
            option_of(scenario, devices[name], forecasts[name], recorded_s) for name in names
        ]
        for option in options:
            if isinstance(option.ownership, Ownership) and not option.reason:
                candidate = candidate_of(scenario, forecasts[option.device_id], option.batch)
                holding = holding_of(scenario, devices[option.device_id], option, candidate)
                assert holding is not None, "a priced fleet has a price and a power"
                found.append(
                    Found(
                        kind=_kind(devices[option.device_id]),
                        option=option,
                        cost=option.ownership,
                        holdings=(holding,),
                        how=f"{_counted(option)}, owned",
                    )
                )
    return found, refused


def _reason(option: FleetOption) -> str:
    return option.ownership.reason if isinstance(option.ownership, Unknown) else ""


def _kind(device: DeviceSpec) -> WayKind:
    return KIND_OF.get(device.device_class, "on-premises")


def _counted(option: FleetOption) -> str:
    spares = (
        f", {option.spares} of them spare"
        if option.sites == 1
        else (f": {option.sites} sites of {option.servers} and {option.spares} spare")
    )
    hosts = f" in {option.hosts} hosts" if option.host_places > 1 else ""
    return (
        f"{option.devices} × {option.device_name}{hosts}{spares}, batches of up to {option.batch}"
    )


def candidate_of(scenario: Scenario, forecasts: Forecasts, batch: int) -> Candidate:
    """The candidate that an option was sized from."""
    found, _ = candidates_of(scenario, forecasts)
    return next(each for each in found if each.batch == batch)


def nearer(scenario: Scenario) -> Scenario | None:
    """The scenario with the way to the cloud and back taken off its promise; None if that is all."""
    left_s = scenario.promise.p99_latency_s - scenario.cloud.network_s
    if scenario.demand.arrivals == "offline":
        return scenario
    if left_s <= 0:
        return None
    fields = {name: getattr(scenario.promise, name) for name in Promise.model_fields}
    return changed(scenario, promise=Promise(**{**fields, "p99_latency_s": left_s}))


def changed(scenario: Scenario, **changes: object) -> Scenario:
    """The scenario with other parts."""
    fields = {name: getattr(scenario, name) for name in Scenario.model_fields}
    return Scenario.model_validate({**fields, **changes})


def rented_ways(
    scenario: Scenario,
    forecasts: Mapping[str, Forecasts],
    devices: Mapping[str, DeviceSpec],
    recorded_s: Times | None = None,
) -> list[Found]:
    """Under each contract the cheapest fleet to rent, as far away as the scenario says."""
    away = nearer(scenario)
    offered = {name: rates for name in devices if (rates := cheapest_rates(name))}
    if away is None or not offered:
        return []
    quick = plan_of(
        away,
        {name: forecasts[name] for name in offered},
        {name: devices[name] for name in offered},
        "quick",
        recorded_s,
        is_replayed=False,
    )
    best: dict[str, Found] = {}
    for option in quick.options:
        if not option.reason:
            for contract, found in _rented(scenario, option, offered[option.device_id]):
                if contract not in best or found.cost.total < best[contract].cost.total:
                    best[contract] = found
    refined: dict[str, Found] = {}
    for name in sorted({found.option.device_id for found in best.values()}):
        option = option_of(away, devices[name], forecasts[name], recorded_s)
        by_load = fleets_by_load(away, devices[name], forecasts[name], recorded_s)
        for contract, found in _rented(scenario, option, offered[name], by_load):
            if contract not in refined or found.cost.total < refined[contract].cost.total:
                refined[contract] = found
    return sorted(refined.values(), key=lambda each: each.cost.total)


def _rented(
    scenario: Scenario,
    option: FleetOption,
    rates: Mapping[Contract, HourlyRate],
    by_load: Mapping[float, FleetOption] | None = None,
) -> Iterator[tuple[str, Found]]:
    """The option's fleet under each contract; by the hour, no more than each load needs."""
    if option.reason:
        return
    for contract, rate in rates.items():
        counts = rented_by_year(scenario, rate, option)
        if by_load and not rate.is_paid_idle:
            sites = scenario.demand.sites
            needed = {
                load: to_rent(scenario, rate, each.servers, sites) for load, each in by_load.items()
            }
            cost = rent_by_load(scenario, rate, needed)
        else:
            cost = rented(scenario, rate, counts, images_of(scenario))
        if isinstance(cost, Ownership):
            count = instances_of(rate, max(counts))
            label = " (price is an estimate)" if rate.is_estimate else ""
            yield (
                contract,
                Found(
                    kind="cloud",
                    option=_counting(option, max(counts)),
                    cost=cost,
                    rent=cost.total,
                    local=local_part(cost),
                    rate=rate,
                    how=f"{max(counts)} × {option.device_name} in {count} × {rate.price.provider} "
                    f"{rate.price.instance}, {contract}{label}, price of {rate.price.as_of}",
                ),
            )


def local_part(cost: Ownership) -> Decimal:
    """What of the cost of renting moves with no cloud's price: people and lines, after tax."""
    before_tax = [line for line in cost.lines if line.name != "tax-relief"]
    whole = sum((line.amount for line in before_tax), Decimal(0))
    local = sum((line.amount for line in before_tax if line.name in LOCAL), Decimal(0))
    return cost.total * local / whole if whole else Decimal(0)


def _counting(option: FleetOption, devices: int) -> FleetOption:
    """The option with as many devices as are rented."""
    fields = {name: getattr(option, name) for name in FleetOption.model_fields}
    return FleetOption(**{**fields, "devices": devices})


def fleets_by_load(
    scenario: Scenario, device: DeviceSpec, forecasts: Forecasts, recorded_s: Times | None = None
) -> dict[float, FleetOption]:
    """The fleet that each load of the shift calendar needs; nothing where loads are alike."""
    levels = sorted({load for _, load in scenario.demand.hours_at_load})
    if len(levels) < 2 or scenario.stages or scenario.demand.growth_per_year:
        return {}
    fleets = {
        load: option_of(
            changed(scenario, demand=up_to(scenario.demand, load)), device, forecasts, recorded_s
        )
        for load in levels
    }
    return {} if any(option.reason for option in fleets.values()) else fleets


def up_to(demand: Demand, load: float) -> Demand:
    """What of the demand a fleet for that load serves: all of lower loads, its part of higher."""
    part = scaled(demand, load)
    fields = {name: getattr(part, name) for name in Demand.model_fields}
    shifts = tuple(
        Shift(**{**dict(shift), "load": min(shift.load, load) / load}) for shift in demand.shifts
    )
    return Demand(**{**fields, "shifts": shifts})


def rent_by_load(
    scenario: Scenario, rate: HourlyRate, needed: Mapping[float, int], has_staff: bool = True
) -> Ownership | Unknown:
    """Renting, in the hours of each load, as many devices as it needs. Else paid once only."""
    years, calendar = scenario.finance.horizon_years, scenario.demand.hours_at_load
    # The people and the line to the cloud are paid once, with the first of the rented hours.
    alone = scenario if has_staff else changed(scenario, finance=_without_staff(scenario.finance))
    unwired = changed(
        scenario,
        finance=_without_staff(scenario.finance),
        cloud=CloudTerms(
            network_s=scenario.cloud.network_s, support_share=scenario.cloud.support_share
        ),
    )
    lines: dict[str, CostLine] = {}
    said: tuple[str, ...] = ()
    for hours, load in calendar:
        if not needed[load]:
            continue
        of = unwired if lines else alone
        cost = rented(of, rate, [needed[load]] * years, 0.0, hours=[hours] * years)
        if isinstance(cost, Unknown):
            return cost
        said = said or cost.assumptions
        for line in cost.lines:
            lines[line.name] = added(lines[line.name], line) if line.name in lines else line
    return summed(tuple(lines.values()), images_of(scenario), scenario.site, scenario.finance, said)


def _without_staff(finance: Finance) -> Finance:
    fields = {name: getattr(finance, name) for name in Finance.model_fields}
    return Finance(**{**fields, "staff_per_year": Decimal(0)})


def images_of(scenario: Scenario) -> float:
    """Images of all years."""
    return sum(demand.images_per_year for demand in demands_of(scenario))


def added(ours: CostLine, theirs: CostLine) -> CostLine:
    """Two lines of one name as one."""
    return CostLine(
        name=ours.name,
        amount=ours.amount + theirs.amount,
        low=ours.low + theirs.low,
        high=ours.high + theirs.high,
        how=f"{ours.how}; {theirs.how}"[:2000],
        by_year=tuple(map(sum, zip(ours.by_year, theirs.by_year, strict=True))),  # type: ignore[arg-type]
    )
