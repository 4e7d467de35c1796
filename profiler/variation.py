"""What differs from run to run: the part that the calibration kernel explains, and the rest.

one run             y: median log seconds of its samples;  x: median log seconds of the kernel
                    that ran between them, over the kernel's usual seconds
what x explains     y = level + slopes · (min(x, KNEE), max(x - KNEE, 0)) + rest
slopes              of each point, drawn towards those of all points (random coefficients, EM)
rest                its variance for each point and session, drawn towards that of all points

Samples of one run share whatever the machine did to that run, so a run is one value. Dividing by
the kernel (slope 1) or leaving it out (slope 0) is a guess: on the reference machine a kernel that is
30 % slower goes with passes that are 5-25 % slower, one that is 3 % slower with passes 6 % slower.
A slope for small and one for large departures, seen in the data, halves the spread between runs.
With three to five runs a point cannot tell its own spread; all points of a session together can
(Smyth 2004, doi:10.2202/1544-6115.1027).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

# Where a small departure of the kernel ends: about the spread of its samples within a run.
KNEE = 0.05
# What is thought of a slope before data: between not at all (0) and as the kernel does (1), loosely.
SLOPE, SLOPE_SD = 0.5, 1.0
# No two runs are believed to agree better than this, in log: the resolution of short samples.
LEAST_LOG_SD = 1e-5
LEAST_SLOPE_SD = 1e-3
ROUNDS = 60


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of one point of one session; `log_kernel` is None where no kernel ran beside."""

    point: str
    session: int
    numbers: tuple[int, ...]
    log_s: tuple[float, ...]
    log_kernel: tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Log of the time after over the time before, at one kernel speed, with its interval.

    `sd` is the spread between runs that remains, `kernel` the log by which the kernel was slower
    after than before; 0 where it was not used.
    """

    log_ratio: float
    half_width: float
    sd: float
    kernel: float


@dataclass(frozen=True, kw_only=True)
class _Slopes:
    of: Floats
    covariance: Floats
    variance: float


@dataclass(frozen=True, kw_only=True)
class Variation:
    """What explains the runs of all points of one or two sessions, and how much it leaves."""

    groups: tuple[Runs, ...]
    features: tuple[Floats, ...]
    rests: tuple[Floats, ...]
    slopes: Floats
    slope_covariance: Floats
    own_freedom: Floats
    variances: Floats
    freedom: Floats

    def difference(self, before: int, after: int, level: float) -> Difference:
        """Group `after` against group `before`, at one speed of the kernel: Welch's interval.

        Of one point the slopes are the same on both sides, and only the change of the kernel matters;
        two points are each brought to the kernel's usual speed.
        """
        at = [self._mean(group) for group in (before, after)]
        explained = float(self.slopes[after] @ at[1] - self.slopes[before] @ at[0])
        doubt = self._doubt(before, after)
        parts = [
            (self.variances[group] / len(self.rests[group]), self.freedom[group])
            for group in (before, after)
        ]
        variance = sum(part for part, _ in parts)
        # Welch and Satterthwaite.
        freedom = variance**2 / sum(part**2 / free for part, free in parts)
        raw = np.mean(self.groups[after].log_s) - np.mean(self.groups[before].log_s)
        return Difference(
            log_ratio=float(raw - explained),
            half_width=student(level, freedom) * float(np.sqrt(variance + doubt)),
            sd=float(np.sqrt(np.mean([self.variances[before], self.variances[after]]))),
            kernel=_kernel_change(self.groups[before], self.groups[after]),
        )

    def paired(self, before: int, after: int, level: float) -> Difference:
        """Two groups of one session, run by run: what a run did to both of them cancels.

        The variance of the differences is drawn towards twice that of all points once each run's
        common part is taken off.
        """
        one, other = self.groups[before], self.groups[after]
        shared = [number for number in one.numbers if number in other.numbers]
        each = np.array([self._at(after, run) - self._at(before, run) for run in shared])
        prior = _prior(*self._within_runs(one.session))
        variance, freedom = prior.drawn(float(each.var(ddof=1)) / 2, len(each) - 1.0)
        return Difference(
            log_ratio=float(each.mean()),
            half_width=student(level, freedom)
            * float(np.sqrt(2 * variance / len(each) + self._doubt(before, after))),
            sd=float(np.sqrt(variance)),
            kernel=0.0,
        )

    def away(self, group: int) -> tuple[float, Floats]:
        """Log seconds of a group at the kernel's usual speed, and how far each run lay from them.

        What the kernel explains is in the distance; the rest is widened by √(n / its degrees
        of freedom), for level and slopes were fitted to the very same n runs.
        """
        explained = self.features[group] @ self.slopes[group]
        rest = self.rests[group]
        level = float(np.mean(np.array(self.groups[group].log_s) - explained))
        return level, explained + rest * np.sqrt(len(rest) / self.own_freedom[group])

    def _mean(self, group: int) -> Floats:
        return np.asarray(self.features[group].mean(axis=0))

    def _doubt(self, before: int, after: int) -> float:
        """Variance of what the slopes explain of a difference."""
        at = [self._mean(group) for group in (before, after)]
        is_one_point = self.groups[before].point == self.groups[after].point
        parts = ((before, at[1] - at[0]),) if is_one_point else ((before, at[0]), (after, at[1]))
        return sum(float(where @ self.slope_covariance[group] @ where) for group, where in parts)

    def _at(self, group: int, run: int) -> float:
        place = self.groups[group].numbers.index(run)
        explained = float(self.features[group][place] @ self.slopes[group])
        return self.groups[group].log_s[place] - explained

    def _within_runs(self, session: int) -> tuple[Floats, Floats]:
        """Variance and freedom of each group of a session without the runs' common parts."""
        chosen = [place for place, group in enumerate(self.groups) if group.session == session]
        if len(chosen) < 4:  # the pair itself would be most of what is learned
            return np.empty(0), np.empty(0)
        common: dict[int, list[float]] = defaultdict(list)
        for place in chosen:
            for run, rest in zip(self.groups[place].numbers, self.rests[place], strict=True):
                common[run].append(float(rest))
        share = 1 - 1 / len(chosen)
        sums, freedom = [], []
        for place in chosen:
            means = [float(np.mean(common[run])) for run in self.groups[place].numbers]
            rest = self.rests[place] - np.array(means)
            sums.append(float((rest**2).sum()))
            freedom.append((len(rest) - 1) * share)
        return np.array(sums) / np.array(freedom), np.array(freedom)


