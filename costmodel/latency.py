"""Seconds from work: one equation per operator family, smooth maxima, vectorised over operators.

    operator   g = calls·t + (C^p + M^p)^(1/p)      arithmetic C, traffic M, launch t
    stage      G = Σ g                              on a CPU, which dispatches as it computes
               (ΣG)^p + (ΣH)^p)^(1/p)               on a GPU, whose host runs ahead: H = calls·t

Efficiencies are shares of a device's dense peak and memory bandwidth, so that what was learned on
one device can be carried to another of its class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costmodel.operators import Family, Operator, operators_of
from domain.device import DeviceSpec
from domain.prediction import Bound
from domain.record import Precision
from domain.workload import Workload

Array = NDArray[np.float64]

SMOOTHNESS = 3.0
FAMILIES: tuple[Family, ...] = ("gemm", "attention", "elementwise", "gather")

# name: (unit, prior median on a GPU, on a CPU, prior log sd). The medians are what measured
# networks and kernels of the class reach (costs of launches: several microseconds a kernel in eager
# mode; shares of the dense peak: some 0.6 to 0.85 for large matrix products); the fit moves them.
COEFFICIENTS: dict[str, tuple[str, float, float, float]] = {
    "gemm_efficiency": ("share of peak", 0.65, 0.8, 0.5),
    "gemm_half": ("outputs per unit", 3000.0, 300.0, 1.2),
    "attention_efficiency": ("share of peak", 0.35, 0.4, 0.7),
    "traffic_efficiency": ("share of bandwidth", 0.75, 0.8, 0.5),
    "elementwise_efficiency": ("share of bandwidth", 0.75, 1.0, 0.7),
    "call_s": ("s", 6e-6, 5e-6, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The rates of one device at one precision that work is divided by."""

    peak_flop_per_s: float
    memory_bytes_per_s: float
    units: float
    host_runs_ahead: bool

    @classmethod
    def of(cls, device: DeviceSpec, precision: Precision) -> "Machine":
        """Dense peak and bandwidth of the catalogue. Raises ValueError without such a peak."""
        return cls(
            peak_flop_per_s=device.peak_for(precision).value,
            memory_bytes_per_s=device.memory_bytes_per_s.value,
            units=float(device.parallel_units or 1),
            host_runs_ahead=device.device_class != "cpu",
        )


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operators of many workloads as columns; `group` numbers what is timed together.

    A group is a stage, or a whole network where nothing synchronises between stages.
    """

    flop: Array
    weight_bytes: Array
    moved_bytes: Array
    calls: Array
    outputs: Array
    family: NDArray[np.int64]
    group: NDArray[np.int64]
    groups: int

    @classmethod
    def of(cls, grouped: Sequence[Sequence[Operator]]) -> "Work":
        """Columns of `grouped` operators, group by group."""
        flat = [operator for group in grouped for operator in group]
        sizes = [len(group) for group in grouped]

        def column(name: str) -> Array:
            return np.array([getattr(operator, name) for operator in flat], dtype=float)

        return cls(
            flop=column("flop"),
            weight_bytes=column("weight_bytes"),
            moved_bytes=column("moved_bytes"),
            calls=column("calls"),
            outputs=column("rows") * column("columns"),
            family=np.array([FAMILIES.index(operator.family) for operator in flat], dtype=np.int64),
            group=np.repeat(np.arange(len(grouped)), sizes),
            groups=len(grouped),
        )


@dataclass(frozen=True, kw_only=True)
class Rates:
    """A machine's rates, one row a group of the work."""

    peak_flop_per_s: Array
    memory_bytes_per_s: Array
    units: Array
    host_runs_ahead: NDArray[np.bool_]

    @classmethod
    def of(cls, machines: Sequence[Machine]) -> "Rates":
        """Columns of `machines`, one a group."""
        return cls(
            peak_flop_per_s=np.array([m.peak_flop_per_s for m in machines]),
            memory_bytes_per_s=np.array([m.memory_bytes_per_s for m in machines]),
            units=np.array([m.units for m in machines]),
            host_runs_ahead=np.array([m.host_runs_ahead for m in machines]),
        )


def arithmetic_s(work: Work, rates: Rates, coefficients: Mapping[str, float]) -> Array:
    """Seconds of arithmetic: FLOP over the peak, at an efficiency that grows with the outputs.

    A product fills the device's parallel units only when it has outputs enough: the share is
    x/(x + half) with x outputs a unit, a smooth form of wave quantisation.
    """
    is_gemm = work.family == FAMILIES.index("gemm")
    per_unit = work.outputs / rates.units[work.group]
    filled = per_unit / (per_unit + coefficients["gemm_half"] + 1e-30)
    efficiency = np.where(
        is_gemm,
        coefficients["gemm_efficiency"] * np.maximum(filled, 1e-9),
        coefficients["attention_efficiency"],
    )
    return work.flop / (rates.peak_flop_per_s[work.group] * efficiency)


