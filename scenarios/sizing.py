"""How many of each device keep the promise, and what that fleet costs. Pure: values in, a plan out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from costmodel.drawn import power_of
from costmodel.ownership import Use, hosts_of, ownership_of
from domain.device import DeviceSpec
from domain.prediction import Prediction, Refusal
from domain.record import Estimate, Unknown
from domain.scenario import (
    Assumption,
    Demand,
    FleetOption,
    Host,
    Plan,
    Promise,
    Scenario,
)
from scenarios.demand import Times, load_share
from scenarios.fleet import (
    MOST_DEVICES,
    REPLAYED_IMAGES,
    Fleet,
    described,
    fleet_of,
    promise_probability,
    queue_of,
    utilisation,
)
from scenarios.limits import host_within, racks_exceeded, spares_for
from scenarios.service import Service, mixed, service_of

# Below this share of belief that it fits in memory, a device is refused.
LEAST_FIT = 0.9


@dataclass(frozen=True, kw_only=True)
class Forecasts:
    """What one device is predicted to take, by batch: as routed, and with all tokens everywhere.

    A refusal stands where nothing can be said of a batch.
    """

    routed: Mapping[int, Prediction | Refusal]
    full: Mapping[int, Prediction | Refusal]

    @classmethod
    def of_one(
        cls, routed: Prediction | Refusal, full: Prediction | Refusal | None = None
    ) -> "Forecasts":
        """Of one batch alone."""
        batch = routed.workload.batch if isinstance(routed, Prediction) else 1
        return cls(routed={batch: routed}, full={} if full is None else {batch: full})


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One batch on one device: its service as it is loaded, as promised, and at full depth."""

    batch: int
    prediction: Prediction
    loaded: Service
    promised: Service
    full: Service | None


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
        options=tuple(sorted(options, key=_order)),
        made_by=made_by,
        assumptions=tuple(assumptions),
    )


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
    best: FleetOption | None = None
    for candidate in candidates:
        most = MOST_DEVICES if best is None else best.servers
        found = _sized(scenario, device, candidate, host, most, recorded_s, is_replayed)
        if isinstance(found, str):
            why_not = (candidate.prediction.tier, found)
        elif best is None or _order(found) < _order(best):
            best = found
    return best or _refused(device, *why_not)


def candidates_of(
    scenario: Scenario, forecasts: Forecasts
) -> tuple[list[Candidate], tuple[str, str]]:
    """Batches that fit, largest first; or the tier and the reason where none does."""
    found: list[Candidate] = []
    why_not = ("refused", "no prediction was made")
    routed = {b: each for b, each in forecasts.routed.items() if isinstance(each, Prediction)}
    full = {b: each for b, each in forecasts.full.items() if isinstance(each, Prediction)}
    for batch in sorted(forecasts.routed, reverse=True):
        prediction = forecasts.routed[batch]
        if isinstance(prediction, Refusal):
            why_not = ("refused", prediction.reason)
            continue
        fits = prediction.fits_in_memory
        if not isinstance(fits, Unknown) and fits < LEAST_FIT:
            reason = f"a batch of {batch} fits in memory with a probability of {fits:.0%} only"
            why_not = (prediction.tier, reason)
            continue
        typical = service_of(routed, batch)
        at_full = service_of(full, batch) if batch in full else None
        if at_full is None and (scenario.routing.hold_at_full_depth or _falls_back(scenario)):
            refusal = forecasts.full.get(batch)
            reason = refusal.reason if isinstance(refusal, Refusal) else "no prediction was made"
            why_not = (prediction.tier, f"nothing is known of it at full depth: {reason}")
            continue
        loaded = typical
        if at_full is not None:
            loaded = mixed(typical, at_full, scenario.routing.fallback_share)
        is_worst = at_full is not None and scenario.routing.hold_at_full_depth
        found.append(
            Candidate(
                batch=batch,
                prediction=prediction,
                loaded=loaded,
                promised=at_full if is_worst and at_full is not None else typical,
                full=at_full,
            )
        )
    return found, why_not


def _falls_back(scenario: Scenario) -> bool:
    return scenario.routing.fallback_share > 0


def _sized(
    scenario: Scenario,
    device: DeviceSpec,
    candidate: Candidate,
    host: Host,
    most: int,
    recorded_s: Times | None,
    is_replayed: bool,
) -> FleetOption | str:
    """The fleet of one batch, with what it costs over the years, or why there is none."""
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
    return priced(scenario, device, candidate, fleets, host, recorded_s, is_replayed=is_replayed)


