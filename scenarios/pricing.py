"""What a sized fleet costs, in the hosts that pay best. Pure: counts in, an option of a plan out."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from costmodel.drawn import power_of
from costmodel.ownership import Use, ownership_of
from domain.device import DeviceSpec
from domain.prediction import Prediction
from domain.record import Estimate, Unknown
from domain.scenario import Demand, FleetOption, Host, Ownership, Scenario
from scenarios.candidates import Candidate
from scenarios.demand import load_share
from scenarios.fleet import Fleet, least_for_load, utilisation
from scenarios.limits import filled_with, racks_exceeded
from scenarios.placing import Placement, placements_of

NOT_REPLAYED = "not followed image by image"
NO_LATENCY = "offline work is promised throughput, no latency"
ROUNDED_MONEY = Decimal("1.000001")


def busiest_of(fleets: Mapping[Demand, Fleet]) -> Demand:
    """The demand that needs the most servers a site; of those, the one that loads them most."""
    return max(fleets, key=lambda each: (fleets[each].servers, each.peak_img_per_s, each.sites))


def priced(
    scenario: Scenario,
    device: DeviceSpec,
    candidate: Candidate,
    fleets: Mapping[Demand, Fleet],
    host: Host,
) -> FleetOption | str:
    """Fleets of every demand of the horizon as one option, or why the racks do not hold them.

    How surely it keeps the promise, and whether at full depth too, is not asked here.
    """
    best, why_not = None, ""
    counts = {demand: fleet.servers for demand, fleet in fleets.items()}
    for placement in placements_of(counts, scenario.promise, host):
        found = _placed(scenario, device, candidate, fleets, placement, host)
        if isinstance(found, str):
            why_not = found
        elif best is None or in_order(found) < in_order(best):
            best = found
    return best or why_not


def _placed(
    scenario: Scenario,
    device: DeviceSpec,
    candidate: Candidate,
    fleets: Mapping[Demand, Fleet],
    placement: Placement,
    host: Host,
) -> FleetOption | str:
    """The fleets in hosts filled so far, or why the racks do not hold them."""
    promise, demands, busiest = scenario.promise, demands_of(scenario), busiest_of(fleets)
    places, host = host.devices_per_host, filled_with(host, placement.per_host)
    fleet = fleets[busiest]
    per_site, in_hosts = placement.devices[busiest], placement.hosts[busiest]
    exceeded = racks_exceeded(per_site, in_hosts, device, host, scenario.site)
    if exceeded:
        return exceeded
    uses = [
        Use(
            devices=demand.sites * placement.devices[demand],
            sites=demand.sites,
            images=demand.images_per_year,
            busy_share=busy_share(demand, candidate, fleets[demand], placement.devices[demand]),
        )
        for demand in demands
    ]
    # What is bought is for the year with the most devices; the promise is of the busiest site.
    most = max(
        demands,
        key=lambda each: (
            each.sites * placement.devices[each],
            each.sites,
            fleets[each].servers,
        ),
    )
    total, hosts = most.sites * placement.devices[most], max(use.hosts(host) for use in uses)
    return FleetOption(
        device_id=device.id,
        device_name=device.name,
        device_class=device.device_class,
        devices=total,
        utilisation=fleet.utilisation,
        p99_latency_s=Unknown(reason=NO_LATENCY) if busiest.arrivals == "offline" else _p99(fleet),
        tier=candidate.prediction.tier,
        ownership=_owned(scenario, device, candidate, uses, host),
        batch=candidate.batch,
        batch_limit_s=candidate.promised.full_s * candidate.promised.factor(promise.confidence),
        sites=most.sites,
        servers=fleet.servers,
        servers_by_year=tuple(fleets[demand].servers for demand in demands),
        spares=placement.devices[most] - fleets[most].servers,
        hosts=hosts,
        devices_per_host=placement.per_host,
        host_places=places,
        peak_power_w=_peak_w(device, candidate.prediction, total, hosts, host),
        replayed_p99_s=fleet.replayed_p99_s or Unknown(reason=NOT_REPLAYED),
        notes=_notes(scenario, fleets, demands, fleet),
        meets_full_depth=False,
    )


def _owned(
    scenario: Scenario,
    device: DeviceSpec,
    candidate: Candidate,
    uses: Sequence[Use],
    host: Host,
) -> Ownership | Unknown:
    return ownership_of(
        device=device,
        devices=max(use.devices for use in uses),
        images_per_year=scenario.demand.images_per_year,
        busy_share=uses[0].busy_share,
        busy_power_w=candidate.prediction.power_w,
        site=scenario.site,
        finance=scenario.finance,
        host=host,
        years=uses,
    )


def least_cost(
    scenario: Scenario, device: DeviceSpec, candidate: Candidate, host: Host
) -> Decimal | None:
    """What no fleet of that batch costs less than: as few devices as bear the load, always idle.

    None where that is not known, or where money is worth more later and dearer may be cheaper.
    """
    promise, demands = scenario.promise, demands_of(scenario)
    if scenario.finance.discount_rate < 0:
        return None
    latency_s = candidate.promised.full_s * candidate.promised.factor(promise.confidence)
    fewest: dict[Demand, int] = {}
    for demand in demands:
        servers = least_for_load(demand, promise, latency_s, candidate.batch)
        if servers is None:
            return None
        fewest[demand] = servers
    idle, costs = Estimate(value=0.0, low=0.0, high=0.0), []
    for placement in placements_of(fewest, promise, host):
        uses = [
            Use(
                devices=demand.sites * placement.devices[demand],
                sites=demand.sites,
                images=demand.images_per_year,
                busy_share=idle,
            )
            for demand in demands
        ]
        cost = _owned(scenario, device, candidate, uses, filled_with(host, placement.per_host))
        if isinstance(cost, Unknown):
            return None
        costs.append(cost.total)
    return min(costs)


def is_dearer(bound: Decimal | None, option: FleetOption) -> bool:
    """Whether a fleet of that cost or more is surely not the better one; cents may be rounding."""
    cost = option.ownership
    return bound is not None and isinstance(cost, Ownership) and bound > cost.total * ROUNDED_MONEY


def in_order(option: FleetOption) -> tuple[int, Decimal]:
    """Cheapest first, then those without a price by their devices, the refused last."""
    if option.reason:
        return 2, Decimal(0)
    if isinstance(option.ownership, Unknown):
        return 1, Decimal(option.devices)
    return 0, option.ownership.total


def demands_of(scenario: Scenario) -> tuple[Demand, ...]:
    """The demand of each year of the horizon."""
    return tuple(scenario.demand_in(year) for year in range(1, scenario.finance.horizon_years + 1))


def _p99(fleet: Fleet) -> float:
    """By closed form; as replayed where the closed form sees a queue without end."""
    if fleet.p99_latency_s < float("inf") or fleet.replayed_p99_s is None:
        return fleet.p99_latency_s
    return fleet.replayed_p99_s.value


def _notes(
    scenario: Scenario, fleets: Mapping[Demand, Fleet], demands: Sequence[Demand], fleet: Fleet
) -> tuple[str, ...]:
    notes = []
    counts = [fleets[demand].servers for demand in demands]
    if len(set(counts)) > 1 or len({demand.sites for demand in demands}) > 1:
        grown = ", ".join(
            f"year {year}: {demand.sites} × {count}"
            for year, (demand, count) in enumerate(zip(demands, counts, strict=True), start=1)
        )
        notes.append(f"devices that serve, sites × devices: {grown}")
    if fleet.p99_latency_s > scenario.promise.p99_latency_s and fleet.replayed_p99_s is not None:
        notes.append("sized by the replay: the closed form, a bound, would ask for more devices")
    return tuple(notes)


def busy_share(demand: Demand, candidate: Candidate, fleet: Fleet, devices: int) -> Estimate:
    """Share of all hours of a year in which each of `devices` is busy, spares among them.

    The middle is as replayed at likely latencies; the ends are full batches at the shortest, and
    batches of one at the longest where arrivals are at random.
    """
    loaded, share = candidate.loaded, load_share(demand)
    latency = candidate.prediction.latency_s
    full = utilisation(demand, loaded.full_s, loaded.batch, devices)
    singly = (
        full
        if demand.arrivals in ("takt", "offline")
        else utilisation(demand, loaded.seconds[0], 1, devices)
    )
    middle = full
    if fleet.busy_share is not None:
        over_typical = loaded.full_s / candidate.promised.full_s
        middle = fleet.busy_share * over_typical * fleet.servers / devices
    low = min(1.0, share * min(full, middle) * latency.low / latency.value)
    high = min(1.0, share * max(full, singly, middle) * latency.high / latency.value)
    return Estimate(value=min(max(low, share * middle), high), low=low, high=high)


def _peak_w(
    device: DeviceSpec, prediction: Prediction, devices: int, hosts: int, host: Host
) -> float | Unknown:
    power = power_of(device, prediction.power_w)
    if isinstance(power, Unknown):
        return power
    return devices * power.peak_w.value + hosts * host.power_w
