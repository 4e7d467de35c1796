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

from costmodel.columns import Places, aligned
from costmodel.operators import Operator
from costmodel.work import Array
from domain.fit import Discrepancy

LOG_SD = 0.06
# Two runs of the same thing agree no better than this.
NUGGET_LOG_SD = 0.02
# Ten spreads: more is no neighbour's share but a file that was tampered with.
MOST_LOG = 10 * LOG_SD
# Places that are looked at together, so that their kernel stays in the cache.
PLACES_TOGETHER = 1_024
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
    places = places_of_group(operators, setting)[0]
    return None if places is None or np.isnan(places).any() else tuple(map(float, places[0]))


def places_of_group(
    operators: Sequence[Operator], setting: Mapping[str, float]
) -> tuple[Array | None, Places | None]:
    """The same for operators of many batches, one row each; not a number where nothing is left.

    Where the operators' numbers are columns, one row a level, and which of them each batch has.
    """
    layer = next((each for each in operators if each.name == "mlp-in"), None)
    attention = next((each for each in operators if each.name == "attention"), None)
    if layer is None or attention is None:
        return None, None
    stages = {each.stage for each in operators}
    is_whole = len(stages) > 1
    # Of a whole network the first recursion's, as rows and length are the first layer's.
    gather = next((each.calls for each in operators if each.family == "gather"), 0.0)
    loads, at = aligned(layer.rows, attention.columns, attention.calls, gather)
    rows, length, calls, gathers = (np.asarray(x, dtype=float) for x in loads)
    is_there = (rows > 0) & (length > 0)
    found: dict[str, Array | float] = {
        "rows": np.log(np.where(is_there, rows, np.nan)),
        "length": np.log(np.where(is_there, length, np.nan)),
        "width": math.log(layer.inner),
        "attention_calls": np.log(np.maximum(calls / layer.calls, 1.0)),
        "half": setting.get("half", 0.0),
        "threads": setting.get("threads", 0.0),
        "gathers": np.asarray(gathers > 0, dtype=float),
        "prologue": float(not is_whole and "prologue" in stages),
        "epilogue": float(not is_whole and "epilogue" in stages),
    }
    columns = np.broadcast_arrays(*(np.atleast_1d(found[name]) for name in FEATURES))
    return np.stack(columns, axis=1), at


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
        log_sd=tuple(round(float(each), 6) for each in log_sd),
    )


def expected_at(
    known: Discrepancy, places: Sequence[tuple[float, ...]], log_sd: float
) -> Discrepancy:
    """`known`, had it also seen groups there show what it expects: its mean stays, its doubt narrows.

    Points that do not say how far they were believed are believed as far as the new ones.
    """
    points = np.array(known.points)
    believed = np.array(known.log_sd or (log_sd,) * len(points))
    weights = np.array(known.weights)
    among = _kernel(points, points) + np.diag(believed**2 + NUGGET_LOG_SD**2)
    shown = [among @ weights, _kernel(np.array(places), points) @ weights]
    found = discrepancy_of(
        [*known.points, *places],
        np.concatenate(shown),
        np.concatenate([believed, np.full(len(places), log_sd)]),
    )
    assert found is not None, "there are points"
    return found


def covariance_of(known: Discrepancy | None, places: Sequence[tuple[float, ...] | None]) -> Array:
    """Covariance of what groups there take beside the equations, after all that is `known`.

    k(x, x') − k(x, X) (k(X, X) + noise)⁻¹ k(X, x'): s² for groups far from all that was seen. A group
    without a place has none. Points that do not say how far they were believed tell nothing.
    """
    found = np.zeros((len(places), len(places)))
    rows = [number for number, place in enumerate(places) if place is not None]
    if not rows:
        return found
    at = np.array([places[row] for row in rows])
    inner = _kernel(at, at)
    if known is not None and known.log_sd:
        points = np.array(known.points)
        noise = np.diag(np.array(known.log_sd) ** 2 + NUGGET_LOG_SD**2)
        across = _kernel(points, at)
        inner = inner - across.T @ np.linalg.solve(_kernel(points, points) + noise, across)
    found[np.ix_(rows, rows)] = inner
    return found


def corrections_at(
    discrepancy: Discrepancy | None, places: Sequence[tuple[float, ...] | None]
) -> Array:
    """What log seconds are raised by for groups there: 0 far from all that was seen, or without a place."""
    found = np.zeros(len(places))
    rows = [number for number, place in enumerate(places) if place is not None]
    if discrepancy is not None and rows:
        found[rows] = log_corrections(discrepancy, np.array([places[row] for row in rows]))
    return found


def factors_of(
    discrepancy: Discrepancy | None,
    groups: Sequence[Sequence[Operator]],
    setting: Mapping[str, float],
) -> Array:
    """What the seconds of each group are to be multiplied by."""
    places = [features_of_group(group, setting) for group in groups]
    return np.exp(corrections_at(discrepancy, places))


def log_corrections(discrepancy: Discrepancy, places: Array) -> Array:
    """The same for many groups, one row each; 0 where a place is not a number.

    The kernel is a product over features: what all places share is one factor of each point's
    weight, and points that are alike in the rest are one point with the sum of their weights.
    """
    points, weights = np.array(discrepancy.points), np.array(discrepancy.weights)
    is_shared = (places == places[:1]).all(axis=0)
    weights = weights * _kernel(places[:1, is_shared], points[:, is_shared])[0]
    found = np.full(len(places), weights.sum())
    if not is_shared.all():
        distinct, which = np.unique(points[:, ~is_shared], axis=0, return_inverse=True)
        summed = np.bincount(which.ravel(), weights, len(distinct)) / LOG_SD**2
        for start in range(0, len(places), PLACES_TOGETHER):
            some = slice(start, start + PLACES_TOGETHER)
            found[some] = _kernel(places[some, ~is_shared], distinct) @ summed
    return np.asarray(np.nan_to_num(np.clip(found, -MOST_LOG, MOST_LOG), nan=0.0))


def _kernel(one: Array, other: Array) -> Array:
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2 * one @ other.T
    return np.asarray(LOG_SD**2 * np.exp(-np.maximum(squares, 0.0) / 2))
