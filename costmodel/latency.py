"""Seconds from work: one equation per kind of operator, smooth maxima, vectorised over operators.

    operator   g = n·t + (C³ + M³)^⅓             arithmetic C, traffic M, n plain calls of t
    stage      G = Σ g + t_stage                 on a CPU, which dispatches as it computes
               ((ΣG)³ + (ΣH)³)^⅓ + t_stage       on a GPU, whose host runs ahead: H = n·t

Efficiencies are shares of a device's dense peak and memory bandwidth, so that what was learned on
one device can be carried to another of its class. A coefficient is a number, or one number a group
where it depends on precision, threads or device.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from costmodel.operators import Operator
from costmodel.work import KINDS, Array, Kind, Machine, Rates, Work
from domain.prediction import Bound

Coefficients = Mapping[str, float | Array]

# Which kinds have FLOP, by their number.
IS_PRODUCT = np.array([kind in ("gemm", "convolution") for kind in KINDS])
IS_ATTENTION = np.array([kind == "attention" for kind in KINDS])
# Which are split over threads by their number of elements, and how many one thread takes at least.
IS_SPLIT = np.array([kind in ("activation", "elementwise", "gather") for kind in KINDS])
GRAIN = 32_768
# What is divided by is at least this.
LEAST = 1e-9
# Outputs (rows × columns) that a multiprocessor of a GPU works out at once: shapes that libraries of
# matrix products come with. A kernel takes the one that suits.
TILES = ((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64))
# Which efficiency divides the bandwidth, and what a launch costs, for each kind.
STREAM_OF: dict[Kind, str] = {
    "gemm": "traffic_efficiency",
    "convolution": "traffic_efficiency",
    "attention": "traffic_efficiency",
    "norm": "norm_efficiency",
    "activation": "activation_efficiency",
    "elementwise": "elementwise_efficiency",
    "gather": "gather_efficiency",
}
# In plain calls of `call_s`: what launching costs is the host's doing, whatever it launches.
PLAIN = "plain_calls"
CALLS_OF: dict[Kind, str] = {
    "gemm": PLAIN,
    "convolution": "convolution_calls",
    "attention": "attention_calls",
    "norm": PLAIN,
    "activation": PLAIN,
    "elementwise": PLAIN,
    "gather": "gather_calls",
}

# What the seconds of products depend on.
OF_PRODUCTS = ("gemm_efficiency", "inner_step_s", "rows_half", "inner_half", "columns_half")

# name: (unit, prior median on a GPU, on a CPU, prior log sd). The medians are what measured
# networks and kernels of the class reach (costs of launches: several microseconds a kernel in eager
# mode, of an operator that is several kernels as many times that; shares of the dense peak: some 0.6
# to 0.85 for large matrix products); the fit moves them.
# The sizes at which half of the rate is reached are of the matrix on a CPU, of its tiles on a GPU.
COEFFICIENTS: dict[str, tuple[str, float, float, float]] = {
    "gemm_efficiency": ("share of peak", 0.85, 0.8, 0.5),
    "inner_step_s": ("s", 2e-9, 1e-10, 1.0),
    "rows_half": ("rows", 20.0, 10.0, 1.0),
    "inner_half": ("inner size", 32.0, 5.0, 1.0),
    "columns_half": ("columns", 20.0, 20.0, 1.0),
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
    "attention_calls": ("calls", 1.0, 2.0, 0.5),
    "gather_calls": ("calls", 1.0, 2.0, 0.5),
    "convolution_calls": ("calls", 1.7, 20.0, 1.0),
    "stage_s": ("s", 2e-5, 2e-5, 0.4),
}


def arithmetic_s(work: Work, rates: Rates, coefficients: Coefficients) -> Array:
    """Seconds of arithmetic: FLOP over the peak, at an efficiency that grows with the shape.

    A CPU's products run faster the longer rows, inner size and columns are: each share is
    x/(x + half). A GPU's come in tiles (`tiled`). However few the outputs, each step along the inner
    size takes its time: what keeps small products from the peak of a device with many units.
    Attention's share grows with the tokens of an image. Only products and attention have FLOP.
    """
    seconds = np.zeros(work.flop.shape)
    for chosen, own in reckoning(work):
        seconds[chosen] = _reckoned_s(own, rates, coefficients)
    return seconds


def reckoning(work: Work) -> Iterator[tuple[NDArray[np.bool_], Work]]:
    """The operators that have FLOP: products, then attention; which they are, and they alone."""
    for is_kind in (IS_PRODUCT, IS_ATTENTION):
        chosen = is_kind[work.kind]
        if chosen.any():
            yield chosen, work if chosen.all() else work.taken(chosen)


def _reckoned_s(own: Work, rates: Rates, coefficients: Coefficients) -> Array:
    of_kind = attention_s if IS_ATTENTION[own.kind[0]] else _product_s
    return of_kind(own, rates, coefficients)


def _product_s(work: Work, rates: Rates, coefficients: Coefficients) -> Array:
    rated_s, steps_s = product_parts_s(work, rates, coefficients)
    return rated_s + steps_s


def product_parts_s(work: Work, rates: Rates, coefficients: Coefficients) -> tuple[Array, Array]:
    """Seconds of products at the rate of their shape, and of the steps along their inner size."""
    each = {name: along_groups(work, coefficients[name]) for name in OF_PRODUCTS}
    # Time, not rate: each factor is (x + half)/x.
    slowness = (1 + each["inner_half"] / np.maximum(work.inner, LEAST)) / (
        each["gemm_efficiency"] * work.along(rates.peak_flop_per_s)
    )
    is_convolution = work.kind == KINDS.index("convolution")
    if is_convolution.any():
        share = along_groups(work, coefficients["convolution_efficiency"])
        slowness = slowness / np.where(work.beside(is_convolution), share, 1.0)
    step_s = each["inner_step_s"] * work.along(rates.slowness)
    shape = _shape_of(work, rates, each["rows_half"], each["columns_half"])
    return np.asarray(work.flop * shape * slowness), np.asarray(work.calls * work.inner * step_s)


def _shape_of(
    work: Work, rates: Rates, rows_half: float | Array, columns_half: float | Array
) -> Array:
    """How much longer than at its rate each product takes for the rows and columns that it has."""
    whole = (1 + rows_half / np.maximum(work.rows, LEAST)) * (
        1 + columns_half / np.maximum(work.columns, LEAST)
    )
    if not rates.in_tiles.any():
        return np.asarray(whole)
    units = work.along(rates.units)
    in_tiles = tiled(work.rows, work.columns, units, rows_half, columns_half)
    return np.where(work.along(rates.in_tiles), in_tiles, whole)


def tiled(
    rows: Array, columns: Array, units: Array, rows_half: float | Array, columns_half: float | Array
) -> Array:
    """How much longer than at its rate a GPU takes for rows × columns outputs: in the best of `TILES`.

    A tile of r × c is worked out faster the longer it is, (1 + rows_half/r)(1 + columns_half/c). The
    last one of each row and column is padded, and ⌈rows/r⌉⌈columns/c⌉ tiles come in waves of `units`.
    Of what padding and waves take in log, half counts: that libraries split the inner size or the
    last wave, and have more shapes than these, smooths it.

    One tile more than there are units makes a second wave, unless smaller tiles fit:

    >>> for many in (108, 109):
    ...     print(tiled(np.array(256.0), np.array(128.0 * many), np.array(108.0), 40.0, 40.0).round(2))
    1.52
    2.1
    """
    taken = _taken_in_tiles(rows, columns, units, rows_half, columns_half)
    return np.asarray(
        np.sqrt(functools.reduce(np.minimum, taken) / np.maximum(rows * columns, LEAST))
    )


def tile_taken(
    rows: Array, columns: Array, units: Array, rows_half: float | Array, columns_half: float | Array
) -> tuple[Array, Array]:
    """Rows and columns of the tile that each product takes: the best of `TILES`."""
    taken = np.stack(list(_taken_in_tiles(rows, columns, units, rows_half, columns_half)))
    best = np.array(TILES, dtype=float)[taken.argmin(axis=0)]
    return best[..., 0], best[..., 1]


def _taken_in_tiles(
    rows: Array, columns: Array, units: Array, rows_half: float | Array, columns_half: float | Array
) -> Iterator[Array]:
    """The square of what rows × columns outputs take, in outputs, in each of `TILES`."""
    for of_rows, of_columns in TILES:
        tiles = np.ceil(rows / of_rows) * np.ceil(columns / of_columns)
        waited = np.where(tiles > units, np.ceil(tiles / units) * units, tiles)
        slower = (1 + rows_half / of_rows) * (1 + columns_half / of_columns)
        yield slower**2 * waited * (of_rows * of_columns)


def attention_s(work: Work, rates: Rates, coefficients: Coefficients) -> Array:
    """Seconds of attention's arithmetic: its share of the peak grows with the tokens of an image."""
    half = along_groups(work, coefficients["attention_half"])
    longer = 1 + half / np.maximum(work.columns, LEAST)
    if rates.in_tiles.any():
        longer = longer * np.where(work.along(rates.in_tiles), padded_heads(work.inner), 1.0)
    efficiency = along_groups(work, coefficients["attention_efficiency"])
    rate = efficiency * work.along(rates.peak_flop_per_s)
    return np.asarray(work.flop * longer / rate)