@dataclass(frozen=True, kw_only=True)
class _Prior:
    """What all groups say of a variance: its value, as sure as `freedom` degrees would make it."""

    variance: float
    freedom: float
    most_freedom: float

    def drawn(self, variance: float, freedom: float) -> tuple[float, float]:
        """A group's own variance drawn towards the prior, and the freedom of the two together."""
        if np.isinf(self.freedom):
            return self.variance, self.most_freedom
        total = self.freedom + freedom
        drawn = (self.freedom * self.variance + freedom * variance) / total
        return drawn, min(total, max(self.most_freedom, freedom))


def variation_of(groups: Sequence[Runs]) -> Variation:
    """Slopes and spread of all `groups`; each must have two runs or more."""
    usual = _usual_kernel(groups)
    known = {group.point: True for group in groups}
    for group in groups:
        known[group.point] &= group.log_kernel is not None
    features = tuple(_features(group, usual, known[group.point]) for group in groups)
    names = {name: place for place, name in enumerate(known)}
    points = np.array([names[group.point] for group in groups])
    y = [np.array(group.log_s) - np.mean(group.log_s) for group in groups]
    x = [feature - feature.mean(axis=0) for feature in features]
    slopes = _slopes(y, x, points, len(names))
    rests = tuple(dy - dx @ slopes.of[point] for dy, dx, point in zip(y, x, points, strict=True))
    leverage = np.array(
        [
            np.trace(dx.T @ dx @ slopes.covariance[point]) / slopes.variance
            for dx, point in zip(x, points, strict=True)
        ]
    )
    free = np.maximum(np.array([len(dy) - 1.0 for dy in y]) - leverage, 1.0)
    own = np.array([float((rest**2).sum()) for rest in rests]) / free
    own = np.maximum(own, LEAST_LOG_SD**2)
    variances, freedom = np.empty(len(groups)), np.empty(len(groups))
    for session in {group.session for group in groups}:
        chosen = np.array([group.session == session for group in groups])
        prior = _prior(own[chosen], free[chosen])
        for place in np.flatnonzero(chosen):
            variances[place], freedom[place] = prior.drawn(own[place], free[place])
    return Variation(
        groups=tuple(groups),
        features=features,
        rests=rests,
        slopes=slopes.of[points],
        slope_covariance=slopes.covariance[points],
        own_freedom=free,
        variances=variances,
        freedom=freedom,
    )


