"""What a few timings would be worth: which to take, and how far the interval would narrow. Pure.

The most telling timings are chosen one by one: a timing with slope g along the coefficients leaves
of a prediction with slope t the variance

    tᵀΣt − (tᵀΣg)² / (gᵀΣg + s²)

whatever it will show, so that its worth is known before it is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.anchoring import (
    PROCEDURE_SCALE,
    TIMING_LOG_SD,
    belief_before,
    left_over_log_sd,
    timed_observations,
)
from costmodel.own import Timing
from costmodel.reach import reach_of
from costmodel.transfer import NORMAL_90
from costmodel.work import Array
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.measurement import MeasuringPlan, PlannedPoint
from domain.prediction import Refusal
from domain.routing import RoutingDistribution
from domain.workload import Workload

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
# Shares of tokens kept in every recursion: few tell of launches, many of arithmetic.
SHARES = (1.0, 0.5, 0.25)
RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Worth:
    """Timings in the order of their worth; half-widths of the 90 % interval before and after each."""

    timings: tuple[Workload, ...]
    half_widths: tuple[float, ...]


def worth_of_timings(
    asked: Workload, device: DeviceSpec, fits: Sequence[Fit], count: int
) -> Worth | Refusal:
    """The `count` timings of the asked network that narrow its prediction most, and by how much."""
    reach = reach_of(asked, device, fits)
    if isinstance(reach, Refusal):
        return reach
    candidates = [each for each in _candidates(asked) if each != asked]
    machines = {asked.precision: reach.machine}
    everything = [Timing(workload=each, seconds=1.0) for each in (asked, *candidates)]
    log_sd = left_over_log_sd(reach.fit)
    before = belief_before(reach.fit)
    logs = dict(zip(before.names, before.log_values, strict=True))
    slopes = timed_observations(everything, machines, log_sd).log_slopes(logs, np.zeros(0))
    target, choices = slopes[0], slopes[1:]
    covariance = before.covariance
    extra = reach.extra_log_sd**2
    widths = [_half_width(target, covariance, reach.fit.residual_log_sd**2 + extra, 1.0)]
    chosen: list[int] = []
    for _ in range(min(count, len(candidates))):
        gains = [_gain(target, each, covariance, log_sd) for each in choices]
        best = max((n for n in range(len(gains)) if n not in chosen), key=gains.__getitem__)
        chosen.append(best)
        along = covariance @ choices[best]
        seen = float(choices[best] @ along) + log_sd**2 + TIMING_LOG_SD**2
        covariance = covariance - np.outer(along, along) / seen
        widths.append(_half_width(target, covariance, log_sd**2, PROCEDURE_SCALE))
    return Worth(timings=tuple(candidates[number] for number in chosen), half_widths=tuple(widths))


def plan_of(worth: Worth) -> MeasuringPlan:
    """The timings as a plan for `python -m profiler run --plan`."""
    points = []
    for number, work in enumerate(worth.timings, start=1):
        net = work.architecture
        points.append(
            PlannedPoint(
                id=f"worth-{number}-{net.name}-b{work.batch}-{work.precision}"[:128],
                architecture=net,
                weights="random",
                batch=work.batch,
                precision=work.precision,
                runtime=work.runtime,
                executor=work.executor,
                routing_source="forced-distribution" if net.is_routed else "none",
                survival=work.routing.survival if net.is_routed else None,
                separates="narrows the prediction that was asked for",
            )
        )
    return MeasuringPlan(name="worth-measuring", runs=RUNS, points=tuple(points))


def _candidates(asked: Workload) -> list[Workload]:
    net = asked.architecture
    routings = [
        RoutingDistribution.from_survival([share] * net.recursions, net.tokens, net.prefix_tokens)
        for share in SHARES
    ]
    return [
        Workload(**{**dict(asked), "batch": batch, "routing": routing})
        for batch in BATCHES
        for routing in (routings if net.is_routed else [asked.routing])
    ]


def _gain(target: Array, seen: Array, covariance: Array, log_sd: float) -> float:
    along = covariance @ seen
    return float((target @ along) ** 2 / (seen @ along + log_sd**2 + TIMING_LOG_SD**2))


def _half_width(target: Array, covariance: Array, rest: float, scale: float) -> float:
    variance = float(target @ covariance @ target) + rest * scale**2
    return float(np.sinh(NORMAL_90 * np.sqrt(variance)))
