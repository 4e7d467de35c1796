"""What a spreadsheet would do instead: the lines that the cost model must beat. Pure.

Each takes whole passes: FLOP over the measured peak of their precision and threads, bytes over the
measured bandwidth, calls. Gradient boosting is not among them: no library for it is installed.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import nnls

from costmodel.latency import Array
from costmodel.operators import operators_of
from costmodel.points import machine_of
from domain.measurement import Measurement

Baseline = Callable[[Array, Array, Array], Array]


def amounts_of(run: Measurement) -> tuple[float, float, float]:
    """Seconds of its FLOP at the peak, of its bytes at the bandwidth, and its calls."""
    machine = machine_of(run)
    operators = operators_of(run.workload)
    flop = sum(each.flop for each in operators)
    moved = sum(each.weight_bytes + each.moved_bytes for each in operators)
    calls = sum(each.calls for each in operators)
    return flop / machine.peak_flop_per_s, moved / machine.memory_bytes_per_s, calls


def linear_in_flop(known: Array, seconds: Array, asked: Array) -> Array:
    """A + b·FLOP/peak, least relative error."""
    return _non_negative(known[:, :1], seconds, asked[:, :1])


def flop_bytes_and_count(known: Array, seconds: Array, asked: Array) -> Array:
    """A + b·FLOP/peak + c·bytes/bandwidth + d·calls, none negative, least relative error."""
    return _non_negative(known, seconds, asked)


def log_log_interpolation(known: Array, seconds: Array, asked: Array) -> Array:
    """Straight lines between neighbours in log FLOP/peak; beyond the ends, the nearest slope."""
    order = np.argsort(known[:, 0])
    places, logs = np.log(known[order, 0]), np.log(seconds[order])
    places, first = np.unique(places, return_index=True)
    logs = logs[first]
    where = np.log(asked[:, 0])
    if len(places) < 2:
        return np.full(len(where), math.exp(logs[0]))
    low = np.clip(np.searchsorted(places, where) - 1, 0, len(places) - 2)
    slope = (logs[low + 1] - logs[low]) / (places[low + 1] - places[low])
    return np.asarray(np.exp(logs[low] + slope * (where - places[low])))


def _non_negative(known: Array, seconds: Array, asked: Array) -> Array:
    design = np.column_stack([np.ones(len(known)), known]) / seconds[:, None]
    scale = design.max(axis=0)
    weights, _ = nnls(design / scale, np.ones(len(known)))
    return np.asarray(np.column_stack([np.ones(len(asked)), asked]) @ (weights / scale))


BASELINES: dict[str, Baseline] = {
    "linear-in-flop": linear_in_flop,
    "flop-bytes-count": flop_bytes_and_count,
    "log-log": log_log_interpolation,
}


def table_of(runs: Sequence[Measurement]) -> Array:
    """The amounts of many runs, one row each."""
    return np.array([amounts_of(run) for run in runs])