def priced(
    scenario: Scenario,
    device: DeviceSpec,
    candidate: Candidate,
    fleets: Mapping[Demand, Fleet],
    host: Host,
    recorded_s: Times | None = None,
    *,
    is_replayed: bool = True,
) -> FleetOption | str:
    """Fleets of every demand of the horizon as one option, or why the racks do not hold them."""
    promise, demands = scenario.promise, demands_of(scenario)
    busiest = max(fleets, key=lambda each: (fleets[each].servers, each.sites))
    fleet = fleets[busiest]
    spares = {each: spares_for(fleets[each].servers, promise) for each in fleets}
    per_site = fleet.servers + spares[busiest]
    in_hosts = hosts_of(per_site, host)
    exceeded = racks_exceeded(per_site, in_hosts, device, host, scenario.site)
    if exceeded:
        return exceeded
    uses = [
        Use(
            devices=demand.sites * (fleets[demand].servers + spares[demand]),
            sites=demand.sites,
            images=demand.images_per_year,
            busy_share=busy_share(demand, candidate, fleets[demand], spares[demand]),
        )
        for demand in demands
    ]
    total = max(use.devices for use in uses)
    cost = ownership_of(
        device=device,
        devices=total,
        images_per_year=scenario.demand.images_per_year,
        busy_share=uses[0].busy_share,
        busy_power_w=candidate.prediction.power_w,
        site=scenario.site,
        finance=scenario.finance,
        host=host,
        years=uses,
    )
    images = _images(is_replayed)
    queue = queue_of(busiest, promise, candidate.promised, recorded_s, images=images)
    keeps, full_p99_s = _at_full_depth(
        busiest, promise, candidate, fleet.servers, recorded_s, images
    )
    hosts = busiest.sites * in_hosts
    return FleetOption(
        device_id=device.id,
        device_name=device.name,
        devices=total,
        utilisation=fleet.utilisation,
        p99_latency_s=_p99(fleet),
        tier=candidate.prediction.tier,
        ownership=cost,
        batch=candidate.batch,
        batch_limit_s=candidate.promised.full_s * queue.factor,
        sites=busiest.sites,
        servers=fleet.servers,
        spares=spares[busiest],
        hosts=hosts,
        peak_power_w=_peak_w(device, candidate.prediction, total, hosts, host),
        promise_probability=promise_probability(queue, fleet.servers),
        replayed_p99_s=fleet.replayed_p99_s or Unknown(reason=NOT_REPLAYED),
        notes=(
            *_notes(scenario, fleets, demands, fleet),
            *([ONE_HOST] if in_hosts == 1 and per_site > fleet.servers else []),
        ),
        meets_full_depth=keeps,
        full_depth_p99_s=full_p99_s,
    )


NOT_REPLAYED = "not followed image by image"
ONE_HOST = "all devices of a site sit in one host: where it fails, the spares fail with it"


def _images(is_replayed: bool) -> int:
    return REPLAYED_IMAGES if is_replayed else 0


def demands_of(scenario: Scenario) -> tuple[Demand, ...]:
    """The demand of each year of the horizon."""
    return tuple(scenario.demand_in(year) for year in range(1, scenario.finance.horizon_years + 1))


def _p99(fleet: Fleet) -> float:
    """By closed form; as replayed where the closed form sees a queue without end."""
    if fleet.p99_latency_s < float("inf") or fleet.replayed_p99_s is None:
        return fleet.p99_latency_s
    return fleet.replayed_p99_s.value


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


def busy_share(demand: Demand, candidate: Candidate, fleet: Fleet, spares: int) -> Estimate:
    """Share of all hours of a year in which a device is busy, the mean over spares too.

    The middle is as replayed at likely latencies; the ends are full batches at the shortest, and
    batches of one at the longest where arrivals are at random.
    """
    loaded, share = candidate.loaded, load_share(demand)
    latency = candidate.prediction.latency_s
    devices = fleet.servers + spares
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


def _refused(device: DeviceSpec, tier: str, reason: str) -> FleetOption:
    return FleetOption(
        device_id=device.id,
        device_name=device.name,
        devices=0,
        utilisation=0.0,
        p99_latency_s=0.0,
        meets_full_depth=False,
        tier=tier,
        ownership=Unknown(reason=f"no fleet to price: {reason}"),
        reason=reason,
    )


def _order(option: FleetOption) -> tuple[int, Decimal]:
    if option.reason:
        return 2, Decimal(0)
    if isinstance(option.ownership, Unknown):
        return 1, Decimal(option.devices)
    return 0, option.ownership.total
