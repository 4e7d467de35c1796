"""A few timings on the target: the prior of its class, narrowed. Pure.

    θ ~ N(log coefficients of the class, Σ + δ² + τ²ssᵀ)     what a device of the class may be
    log seen = log equation(θ) + d(x) + ε                     k timings of whole batches

The most likely θ and its covariance are found as in a fit; what neighbours of the timings share
beside the equations is left to the process of `discrepancy`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from costmodel.discrepancy import discrepancy_of, features_of_group
from costmodel.latency import COEFFICIENTS
from costmodel.own import Timing
from costmodel.published import DEVICE_LOG_SD, HOST, sign_of
from costmodel.reach import setting_for, software_named
from costmodel.regression import Observations, most_likely
from costmodel.work import Array, Machine, Rates, Work, groups_of
from domain.device import DeviceSpec
from domain.fit import Coefficient, Discrepancy, Fit
from domain.record import Precision

# Two people who time the same thing on the same device: clocks, cooling, software.
TIMING_LOG_SD = 0.03
# What runs on a user's device is not quite the published software, and an engine may be another one
# altogether: log spreads of what differs between them.
SOFTWARE_LOG_SD = {
    "gemm_efficiency": 0.2,
    "inner_step_s": 1.0,
    "attention_efficiency": 0.5,
    "activation_efficiency": 0.4,
    "elementwise_efficiency": 0.4,
    "call_s": 0.7,
}
# And by how much it is slower or faster as a whole: published software of other kinds than today's lies 0.1
# to 0.7 in log off it (offsets of software when published rows are fitted: torch 1 0.33, transformers 0.25 and
# 0.64, XLA 0.68, FasterTransformer 0.14, …), 0.37 in square mean.
SOFTWARE_OFFSET_LOG_SD = 0.37
LEAST_LEFT_OVER = 0.05
# What the same procedure, replayed on four targets whose rows are known (the rows of four timings of
# `python -m costmodel.validate`), missed over what it promised: 0.66 to 1.13, the largest rounded up.
PROCEDURE_SCALE = 1.15
# How far a machine of one's own may be from published timings of the same device.
SAME_DEVICE_LOG_SD = 0.1


@dataclass(frozen=True, kw_only=True)
class Belief:
    """Logarithms of coefficients in the order of `names`, and their covariance."""

    names: tuple[str, ...]
    log_values: Array
    covariance: Array

    @property
    def values(self) -> dict[str, float]:
        """The coefficients."""
        return dict(zip(self.names, map(float, np.exp(self.log_values)), strict=True))


def belief_before(fit: Fit) -> Belief:
    """What `fit` says of one device, before it is timed: the class's coefficients and spread."""
    names = tuple(each.name for each in fit.coefficients)
    signs = np.array([sign_of(name) for name in names])
    own = np.array([DEVICE_LOG_SD.get(name, 0.0) for name in names])
    software = np.array([SOFTWARE_LOG_SD.get(name, 0.0) for name in names])
    if fit.scope == "class":
        apart = fit.device_log_sd**2 + fit.rates_log_sd**2
        if fit.device_class != "cpu":
            apart += SOFTWARE_OFFSET_LOG_SD**2
            is_host = np.array([name in HOST for name in names])
            # The fit holds already how hosts differ.
            signs, own = np.where(is_host, 0.0, signs), np.where(is_host, 0.0, own)
        spread = np.diag(own**2 + software**2) + apart * np.outer(signs, signs)
    else:
        spread = SAME_DEVICE_LOG_SD**2 * np.outer(signs, signs)
    return Belief(
        names=names,
        log_values=np.log([each.value for each in fit.coefficients]),
        covariance=np.array(fit.covariance) + spread,
    )


def belief_after(before: Belief, seen: Observations) -> tuple[Belief, Array]:
    """The belief that has seen the observations, and log(seen / equation) of each.

    In coordinates in which the belief before is 0 ± 1.
    """
    size = len(before.names)
    factor = np.linalg.cholesky(before.covariance + 1e-10 * np.eye(size))
    log_seen = np.log(seen.seconds)

    def residuals(point: Array) -> Array:
        logs = before.log_values + factor @ point
        predicted = seen.predicted_s(dict(zip(before.names, logs, strict=True)), np.zeros(0))
        return np.asarray(log_seen - np.log(predicted))

    def slopes(point: Array) -> Array:
        logs = before.log_values + factor @ point
        along = seen.log_slopes(dict(zip(before.names, logs, strict=True)), np.zeros(0))
        return np.asarray(-along @ factor)

    origin = np.zeros(size)
    point, covariance, _ = most_likely(
        residuals, slopes, seen.log_sd, origin, origin, np.ones(size), steps=FEW_STEPS
    )
    after = Belief(
        names=before.names,
        log_values=before.log_values + factor @ point,
        covariance=factor @ covariance @ factor.T,
    )
    return after, residuals(point)


def log_s_of(belief: Belief, seen: Observations) -> Array:
    """Logarithm of the seconds that `belief` expects of each of `seen`."""
    logs = dict(zip(belief.names, belief.log_values, strict=True))
    return np.log(seen.predicted_s(logs, np.zeros(0)))


def log_sd_of(belief: Belief, seen: Observations) -> Array:
    """The spread of log seconds that the coefficients leave: gᵀ Σ g of every observation."""
    logs = dict(zip(belief.names, belief.log_values, strict=True))
    slopes = seen.log_slopes(logs, np.zeros(0))
    return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", slopes, belief.covariance, slopes)))


# The timings move coefficients by fractions of their spread: few steps are enough.
FEW_STEPS = 6


