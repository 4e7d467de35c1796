"""Seconds from work: one equation per kind of operator, smooth maxima, vectorised over operators.

    operator   g = calls·t + (C³ + M³)^⅓         arithmetic C, traffic M, launch t
    stage      G = Σ g + t_stage                 on a CPU, which dispatches as it computes
               ((ΣG)³ + (ΣH)³)^⅓ + t_stage       on a GPU, whose host runs ahead: H = calls·t

Efficiencies are shares of a device's dense peak and memory bandwidth, so that what was learned on
one device can be carried to another of its class. A coefficient is a number, or one number a group
where it depends on precision, threads or device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from costmodel.operators import Operator, operators_of
from domain.device import DeviceSpec
from domain.prediction import Bound
from domain.record import Precision, Unknown
from domain.workload import Workload

Array = NDArray[np.float64]
Coefficients = Mapping[str, float | Array]

# A clock between those of the devices in the catalogue; what a device without one is taken to have.
NOMINAL_HZ = 1.8e9

Kind = Literal["gemm", "convolution", "attention", "norm", "activation", "elementwise", "gather"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Operators of a family that run at a rate of their own.
KIND_OF_NAME: dict[str, Kind] = {
    "patch-embedding": "convolution",
    "norm": "norm",
    "qk-norm": "norm",
    "activation": "activation",
}
# Which efficiency divides the bandwidth, and which launch time counts, for each kind.
STREAM_OF: dict[Kind, str] = {
    "gemm": "traffic_efficiency",
    "convolution": "traffic_efficiency",
    "attention": "traffic_efficiency",
    "norm": "norm_efficiency",
    "activation": "activation_efficiency",
    "elementwise": "elementwise_efficiency",
    "gather": "gather_efficiency",
}
LAUNCH_OF: dict[Kind, str] = {
    "gemm": "call_s",
    "convolution": "convolution_call_s",
    "attention": "attention_call_s",
    "norm": "call_s",
    "activation": "call_s",
    "elementwise": "call_s",
    "gather": "gather_call_s",
}

# name: (unit, prior median on a GPU, on a CPU, prior log sd). The medians are what measured
# networks and kernels of the class reach (costs of launches: several microseconds a kernel in eager
# mode; shares of the dense peak: some 0.6 to 0.85 for large matrix products); the fit moves them.
# A size at which half of the rate is reached smooths tiles and waves; where it is far below the
# sizes that occur it has no effect.
COEFFICIENTS: dict[str, tuple[str, float, float, float]] = {
    "gemm_efficiency": ("share of peak", 0.65, 0.8, 0.5),
    "inner_step_s": ("s", 2e-9, 1e-10, 1.0),
    "rows_half": ("rows", 2.0, 10.0, 1.0),
    "inner_half": ("inner size", 32.0, 5.0, 1.0),
    "columns_half": ("columns", 2.0, 20.0, 1.0),
    "convolution_efficiency": ("share of a gemm's", 0.3, 0.5, 1.0),
    "attention_efficiency": ("share of peak", 0.35, 0.4, 0.7),
    "attention_half": ("tokens of an image", 10.0, 20.0, 1.0),
    "traffic_efficiency": ("share of bandwidth", 0.75, 0.8, 0.5),
    "norm_efficiency": ("share of bandwidth", 0.75, 0.8, 0.7),
    "activation_efficiency": ("share of bandwidth", 0.75, 0.8, 0.7),
    "elementwise_efficiency": ("share of bandwidth", 0.75, 1.0, 0.7),
    "gather_efficiency": ("share of bandwidth", 0.5, 0.3, 0.5),
    "cache_reach": ("cache sizes", 1.0, 1.0, 0.3),
    "call_s": ("s", 6e-6, 5e-6, 1.0),
    "attention_call_s": ("s", 6e-6, 1e-5, 1.0),
    "gather_call_s": ("s", 6e-6, 1e-5, 1.0),
    "convolution_call_s": ("s", 1e-5, 1e-4, 1.5),
    "stage_s": ("s", 2e-5, 2e-5, 0.4),
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The rates of one device at one precision that work is divided by.

    `slowness` is how much longer its clock's ticks are than those of `NOMINAL_HZ`: what waits for
    ticks, not for rates, takes that much longer.
    """

    peak_flop_per_s: float
    memory_bytes_per_s: float
    units: float
    host_runs_ahead: bool
    cache_bytes: float = 0.0
    slowness: float = 1.0

    @classmethod
    def of(cls, device: DeviceSpec, precision: Precision) -> "Machine":
        """Dense peak and bandwidth of the catalogue. Raises ValueError without such a peak.

        A CPU's caches are inside its efficiencies: its machine has none.
        """
        is_cpu = device.device_class == "cpu"
        cache = device.cache_bytes
        return cls(
            peak_flop_per_s=device.peak_for(precision).value,
            memory_bytes_per_s=device.memory_bytes_per_s.value,
            units=float(device.parallel_units or 1),
            host_runs_ahead=not is_cpu,
            cache_bytes=0.0 if is_cpu or isinstance(cache, Unknown) else cache.value,
            slowness=1.0 if device.boost_hz is None else NOMINAL_HZ / device.boost_hz.value,
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
    rows: Array
    inner: Array
    columns: Array
    kind: NDArray[np.int64]
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
            rows=column("rows"),
            inner=column("inner"),
            columns=column("columns"),
            kind=np.array([KINDS.index(kind_of(operator)) for operator in flat], dtype=np.int64),
            group=np.repeat(np.arange(len(grouped)), sizes),
            groups=len(grouped),
        )

    def only(self, groups: NDArray[np.int64]) -> "Work":
        """The operators of `groups`, which are numbered anew in that order."""
        place = np.full(self.groups, -1)
        place[groups] = np.arange(len(groups))
        kept = place[self.group] >= 0
        columns = {
            name: value[kept]
            for name, value in vars(self).items()
            if name not in ("group", "groups")
        }
        return Work(**columns, group=place[self.group][kept], groups=len(groups))

    @classmethod
    def joined(cls, parts: Sequence["Work"]) -> "Work":
        """The work of all parts, their groups one after another."""
        starts = np.cumsum([0, *(part.groups for part in parts)])
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in vars(parts[0])
            if name not in ("group", "groups")
        }
        groups = [part.group + start for part, start in zip(parts, starts[:-1], strict=True)]
        return cls(**columns, group=np.concatenate(groups), groups=int(starts[-1]))