def padded_heads(widths: Array) -> Array:
    """How much wider heads are than their width in a GPU's fused attention, which pads them.

    FlashAttention rounds up to multiples of 32, above 128 of 64 (`head_size_rounded` in its flash_api.cpp).

    >>> padded_heads(np.array([64.0, 72.0, 130.0])).round(3)
    array([1.   , 1.333, 1.477])
    """
    step = np.where(widths > 128, 64.0, 32.0)
    return np.asarray(np.ceil(widths / step) * step / np.maximum(widths, 1.0))


def traffic_s(work: Work, rates: Rates, coefficients: Coefficients) -> Array:
    """Seconds of memory traffic: bytes over bandwidth at an efficiency by kind.

    What one call touches, ws, may lie in the last cache already: the share ws/(ws + reach·cache)
    goes to memory.
    """
    rate = work.along(rates.memory_bytes_per_s) * _of_kind(work, coefficients, STREAM_OF)
    is_shared = ~rates.host_runs_ahead & (rates.units > 1)
    if is_shared.any():
        rate = rate * _share_of_cores(work, rates)
    moved = work.weight_bytes + work.moved_bytes
    if not rates.cache_bytes.any():
        return np.asarray(moved / rate)
    return np.asarray(moved * (1 - cached_share(work, rates, coefficients)) / rate)


