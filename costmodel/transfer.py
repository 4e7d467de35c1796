"""From fits to a prediction for any device: which fit speaks, how far it reaches, how sure it is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.discrepancy import FEATURES, features_of_group, log_correction
from costmodel.energy import energy_j_per_image, power_w
from costmodel.latency import COEFFICIENTS, group_s, shares_s
from costmodel.memory import fit_probability, peak_estimate
from costmodel.operators import Operator
from costmodel.work import Machine, Rates, Work, groups_of, measured_machine
from domain.catalogue import check_precision
from domain.complaint import CorruptFile
from domain.device import PEAK_OF, DeviceSpec
from domain.fit import Fit
from domain.prediction import Bound, OperatorCost, Prediction, Refusal
from domain.record import Estimate, Figure, Precision, Runtime, Tier, Unknown
from domain.units import shown
from domain.workload import Workload

# Half-width of a 90 % normal interval, in spreads.
NORMAL_90 = 1.645

# A runtime nobody measured for a class is taken for the nearest one, with this much more spread.
NEAREST_RUNTIME: dict[Runtime, tuple[Runtime, float]] = {
    "onnxruntime": ("compiled", 0.25),
    "openvino": ("compiled", 0.25),
}
# A precision that the fit has not seen, on the peak of its own units.
UNSEEN_PRECISION_LOG_SD = 0.25
# One that runs on the same units of the same device: half precision with and without autocast.
SAME_UNITS_PRECISION_LOG_SD = 0.12
# Spread for each factor e by which a workload leaves the fitted range.
EXTRAPOLATION_LOG_SD = 0.12
# Precisions whose peak is measured on a machine that no data sheet names.
MEASURED_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
# What the fits of a class and runtime rest on, where that is little.
THIN_EVIDENCE: dict[tuple[str, Runtime], str] = {
    ("gpu", "engine"): "engines of 2019 to 2023 were fitted: today's are likely faster",
    ("gpu", "compiled"): "one GPU with current software was fitted for compiled networks",
    ("cpu", "compiled"): "one CPU was fitted for compiled networks; the spread between is assumed",
    ("cpu", "eager"): "one CPU was measured; the spread between CPUs is assumed",
}
# Below this chance of fitting in memory there is no prediction; below the other, a warning.
LEAST_FIT, SAFE_FIT = 0.01, 0.9
# Boards have slower host cores than the servers and desktops whose launch costs were fitted: this
# much more spread where launches are all that bounds.
EDGE_HOST_LOG_SD = 0.5
# Executors and routings that the class fits (plain networks) have not seen: compaction, ragged
# attention (packed attention reached 0.72 of padded in one published H100 case).
UNSEEN_ROUTING_LOG_SD = 0.15


@dataclass(frozen=True, kw_only=True)
class Reach:
    """A fit that may speak for a workload on a device, and how far it must reach for it."""

    fit: Fit
    machine: Machine
    tier: Tier
    reason: str
    extra_log_sd: float
    assumptions: tuple[str, ...]


def forecast(workload: Workload, device: DeviceSpec, fits: Sequence[Fit]) -> Prediction | Refusal:
    """What `workload` takes on `device`, by the nearest of `fits`; or why nobody can say."""
    reach = reach_of(workload, device, fits)
    if isinstance(reach, Refusal):
        return reach
    check_coefficients(reach.fit)
    coefficients = {each.name: each.value for each in reach.fit.coefficients}
    groups = groups_of(workload, host_runs_ahead=reach.machine.host_runs_ahead)
    setting = setting_for(workload, reach.fit)
    factors = np.array(
        [
            math.exp(log_correction(reach.fit.discrepancy, features_of_group(group, setting)))
            for group in groups
        ]
    )
    shares = shares_s(groups, reach.machine, coefficients, factors)
    total_s = math.fsum(seconds for _, seconds, _ in shares)
    far = extrapolation(workload, reach.fit)
    host_share = math.fsum(s for _, s, bound in shares if bound == "host") / total_s
    is_other_host = device.device_class == "edge" and reach.fit.scope == "class"
    host_log_sd = EDGE_HOST_LOG_SD * host_share * is_other_host
    log_sd = math.sqrt(
        _coefficient_variance(groups, reach.machine, reach.fit, coefficients)
        + reach.fit.residual_log_sd**2
        + reach.fit.device_log_sd**2
        + reach.fit.drift_log_sd**2
        + reach.extra_log_sd**2
        + host_log_sd**2
        + sum(EXTRAPOLATION_LOG_SD * distance for distance in far.values()) ** 2
    )
    latency = log_normal(total_s, log_sd)
    power = _power(device, reach.machine, shares, total_s)
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


def setting_for(workload: Workload, fit: Fit) -> dict[str, float]:
    """What the operators of `workload` do not say and the residuals of `fit` depend on."""
    threads = 1 if fit.environment is None else fit.environment.threads
    return {"half": float(workload.precision != "fp32"), "threads": math.log2(threads)}


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


def reach_of(workload: Workload, device: DeviceSpec, fits: Sequence[Fit]) -> Reach | Refusal:
    """The nearest fit: this machine, then this device as published, then its class."""
    try:
        peak = device.peak_for(workload.precision)
    except ValueError as error:
        return Refusal(device_id=device.id, reason=str(error))
    runtime, runtime_log_sd = workload.runtime, 0.0
    usable = [fit for fit in fits if _speaks_for(fit, device, runtime, workload.precision)]
    assumptions: list[str] = []
    if not usable and runtime in NEAREST_RUNTIME:
        nearest, runtime_log_sd = NEAREST_RUNTIME[runtime]
        usable = [fit for fit in fits if _speaks_for(fit, device, nearest, workload.precision)]
        assumptions.append(f"no measurement of {runtime}: taken for {nearest}, with more spread")
    if not usable:
        known = sorted({fit.runtime for fit in fits if _is_of_class(fit, device)})
        return Refusal(
            device_id=device.id,
            reason=f"no fit for runtime {runtime} at {workload.precision} on {device.name}; "
            f"this kind of device has {', '.join(known) or 'none'}",
        )
    fit = min(
        usable,
        key=lambda each: (
            ("machine", "timed", "device", "class").index(each.scope),
            workload.precision not in each.precisions,
        ),
    )
    tier, reason = _tier_of(fit, device)
    extra = [runtime_log_sd]
    if workload.precision not in fit.precisions:
        extra.append(
            UNSEEN_PRECISION_LOG_SD if fit.scope == "class" else SAME_UNITS_PRECISION_LOG_SD
        )
        assumptions.append(
            f"{workload.precision} is not among the fitted precisions ({', '.join(fit.precisions)})"
        )
    if workload.architecture.is_routed and fit.scope != "machine":
        extra.append(UNSEEN_ROUTING_LOG_SD)
        assumptions.append("fitted on plain networks: compaction and ragged attention are modelled")
    if fit.scope == "class" and (fit.device_class, fit.runtime) in THIN_EVIDENCE:
        assumptions.append(THIN_EVIDENCE[fit.device_class, fit.runtime])
    if peak.confidence == "C":
        assumptions.append("the device's peak is an estimate (confidence C)")
    return Reach(
        fit=fit,
        machine=_machine_of(fit, device, workload.precision),
        tier=tier,
        reason=reason,
        extra_log_sd=math.hypot(*extra),
        assumptions=tuple(assumptions),
    )


def check_coefficients(fit: Fit) -> None:
    """Raise CorruptFile where a stored fit has other numbers than this model reads."""
    names = {each.name for each in fit.coefficients}
    if names != set(COEFFICIENTS):
        raise CorruptFile(
            f"fit {fit.name} has the coefficients {', '.join(sorted(names))}; wanted "
            f"{', '.join(COEFFICIENTS)}: fit again with `python -m costmodel.fit`"
        )
    if fit.discrepancy is not None and fit.discrepancy.features != FEATURES:
        raise CorruptFile(
            f"fit {fit.name} has the features {', '.join(fit.discrepancy.features)}; wanted "
            f"{', '.join(FEATURES)}: fit again with `python -m costmodel.fit`"
        )


def device_of(fit: Fit) -> DeviceSpec:
    """The machine that a fit was made on, as a device: its peaks are what was measured there."""
    if fit.environment is None or fit.rates is None:
        raise ValueError(f"fit {fit.name} is of no single machine; wanted scope machine")

    def seen(value: float) -> Figure:
        return Figure(
            value=value,
            source="fixed kernels of python -m profiler run",
            read_on=fit.taken_on,
            confidence="A",
        )

    unknown = Unknown(reason="not measured, and no data sheet names this machine")
    return DeviceSpec(
        id=fit.device_id,
        name=fit.environment.device_name,
        device_class="cpu" if fit.environment.kind == "cpu" else "dc_gpu",
        family=fit.environment.device_name,
        parallel_units=fit.environment.threads,
        peak_flop_per_s={
            precision: seen(peak)
            for precision in MEASURED_PRECISIONS
            if not isinstance(peak := fit.rates.peak_flop_per_s(precision), Unknown)
        },
        memory_bytes=seen(float(fit.environment.memory_bytes)),
        memory_bytes_per_s=seen(fit.rates.copy_bytes_per_s),
        cache_bytes=unknown,
        power_limit_w=Unknown(reason="no power meter and no data sheet for this machine"),
        idle_w=unknown,
        price_usd=Unknown(reason="no data sheet names this machine"),
    )


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


def class_of(device_class: str) -> str:
    """Devices that are fitted together."""
    return "cpu" if device_class == "cpu" else "gpu"


def _is_of_class(fit: Fit, device: DeviceSpec) -> bool:
    return fit.device_class == class_of(device.device_class)


def _speaks_for(fit: Fit, device: DeviceSpec, runtime: Runtime, precision: Precision) -> bool:
    if fit.runtime != runtime:
        return False
    if fit.scope == "class":
        return _is_of_class(fit, device)
    # Fewer threads are another machine.
    own = fit.environment
    if own is not None and own.kind == "cpu" and own.threads != device.parallel_units:
        return False
    # A machine's shares are of what its own kernels reached at that precision.
    if fit.rates is not None and isinstance(fit.rates.peak_flop_per_s(precision), Unknown):
        return False
    # A machine or a published device speaks for the precisions it was seen at, and for others on
    # the same units.
    return fit.device_id == device.id and any(
        set(PEAK_OF[precision]) & set(PEAK_OF[seen]) for seen in _precisions(fit)
    )


def _precisions(fit: Fit) -> tuple[Precision, ...]:
    return tuple(check_precision(name) for name in fit.precisions)


def _tier_of(fit: Fit, device: DeviceSpec) -> tuple[Tier, str]:
    if fit.scope == "machine":
        where = fit.device_id if fit.environment is None else fit.environment.device_name
        return "calibrated", f"{fit.points} points measured on {where} ({fit.device_id})"
    if fit.scope == "timed":
        return "calibrated", f"{fit.points} timings of your own on {device.name}"
    if fit.scope == "device":
        return "anchored", f"{fit.points} published measurements of {device.name}"
    seen = "seen" if device.family in fit.families else "not seen"
    return "spec-only", f"data sheet and fits of other devices; family {device.family} {seen}"


def _machine_of(fit: Fit, device: DeviceSpec, precision: Precision) -> Machine:
    if fit.scope == "machine" and fit.rates is not None and fit.environment is not None:
        peak = fit.rates.peak_flop_per_s(precision)
        assert not isinstance(peak, Unknown), "a fit without that peak does not speak for it"
        return measured_machine(
            peak,
            fit.rates.copy_bytes_per_s,
            fit.environment.threads,
            host_runs_ahead=fit.environment.kind == "cuda",
        )
    return Machine.of(device, precision)


def _coefficient_variance(
    groups: Sequence[Sequence[Operator]],
    machine: Machine,
    fit: Fit,
    coefficients: Mapping[str, float],
) -> float:
    """Variance of log seconds from the coefficients' covariance: gᵀ Σ g, g by differences."""
    work, rates = Work.of(groups), Rates.of([machine] * len(groups))
    step = 1e-3

    def log_seconds(of: Mapping[str, float]) -> float:
        return math.log(float(group_s(work, rates, of).sum()))

    here = log_seconds(coefficients)
    slope = np.array(
        [
            (log_seconds({**coefficients, name: value * math.exp(step)}) - here) / step
            for name, value in coefficients.items()
        ]
    )
    return float(slope @ np.array(fit.covariance) @ slope)


def _power(
    device: DeviceSpec,
    machine: Machine,
    shares: Sequence[tuple[Operator, float, Bound]],
    total_s: float,
) -> Estimate | Unknown:
    flop = math.fsum(operator.flop for operator, _, _ in shares)
    moved = math.fsum(operator.weight_bytes + operator.moved_bytes for operator, _, _ in shares)
    return power_w(
        device,
        compute_use=min(flop / total_s / machine.peak_flop_per_s, 1.0),
        memory_use=min(moved / total_s / machine.memory_bytes_per_s, 1.0),
    )


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
