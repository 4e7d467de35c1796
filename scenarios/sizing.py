"""How many of each device keep the promise, and what that fleet costs. Pure: values in, a plan out.

The latency that counts is the upper end of its interval: a fleet sized for the middle would break
its promise every other time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from costmodel.ownership import ownership_of
from domain.device import DeviceSpec
from domain.prediction import Prediction, Refusal
from domain.record import Estimate, Unknown
from domain.scenario import Demand, FleetOption, Ownership, Plan, Promise, Scenario
from domain.units import shown
from scenarios.demand import burst_of, bursts_per_s, running_share
from scenarios.queueing import batched_quantile_s, burst_latency_s

MOST_DEVICES = 100_000
# Below this share of belief that it fits in memory, a device is refused.
LEAST_FIT = 0.9
PROMISED_SHARE = 0.99


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Devices that serve, spares aside: the share of time each is busy, and its p99 latency."""

    servers: int
    utilisation: float
    p99_latency_s: float


def plan_of(
    scenario: Scenario,
    predictions: Mapping[str, Prediction | Refusal],
    full_depth: Mapping[str, Prediction | Refusal],
    devices: Mapping[str, DeviceSpec],
    made_by: str,
) -> Plan:
    """Every device of `devices` as a fleet with its cost: cheapest first, the refused last.

    `predictions` and `full_depth` are of one batch by device, as routed and with every token going
    everywhere. A fleet that keeps the promise but has no known price comes after those that have.
    """
    options = [
        option_of(
            scenario,
            device,
            predictions.get(name, Refusal(device_id=device.id, reason="no prediction was made")),
            full_depth.get(name),
        )
        for name, device in devices.items()
    ]
    return Plan(scenario=scenario, options=tuple(sorted(options, key=_order)), made_by=made_by)


def option_of(
    scenario: Scenario,
    device: DeviceSpec,
    prediction: Prediction | Refusal,
    full_depth: Prediction | Refusal | None,
) -> FleetOption:
    """The least fleet of one device that keeps the promise, or why there is none."""
    if isinstance(prediction, Refusal):
        return _refused(device, "refused", prediction.reason, latency_s=0.0)
    latency_s, batch = prediction.latency_s.high, prediction.workload.batch
    fits = prediction.fits_in_memory
    if not isinstance(fits, Unknown) and fits < LEAST_FIT:
        reason = f"a batch of {batch} fits in memory with a probability of {fits:.0%} only"
        return _refused(device, prediction.tier, reason, latency_s)
    variation = service_variation(prediction)
    fleet = least_fleet(scenario.demand, scenario.promise, latency_s, batch, variation)
    if isinstance(fleet, str):
        return _refused(device, prediction.tier, fleet, latency_s)
    return FleetOption(
        device_id=device.id,
        device_name=device.name,
        devices=fleet.servers + scenario.promise.spare_devices,
        utilisation=fleet.utilisation,
        p99_latency_s=fleet.p99_latency_s,
        meets_full_depth=isinstance(full_depth, Prediction)
        and keeps_promise(scenario.demand, scenario.promise, full_depth, fleet.servers),
        tier=prediction.tier,
        ownership=_cost(scenario, device, prediction, fleet),
    )


def least_fleet(
    demand: Demand, promise: Promise, latency_s: float, batch: int, variation: float
) -> Fleet | str:
    """The fewest devices that keep utilisation and p99, or in words why no number does."""
    if latency_s > promise.p99_latency_s:
        return (
            f"one batch of {batch} takes up to {shown(latency_s, 's')}, the promise is "
            f"{shown(promise.p99_latency_s, 's')}; a smaller batch may keep it"
        )

    def suffices(servers: int) -> bool:
        return (
            utilisation(demand, latency_s, batch, servers) <= promise.target_utilisation
            and p99_latency_s(demand, latency_s, batch, servers, variation) <= promise.p99_latency_s
        )

    servers = _least(suffices, MOST_DEVICES)
    if servers is None:
        return f"more than {MOST_DEVICES:,} devices would be needed"
    return Fleet(
        servers=servers,
        utilisation=utilisation(demand, latency_s, batch, servers),
        p99_latency_s=p99_latency_s(demand, latency_s, batch, servers, variation),
    )