def traffic_s(work: Work, rates: Rates, coefficients: Mapping[str, float]) -> Array:
    """Seconds of memory traffic: bytes over bandwidth at an efficiency by family."""
    streams = work.family >= FAMILIES.index("elementwise")
    efficiency = np.where(
        streams, coefficients["elementwise_efficiency"], coefficients["traffic_efficiency"]
    )
    moved = work.weight_bytes + work.moved_bytes
    return moved / (rates.memory_bytes_per_s[work.group] * efficiency)


def smooth_maximum(one: Array, other: Array, power: float = SMOOTHNESS) -> Array:
    """(a^p + b^p)^(1/p): at least the larger, at most 2^(1/p) times it.

    >>> float(smooth_maximum(np.array(3.0), np.array(0.0)))
    3.0
    """
    larger = np.maximum(np.maximum(one, other), 1e-300)
    return larger * ((one / larger) ** power + (other / larger) ** power) ** (1 / power)


def operator_s(work: Work, rates: Rates, coefficients: Mapping[str, float]) -> Array:
    """Device seconds of each operator, without launches."""
    return smooth_maximum(
        arithmetic_s(work, rates, coefficients), traffic_s(work, rates, coefficients)
    )


def launch_s(work: Work, coefficients: Mapping[str, float]) -> Array:
    """Seconds that launching each operator's calls takes."""
    return work.calls * coefficients["call_s"]


def group_s(work: Work, rates: Rates, coefficients: Mapping[str, float]) -> Array:
    """Seconds of each group of the work."""
    device_s = _summed(work, operator_s(work, rates, coefficients))
    host_s = _summed(work, launch_s(work, coefficients))
    return np.where(rates.host_runs_ahead, smooth_maximum(device_s, host_s), device_s + host_s)


def _summed(work: Work, seconds: Array) -> Array:
    return np.asarray(np.bincount(work.group, seconds, work.groups), dtype=float)


def groups_of(workload: Workload, *, host_runs_ahead: bool) -> tuple[tuple[Operator, ...], ...]:
    """Operators of `workload`, grouped by what runs without waiting in between.

    Counts that depend on the data make the host wait once a recursion (packed and padded execution
    of a routed network); all else is one group on a device whose host runs ahead.
    """
    operators = operators_of(workload)
    waits = workload.architecture.is_routed and workload.executor in ("packed", "padded")
    if host_runs_ahead and not waits:
        return (operators,)
    stages = dict.fromkeys(operator.stage for operator in operators)
    return tuple(
        tuple(operator for operator in operators if operator.stage == stage) for stage in stages
    )


def shares_s(
    grouped: Sequence[Sequence[Operator]], machine: Machine, coefficients: Mapping[str, float]
) -> list[tuple[Operator, float, Bound]]:
    """Each operator with its share of its group's seconds and what bounds it.

    Device and launch seconds are scaled to the group's seconds, so that the parts add up to the
    whole.
    """
    work = Work.of(grouped)
    rates = Rates.of([machine] * len(grouped))
    compute = arithmetic_s(work, rates, coefficients)
    memory = traffic_s(work, rates, coefficients)
    host = launch_s(work, coefficients)
    own = smooth_maximum(compute, memory) + host
    whole = group_s(work, rates, coefficients)
    seconds = own * (whole / _summed(work, own))[work.group]
    stacked = np.stack([compute, memory, host])
    names: tuple[Bound, ...] = ("compute", "memory", "host")
    bounds = [names[row] for row in stacked.argmax(axis=0)]
    flat = [operator for group in grouped for operator in group]
    return list(zip(flat, (float(s) for s in seconds), bounds, strict=True))


def prior(device_class: str) -> dict[str, tuple[float, float]]:
    """Median and log spread of each coefficient before anything is measured."""
    is_cpu = device_class == "cpu"
    return {
        name: (on_cpu if is_cpu else on_gpu, log_sd)
        for name, (_, on_gpu, on_cpu, log_sd) in COEFFICIENTS.items()
    }


def measured_machine(
    gemm_flop_per_s: float, copy_bytes_per_s: float, units: int, *, host_runs_ahead: bool = False
) -> Machine:
    """A machine without data sheet: its peaks are what fixed kernels reached.

    >>> measured_machine(1e9, 1e9, units=2).units
    2.0
    """
    return Machine(
        peak_flop_per_s=gemm_flop_per_s,
        memory_bytes_per_s=copy_bytes_per_s,
        units=float(units),
        host_runs_ahead=host_runs_ahead,
    )
