"""What the equations leave over and neighbours share: a Gaussian process on log residuals.

    log seen = log equation + d(x),   d ~ GP(0, s²·exp(−|x − x'|²/2))

`x` are logarithms of a group's size and shape, and what kind of group it is, so one length of 1 fits
all: workloads a factor e apart are neighbours. Nothing here is tuned: s is what is left over between
careful models and kernels elsewhere, some 6 %; whether the process earns its keep is for
leave-one-out to say.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from costmodel.latency import Array
from costmodel.operators import Operator
from domain.fit import Discrepancy

LOG_SD = 0.06
# Two runs of the same thing agree no better than this.
NUGGET_LOG_SD = 0.02
# Ten spreads: more is no neighbour's share but a file that was tampered with.
MOST_LOG = 10 * LOG_SD
FEATURES = (
    "rows", "length", "width", "attention_calls", "half", "threads", "gathers", "prologue",
    "epilogue",
)  # fmt: skip


def features_of_group(
    operators: Sequence[Operator], setting: Mapping[str, float]
) -> tuple[float, ...] | None:
    """Where a group lies among others; None where it has no transformer layer.

    `setting` is what the operators do not say: half precision, doublings of threads.
    """
    layer = next((each for each in operators if each.name == "mlp-in"), None)
    attention = next((each for each in operators if each.name == "attention"), None)
    if layer is None or attention is None or layer.rows <= 0 or attention.columns <= 0:
        return None
    stages = {each.stage for each in operators}
    is_whole = len(stages) > 1
    found = {
        "rows": math.log(layer.rows),
        "length": math.log(attention.columns),
        "width": math.log(layer.inner),
        "attention_calls": math.log(max(attention.calls / layer.calls, 1.0)),
        "half": setting.get("half", 0.0),
        "threads": setting.get("threads", 0.0),
        "gathers": float(any(each.family == "gather" for each in operators)),
        "prologue": float(not is_whole and "prologue" in stages),
        "epilogue": float(not is_whole and "epilogue" in stages),
    }
    return tuple(found[name] for name in FEATURES)


def discrepancy_of(
    features: Sequence[tuple[float, ...]], residuals: Array, log_sd: Array
) -> Discrepancy | None:
    """The process that has seen log(seen / equation) of groups; None without any."""
    if not features:
        return None
    points = np.array(features)
    noise = np.diag(log_sd**2 + NUGGET_LOG_SD**2)
    weights = np.linalg.solve(_kernel(points, points) + noise, residuals)
    return Discrepancy(
        features=FEATURES,
        points=tuple(tuple(round(float(x), 6) for x in row) for row in points),
        weights=tuple(map(float, weights)),
    )


def log_correction(discrepancy: Discrepancy | None, features: tuple[float, ...] | None) -> float:
    """What log seconds are raised by for a group there: 0 far from all that was seen."""
    if discrepancy is None or features is None:
        return 0.0
    near = _kernel(np.array([features]), np.array(discrepancy.points))
    found = float(near[0] @ np.array(discrepancy.weights))
    return min(max(found, -MOST_LOG), MOST_LOG)


def _kernel(one: Array, other: Array) -> Array:
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2 * one @ other.T
    return np.asarray(LOG_SD**2 * np.exp(-np.maximum(squares, 0.0) / 2))
