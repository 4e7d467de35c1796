"""How sure a machine's fit is of stages: its coefficients', its neighbours' and the clock's doubt. Pure.

    log s = log equation(θ) + d(x)        θ ~ N(·, Σ),  d ~ GP(·, C)  given what was measured
    V = J Σ Jᵀ + C                        J: slopes of each stage's log seconds along log θ
    whole batch: wᵀ V w                   w: what share of the batch each stage takes

Both terms grow by themselves where nothing like it was measured: coefficients that the points did not
tell apart, and, up to what the process starts from, places without neighbours.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from costmodel.discrepancy import corrections_at, covariance_of, features_of_group
from costmodel.operators import Operator
from costmodel.slopes import group_slopes_s
from costmodel.work import Array, Machine, Rates, Work
from domain.fit import Discrepancy

# How far the median of runs is believed at most: stages are shorter, and their clock marks sit
# inside the pass.
STAGE_LOG_SD, WHOLE_LOG_SD = 0.04, 0.015


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Seconds of every stage of a batch, and the covariances of their logarithms."""

    names: tuple[str, ...]
    seconds: Array
    from_coefficients: Array
    from_neighbours: Array

    @property
    def whole_s(self) -> float:
        """Seconds of the batch."""
        return float(self.seconds.sum())

    @property
    def covariance(self) -> Array:
        """Of the logarithms of the stages' seconds."""
        return self.from_coefficients + self.from_neighbours

    @property
    def coefficients_log_sd(self) -> float:
        """How sure the batch's logarithm is by the coefficients alone: gᵀ Σ g."""
        return math.sqrt(self._of_whole(self.from_coefficients))

    @property
    def whole_log_sd(self) -> float:
        """How sure the batch's logarithm is, as a clock would see it."""
        return math.sqrt(self._of_whole(self.covariance) + WHOLE_LOG_SD**2)

    def _of_whole(self, covariance: Array) -> float:
        shares = self.seconds / self.seconds.sum()
        return max(float(shares @ covariance @ shares), 0.0)

    def of(self, stage: str) -> tuple[float, float]:
        """Seconds of one stage, and how sure their logarithm is, as a clock would see it."""
        number = self.names.index(stage)
        variance = self.covariance[number, number] + STAGE_LOG_SD**2
        return float(self.seconds[number]), math.sqrt(variance)


def stages_of(
    groups: Sequence[Sequence[Operator]],
    machine: Machine,
    coefficients: Mapping[str, float],
    covariance: ArrayLike,
    discrepancy: Discrepancy | None,
    setting: Mapping[str, float],
    *,
    has_neighbours: bool = True,
) -> Stages:
    """What a fit says of every group of a batch; `covariance` is of the logs of `coefficients`.

    Without `has_neighbours` the doubt of the process is not worked out.
    """
    work, rates = Work.of(groups), Rates.of([machine] * len(groups))
    own_s, slopes_s = group_slopes_s(work, rates, coefficients)
    slopes = np.array([slopes_s[name] for name in coefficients]).T / own_s[:, None]
    places = [features_of_group(group, setting) for group in groups]
    corrections = corrections_at(discrepancy, places)
    return Stages(
        names=tuple(group[0].stage for group in groups),
        seconds=own_s * np.exp(corrections),
        from_coefficients=slopes @ np.asarray(covariance) @ slopes.T,
        from_neighbours=covariance_of(discrepancy, places)
        if has_neighbours
        else np.zeros((len(groups), len(groups))),
    )
