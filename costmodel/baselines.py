"""What a spreadsheet or a plain learner would do instead: what the cost model must beat. Pure.

Each takes whole passes: FLOP over the measured peak of their precision and threads, bytes over the
measured bandwidth, calls; the learner also batch, width, tokens, survival, executor and setting.
"""

import functools
import importlib.util
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import nnls

from costmodel.operators import operators_of
from costmodel.points import machine_of, setting_of
from costmodel.work import Array
from domain.measurement import Measurement

Baseline = Callable[[Array, Array, Array], Array]


def amounts_of(run: Measurement) -> tuple[float, ...]:
    """Seconds of its FLOP at the peak, of its bytes at the bandwidth, its calls; then what it is."""
    machine = machine_of(run)
    operators = operators_of(run.workload)
    flop = sum(each.flop for each in operators)
    moved = sum(each.weight_bytes + each.moved_bytes for each in operators)
    calls = sum(each.calls for each in operators)
    work, setting = run.workload, setting_of(run)
    return (
        flop / machine.peak_flop_per_s,
        moved / machine.memory_bytes_per_s,
        calls,
        float(work.batch),
        float(work.architecture.width),
        float(work.architecture.tokens),
        work.routing.mean_depth,
        float(work.executor == "masked"),
        *setting.values(),
    )


def linear_in_flop(known: Array, seconds: Array, asked: Array) -> Array:
    """A + b·FLOP/peak, least relative error."""
    return _non_negative(known[:, :1], seconds, asked[:, :1])


def flop_bytes_and_count(known: Array, seconds: Array, asked: Array) -> Array:
    """A + b·FLOP/peak + c·bytes/bandwidth + d·calls, none negative, least relative error."""
    return _non_negative(known[:, :3], seconds, asked[:, :3])


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


def gradient_boosting(known: Array, seconds: Array, asked: Array) -> Array:
    """Trees on the logarithms of all that is known of a pass (scikit-learn, its own settings)."""
    from sklearn import config_context
    from sklearn.ensemble import GradientBoostingRegressor

    # Hundreds of small trees: what they are given is checked once, here.
    rows = np.log(known + 1e-12)
    assert np.isfinite(rows).all(), "amounts of work are finite"
    with config_context(assume_finite=True, skip_parameter_validation=True):
        learner = GradientBoostingRegressor(random_state=0)
        learner.fit(rows, np.log(seconds))
        return np.asarray(np.exp(learner.predict(np.log(asked + 1e-12))))


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
# Only where scikit-learn is installed (extra `dev`).
LEARNERS: dict[str, Baseline] = {"gradient-boosting": gradient_boosting}


@functools.cache
def baselines_here() -> dict[str, Baseline]:
    """Every baseline that can be run here."""
    is_there = importlib.util.find_spec("sklearn") is not None
    return BASELINES | (LEARNERS if is_there else {})


def table_of(runs: Sequence[Measurement]) -> Array:
    """The amounts of many runs, one row each."""
    return np.array([amounts_of(run) for run in runs])
