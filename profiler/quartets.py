"""Two things turn about: one, other, other, one; and what that says of their ratio.

The second of a pair may find the batch warm, and a machine that gets slower makes whatever comes
later look slow. So a value is the mean of one pair in each order: what order or drift does to one, it
does to the other with the opposite sign.
"""

import math
from collections.abc import Callable, Sequence

from domain.statistics import median, median_bounds

Timed = Callable[[int], float]


def quartets(
    one: Timed, other: Timed, is_over: Callable[[Sequence[float], Sequence[float]], bool]
) -> tuple[list[float], list[float]]:
    """Seconds of `one` and of `other` at places 0, 1, 2, …, until it `is_over`; one quartet at least."""
    ones: list[float] = []
    others: list[float] = []
    while not ones or not is_over(ones, others):
        place = len(ones)
        first = one(place)
        others += [other(place), other(place + 1)]
        ones += [first, one(place + 1)]
    return ones, others


def log_ratios(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    """Of each quartet the log of `others` over `ones`.

    >>> log_ratios([1.0, 1.0], [1.0, 1.0])
    [0.0]
    """
    each = [math.log(other / one) for one, other in zip(ones, others, strict=True)]
    return [(first + second) / 2 for first, second in zip(each[::2], each[1::2], strict=True)]


def error_of(values: Sequence[float]) -> float:
    """Standard error of the median of `values`; infinite for fewer than six.

    >>> error_of([0.0] * 6), error_of([0.0] * 5)
    (0.0, inf)
    """
    bounds = median_bounds(values)
    return math.inf if bounds is None else (bounds[1] - bounds[0]) / 2 / 1.96


def median_and_error(ones: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """The median log ratio of all quartets, and its standard error."""
    values = log_ratios(ones, others)
    return median(values), error_of(values)
