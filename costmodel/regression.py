"""Robust regression in log space: coefficients, offsets of devices, and how sure they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from costmodel.latency import Rates, Work, group_s

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Seconds that were seen, and the work behind them.

    `target` says into which observation each group of the work is summed; `log_sd` how far each
    observation is to be believed. `design` (observations × offsets) says which log offsets it
    carries: first those of `devices` devices, then those of software stacks.
    """

    work: Work
    rates: Rates
    target: NDArray[np.int64]
    seconds: Array
    log_sd: Array
    design: Array
    devices: int

    def predicted_s(self, coefficients: Mapping[str, float]) -> Array:
        """Seconds of every observation, before its device's offset."""
        seconds = group_s(self.work, self.rates, coefficients)
        return np.asarray(np.bincount(self.target, seconds, len(self.seconds)), dtype=float)


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Logarithms of coefficients, device offsets and stack offsets; the covariance of all.

    `residuals` are log(seen / predicted), offsets included.
    """

    names: tuple[str, ...]
    log_values: Array
    offsets: Array
    stacks: Array
    covariance: Array
    offset_log_sd: float
    residuals: Array

    @property
    def values(self) -> dict[str, float]:
        """The coefficients."""
        return {
            name: float(np.exp(value))
            for name, value in zip(self.names, self.log_values, strict=True)
        }


# A software stack may be this much slower than another.
STACK_LOG_SD = 1.0


def posterior_of(
    seen: Observations,
    prior: Mapping[str, tuple[float, float]],
    *,
    offset_log_sd: float = 0.3,
    rounds: int = 4,
) -> Posterior:
    """Maximum a posteriori with soft-L1 loss and a Laplace covariance.

    The spread between devices is estimated from their offsets by turns with the offsets (empirical
    Bayes); with fewer than three devices it stays as given.
    """
    names = tuple(prior)
    centre = np.log([prior[name][0] for name in names])
    spread = np.array([prior[name][1] for name in names])
    size = len(names)
    start = np.concatenate([centre, np.zeros(seen.design.shape[1])])
    device_columns = slice(size, size + seen.devices)
    log_seen = np.log(seen.seconds)

    def residuals(point: Array) -> Array:
        coefficients = dict(zip(names, np.exp(point[:size]), strict=True))
        return np.asarray(
            log_seen - np.log(seen.predicted_s(coefficients)) - seen.design @ point[size:]
        )

    def weighted(point: Array, between: float) -> Array:
        # soft-L1 on the data only: √2(√(1+z²)−1)^½ keeps the sign and the Gaussian core; the
        # priors stay quadratic.
        z = residuals(point) / seen.log_sd
        robust = np.sign(z) * np.sqrt(2 * (np.sqrt(1 + z**2) - 1))
        believed = (point[:size] - centre) / spread
        stacks = point[size + seen.devices :] / STACK_LOG_SD
        return np.concatenate([robust, believed, point[device_columns] / between, stacks])

    between = offset_log_sd
    best = start
    covariance = np.eye(len(start))
    for _ in range(rounds if seen.devices >= 3 else 1):
        solved = least_squares(weighted, best, args=(between,), method="trf", x_scale="jac")
        best = solved.x
        covariance = np.linalg.inv(solved.jac.T @ solved.jac)
        if seen.devices >= 3:
            shifts = best[device_columns]
            between = float(np.sqrt(np.mean(shifts**2 + np.diag(covariance)[device_columns])))
    return Posterior(
        names=names,
        log_values=best[:size],
        offsets=best[device_columns],
        stacks=best[size + seen.devices :],
        covariance=covariance,
        offset_log_sd=between,
        residuals=residuals(best),
    )


def spread_of(residuals: Sequence[float] | Array) -> float:
    """Log spread whose normal 90 % interval holds 90 % of `residuals`.

    >>> round(spread_of([-1.645] * 9 + [1.645] * 9), 3)
    1.0
    """
    return max(float(np.quantile(np.abs(residuals), 0.9)) / 1.645, 1e-4)
