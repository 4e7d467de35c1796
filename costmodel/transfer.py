"""From fits to a prediction for any device: how long, how sure, how much memory and energy. Pure."""

import math
from collections.abc import Sequence

from costmodel.capping import Held, slowed
from costmodel.certainty import Stages, stages_of
from costmodel.discrepancy import factors_of
from costmodel.energy import energy_j_per_image, power_w, share_drawn
from costmodel.latency import shares_s
from costmodel.memory import fit_probability, peak_estimate
from costmodel.operators import Operator
from costmodel.reach import Reach, check_coefficients, reach_of, setting_for
from costmodel.work import groups_of
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.prediction import Bound, OperatorCost, Prediction, Refusal
from domain.record import Estimate, Unknown
from domain.units import shown
from domain.workload import Workload

# Half-width of a 90 % normal interval, in spreads.
NORMAL_90 = 1.645
# Spread for each factor e by which a workload leaves the fitted range.
EXTRAPOLATION_LOG_SD = 0.12
# Up to where a CPU's fit was judged to keep what it promises of sizes over those that it has seen:
# batches of 32 after 2, width 384 after 256 (`costmodel.splits`). Beyond nobody knows.
JUDGED_UP_TO = {"batch": 32.0, "width": 384.0}
# Below this chance of fitting in memory there is no prediction; below the other, a warning.
LEAST_FIT, SAFE_FIT = 0.01, 0.9
# Boards have slower host cores than the servers and desktops whose launch costs were fitted: this
# much more spread where launches are all that bounds.
EDGE_HOST_LOG_SD = 0.5


def forecast(workload: Workload, device: DeviceSpec, fits: Sequence[Fit]) -> Prediction | Refusal:
    """What `workload` takes on `device`, by the nearest of `fits`; or why nobody can say."""
    reach = reach_of(workload, device, fits)
    if isinstance(reach, Refusal):
        return reach
    check_coefficients(reach.fit)
    coefficients = {each.name: each.value for each in reach.fit.coefficients}
    groups = groups_of(workload, host_runs_ahead=reach.machine.host_runs_ahead)
    setting = setting_for(workload, reach.fit)
    factors = factors_of(reach.fit.discrepancy, groups, setting)
    shares = shares_s(groups, reach.machine, coefficients, factors)
    total_s = math.fsum(seconds for _, seconds, _ in shares)
    far = extrapolation(workload, reach.fit)
    host_share = math.fsum(s for _, s, bound in shares if bound == "host") / total_s
    is_other_host = device.device_class == "edge" and reach.fit.scope == "class"
    host_log_sd = EDGE_HOST_LOG_SD * host_share * is_other_host
    stages = stages_of(
        groups, reach.machine, coefficients, reach.fit.covariance, reach.fit.discrepancy, setting,
        has_neighbours=reach.fit.scale is not None,
    )  # fmt: skip
    log_sd = math.hypot(
        _own_log_sd(reach.fit, stages, unjudged(workload, reach.fit)),
        reach.fit.device_log_sd,
        0.0 if device.is_measured else reach.fit.rates_log_sd,
        reach.fit.drift_log_sd,
        reach.extra_log_sd,
        host_log_sd,
    )
    latency = _held_apart(log_normal(total_s, log_sd), reach.held)
    power = _power(device, reach, shares, total_s)
    peak = peak_estimate(workload)
    fits_in = fit_probability(peak, device)
    if isinstance(fits_in, float) and fits_in < LEAST_FIT:
        return _too_large(peak, device)
    assumptions = list(reach.assumptions)
    if reach.fit.drift_log_sd > reach.fit.residual_log_sd:
        drift = math.expm1(NORMAL_90 * reach.fit.drift_log_sd)
        assumptions.append(
            f"that machine is shared: its own speed wanders by ±{drift:.0%} from run to run, which "
            "is in the interval"
        )
    if isinstance(fits_in, float) and fits_in < SAFE_FIT:
        assumptions.append(f"may not fit in the device's memory: P(fits) is {fits_in:.0%}")
    if is_other_host and host_share > 0.1:
        assumptions.append(
            "launch costs are those of server and desktop hosts; a board's cores may be slower"
        )
    if isinstance(power, Estimate):
        assumptions.append(
            "energy and power are modelled from the power limit (GenZ's shares), not measured"
        )
    if far:
        assumptions.append(
            "outside the fitted range in " + ", ".join(far) + "; the interval is wider for it"
        )
    return Prediction(
        workload=workload,
        device_id=device.id,
        device_name=device.name,
        tier=reach.tier,
        tier_reason=reach.reason,
        latency_s=latency,
        throughput_img_per_s=latency.inverse_of(workload.batch),
        peak_memory_bytes=peak,
        energy_j_per_image=power
        if isinstance(power, Unknown)
        else energy_j_per_image(power, latency, workload.batch),
        power_w=power,
        fits_in_memory=fits_in,
        operators=_costs(shares),
        bound=_bound_of(shares),
        fit_name=reach.fit.name,
        is_extrapolated=bool(far),
        assumptions=tuple(assumptions),
    )


