"""Robust regression in log space: coefficients, offsets of devices, and how sure they are."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from costmodel.latency import group_s
from costmodel.slopes import group_slopes_s
from costmodel.work import Rates, Work

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """A coefficient that differs between groups: its logarithm moves by θ·`covariate`.

    `covariate` is one number a group; θ is believed to be 0 ± `log_sd` before the data.
    """

    coefficient: str
    covariate: str
    log_sd: float


# A log spread that leaves an observation without any say.
NO_BELIEF = 1e9


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Seconds that were seen, and the work behind them.

    `target` says into which observation each group of the work is summed, `whole` into which
    other one besides (a stage is seen alone and in its pass; negative: into none). `log_sd` is how
    far each observation is to be believed. `design` (observations × offsets) says which log offsets it
    carries: first those of `devices` devices, then those of software stacks. `covariates` hold one
    number a group each; `deviations` say which coefficients depend on them.
    """

    work: Work
    rates: Rates
    target: NDArray[np.int64]
    seconds: Array
    log_sd: Array
    design: Array
    devices: int
    covariates: Mapping[str, Array] = field(default_factory=dict)
    deviations: tuple[Deviation, ...] = ()
    whole: NDArray[np.int64] | None = None

    def without(self, left_out: NDArray[np.bool_]) -> "Observations":
        """The same, with no belief at all in the observations `left_out`."""
        return replace(self, log_sd=np.where(left_out, NO_BELIEF, self.log_sd))

    def only(self, rows: NDArray[np.int64]) -> "Observations":
        """The observations `rows` and the work behind them, without covariates or offsets."""
        place = np.full(len(self.seconds), -1)
        place[rows] = np.arange(len(rows))
        kept = np.flatnonzero(place[self.target] >= 0)
        return Observations(
            work=self.work.only(kept),
            rates=self.rates.only(kept),
            target=place[self.target][kept],
            seconds=self.seconds[rows],
            log_sd=self.log_sd[rows],
            design=np.zeros((len(rows), 0)),
            devices=0,
        )

    def predicted_s(self, log_values: Mapping[str, float], shifts: Array) -> Array:
        """Seconds of every observation, before its device's offset; `shifts` one a deviation."""
        return self._summed(self._group_s(self._logs(log_values, shifts)))

    def log_slopes(self, log_values: Mapping[str, float], shifts: Array) -> Array:
        """Of every observation's log seconds, the slope along each coefficient and each shift.

        A group's seconds depend on its own coefficients only: a deviation's slope is that of its
        coefficient times the group's covariate.
        """
        here, slopes = group_slopes_s(
            self.work, self.rates, _coefficients(self._logs(log_values, shifts))
        )
        moved = [
            slopes[deviation.coefficient] * self.covariates[deviation.covariate]
            for deviation in self.deviations
        ]
        columns = [self._summed(each) for each in (*(slopes[name] for name in log_values), *moved)]
        return np.stack(columns, axis=1) / self._summed(here)[:, None]

    def _logs(self, log_values: Mapping[str, float], shifts: Array) -> dict[str, float | Array]:
        logs: dict[str, float | Array] = dict(log_values)
        for deviation, shift in zip(self.deviations, shifts, strict=True):
            moved = shift * self.covariates[deviation.covariate]
            logs[deviation.coefficient] = logs[deviation.coefficient] + moved
        return logs

    def _group_s(self, logs: Mapping[str, float | Array]) -> Array:
        return group_s(self.work, self.rates, _coefficients(logs))

    def _summed(self, seconds: Array) -> Array:
        count = len(self.seconds)
        is_seen = self.target >= 0
        summed = np.bincount(self.target[is_seen], seconds[is_seen], count)
        if self.whole is not None:
            is_part = self.whole >= 0
            summed = summed + np.bincount(self.whole[is_part], seconds[is_part], count)
        return np.asarray(summed, dtype=float)