def cached_share(work: Work, rates: Rates, coefficients: Coefficients) -> Array:
    """What share of an operator's traffic the last cache takes."""
    touched = (work.weight_bytes + work.moved_bytes) / np.maximum(work.calls, LEAST) + 1.0
    reached = along_groups(work, coefficients["cache_reach"]) * work.along(rates.cache_bytes)
    return np.asarray(reached / (touched + reached))


def _share_of_cores(work: Work, rates: Rates) -> Array:
    """How many of a CPU's threads work on each element-wise operator: one for every `GRAIN`, of all.

    torch's parallel_for gives no thread less than that (at::internal::GRAIN_SIZE).
    """
    units = work.along(np.where(rates.host_runs_ahead, 1.0, rates.units))
    busy = np.minimum(np.maximum(work.rows / GRAIN, 1.0), units)
    return np.asarray(np.where(work.beside(IS_SPLIT[work.kind]), busy / units, 1.0))


def along_groups(work: Work, coefficient: float | Array) -> float | Array:
    """A coefficient as one number, or as one an operator where it depends on the group."""
    return work.along(coefficient) if isinstance(coefficient, np.ndarray) else coefficient


def _of_kind(work: Work, coefficients: Coefficients, names: Mapping[Kind, str]) -> Array:
    """For every operator the coefficient that `names` gives its kind."""
    chosen = [coefficients[names[kind]] for kind in KINDS]
    if not any(isinstance(value, np.ndarray) for value in chosen):
        return work.beside(np.array(chosen)[work.kind])
    of_groups = np.empty((len(KINDS), work.groups))
    for row, value in zip(of_groups, chosen, strict=True):
        row[:] = value
    return work.beside(of_groups[work.kind, work.group])


def smooth_maximum(one: Array, other: Array) -> Array:
    """(a³ + b³)^⅓: at least the larger, at most 2^⅓ times it.

    >>> round(float(smooth_maximum(np.array(3.0), np.array(0.0))), 9)
    3.0
    """
    # Products and a cube root: a general power takes several times as long. Seconds are far from
    # where a cube leaves the range of numbers.
    return np.asarray(np.cbrt(one * one * one + other * other * other))


def operator_s(work: Work, rates: Rates, coefficients: Coefficients) -> Array:
    """Device seconds of each operator, without launches."""
    seconds = traffic_s(work, rates, coefficients)
    for chosen, own in reckoning(work):
        own_s = _reckoned_s(own, rates, coefficients)
        seconds[chosen] = smooth_maximum(own_s, seconds[chosen])
    return seconds


def launch_s(work: Work, coefficients: Coefficients) -> Array:
    """Seconds that launching each operator's calls takes."""
    plain = _of_kind(work, {**coefficients, PLAIN: 1.0}, CALLS_OF)
    return np.asarray(work.calls * along_groups(work, coefficients["call_s"]) * plain)


def group_s(work: Work, rates: Rates, coefficients: Coefficients) -> Array:
    """Seconds of each group of the work: its operators, and once what every group costs."""
    device_s = summed(work, operator_s(work, rates, coefficients))
    host_s = summed(work, launch_s(work, coefficients))
    return together_s(device_s, host_s, rates.host_runs_ahead, coefficients["stage_s"])


def together_s(
    device_s: Array, host_s: Array, host_runs_ahead: NDArray[np.bool_], once_s: float | Array
) -> Array:
    """Seconds of a stage from those of its device, of its host, and what every stage costs."""
    if host_runs_ahead.all():
        return np.asarray(smooth_maximum(device_s, host_s) + once_s)
    if not host_runs_ahead.any():
        return np.asarray(device_s + host_s + once_s)
    both_s = np.where(host_runs_ahead, smooth_maximum(device_s, host_s), device_s + host_s)
    return np.asarray(both_s + once_s)


def summed(work: Work, seconds: Array) -> Array:
    """The sum over the operators of each group."""
    return np.asarray(np.bincount(work.group, seconds, work.groups), dtype=float)


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
    seconds = own * (whole / summed(work, own))[work.group]
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