def utilisation(demand: Demand, latency_s: float, batch: int, servers: int) -> float:
    """Share of the running time in which a device is busy, with batches as full as a burst allows.

    Random arrivals are taken as full batches: under load the queue fills them.
    """
    if demand.arrivals == "poisson":
        batches_per_s = demand.peak_img_per_s / batch
    else:
        batches_per_s = bursts_per_s(demand) * -(-burst_of(demand) // batch)
    return batches_per_s * latency_s / servers


def p99_latency_s(
    demand: Demand, latency_s: float, batch: int, servers: int, variation: float
) -> float:
    """Latency that 99 of 100 images keep: of the last of a burst, or of random arrivals.

    A burst that is not done before the next one leaves a queue that never ends: infinite.
    """
    if demand.arrivals == "poisson":
        return latency_s + batched_quantile_s(
            PROMISED_SHARE,
            demand.peak_img_per_s,
            servers,
            batch,
            latency_s,
            service_variation=variation,
        )
    last_s = burst_latency_s(burst_of(demand), servers, batch, latency_s)
    return last_s if last_s <= demand.period_s else float("inf")


def keeps_promise(demand: Demand, promise: Promise, prediction: Prediction, servers: int) -> bool:
    """Whether so many devices keep the p99, whatever their utilisation."""
    reached_s = p99_latency_s(
        demand,
        prediction.latency_s.high,
        prediction.workload.batch,
        servers,
        service_variation(prediction),
    )
    return reached_s <= promise.p99_latency_s


def service_variation(prediction: Prediction) -> float:
    """Squared coefficient of variation of the time of one image, from the depths of its tokens.

    The time of a recursion is taken as proportional to the tokens that enter it, where the
    executor computes only those; otherwise every image takes the same.
    """
    if prediction.workload.executor not in ("packed", "padded"):
        return 0.0
    routing, seconds = prediction.workload.routing, prediction.stages_s
    means = [share * routing.tokens for share in routing.survival]
    in_recursions = [seconds.get(f"recursion-{r}", 0.0) for r in range(1, len(means) + 1)]
    rest_s = sum(seconds.values()) - sum(in_recursions)
    times_s = [
        rest_s
        + sum(
            time_s * count / mean
            for time_s, count, mean in zip(in_recursions, row, means, strict=True)
            if mean
        )
        for row in routing.counts
    ]
    mean_s = sum(times_s) / len(times_s)
    spread = sum((time_s - mean_s) ** 2 for time_s in times_s) / len(times_s)
    return spread / mean_s**2 if mean_s else 0.0


def busy_share(scenario: Scenario, prediction: Prediction, fleet: Fleet) -> Estimate:
    """Share of all hours of a year in which a device is busy, the mean over spares too.

    The middle is for the likely latency and full batches; the upper end is for the longest, and
    for random arrivals each image then runs in a batch of its own.
    """
    demand, batch = scenario.demand, prediction.workload.batch
    devices = fleet.servers + scenario.promise.spare_devices
    seconds, least_batch = prediction.latency_s, 1 if demand.arrivals == "poisson" else batch
    low, value, high = (
        running_share(demand) * min(1.0, utilisation(demand, latency_s, size, devices))
        for latency_s, size in (
            (seconds.low, batch),
            (seconds.value, batch),
            (seconds.high, least_batch),
        )
    )
    return Estimate(value=value, low=low, high=high)


def _cost(
    scenario: Scenario, device: DeviceSpec, prediction: Prediction, fleet: Fleet
) -> Ownership | Unknown:
    return ownership_of(
        device=device,
        devices=fleet.servers + scenario.promise.spare_devices,
        images_per_year=scenario.demand.images_per_year,
        busy_share=busy_share(scenario, prediction, fleet),
        busy_power_w=prediction.power_w,
        site=scenario.site,
        finance=scenario.finance,
    )


def _refused(device: DeviceSpec, tier: str, reason: str, latency_s: float) -> FleetOption:
    return FleetOption(
        device_id=device.id,
        device_name=device.name,
        devices=0,
        utilisation=0.0,
        p99_latency_s=latency_s,
        meets_full_depth=False,
        tier=tier,
        ownership=Unknown(reason=f"no fleet to price: {reason}"),
        reason=reason,
    )


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


def _order(option: FleetOption) -> tuple[int, Decimal]:
    if option.reason:
        return 2, Decimal(0)
    if isinstance(option.ownership, Unknown):
        return 1, Decimal(0)
    return 0, option.ownership.total