def kind_of(operator: Operator) -> Kind:
    """What rates `operator` runs at: those of its family, or of its own."""
    return KIND_OF_NAME.get(operator.name, operator.family)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """A machine's rates, one row a group of the work."""

    peak_flop_per_s: Array
    memory_bytes_per_s: Array
    units: Array
    cache_bytes: Array
    slowness: Array
    host_runs_ahead: NDArray[np.bool_]

    @classmethod
    def of(cls, machines: Sequence[Machine]) -> "Rates":
        """Columns of `machines`, one a group."""
        return cls(
            peak_flop_per_s=np.array([m.peak_flop_per_s for m in machines]),
            memory_bytes_per_s=np.array([m.memory_bytes_per_s for m in machines]),
            units=np.array([m.units for m in machines]),
            cache_bytes=np.array([m.cache_bytes for m in machines]),
            slowness=np.array([m.slowness for m in machines]),
            host_runs_ahead=np.array([m.host_runs_ahead for m in machines]),
        )

    def only(self, groups: NDArray[np.int64]) -> "Rates":
        """The rows of `groups`."""
        return Rates(**{name: value[groups] for name, value in vars(self).items()})

    @classmethod
    def joined(cls, parts: Sequence["Rates"]) -> "Rates":
        """The rows of all parts, one after another."""
        return cls(
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in vars(parts[0])
            }
        )


def arithmetic_s(work: Work, rates: Rates, coefficients: Coefficients) -> Array:
    """Seconds of arithmetic: FLOP over the peak, at an efficiency that grows with the shape.

    A product fills tiles only when rows, inner size and columns are long enough: each share is
    x/(x + half), a smooth form of quantisation. However few the outputs, each step along the inner
    size takes its time: what keeps small products from the peak of a device with many units.
    Attention's share grows with the tokens of an image.
    """
    each = _by_operator(work, coefficients)
    rows, inner, columns = (np.maximum(x, 1e-9) for x in (work.rows, work.inner, work.columns))
    # Time, not rate: each factor is (x + half)/x.
    product = (
        (1 + each["rows_half"] / rows)
        * (1 + each["inner_half"] / inner)
        * (1 + each["columns_half"] / columns)
        / each["gemm_efficiency"]
    )
    is_convolution = work.kind == KINDS.index("convolution")
    is_product = (work.kind == KINDS.index("gemm")) | is_convolution
    attention = (1 + each["attention_half"] / columns) / each["attention_efficiency"]
    slowness = np.where(is_product, product, attention)
    slowness = np.where(is_convolution, slowness / each["convolution_efficiency"], slowness)
    step_s = each["inner_step_s"] * rates.slowness[work.group]
    # Only products and attention have FLOP.
    steps_s = np.where(is_product, work.calls * work.inner * step_s, 0.0)
    return np.asarray(work.flop * slowness / rates.peak_flop_per_s[work.group] + steps_s)


