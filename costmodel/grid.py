"""Many batches of one network at once: loads as arrays, seconds as an array. Pure.

The same equations as for one workload. Operators are taken one by one, each for a stretch of
batches that stays in the cache, so that a prediction costs less than a microsecond.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costmodel.discrepancy import log_corrections, places_of_group
from costmodel.latency import Coefficients, launch_s, operator_s, together_s
from costmodel.loads import loads_of_batches
from costmodel.operators import operators_for
from costmodel.reach import Reach, setting_for
from costmodel.work import Array, Machine, Rates, Work, grouped
from domain.architecture import Architecture
from domain.fit import Discrepancy
from domain.record import Executor, Precision
from domain.workload import Workload

# Batches that are reckoned together: 128 KB a column.
STRETCH = 16_384


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What all batches of a grid have in common."""

    net: Architecture
    precision: Precision
    executor: Executor
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
            machine=reach.machine,
            coefficients={each.name: each.value for each in reach.fit.coefficients},
            discrepancy=reach.fit.discrepancy,
            setting=tuple(setting_for(workload, reach.fit).items()),
        )


def batches_s(asked: Asked, counts: NDArray[np.int64], batch: NDArray[np.int64]) -> Array:
    """Seconds of every batch; `counts` and `batch` as `loads_of_batches` takes them."""
    starts = range(0, len(counts), STRETCH)
    return np.concatenate(
        [
            _stretch_s(asked, counts[start : start + STRETCH], batch[start : start + STRETCH])
            for start in starts
        ]
    )


def _stretch_s(asked: Asked, counts: NDArray[np.int64], batch: NDArray[np.int64]) -> Array:
    loads = loads_of_batches(counts, batch, asked.executor, asked.net)
    operators = operators_for(asked.net, loads, precision=asked.precision, executor=asked.executor)
    groups = grouped(
        operators, asked.net, asked.executor, host_runs_ahead=asked.machine.host_runs_ahead
    )
    rates = Rates.of([asked.machine])
    once_s = asked.coefficients["stage_s"]
    total_s = np.zeros(len(counts))
    for group in groups:
        device_s, host_s = np.zeros(len(counts)), np.zeros(len(counts))
        for operator in group:
            work = Work.alone(operator)
            device_s += operator_s(work, rates, asked.coefficients)[0]
            host_s += launch_s(work, asked.coefficients)[0]
        own_s = together_s(device_s, host_s, rates.host_runs_ahead, once_s)
        if asked.discrepancy is not None:
            places = places_of_group(group, dict(asked.setting))
            if places is not None:
                own_s = own_s * np.exp(log_corrections(asked.discrepancy, places))
        total_s += own_s
    return total_s
