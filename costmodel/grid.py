"""Many batches of one network at once: loads as columns, seconds as an array. Pure.

The same equations as for one workload, each operator once for every number of tokens that occurs
and for all recursions together, so that a prediction costs less than a microsecond or two.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.columns import Numbers, by_stretches, column_of
from costmodel.discrepancy import log_corrections, places_of_group
from costmodel.latency import Coefficients, launch_s, operator_s, together_s
from costmodel.loads import columns_of_batches
from costmodel.operators import Operator, operators_for
from costmodel.reach import Reach, setting_for
from costmodel.work import LOADS, Array, Machine, Rates, Work, grouped
from domain.architecture import Architecture
from domain.fit import Discrepancy
from domain.record import Executor, Precision, Runtime
from domain.workload import Attention, States, Workload

# Batches times recursions, and counts, that are held at once: 8 MB and 32 MB an array.
MOST_STAGES, MOST_COUNTS = 1_048_576, 4_194_304
# The stage that stands for all recursions after the first.
LATER = "recursion-2"
NO_LOADS = dict.fromkeys(LOADS, 0.0)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What all batches of a grid have in common."""

    net: Architecture
    precision: Precision
    executor: Executor
    runtime: Runtime
    states: States
    attention: Attention
    machine: Machine
    coefficients: Coefficients
    discrepancy: Discrepancy | None = None
    setting: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, workload: Workload, reach: Reach) -> "Asked":
        """What batches have in common that differ from `workload` in their size and images only."""
        return cls(
            net=workload.architecture,
            precision=workload.precision,
            executor=workload.executor,
            runtime=workload.runtime,
            states=workload.states,
            attention=workload.attention,
            machine=reach.machine,
            coefficients={each.name: each.value for each in reach.fit.coefficients},
            discrepancy=reach.fit.discrepancy,
            setting=tuple(setting_for(workload, reach.fit).items()),
        )


def batches_s(asked: Asked, counts: NDArray[np.int64], batch: NDArray[np.int64]) -> Array:
    """Seconds of every batch; `counts` and `batch` as `loads_of_batches` takes them."""
    _, images, recursions = counts.shape
    together = max(1, min(MOST_STAGES // recursions, MOST_COUNTS // (images * recursions)))
    parts = [slice(start, start + together) for start in range(0, len(counts), together)]
    return np.concatenate([_part_s(asked, counts[part], batch[part]) for part in parts])


def _part_s(asked: Asked, counts: NDArray[np.int64], batch: NDArray[np.int64]) -> Array:
    loads = columns_of_batches(counts, batch, asked.executor, asked.net)
    operators = operators_for(
        asked.net, loads, precision=asked.precision, executor=asked.executor,
        runtime=asked.runtime, states=asked.states, attention=asked.attention,
    )  # fmt: skip
    groups = grouped(
        operators, asked.net, asked.executor, host_runs_ahead=asked.machine.host_runs_ahead
    )
    rates = Rates.of([asked.machine])
    rows = len(counts)

    def group_s(device_s: Array, host_s: Array) -> Array:
        return together_s(device_s, host_s, rates.host_runs_ahead, asked.coefficients["stage_s"])

    total_s = np.zeros(rows)
    for group in groups:
        stages = dict.fromkeys(operator.stage for operator in group)
        device_s: Numbers = 0.0
        host_s: Numbers = 0.0
        for stage in stages:
            own = [operator for operator in group if operator.stage == stage]
            own_s = [_operator_s(operator, rates, asked.coefficients) for operator in own]
            seconds: list[Numbers] = [sum(each) for each in zip(*own_s, strict=True)]
            if len(stages) > 1:
                seconds = [_over_recursions(each, stage, counts) for each in seconds]
            device_s, host_s = device_s + seconds[0], host_s + seconds[1]
        whole_s = by_stretches(group_s, device_s, host_s)
        if asked.discrepancy is not None:
            places, at = places_of_group(group, dict(asked.setting))
            if places is not None:
                whole_s = whole_s * column_of(
                    np.exp(log_corrections(asked.discrepancy, places)), at
                )
        if len(stages) == 1:
            whole_s = _over_recursions(whole_s, next(iter(stages)), counts)
        total_s += np.asarray(whole_s)
    return total_s


def _operator_s(
    operator: Operator, rates: Rates, coefficients: Coefficients
) -> tuple[Numbers, Numbers]:
    """Device seconds and launch seconds of one operator, for every level or row of its numbers."""

    def seconds(formula: Callable[[Work], Array], names: Sequence[str]) -> Numbers:
        def of_numbers(*numbers: Any) -> Array:
            alone = replace(operator, **(NO_LOADS | dict(zip(names, numbers, strict=True))))
            return np.asarray(formula(Work.alone(alone))[0])

        found: Numbers = by_stretches(of_numbers, *(getattr(operator, name) for name in names))
        return found

    return (
        seconds(lambda work: operator_s(work, rates, coefficients), LOADS),
        seconds(lambda work: launch_s(work, coefficients), ("calls",)),
    )


def _over_recursions(seconds: Numbers, stage: str, counts: NDArray[np.int64]) -> Numbers:
    """The sum over the recursions that the stage of all later ones stands for."""
    if stage != LATER:
        return seconds
    rows, _, recursions = counts.shape
    every = np.broadcast_to(np.asarray(seconds), (recursions - 1) * rows)
    return np.asarray(every.reshape(recursions - 1, rows).sum(axis=0))
