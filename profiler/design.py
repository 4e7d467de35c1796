"""What a point costs to measure and what it tells: its work by kind of cost, in closed form.

    seconds of a stage  =  Σ work of a kind / rate of that kind        (rates assumed, to order of size)
    a point's row       =  the share of each kind in a stage's seconds
    information         =  Σ rowᵀ row / noise² + prior                 (D-optimal: most log det)

The cost model has equations of its own; these are small on purpose, for choosing points and minutes
before anything is known of the machine.
"""

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from domain.architecture import Architecture
from domain.device import BYTES_OF
from domain.measurement import PlannedPoint
from profiler.protocol import Settings
from profiler.routings import presumed_routing, rotation_of

Array = NDArray[np.float64]

# Assumed, to know minutes and shares in advance: one core of a server. Units of work per second.
ASSUMED_RATES: dict[str, float] = {
    "arithmetic": 6e10,  # FLOP of matrix products
    "attention": 3e10,  # FLOP of attention
    "traffic": 1e10,  # bytes of norms, activations and residuals
    "weights": 1e10,  # bytes of weights, first read
    "weights again": 2e10,  # bytes of weights, read again by a later recursion
    "calls": 1e5,  # operator calls
    "gather": 4e9,  # bytes gathered and scattered
    "waits": 2e4,  # times that shapes depend on data
}
COMMON = tuple(ASSUMED_RATES)
# What half precision has rates of its own for.
HALVED = ("arithmetic", "attention", "traffic")
COSTS = (*COMMON, *(f"{name} in half precision" for name in HALVED))

# Spread of a stage's seconds around their law, and of a rate before anything is measured, in log.
NOISE_LOG_SD, PRIOR_LOG_SD = 0.08, 0.7
CALLS_OF_A_LAYER, CALLS_OF_COMPACTION = 9.0, 10.0
PASSES_OVER_THE_WIDTH, PASSES_OVER_THE_MLP = 10.0, 2.0
KERNEL_S = 4e-3
# Seconds of a point beside its budgets (network, memory, work), and of starting a worker: measured
# on a shared machine of two cores.
BESIDE_S, START_S = 0.6, 6.0


@lru_cache(maxsize=1024)
def work_of(point: PlannedPoint) -> Array:
    """Work of one batch, a row a timed stage and a column a kind of `COMMON`.

    Real images are taken to go everywhere: what they do is not known before.
    """
    net = point.architecture
    full = np.full((point.batch, 1), net.tokens)
    imposed = np.array(presumed_routing(point, seed=0).counts)
    is_imposed = point.survival is not None and net.is_routed and point.executor != "masked"
    rows: list[list[float]] = []
    if point.subject == "network":
        rows.append(_stage(point, full, net.layers_before, first=True))
    for number in range(net.recursions):
        if point.subject in ("network", f"recursion-{number + 1}"):
            rows.append(
                _stage(
                    point,
                    imposed[:, number].reshape(-1, point.batch).T if is_imposed else full,
                    net.shared_layers,
                    first=number == 0 and point.subject == "network",
                    compacts=net.is_routed and point.executor != "masked",
                )
            )
    if point.subject == "network":
        rows.append(_stage(point, full, net.layers_after, first=True))
    return np.array(rows)


def _stage(
    point: PlannedPoint, entering: Array, layers: int, *, first: bool, compacts: bool = False
) -> list[float]:
    """Work of one stage; `entering` are tokens, a row an image of the batch, a column a batch."""
    net = point.architecture
    size = float(BYTES_OF[point.precision])
    tokens = float(entering.sum(axis=0).mean())
    squares = float((entering.astype(float) ** 2).sum(axis=0).mean())
    groups = float(np.mean([len(set(batch) - {0}) for batch in entering.T.tolist()]))
    weights = size * layers * net.layer_parameters
    traffic = PASSES_OVER_THE_WIDTH * net.width + PASSES_OVER_THE_MLP * net.mlp_width
    return [
        2.0 * layers * tokens * matrix_weights(net),
        4.0 * layers * net.width * squares,
        size * layers * tokens * traffic,
        weights * first,
        weights * (not first),
        layers * (CALLS_OF_A_LAYER + groups) + CALLS_OF_COMPACTION * compacts + 2.0,
        6.0 * size * tokens * net.width * compacts,
        float(compacts),
    ]


