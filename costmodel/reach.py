"""Which fit speaks for a workload on a device, and how far it must reach for it. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from costmodel.capping import Held, held_by, slowed
from costmodel.discrepancy import FEATURES, factors_of
from costmodel.latency import COEFFICIENTS
from costmodel.software import TORCH_1
from costmodel.sustaining import sustained_share
from costmodel.work import Machine, groups_of, measured_machine
from domain.catalogue import check_precision
from domain.complaint import CorruptFile
from domain.device import PEAK_OF, DeviceSpec
from domain.fit import Fit
from domain.measurement import Environment, Rates
from domain.prediction import Refusal
from domain.record import Figure, Precision, Runtime, Tier, Unknown
from domain.units import shown
from domain.workload import Workload

# A runtime nobody measured for a class is taken for the nearest one, with this much more spread.
NEAREST_RUNTIME: dict[Runtime, tuple[Runtime, float]] = {
    "onnxruntime": ("compiled", 0.25),
    "openvino": ("compiled", 0.25),
}
# A precision that the fit has not seen, on the peak of its own units.
UNSEEN_PRECISION_LOG_SD = 0.25
# One that runs on the same units of the same device: half precision with and without autocast.
SAME_UNITS_PRECISION_LOG_SD = 0.12
# Precisions whose peak is measured on a machine that no data sheet names.
MEASURED_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
# What the fits of a class and runtime rest on, where that is little.
THIN_EVIDENCE: dict[tuple[str, Runtime], str] = {
    ("gpu", "engine"): "engines were fitted on encoders of BERT (TensorRT) and ViTs of AITemplate",
    ("cpu", "compiled"): "two CPUs were fitted for compiled networks; their spread is assumed",
    ("cpu", "eager"): "few CPUs were measured; how far data sheets are from them is assumed",
}
# A power limit that leaves more of the clock than this goes without saying.
WORTH_SAYING = 0.95
# Executors and routings that the class fits (plain networks) have not seen: compaction, ragged
# attention (packed attention reached 0.72 of padded in one published H100 case).
UNSEEN_ROUTING_LOG_SD = 0.15


@dataclass(frozen=True, kw_only=True)
class Reach:
    """A fit that may speak for a workload on a device, and how far it must reach for it.

    Where the device is under a power cap, `machine` is what that leaves of it, and `held` how much.
    """

    fit: Fit
    machine: Machine
    tier: Tier
    reason: str
    extra_log_sd: float
    assumptions: tuple[str, ...]
    held: Held | None = None


def setting_for(workload: Workload, fit: Fit) -> dict[str, float]:
    """What the operators of `workload` do not say and the residuals of `fit` depend on."""
    threads = 1 if fit.environment is None else fit.environment.threads
    return {"half": float(workload.precision != "fp32"), "threads": math.log2(threads)}


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
    software = software_named(workload)
    fit = min(
        _of_software(usable, software, workload.precision),
        key=lambda each: (
            ("machine", "timed", "device", "class").index(each.scope),
            workload.precision not in each.precisions,
        ),
    )
    if fit.scope != "timed" and any(each.scope == "timed" for each in usable):
        assumptions.append(
            "your timings are of another torch and are left aside: say which with --torch-version"
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
    if workload.attention == "unfused":
        assumptions.append(
            "torch before 2: attention is not fused"
            + ("" if fit.software == software else "; all else as of today's software")
        )
    if workload.architecture.is_routed and fit.scope != "machine":
        extra.append(routing_log_sd(fit))
        assumptions.append(
            f"what routing adds rests on {fit.routed_points} timings of routed networks"
            if fit.routed_points
            else "fitted on plain networks: compaction and ragged attention are modelled"
        )
    if fit.scope == "class" and (fit.device_class, fit.runtime) in THIN_EVIDENCE:
        assumptions.append(THIN_EVIDENCE[fit.device_class, fit.runtime])
    share = 1.0 if device.is_measured else sustained_share(device, workload.precision)
    if share < WORTH_SAYING:
        assumptions.append(
            f"its power limit is taken to leave {share:.0%} of the boost clock to matrix products"
        )
    if peak.confidence == "C":
        assumptions.append("the device's peak is an estimate (confidence C)")
    reach = Reach(
        fit=fit,
        machine=_machine_of(fit, device, workload.precision),
        tier=tier,
        reason=reason,
        extra_log_sd=math.hypot(*extra),
        assumptions=tuple(assumptions),
    )
    return reach if device.power_cap_w is None else _under_cap(reach, workload, device)


def software_named(workload: Workload) -> str:
    """The software that a workload says it runs; today's is not named."""
    return TORCH_1 if workload.attention == "unfused" else ""