def traffic_s(work: Work, rates: Rates, coefficients: Coefficients) -> Array:
    """Seconds of memory traffic: bytes over bandwidth at an efficiency by kind.

    What one call touches, ws, may lie in the last cache already: the share ws/(ws + reach·cache)
    goes to memory.
    """
    each = _by_operator(work, coefficients)
    efficiency = _of_kind(work, each, STREAM_OF)
    moved = work.weight_bytes + work.moved_bytes
    touched = moved / np.maximum(work.calls, 1e-9) + 1.0
    missed = touched / (touched + each["cache_reach"] * rates.cache_bytes[work.group])
    return np.asarray(moved * missed / (rates.memory_bytes_per_s[work.group] * efficiency))


def _by_operator(work: Work, coefficients: Coefficients) -> dict[str, float | Array]:
    """Each coefficient as one number, or as one an operator where it depends on the group."""
    return {
        name: value[work.group] if isinstance(value, np.ndarray) else value
        for name, value in coefficients.items()
    }


def _of_kind(work: Work, each: Mapping[str, float | Array], names: Mapping[Kind, str]) -> Array:
    """For every operator the coefficient that `names` gives its kind."""
    chosen = [each[names[kind]] for kind in KINDS]
    if not any(isinstance(value, np.ndarray) for value in chosen):
        return np.asarray(np.array(chosen)[work.kind])
    spread = [np.broadcast_to(np.asarray(each, dtype=float), work.flop.shape) for each in chosen]
    return np.asarray(np.choose(work.kind, spread))


def smooth_maximum(one: Array, other: Array) -> Array:
    """(a³ + b³)^⅓: at least the larger, at most 2^⅓ times it.

    >>> float(smooth_maximum(np.array(3.0), np.array(0.0)))
    3.0
    """
    larger = np.maximum(np.maximum(one, other), 1e-300)
    ratio = np.minimum(one, other) / larger
    # Products and a cube root: a general power takes several times as long.
    return np.asarray(larger * np.cbrt(1.0 + ratio * ratio * ratio))


def operator_s(work: Work, rates: Rates, coefficients: Coefficients) -> Array:
    """Device seconds of each operator, without launches."""
    return smooth_maximum(
        arithmetic_s(work, rates, coefficients), traffic_s(work, rates, coefficients)
    )


def launch_s(work: Work, coefficients: Coefficients) -> Array:
    """Seconds that launching each operator's calls takes."""
    return np.asarray(work.calls * _of_kind(work, _by_operator(work, coefficients), LAUNCH_OF))


def group_s(work: Work, rates: Rates, coefficients: Coefficients) -> Array:
    """Seconds of each group of the work: its operators, and once what every group costs."""
    device_s = _summed(work, operator_s(work, rates, coefficients))
    host_s = _summed(work, launch_s(work, coefficients))
    once_s = np.asarray(coefficients["stage_s"], dtype=float)
    both_s = np.where(rates.host_runs_ahead, smooth_maximum(device_s, host_s), device_s + host_s)
    return np.asarray(both_s + once_s)


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
    grouped: Sequence[Sequence[Operator]],
    machine: Machine,
    coefficients: Coefficients,
    factors: ArrayLike = 1.0,
) -> list[tuple[Operator, float, Bound]]:
    """Each operator with its share of its group's seconds and what bounds it.

    Device and launch seconds are scaled to the group's seconds times its one of `factors`, so that
    the parts add up to the whole.
    """
    work = Work.of(grouped)
    rates = Rates.of([machine] * len(grouped))
    compute = arithmetic_s(work, rates, coefficients)
    memory = traffic_s(work, rates, coefficients)
    host = launch_s(work, coefficients)
    own = smooth_maximum(compute, memory) + host
    whole = group_s(work, rates, coefficients) * np.asarray(factors)
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