def matrix_weights(net: Architecture) -> int:
    """Weights of one layer that every token is multiplied by."""
    into = 2 if net.mlp == "swiglu" else 1
    return 4 * net.width**2 + (into + 1) * net.width * net.mlp_width


def stage_costs_s(point: PlannedPoint) -> Array:
    """Assumed seconds of each stage by kind of `COSTS`."""
    seconds = work_of(point) / np.array(list(ASSUMED_RATES.values()))
    own = np.zeros((len(seconds), len(HALVED)))
    if BYTES_OF[point.precision] < BYTES_OF["fp32"]:
        columns = [COMMON.index(name) for name in HALVED]
        own = seconds[:, columns]
        seconds[:, columns] = 0.0
    return np.hstack([seconds, own])


def pass_s(point: PlannedPoint) -> float:
    """Assumed seconds of one batch: its work over the rates of one core."""
    return float(stage_costs_s(point).sum())


def information(points: Iterable[PlannedPoint]) -> Array:
    """What `points` tell of the logarithm of each of `COSTS`, the prior included."""
    known = np.eye(len(COSTS)) / PRIOR_LOG_SD**2
    for point in points:
        known = known + _told(point)
    return known


@lru_cache(maxsize=1024)
def _told(point: PlannedPoint) -> Array:
    seconds = stage_costs_s(point)
    shares = seconds / seconds.sum(axis=1, keepdims=True)
    return np.asarray(shares.T @ shares / NOISE_LOG_SD**2)


def log_det(points: Iterable[PlannedPoint]) -> float:
    """Logarithm of the determinant of the information: the measure of D-optimality."""
    return float(np.linalg.slogdet(information(points))[1])


def log_sds(points: Iterable[PlannedPoint]) -> dict[str, float]:
    """How well each cost would be known, as the spread of its logarithm."""
    return dict(
        zip(COSTS, np.sqrt(np.diag(np.linalg.inv(information(points)))).tolist(), strict=True)
    )


def expected_s(point: PlannedPoint, settings: Settings) -> float:
    """Seconds that one run of a point is expected to take.

    Warm-up and pairs are as many passes as they must be, within their caps; samples stop half way
    between the least and the most time, as they did where the counts were few.
    """
    one_s = pass_s(point)
    rotation = rotation_of(point.batch)
    passes = rotation + settings.least_warmups
    most_warmup_s = settings.most_warmup_s + _each_batch_s(point)
    warmup_s = min(most_warmup_s, max(settings.least_warmup_s, passes * one_s))
    least_s = max(settings.least_s, settings.least_samples * (one_s + KERNEL_S))
    samples_s = (min(settings.most_s, least_s) + settings.most_s) / 2
    pairs_s = max(rotation, settings.least_pairs) * 2 * (one_s + KERNEL_S)
    return warmup_s + samples_s + min(settings.most_pairs_s, pairs_s) + BESIDE_S


def most_s(point: PlannedPoint, settings: Settings) -> float:
    """Seconds that one run of a point takes at most, if no pass is longer than its budget."""
    one_s = pass_s(point)
    spent = settings.most_warmup_s + settings.most_s + settings.most_pairs_s
    spent += _each_batch_s(point)
    # The last pass of each may begin just before the time is up.
    return spent + 3 * one_s + BESIDE_S


def _each_batch_s(point: PlannedPoint) -> float:
    """Seconds of running each batch once, where that has no limit on a CPU (`Subject.builds_kernels`)."""
    is_half = BYTES_OF[point.precision] == BYTES_OF["fp16"]
    return rotation_of(point.batch) * pass_s(point) if is_half else 0.0


def minutes_up(seconds: float) -> int:
    """Whole minutes, rounded up.

    >>> minutes_up(61.0)
    2
    """
    return math.ceil(seconds / 60)
