"""How the seconds of the equations in `latency` move along the logarithm of each coefficient. Pure.

    operator   T = (C³ + M³)^⅓            dT = (C/T)² dC + (M/T)² dM
    product    C = P + S                  P is one over an efficiency, x/(x + half) is a half's share
    stage      as T, of device and host   where the host runs ahead; else their sum

A fit asks for these some thousand times; by differences each would cost as much as all seconds.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from costmodel.latency import (
    CALLS_OF,
    IS_ATTENTION,
    LEAST,
    OF_PRODUCTS,
    PLAIN,
    STREAM_OF,
    Coefficients,
    along_groups,
    attention_s,
    cached_share,
    launch_s,
    product_parts_s,
    reckoning,
    smooth_maximum,
    summed,
    tile_taken,
    together_s,
    traffic_s,
)
from costmodel.work import KINDS, Array, Rates, Work


def group_slopes_s(
    work: Work, rates: Rates, coefficients: Coefficients
) -> tuple[Array, dict[str, Array]]:
    """Seconds of each group, and their slope along the logarithm of each coefficient."""
    seconds = traffic_s(work, rates, coefficients)
    from_traffic = seconds.copy()
    device: dict[str, Array] = {}
    for chosen, own in reckoning(work):
        traffic = seconds[chosen]
        slopes = dict(_arithmetic_slopes(own, rates, coefficients))
        compute = slopes.pop(SECONDS)
        whole = smooth_maximum(compute, traffic)
        share = _square_share(compute, whole)
        for name, slope in slopes.items():
            device[name] = device.get(name, 0.0) + summed(own, share * slope)
        seconds[chosen] = whole
        from_traffic[chosen] = traffic * _square_share(traffic, whole)
    for name in set(STREAM_OF.values()):
        device[name] = -_summed_of(work, from_traffic, name)
    if rates.cache_bytes.any():
        cached = cached_share(work, rates, coefficients)
        device["cache_reach"] = -summed(work, from_traffic * cached)

    launches = launch_s(work, coefficients)
    device_s, host_s = summed(work, seconds), summed(work, launches)
    whole_s = together_s(device_s, host_s, rates.host_runs_ahead, 0.0)
    ahead = rates.host_runs_ahead
    of_device, of_host = (
        np.where(ahead, _square_share(each, whole_s), 1.0) for each in (device_s, host_s)
    )
    once_s = np.broadcast_to(coefficients["stage_s"], whole_s.shape)
    found = {name: of_device * slope for name, slope in device.items()}
    found["call_s"] = of_host * host_s
    for name in set(CALLS_OF.values()) - {PLAIN}:
        found[name] = of_host * _summed_of(work, launches, name)
    found["stage_s"] = once_s
    nothing = np.zeros(work.groups)
    return whole_s + once_s, {name: found.get(name, nothing) for name in coefficients}


# Under which name the seconds themselves come beside their slopes.
SECONDS = "seconds"


def _arithmetic_slopes(
    own: Work, rates: Rates, coefficients: Coefficients
) -> Iterator[tuple[str, Array]]:
    """Seconds of arithmetic of operators of one family, and their slopes."""
    of_family = _attention_slopes if IS_ATTENTION[own.kind[0]] else _product_slopes
    return of_family(own, rates, coefficients)


def _product_slopes(
    work: Work, rates: Rates, coefficients: Coefficients
) -> Iterator[tuple[str, Array]]:
    rated_s, steps_s = product_parts_s(work, rates, coefficients)
    yield SECONDS, rated_s + steps_s
    yield "gemm_efficiency", -rated_s
    yield "convolution_efficiency", -rated_s * (work.kind == KINDS.index("convolution"))
    yield "inner_step_s", steps_s
    half = {name: along_groups(work, coefficients[name]) for name in OF_PRODUCTS}
    rows, columns = work.rows, work.columns
    if rates.in_tiles.any():
        units, in_tiles = work.along(rates.units), work.along(rates.in_tiles)
        of_rows, of_columns = tile_taken(
            rows, columns, units, half["rows_half"], half["columns_half"]
        )
        rows, columns = np.where(in_tiles, (of_rows, of_columns), (rows, columns))
    for name, size in (("rows_half", rows), ("inner_half", work.inner), ("columns_half", columns)):
        yield name, rated_s * half[name] / (np.maximum(size, LEAST) + half[name])


def _attention_slopes(
    work: Work, rates: Rates, coefficients: Coefficients
) -> Iterator[tuple[str, Array]]:
    seconds = attention_s(work, rates, coefficients)
    half = along_groups(work, coefficients["attention_half"])
    yield SECONDS, seconds
    yield "attention_efficiency", -seconds
    yield "attention_half", seconds * half / (np.maximum(work.columns, LEAST) + half)


def _summed_of(work: Work, seconds: Array, name: str) -> Array:
    """Of every group the seconds of operators whose traffic, or whose launches, answer to `name`."""
    answers = np.array([name in (STREAM_OF[kind], CALLS_OF[kind]) for kind in KINDS])[work.kind]
    return np.asarray(np.bincount(work.group[answers], seconds[answers], work.groups))


def _square_share(part: Array, whole: Array) -> NDArray[np.float64]:
    """(part/whole)²; nothing where there is nothing."""
    share = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    return share * share