def timed_observations(
    timings: Sequence[Timing], machine_of: Mapping[Precision, Machine], residual_log_sd: float
) -> Observations:
    """Whole batches that were timed; `machine_of` gives the rates of each precision."""
    groups, machines, target = [], [], []
    for number, timing in enumerate(timings):
        machine = machine_of[timing.workload.precision]
        for group in groups_of(timing.workload, host_runs_ahead=machine.host_runs_ahead):
            groups.append(group)
            machines.append(machine)
            target.append(number)
    return Observations(
        work=Work.of(groups),
        rates=Rates.of(machines),
        target=np.array(target),
        seconds=np.array([timing.seconds for timing in timings]),
        log_sd=np.full(len(timings), math.hypot(residual_log_sd, TIMING_LOG_SD)),
        design=np.zeros((len(timings), 0)),
        devices=0,
    )


def fit_with_timings(fit: Fit, device: DeviceSpec, timings: Sequence[Timing]) -> Fit:
    """`fit` for `device` alone, narrowed by timings of a user's own.

    Raises ValueError where the device has no peak for one of their precisions.
    """
    log_sd = left_over_log_sd(fit)
    seen = timed_observations(timings, _machines(device, timings), log_sd)
    after, residuals = belief_after(belief_before(fit), seen)
    runs_ahead = bool(seen.rates.host_runs_ahead.all())
    shared = _with_neighbours(fit, timings, residuals) if runs_ahead else fit.discrepancy
    return _timed_fit(fit, device, timings, after, shared)


def expected_fit(fit: Fit, device: DeviceSpec, timings: Sequence[Timing]) -> Fit:
    """What `fit_with_timings` gives where every timing shows what the equations expect.

    Σ − ΣGᵀ(GΣGᵀ + S)⁻¹GΣ: coefficients stay, their covariance narrows, whatever the seconds are.
    """
    seen = timed_observations(timings, _machines(device, timings), left_over_log_sd(fit))
    before = belief_before(fit)
    return _timed_fit(fit, device, timings, believed_after(before, seen), fit.discrepancy)


def believed_after(before: Belief, seen: Observations) -> Belief:
    """The belief after observations that show what it expects: only its covariance narrows."""
    logs = dict(zip(before.names, before.log_values, strict=True))
    slopes = seen.log_slopes(logs, np.zeros(0))
    along = before.covariance @ slopes.T
    spread = slopes @ along + np.diag(seen.log_sd**2)
    return replace(before, covariance=before.covariance - along @ np.linalg.solve(spread, along.T))


def _machines(device: DeviceSpec, timings: Sequence[Timing]) -> dict[Precision, Machine]:
    precisions = {timing.workload.precision for timing in timings}
    return {precision: Machine.of(device, precision) for precision in precisions}


def _timed_fit(
    fit: Fit,
    device: DeviceSpec,
    timings: Sequence[Timing],
    after: Belief,
    discrepancy: Discrepancy | None,
) -> Fit:
    values = zip(fit.coefficients, after.log_values, np.diag(after.covariance), strict=True)
    even = (after.covariance + after.covariance.T) / 2
    return Fit(
        **{
            **dict(fit),
            "name": f"timed-{device.id}-{fit.runtime}",
            "device_id": device.id,
            "scope": "timed",
            "software": software_named(timings[0].workload),
            "families": (device.family,),
            "precisions": tuple(sorted({timing.workload.precision for timing in timings})),
            "coefficients": tuple(
                Coefficient(
                    **{
                        **dict(each),
                        "value": math.exp(log_value),
                        "log_sd": math.sqrt(variance),
                        "is_identified": math.sqrt(variance) <= COEFFICIENTS[each.name][3] / 2,
                    }
                )
                for each, log_value, variance in values
            ),
            "covariance": tuple(tuple(map(float, row)) for row in even),
            "discrepancy": discrepancy,
            "residual_log_sd": PROCEDURE_SCALE * left_over_log_sd(fit),
            "device_log_sd": 0.0,
            "rates_log_sd": 0.0,
            "scale": None,
            "drift_log_sd": fit.drift_log_sd,
            "points": len(timings),
            # Where all tokens go everywhere, nothing is taken out: that tells nothing of routing.
            "routed_points": fit.routed_points
            + sum(each.workload.routing.mean_depth < 1 for each in timings),
            "measurements": (device.id,),
            "provenance": f"{len(timings)} timings of your own on {device.name}, with what "
            f"{fit.name} rests on: {fit.provenance}",
            "made_by": "python -m costmodel.predict --anchor",
        }
    )


def _with_neighbours(fit: Fit, timings: Sequence[Timing], residuals: Array) -> Discrepancy | None:
    """What neighbours of the timings share beside the equations, added to what the class shares.

    Only workloads that are timed as one group have a place among others.
    """
    features, rows = [], []
    for number, timing in enumerate(timings):
        groups = groups_of(timing.workload, host_runs_ahead=True)
        where = features_of_group(groups[0], setting_for(timing.workload, fit))
        if len(groups) == 1 and where is not None:
            features.append(where)
            rows.append(number)
    own = discrepancy_of(features, residuals[rows], np.full(len(rows), TIMING_LOG_SD))
    if own is None or fit.discrepancy is None:
        return own or fit.discrepancy
    return Discrepancy(
        features=own.features,
        points=(*fit.discrepancy.points, *own.points),
        weights=(*fit.discrepancy.weights, *own.weights),
    )


def left_over_log_sd(fit: Fit) -> float:
    """What a few timings cannot tell of the rest, however well a class agrees with itself."""
    return math.hypot(max(fit.residual_log_sd, LEAST_LEFT_OVER), TIMING_LOG_SD)