def _of_software(fits: Sequence[Fit], software: str, precision: Precision) -> Sequence[Fit]:
    """Those of `fits` that speak for the software at the units of that precision, else today's, else all."""
    alike = [
        fit
        for fit in fits
        if fit.software == software
        and (
            not software
            or any(set(PEAK_OF[precision]) & set(PEAK_OF[seen]) for seen in _precisions(fit))
        )
    ]
    return alike or [fit for fit in fits if not fit.software] or fits


def routing_log_sd(fit: Fit) -> float:
    """What routing may add to a network, beside what is modelled of it: 0 ± 0.15 until it is timed.

    (1/σ² + k/s²)^-½ after k timings of routed networks, each as near as the fit's own left over. How
    far CPUs differ in it is in the coefficients of their class.
    """
    told = fit.routed_points / fit.residual_log_sd**2
    return 1 / math.sqrt(UNSEEN_ROUTING_LOG_SD**-2 + told)


def _under_cap(reach: Reach, workload: Workload, device: DeviceSpec) -> Reach | Refusal:
    check_coefficients(reach.fit)
    groups = groups_of(workload, host_runs_ahead=reach.machine.host_runs_ahead)
    factors = factors_of(reach.fit.discrepancy, groups, setting_for(workload, reach.fit))
    held = held_by(device, workload, reach.machine, reach.fit, factors)
    if isinstance(held, str):
        return Refusal(device_id=device.id, reason=held)
    said = f"held to {shown(device.power_cap_w or 0.0, 'W')}: "
    said += (
        "more than it draws by the model, if not by the upper end of its interval"
        if held.clock == 1
        else f"its clock falls to {held.clock:.0%}, if power falls with the cube of the clock"
    )
    return replace(
        reach,
        machine=slowed(reach.machine, held.clock),
        held=held,
        assumptions=(*reach.assumptions, said),
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
    return machine_seen(fit.device_id, fit.environment, fit.rates, fit.taken_on)


def machine_seen(
    device_id: str, environment: Environment, rates: Rates, taken_on: str
) -> DeviceSpec:
    """A machine as a device of which nothing is known but what its fixed kernels reached."""

    def seen(value: float) -> Figure:
        return Figure(
            value=value,
            source="fixed kernels of python -m profiler run",
            read_on=taken_on,
            confidence="A",
        )

    unknown = Unknown(reason="not measured, and no data sheet names this machine")
    return DeviceSpec(
        id=device_id,
        name=environment.device_name,
        device_class="cpu" if environment.kind == "cpu" else "dc_gpu",
        family=environment.device_name,
        is_measured=True,
        parallel_units=environment.threads,
        peak_flop_per_s={
            precision: seen(peak)
            for precision in MEASURED_PRECISIONS
            if not isinstance(peak := rates.peak_flop_per_s(precision), Unknown)
        },
        memory_bytes=seen(float(environment.memory_bytes)),
        memory_bytes_per_s=seen(rates.copy_bytes_per_s),
        cache_bytes=unknown,
        power_limit_w=Unknown(reason="no power meter and no data sheet for this machine"),
        idle_w=unknown,
        price_usd=Unknown(reason="no data sheet names this machine"),
    )


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
        other = f", all with other software ({', '.join(fit.taken_with)})" if fit.taken_with else ""
        return "anchored", f"{fit.points} published measurements of {device.name}{other}"
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
