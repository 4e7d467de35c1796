"""Whose fault an error is: signed error by operator, from stages that were held out. Pure.

    log(predicted / seen) of a stage = Σ over operators of share·b      b ~ N(0, 5 %)

A stage's clock does not tell its operators apart; stages that have them in different shares do. An
error that cancels in the whole shows here.
"""

import math

import numpy as np

from costmodel.accuracy import Scores, promised_log_sd
from costmodel.calibration import Beliefs, machine_observations, machine_posterior, prior_of
from costmodel.latency import shares_s
from costmodel.points import Points, machine_of, setting_of
from costmodel.transfer import NORMAL_90
from costmodel.work import KINDS, Array, groups_of, kind_of
from domain.fit import ValidationRow

BIAS_LOG_SD = 0.05
LEAST_SHARE = 0.02


def operator_rows(
    points: Points, scores: Scores, beliefs: Beliefs | None = None
) -> list[ValidationRow]:
    """One row a kind of operator: its bias, and the errors of stages weighed with its share of them.

    `half_width` is that of the bias. Kinds that are nowhere more than a sliver are left out.
    """
    shares = stage_shares(points, beliefs)
    keys = [key for key in scores if key in shares]
    matrix = np.array([shares[key] for key in keys])
    logs = np.array([-scores[key].log_ratio for key in keys])
    spreads = np.array([promised_log_sd(scores[key], scores.values()) for key in keys])
    bias, log_sd = biases(matrix, logs, spreads)
    rows = []
    for number, kind in enumerate(KINDS):
        weights = matrix[:, number]
        if weights.max() < LEAST_SHARE:
            continue
        errors = np.abs(np.expm1(logs))
        rows.append(
            ValidationRow(
                split="cpu-configuration",
                quantity=f"operator.{kind}",
                tier="calibrated",
                n=int((weights >= LEAST_SHARE).sum()),
                median_abs_error=_quantile(errors, weights, 0.5),
                p90_abs_error=_quantile(errors, weights, 0.9),
                signed_error=math.expm1(bias[number]),
                coverage_90=float(np.average(np.abs(logs) <= NORMAL_90 * spreads, weights=weights)),
                half_width=float(np.sinh(NORMAL_90 * log_sd[number])),
                noise_floor=None,
            )
        )
    return rows


def biases(shares: Array, logs: Array, spreads: Array) -> tuple[Array, Array]:
    """The most likely log bias of each operator, and its spread.

    >>> bias, _ = biases(np.eye(2), np.array([0.1, 0.0]), np.array([1e-6, 1e-6]))
    >>> bias.round(3).tolist()
    [0.1, 0.0]
    """
    weighted = shares / spreads[:, None]
    inverse = np.linalg.inv(weighted.T @ weighted + np.eye(shares.shape[1]) / BIAS_LOG_SD**2)
    return inverse @ weighted.T @ (logs / spreads), np.sqrt(np.diag(inverse))


def stage_shares(points: Points, beliefs: Beliefs | None = None) -> dict[tuple[str, str], Array]:
    """Of each stage of each point, the share of its time that each kind of operator takes."""
    observations = machine_observations(points)
    posterior = machine_posterior(observations, points, beliefs or prior_of(points))
    found = {}
    for name, runs in points.items():
        first = runs[0]
        values = posterior.values_at(setting_of(first))
        for group in groups_of(first.workload, host_runs_ahead=False):
            parts = np.zeros(len(KINDS))
            for operator, seconds, _ in shares_s([group], machine_of(first), values):
                parts[KINDS.index(kind_of(operator))] += seconds
            found[name, group[0].stage] = parts / parts.sum()
    return found


def _quantile(values: Array, weights: Array, share: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, share)), len(values) - 1)])
