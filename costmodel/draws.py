"""Held-out error over draws of timings, and intervals that other targets promise. Pure.

Timings are drawn 200 times from fixed seeds; a row of accuracy is the median over draws of a
draw's own median, 90th percentile and so on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.regression import spread_of
from costmodel.transfer import NORMAL_90
from costmodel.work import Array
from domain.fit import ValidationRow
from domain.record import Tier

DRAWS, SEED = 200, 20


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Held-out log(seen / predicted) of one draw of timings, and the spread that was promised."""

    misses: Array
    log_sd: float | Array

    @property
    def scores(self) -> Array:
        """Misses in spreads."""
        return np.abs(self.misses) / self.log_sd

    def scaled(self, factor: float) -> "Draw":
        """The same with a wider promise."""
        return Draw(misses=self.misses, log_sd=self.log_sd * factor)


def promised_by_others(drawn: Mapping[str, Sequence[Draw]]) -> dict[str, list[Draw]]:
    """Each target's draws with the spread that the same procedure needed on the other targets."""
    return {
        target: [
            draw.scaled(factor_of([each for name, each in drawn.items() if name != target]))
            for draw in draws
        ]
        for target, draws in drawn.items()
    }


def factor_of(others: Sequence[Sequence[Draw]]) -> float:
    """What a promise is to be multiplied by, from what the procedure missed on other targets.

    Split-conformal over targets, not over rows: the rows of one target err together, and another
    target is one more draw, not hundreds. Of D targets' factors the ⌈0.9·(D + 1)⌉-th, which is the
    largest where there are fewer than 9: no more than D/(D + 1) can be guaranteed, whatever the
    nominal level. So few never vouch for less than was promised.

    >>> [missed, hit] = [Draw(misses=np.full(9, each), log_sd=1.0) for each in (3.29, 0.0)]
    >>> round(factor_of([[missed], [hit]]), 6)
    2.0
    """
    needed = [spread_of(np.concatenate([draw.scores for draw in draws])) for draws in others]
    return max(1.0, spread_of(NORMAL_90 * np.array(needed))) if needed else 1.0


def summary_of_draws(
    split: str, tier: Tier, draws: Sequence[Draw], quantity: str = "latency"
) -> ValidationRow:
    """The median over draws of each draw's figures; coverage over all."""
    errors = [np.expm1(-draw.misses) for draw in draws]
    inside = [np.abs(draw.misses) <= NORMAL_90 * draw.log_sd for draw in draws]
    return ValidationRow(
        split=split,
        quantity=quantity,
        tier=tier,
        n=len(draws[0].misses),
        median_abs_error=float(np.median([np.median(np.abs(each)) for each in errors])),
        p90_abs_error=float(np.median([np.quantile(np.abs(each), 0.9) for each in errors])),
        signed_error=float(np.median([np.median(each) for each in errors])),
        coverage_90=float(np.mean(np.concatenate(inside))),
        half_width=float(
            np.median([np.median(np.sinh(NORMAL_90 * draw.log_sd)) for draw in draws])
        ),
        noise_floor=None,
    )