def _coefficients(logs: Mapping[str, float | Array]) -> dict[str, float | Array]:
    return {name: np.exp(value) for name, value in logs.items()}


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Logarithms of coefficients, deviations, device and stack offsets; the covariance of all.

    `residuals` are log(seen / predicted), offsets included.
    """

    names: tuple[str, ...]
    log_values: Array
    deviations: tuple[Deviation, ...]
    shifts: Array
    offsets: Array
    stacks: Array
    covariance: Array
    offset_log_sd: float
    residuals: Array

    @property
    def values(self) -> dict[str, float]:
        """The coefficients where every covariate is 0."""
        return self.values_at({})

    @property
    def point(self) -> Array:
        """All logarithms in one row, as the covariance orders them."""
        return np.concatenate([self.log_values, self.shifts, self.offsets, self.stacks])

    def values_at(self, covariates: Mapping[str, float]) -> dict[str, float]:
        """The coefficients where the covariates are these; those not named are 0."""
        logs = self.map_at(covariates) @ self.point
        return dict(zip(self.names, map(float, np.exp(logs)), strict=True))

    def covariance_at(self, covariates: Mapping[str, float]) -> Array:
        """Covariance of the coefficients' logarithms there: J Σ Jᵀ."""
        jacobian = self.map_at(covariates)
        return np.asarray(jacobian @ self.covariance @ jacobian.T)

    def map_at(self, covariates: Mapping[str, float]) -> Array:
        """The matrix from `point` to the coefficients' logarithms."""
        size = len(self.names)
        jacobian = np.zeros((size, len(self.point)))
        jacobian[:, :size] = np.eye(size)
        for number, deviation in enumerate(self.deviations):
            row = self.names.index(deviation.coefficient)
            jacobian[row, size + number] = covariates.get(deviation.covariate, 0.0)
        return jacobian


# A software stack may be this much slower than another.
STACK_LOG_SD = 1.0
# Steps of the search are enough when they are this small in log space; what is left is far below
# the spread of any coefficient.
TOLERANCE = 1e-3
SMALL = 1e-4
MOST_STEPS = 40


def posterior_of(
    seen: Observations,
    prior: Mapping[str, tuple[float, float]],
    *,
    offset_log_sd: float = 0.3,
    rounds: int = 4,
    starts: Sequence[Array] | None = None,
) -> Posterior:
    """Maximum a posteriori with soft-L1 loss and a Laplace covariance.

    The spread between devices is estimated from their offsets by turns with the offsets (empirical
    Bayes); with fewer than three devices it stays as given. Far from the data soft-L1 has more than
    one summit: of what is found from each of `starts` (rows as `Posterior.point`; what is believed,
    if none are given) the likeliest is kept.
    """
    names = tuple(prior)
    centre = np.log([prior[name][0] for name in names])
    spread = np.array([prior[name][1] for name in names])
    size, moves = len(names), len(seen.deviations)
    free = size + moves
    believed = np.concatenate([centre, np.zeros(moves + seen.design.shape[1])])
    begun = [believed] if starts is None else list(starts)
    best, covariance = begun[0], np.eye(len(believed))
    device_columns = slice(free, free + seen.devices)
    log_seen = np.log(seen.seconds)

    def residuals(point: Array) -> Array:
        predicted = seen.predicted_s(dict(zip(names, point[:size], strict=True)), point[size:free])
        return np.asarray(log_seen - np.log(predicted) - seen.design @ point[free:])

    def slopes(point: Array) -> Array:
        along = seen.log_slopes(dict(zip(names, point[:size], strict=True)), point[size:free])
        return -np.hstack([along, seen.design])

    between = offset_log_sd
    for _ in range(rounds if seen.devices >= 3 else 1):
        widths = np.concatenate(
            [
                spread,
                [deviation.log_sd for deviation in seen.deviations],
                np.full(seen.devices, between),
                np.full(seen.design.shape[1] - seen.devices, STACK_LOG_SD),
            ]
        )
        found = [
            most_likely(residuals, slopes, seen.log_sd, start, believed, widths) for start in begun
        ]
        best, covariance, _ = min(found, key=lambda each: each[2])
        begun = [best]
        if seen.devices >= 3:
            shifts = best[device_columns]
            between = float(np.sqrt(np.mean(shifts**2 + np.diag(covariance)[device_columns])))
    return Posterior(
        names=names,
        log_values=best[:size],
        deviations=seen.deviations,
        shifts=best[size:free],
        offsets=best[device_columns],
        stacks=best[free + seen.devices :],
        covariance=covariance,
        offset_log_sd=between,
        residuals=residuals(best),
    )


