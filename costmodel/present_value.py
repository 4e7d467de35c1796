"""Equations that compare costs over time. Cash only, in `Decimal`.

Depreciation is tax's way of spreading a price and never enters a comparison of cash.
"""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from domain.record import Unknown

Points = NDArray[np.float64]


def annuity(rate: Decimal, periods: int, present: Decimal) -> Decimal:
    """The payment at the end of each of `periods` that is worth `present` today at `rate` a period.

    `PMT = PV / Σ (1 + r)^−t`: the usual `PV·r / (1 − (1 + r)^−n)`, without its hole at r = 0
    (Hamilton 2010, the model behind Hennessy & Patterson's figures 6.13 and 6.14).

    >>> annuity(Decimal(0), 4, Decimal(100))
    Decimal('25')
    """
    return present / annuity_factor(rate, periods)


def annuity_factor(rate: Decimal, periods: int) -> Decimal:
    """What one unit of money at the end of each of `periods` is worth today: `Σ (1 + r)^−t`.

    >>> annuity_factor(Decimal(0), 3)
    Decimal('3')
    """
    if periods < 1:
        raise ValueError(f"wanted one period at least, got {periods}")
    return net_present_value(rate, [Decimal(0), *[Decimal(1)] * periods])


def net_present_value(rate: Decimal, cash: Sequence[Decimal]) -> Decimal:
    """Worth today of `cash[t]` at the end of period t, the first today: `Σ cash_t / (1 + r)^t`.

    >>> net_present_value(Decimal("0.1"), [Decimal(-100), Decimal(110)])
    Decimal('0')
    """
    if rate <= -1:
        raise ValueError(f"wanted a rate above -1, got {rate}")
    return sum((each / (1 + rate) ** t for t, each in enumerate(cash)), Decimal(0))


def internal_rate(cash: Sequence[Decimal]) -> float | None:
    """The rate at which `cash` is worth nothing today, or None where there is no such rate.

    Looked for between −99 % and 9,900 %; of several roots the one nearest to zero is given.

    >>> internal_rate([Decimal(-100), Decimal(110)]), internal_rate([Decimal(5), Decimal(5)])
    (0.1, None)
    """
    flowing = [t for t, each in enumerate(cash) if each]
    if not flowing:
        return None
    # A later start scales the worth, and leaves its roots.
    amounts = cash[flowing[0] : flowing[-1] + 1]
    largest = max(abs(each) for each in amounts)
    shares = np.array([float(each / largest) for each in amounts])
    times = np.arange(len(shares))

    def worths(log_growth: Points) -> Points:
        # Scaled by a positive factor that keeps every power at one or below.
        first = np.maximum(0.0, -log_growth) * times[-1]
        return np.asarray(np.exp(-np.outer(log_growth, times) - first[:, None]) @ shares)

    def worth(log_growth: float) -> float:
        return float(worths(np.array([log_growth]))[0])

    edge, steps = math.log(100.0), 2000
    grid = edge * np.arange(-steps, steps + 1) / steps
    found = worths(grid)
    crossed = np.flatnonzero((found[:-1] * found[1:] < 0) | (found[:-1] == 0))
    roots = [_bisected(worth, float(grid[k]), float(grid[k + 1])) for k in crossed]
    if not roots:
        return None
    return round(math.expm1(min(roots, key=abs)), 12)


def break_even_hours(
    capex: Decimal, rented_per_h: Decimal, running_per_h: Decimal
) -> Decimal | Unknown:
    """Hours of use after which buying has cost as much as renting: `capex / (rented − running)`.

    `running_per_h` is cash only. An amortisation of `capex` in it would count the price twice, so
    there is no parameter for one (Lenovo Press LP2225, 2025).

    >>> break_even_hours(Decimal(100), Decimal(3), Decimal(1))
    Decimal('50')
    """
    if capex < 0 or rented_per_h < 0 or running_per_h < 0:
        raise ValueError(
            f"wanted costs of zero or more, got {capex}, {rented_per_h} and {running_per_h}"
        )
    if not capex:
        return Decimal(0)
    if rented_per_h <= running_per_h:
        return Unknown(
            reason=f"never: an hour rented costs {rented_per_h}, running one's own {running_per_h}"
        )
    return capex / (rented_per_h - running_per_h)


def break_even_utilisation(
    idle_per_year: Decimal, hours_per_year: Decimal, rented_per_h: Decimal, running_per_h: Decimal
) -> Decimal | Unknown:
    """Share of the hours of a year from which on owning is cheaper than renting by the hour.

    Owning costs `idle_per_year`, the equivalent annual cost of a year without use, and
    `running_per_h` for each hour of use.

    >>> break_even_utilisation(Decimal(876), Decimal(8760), Decimal("0.6"), Decimal("0.1"))
    Decimal('0.2')
    """
    if min(idle_per_year, rented_per_h, running_per_h) < 0 or hours_per_year <= 0:
        raise ValueError(
            f"wanted costs of zero or more and hours above zero, got {idle_per_year}, "
            f"{rented_per_h}, {running_per_h} and {hours_per_year}"
        )
    if not idle_per_year and rented_per_h >= running_per_h:
        return Decimal(0)
    saved = hours_per_year * (rented_per_h - running_per_h)
    if idle_per_year > saved:
        return Unknown(
            reason=f"never: a year of all {hours_per_year:,.0f} hours rented saves "
            f"{saved:,.2f}, owning costs {idle_per_year:,.2f} before the first hour"
        )
    return idle_per_year / saved


def equivalent_annual_cost(rate: Decimal, cash: Sequence[Decimal]) -> Decimal:
    """The same payment at each year's end that is worth what `cash`, today and yearly, is worth.

    >>> equivalent_annual_cost(Decimal(0), [Decimal(300), Decimal(10), Decimal(10), Decimal(10)])
    Decimal('110')
    """
    return annuity(rate, len(cash) - 1, net_present_value(rate, cash))


def payback_years(cash: Sequence[Decimal]) -> Decimal | Unknown:
    """Years until undiscounted `cash` has come back, evenly within a year; or why it never does.

    >>> payback_years([Decimal(-100), Decimal(40), Decimal(80)])
    Decimal('1.75')
    """
    sums = list(accumulate(cash, initial=Decimal(0)))[1:]
    if not sums or sums[0] >= 0:
        return Decimal(0)
    for year, (before, after) in enumerate(pairwise(sums)):
        if before < 0 <= after:
            return year + -before / (after - before)
    return Unknown(reason=f"not within {len(sums) - 1} years: {-sums[-1]:.2f} are still out")


def rate_of_return(cash: Sequence[Decimal]) -> float | Unknown:
    """The internal rate of return, or in words why there is none."""
    if not any(each < 0 for each in cash):
        return Unknown(reason="no rate of return: nothing is paid, so nothing earns")
    if not any(each > 0 for each in cash):
        return Unknown(reason="no rate of return: nothing ever comes back")
    rate = internal_rate(cash)
    if rate is None:
        return Unknown(reason="no rate of return: at no rate is this cash worth nothing today")
    return rate


def _bisected(worth: Callable[[float], float], low: float, high: float) -> float:
    """Where `worth` changes its sign between `low` and `high`."""
    start = worth(low)
    if start == 0:
        return low
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if worth(middle) * start > 0 else (low, middle)
    return (low + high) / 2