def _usual_kernel(groups: Sequence[Runs]) -> float:
    """The kernel's log seconds where the machine does well: the fastest tenth of runs."""
    seen = [value for group in groups for value in group.log_kernel or ()]
    return float(np.quantile(seen, 0.1)) if seen else 0.0


def _features(group: Runs, usual: float, is_known: bool) -> Floats:
    if group.log_kernel is None or not is_known:
        return np.zeros((len(group.log_s), 2))
    x = np.array(group.log_kernel) - usual
    return np.stack([np.minimum(x, KNEE), np.maximum(x - KNEE, 0.0)], axis=1)


def _slopes(
    y: Sequence[Floats], x: Sequence[Floats], points: NDArray[np.int_], count: int
) -> _Slopes:
    """Slopes of each point by restricted EM; the covariance counts the doubt of the mean slope."""
    width = x[0].shape[1]
    xx, xy, yy = np.zeros((count, width, width)), np.zeros((count, width)), np.zeros(count)
    free = 0.0
    for dy, dx, point in zip(y, x, points, strict=True):
        xx[point] += dx.T @ dx
        xy[point] += dx.T @ dy
        yy[point] += dy @ dy
        free += len(dy) - 1
    unit, belief = np.eye(width), np.eye(width) / SLOPE_SD**2
    variance = max(float(yy.sum()) / free, LEAST_LOG_SD**2)
    spread = np.full(width, 0.2**2)
    of, covariance = np.zeros_like(xy), np.zeros_like(xx)
    for _ in range(ROUNDS):
        information, score = xx / variance, xy / variance
        own = np.linalg.inv(information + np.diag(1 / spread))
        # Of the mean slope: each point counts as far as its own slope is known.
        apart = np.linalg.inv(unit + information * spread)
        sure = np.linalg.inv((apart @ information).sum(axis=0) + belief)
        mean = sure @ (np.einsum("pkl,pl->k", apart, score) + belief @ np.full(width, SLOPE))
        of = np.einsum("pkl,pl->pk", own, score + mean / spread)
        pull = own / spread
        covariance = own + pull @ sure @ pull.transpose(0, 2, 1)
        away = own + (pull - unit) @ sure @ (pull - unit).transpose(0, 2, 1)
        spread = np.maximum(
            ((of - mean) ** 2 + np.einsum("pkk->pk", away)).mean(axis=0), LEAST_SLOPE_SD**2
        )
        left = yy - 2 * (of * xy).sum(axis=1) + np.einsum("pk,pkl,pl->p", of, xx, of)
        doubt = np.einsum("pkl,plk->p", xx, covariance)
        variance = max(float((left + doubt).sum()) / free, LEAST_LOG_SD**2)
    return _Slopes(of=of, covariance=covariance, variance=variance)


def _prior(variances: Floats, freedom: Floats) -> _Prior:
    """A scaled inverse chi-squared, by the moments of log variances (Smyth 2004, section 6.2)."""
    if len(variances) < 2:
        return _Prior(variance=1.0, freedom=0.0, most_freedom=0.0)
    most = float(freedom.sum())
    log = np.log(np.maximum(variances, LEAST_LOG_SD**2))
    log = log - special.digamma(freedom / 2) + np.log(freedom / 2)
    beyond = float(log.var(ddof=1) - special.polygamma(1, freedom / 2).mean())
    if beyond <= 0:  # no more different than chance: one variance for all
        pooled = float((variances * freedom).sum()) / most
        return _Prior(variance=pooled, freedom=np.inf, most_freedom=most)
    prior = 2 * _inverse_trigamma(beyond)
    variance = float(np.exp(log.mean() + special.digamma(prior / 2) - np.log(prior / 2)))
    return _Prior(variance=variance, freedom=prior, most_freedom=most)


def _inverse_trigamma(value: float) -> float:
    """The y with trigamma(y) = `value`, by Newton's method on 1 / trigamma."""
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, y))
        y += trigamma * (1 - trigamma / value) / float(special.polygamma(2, y))
    return y


def student(level: float, freedom: float) -> float:
    """How many standard errors an interval at `level` reaches, by Student's t."""
    return float(special.stdtrit(freedom, (1 + level) / 2))


def _kernel_change(before: Runs, after: Runs) -> float:
    if before.log_kernel is None or after.log_kernel is None:
        return 0.0
    return float(np.mean(after.log_kernel) - np.mean(before.log_kernel))