def most_likely(
    residuals: Callable[[Array], Array],
    slopes: Callable[[Array], Array],
    log_sd: Array,
    start: Array,
    centre: Array,
    spread: Array,
    steps: int = MOST_STEPS,
) -> tuple[Array, Array, float]:
    """Where soft-L1 on the data and a normal prior are least, the covariance there, and their sum.

    soft-L1, f = ±√2(√(1+z²)−1)^½, keeps the sign and the normal core; the prior stays quadratic.
    `slopes` are those of `residuals` (observations × point).
    """
    prior_rows = np.diag(1 / spread)
    missed = remembered(residuals)

    def robust(z: Array) -> Array:
        return np.asarray(np.sign(z) * np.sqrt(2 * (np.sqrt(1 + z**2) - 1)))

    def weighted(point: Array) -> Array:
        return np.concatenate([robust(missed(point) / log_sd), (point - centre) / spread])

    def weighted_slopes(point: Array) -> Array:
        z = missed(point) / log_sd
        # f' = z / (f·√(1+z²)), 1 at 0.
        f = robust(z)
        is_far = np.abs(z) > SMALL
        steepness = np.where(is_far, z / np.where(is_far, f * np.sqrt(1 + z**2), 1.0), 1.0)
        return np.vstack([slopes(point) * (steepness / log_sd)[:, None], prior_rows])

    solved = least_squares(
        weighted, start, jac=weighted_slopes, method="trf", x_scale=spread, xtol=TOLERANCE,
        ftol=1e-5, max_nfev=steps,
    )  # fmt: skip
    return solved.x, np.linalg.inv(solved.jac.T @ solved.jac), float(solved.cost)


def remembered(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """`function`, whose latest value is not worked out twice: a search asks for slopes where it has just been."""
    latest: list[Array] = []

    def of(point: Array) -> Array:
        if not latest or not np.array_equal(latest[0], point):
            latest[:] = [point.copy(), function(point)]
        return latest[1]

    return of


def spread_of(residuals: Sequence[float] | Array) -> float:
    """Log spread whose normal 90 % interval holds 90 % of `residuals`, and of one more like them.

    Split-conformal: of n residuals the ⌈0.9·(n + 1)⌉-th, the largest where there are fewer than 9.

    >>> round(spread_of([-1.645] * 9 + [1.645] * 9), 3)
    1.0
    """
    ordered = np.sort(np.abs(residuals))
    rank = min(math.ceil(0.9 * (len(ordered) + 1)), len(ordered))
    return max(float(ordered[rank - 1]) / 1.645, 1e-4)


# Of so many the conformal quantile is one of them; of fewer it is the largest, which is too small.
FEWEST_TO_NARROW = 9


def scale_of(ratios: Sequence[float] | Array) -> float:
    """How many of the spreads that were promised others needed; few others never narrow a promise.

    `ratios` are what they missed over what was promised of each, at least one.

    >>> scale_of([0.1] * 8), scale_of([3.29])
    (1.0, 2.0)
    >>> round(scale_of([0.1645] * 9), 3)
    0.1
    """
    scale = spread_of(ratios)
    return scale if len(ratios) >= FEWEST_TO_NARROW else max(scale, 1.0)