def _too_large(peak: Estimate, device: DeviceSpec) -> Refusal:
    has = "" if isinstance(device.memory_bytes, Unknown) else shown(device.memory_bytes.value, "B")
    return Refusal(
        device_id=device.id,
        reason=f"does not fit in memory: needs about {shown(peak.value, 'B')}, {device.name} has "
        f"{has}; use a smaller batch, image or model",
    )


def log_normal(value: float, log_sd: float) -> Estimate:
    """A positive value with the 90 % interval of a log-normal of that spread."""
    factor = math.exp(NORMAL_90 * log_sd)
    return Estimate(value=value, low=value / factor, high=value * factor)


def extrapolation(workload: Workload, fit: Fit) -> dict[str, float]:
    """Features of `workload` outside the fitted range, and how many factors of e outside."""
    features = features_of(workload)
    distances = {
        name: max(math.log(low / features[name]), math.log(features[name] / high))
        for name, low, high in fit.domain
        if name in features
    }
    return {name: distance for name, distance in distances.items() if distance > 1e-9}


def features_of(workload: Workload) -> dict[str, float]:
    """What says how far a workload is from another: width, tokens of an image, batch."""
    net = workload.architecture
    return {
        "width": float(net.width),
        "tokens": float(net.tokens),
        "batch": float(workload.batch),
    }


def unjudged(workload: Workload, fit: Fit) -> float:
    """Factors of e that `workload` lies beyond what the fit has seen and, for a CPU's own, was judged at.

    It was judged at one feature at a time, upwards.
    """
    far = extrapolation(workload, fit)
    if fit.scale is None or fit.device_class != "cpu" or len(far) != 1:
        return sum(far.values())
    [(name, distance)] = far.items()
    value = features_of(workload)[name]
    high = next(most for each, _, most in fit.domain if each == name)
    if value < high or name not in JUDGED_UP_TO:
        return distance
    return max(math.log(value / max(high, JUDGED_UP_TO[name])), 0.0)


def _own_log_sd(fit: Fit, stages: Stages, away: float) -> float:
    """How sure the fit is of a batch on what it was fitted to.

    One machine's fit knows where it has seen nothing like it, and by how much it promises too much or
    too little. Another fit knows its coefficients; what is left over does not say where.
    """
    own = (
        math.hypot(stages.coefficients_log_sd, fit.residual_log_sd)
        if fit.scale is None
        else fit.scale * stages.whole_log_sd
    )
    return math.hypot(own, EXTRAPOLATION_LOG_SD * away)


def _power(
    device: DeviceSpec,
    reach: Reach,
    shares: Sequence[tuple[Operator, float, Bound]],
    total_s: float,
) -> Estimate | Unknown:
    clock = 1.0 if reach.held is None else reach.held.clock
    work = [operator for operator, _, _ in shares]
    return power_w(device, share_drawn(work, slowed(reach.machine, 1 / clock), total_s, clock))


def _held_apart(latency: Estimate, held: Held | None) -> Estimate:
    """The interval with what nobody knows of the power that a device under a cap would draw.

    The two are independent: their spreads add up in squares, at each end.
    """
    if held is None:
        return latency
    down = math.hypot(math.log(latency.value / latency.low), math.log(held.faster))
    up = math.hypot(math.log(latency.high / latency.value), math.log(held.slower))
    value = latency.value
    return Estimate(value=value, low=value / math.exp(down), high=value * math.exp(up))


def _costs(shares: Sequence[tuple[Operator, float, Bound]]) -> tuple[OperatorCost, ...]:
    return tuple(
        OperatorCost(
            stage=operator.stage,
            name=operator.name,
            flop=operator.flop,
            bytes_moved=operator.weight_bytes + operator.moved_bytes,
            calls=operator.calls,
            latency_s=seconds,
            bound=bound,
        )
        for operator, seconds, bound in shares
    )


def _bound_of(shares: Sequence[tuple[Operator, float, Bound]]) -> Bound:
    seconds: dict[Bound, float] = {}
    for _, own_s, bound in shares:
        seconds[bound] = seconds.get(bound, 0.0) + own_s
    return max(seconds, key=lambda bound: seconds[bound])
