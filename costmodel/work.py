"""What is to be done, as columns: operators of many workloads, and the rates of who does them.

A group is what is timed together; each operator is of one kind, which says what rates it runs at.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from costmodel.operators import Operator, operators_of
from costmodel.sustaining import sustained_share
from domain.architecture import Architecture
from domain.device import DeviceSpec
from domain.record import Executor, Precision, Unknown
from domain.workload import Workload

Array = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)

# A clock between those of the devices in the catalogue; what a device without one is taken to have.
NOMINAL_HZ = 1.8e9

Kind = Literal["gemm", "convolution", "attention", "norm", "activation", "elementwise", "gather"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Operators of a family that run at a rate of their own.
KIND_OF_NAME: dict[str, Kind] = {
    "patch-embedding": "convolution",
    "norm": "norm",
    "qk-norm": "norm",
    "inner-norm": "norm",
    "activation": "activation",
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The rates of one device at one precision that work is divided by.

    `slowness` is how much longer its clock's ticks are than those of `NOMINAL_HZ`: what waits for
    ticks, not for rates, takes that much longer. `units` are cores or multiprocessors; the products
    of a device `in_tiles` come in waves of as many.
    """

    peak_flop_per_s: float
    memory_bytes_per_s: float
    units: float
    host_runs_ahead: bool
    in_tiles: bool = False
    cache_bytes: float = 0.0
    slowness: float = 1.0

    @classmethod
    def of(cls, device: DeviceSpec, precision: Precision) -> "Machine":
        """Dense peak, as far as the power limit sustains it, and bandwidth of the catalogue.

        Raises ValueError without such a peak. A CPU's caches are inside its efficiencies: its machine has none.
        """
        is_cpu = device.device_class == "cpu"
        cache = device.cache_bytes
        return cls(
            peak_flop_per_s=device.peak_for(precision).value * sustained_share(device, precision),
            memory_bytes_per_s=device.memory_bytes_per_s.value,
            units=float(device.parallel_units or 1),
            host_runs_ahead=not is_cpu,
            in_tiles=not is_cpu,
            cache_bytes=0.0 if is_cpu or isinstance(cache, Unknown) else cache.value,
            slowness=1.0 if device.boost_hz is None else NOMINAL_HZ / device.boost_hz.value,
        )


# What an operator counts, under one name in `Operator` and in `Work`.
LOADS = ("flop", "weight_bytes", "moved_bytes", "calls", "rows", "inner", "columns")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operators of many workloads as columns; `group` numbers what is timed together.

    A group is a stage, or a whole network where nothing synchronises between stages. A column has
    one number an operator, or one row (see `alone`).
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
        return cls(
            **{
                name: np.array([getattr(operator, name) for operator in flat], dtype=float)
                for name in LOADS
            },
            kind=np.array([KINDS.index(kind_of(operator)) for operator in flat], dtype=np.int64),
            group=np.repeat(np.arange(len(grouped)), sizes),
            groups=len(grouped),
        )

    @classmethod
    def alone(cls, operator: Operator) -> "Work":
        """One operator of many workloads that differ in their loads: columns are 1 × workloads.

        What all have in common is a column of one number.
        """
        return cls(
            **{
                name: np.atleast_2d(np.asarray(getattr(operator, name), dtype=float))
                for name in LOADS
            },
            kind=np.array([KINDS.index(kind_of(operator))]),
            group=np.zeros(1, dtype=np.int64),
            groups=1,
        )

    def along(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """One of `values`, which are one a group, for every operator."""
        return self.beside(values[self.group])

    def beside(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """`values`, one an operator, in the shape that the columns take."""
        return values.reshape(values.shape + (1,) * (self.flop.ndim - 1))

    def taken(self, chosen: NDArray[np.bool_]) -> "Work":
        """The operators `chosen`, in their groups."""
        columns = {name: value[chosen] for name, value in vars(self).items() if name != "groups"}
        return Work(**columns, groups=self.groups)

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
    in_tiles: NDArray[np.bool_]

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
            in_tiles=np.array([m.in_tiles for m in machines]),
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


# A fit asks for the same workloads again and again.
@functools.lru_cache(maxsize=4096)
def groups_of(workload: Workload, *, host_runs_ahead: bool) -> tuple[tuple[Operator, ...], ...]:
    """Operators of `workload`, grouped by what runs without waiting in between."""
    return grouped(
        operators_of(workload),
        workload.architecture,
        workload.executor,
        host_runs_ahead=host_runs_ahead,
    )


def grouped(
    operators: tuple[Operator, ...], net: Architecture, executor: Executor, *, host_runs_ahead: bool
) -> tuple[tuple[Operator, ...], ...]:
    """The same for operators that are known.

    Counts that depend on the data make the host wait once a recursion (packed and padded execution
    of a routed network); all else is one group on a device whose host runs ahead.
    """
    if host_runs_ahead and not (net.is_routed and executor in ("packed", "padded")):
        return (operators,)
    stages = dict.fromkeys(operator.stage for operator in operators)
    return tuple(
        tuple(operator for operator in operators if operator.stage == stage) for stage in stages
    )


def measured_machine(
    gemm_flop_per_s: float, copy_bytes_per_s: float, threads: int, *, host_runs_ahead: bool = False
) -> Machine:
    """A machine without data sheet: its peaks are what fixed kernels reached.

    How many multiprocessors a GPU has is not among what is measured: its tiles come without waves.

    >>> measured_machine(1e9, 1e9, threads=2).units
    2.0
    """
    return Machine(
        peak_flop_per_s=gemm_flop_per_s,
        memory_bytes_per_s=copy_bytes_per_s,
        units=1.0 if host_runs_ahead else float(threads),
        host_runs_ahead=host_runs_ahead,
        in_tiles=host_runs_ahead,
    )
