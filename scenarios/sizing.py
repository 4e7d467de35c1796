"""How many of each device keep the promise, and what that fleet costs. Pure: values in, a plan out."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from domain.device import DeviceSpec
from domain.prediction import Refusal
from domain.record import Unknown
from domain.scenario import (
    Assumption,
    Demand,
    FleetOption,
    Host,
    Plan,
    Promise,
    Scenario,
)
from scenarios.candidates import Candidate, Forecasts, candidates_of
from scenarios.demand import Times
from scenarios.fleet import (
    MOST_DEVICES,
    REPLAYED_IMAGES,
    Fleet,
    described,
    fleet_of,
    promise_probability,
    queue_of,
)
from scenarios.limits import host_within
from scenarios.pricing import busiest_of, demands_of, in_order, is_dearer, least_cost, priced


def plan_of(
    scenario: Scenario,
    forecasts: Mapping[str, Forecasts],
    devices: Mapping[str, DeviceSpec],
    made_by: str,
    recorded_s: Times | None = None,
    assumptions: Sequence[Assumption] = (),
    *,
    is_replayed: bool = True,
) -> Plan:
    """Every device of `devices` as a fleet with its cost: cheapest first, the refused last.

    A fleet that keeps the promise but has no known price comes after those that have. Without
    replay the closed forms alone decide: quicker, and never fewer devices.
    """
    nothing = Refusal(device_id="none", reason="no prediction was made")
    options = [
        option_of(
            scenario,
            device,
            forecasts.get(name, Forecasts.of_one(nothing)),
            recorded_s,
            is_replayed=is_replayed,
        )
        for name, device in devices.items()
    ]
    return Plan(
        scenario=scenario,
        options=tuple(sorted(options, key=in_order)),
        made_by=made_by,
        assumptions=tuple(assumptions),
    )


def cheapest_of(
    scenario: Scenario, forecasts: Mapping[str, Forecasts], devices: Mapping[str, DeviceSpec]
) -> tuple[FleetOption, ...]:
    """Options as in a plan, but only until it is known that no other device can be the cheapest."""

    def bound(name: str) -> Decimal | None:
        device = devices[name]
        host = host_within(scenario.hosts.of(device.device_class), device)
        if isinstance(host, str):
            return None
        candidates, _ = candidates_of(scenario, forecasts[name])
        costs = [least_cost(scenario, device, each, host) for each in candidates]
        known = [each for each in costs if each is not None]
        return min(known) if known and len(known) == len(costs) else None

    bounds = {name: bound(name) for name in devices}
    found: dict[str, FleetOption] = {}
    for name in sorted(devices, key=lambda each: bounds[each] or Decimal(0)):
        if not any(is_dearer(bounds[name], option) for option in found.values()):
            found[name] = option_of(scenario, devices[name], forecasts[name])
    # Alike ones in the order of the devices, as in a plan.
    return tuple(sorted((found[name] for name in devices if name in found), key=in_order))


def option_of(
    scenario: Scenario,
    device: DeviceSpec,
    forecasts: Forecasts,
    recorded_s: Times | None = None,
    *,
    is_replayed: bool = True,
) -> FleetOption:
    """The least-cost fleet of one device that keeps the promise, or why there is none."""
    host = host_within(scenario.hosts.of(device.device_class), device)
    if isinstance(host, str):
        return _refused(device, "refused", host)
    candidates, why_not = candidates_of(scenario, forecasts)
    if not candidates:
        return _refused(device, *why_not)
    best: tuple[FleetOption, Candidate, Demand] | None = None
    for candidate in candidates:
        most = MOST_DEVICES if best is None else best[0].servers
        if (
            best is not None
            and is_replayed
            and is_dearer(least_cost(scenario, device, candidate, host), best[0])
        ):
            continue
        found = _sized(scenario, device, candidate, host, most, recorded_s, is_replayed)
        if isinstance(found, str):
            why_not = (candidate.prediction.tier, found)
        elif best is None or in_order(found[0]) < in_order(best[0]):
            best = (found[0], candidate, found[1])
    if best is None:
        return _refused(device, *why_not)
    return _proved(scenario, *best, recorded_s, _images(is_replayed))


def _sized(
    scenario: Scenario,
    device: DeviceSpec,
    candidate: Candidate,
    host: Host,
    most: int,
    recorded_s: Times | None,
    is_replayed: bool,
) -> tuple[FleetOption, Demand] | str:
    """The fleet of one batch, what it costs, and its busiest demand; or why there is none."""
    fleets: dict[Demand, Fleet] = {}
    # The busiest year first: what it needs is what every other year can do with.
    for demand in sorted(set(demands_of(scenario)), key=lambda each: -each.peak_img_per_s):
        queue = queue_of(
            demand, scenario.promise, candidate.promised, recorded_s, images=_images(is_replayed)
        )
        found = fleet_of(queue, most)
        if isinstance(found, str):
            if not fleets:
                return found
            # Drawn arrivals of a quieter year may ask for one more than those of a busier one.
            found = described(queue, most)
        fleets[demand] = found
        most = found.servers
    option = priced(scenario, device, candidate, fleets, host)
    return option if isinstance(option, str) else (option, busiest_of(fleets))


def _proved(
    scenario: Scenario,
    option: FleetOption,
    candidate: Candidate,
    busiest: Demand,
    recorded_s: Times | None,
    images: int,
) -> FleetOption:
    """The option with how surely it keeps its promise, and whether at full depth too."""
    promise = scenario.promise
    queue = queue_of(busiest, promise, candidate.promised, recorded_s, images=images)
    keeps, full_p99_s = _at_full_depth(
        busiest, promise, candidate, option.servers, recorded_s, images
    )
    fields = {name: getattr(option, name) for name in FleetOption.model_fields}
    return FleetOption(
        **{
            **fields,
            "promise_probability": promise_probability(queue, option.servers),
            "meets_full_depth": keeps,
            "full_depth_p99_s": full_p99_s,
        }
    )


def _images(is_replayed: bool) -> int:
    return REPLAYED_IMAGES if is_replayed else 0


def _at_full_depth(
    demand: Demand,
    promise: Promise,
    candidate: Candidate,
    servers: int,
    recorded_s: Times | None,
    images: int,
) -> tuple[bool, float | Unknown]:
    """Whether the fleet keeps its promise where every token goes everywhere, and its p99 there."""
    if candidate.full is None:
        return False, Unknown(reason="no prediction was made at full depth")
    queue = queue_of(demand, promise, candidate.full, recorded_s, images=images)
    fleet = described(queue, servers)
    p99_s = fleet.replayed_p99_s.value if fleet.replayed_p99_s else fleet.p99_latency_s
    if fleet.utilisation > 1 or p99_s == float("inf"):
        return False, Unknown(reason="the queue grows without end")
    return demand.arrivals == "offline" or p99_s <= promise.p99_latency_s, p99_s


def _refused(device: DeviceSpec, tier: str, reason: str) -> FleetOption:
    return FleetOption(
        device_id=device.id,
        device_name=device.name,
        devices=0,
        utilisation=0.0,
        p99_latency_s=Unknown(reason=reason),
        meets_full_depth=False,
        tier=tier,
        ownership=Unknown(reason=f"no fleet to price: {reason}"),
        reason=reason,
    )
