"""How tax spreads a price over years: straight line, Japan's declining balance, MACRS."""

from decimal import Decimal
from itertools import pairwise

from domain.depreciation import japan_rates, macrs_percent
from domain.scenario import Depreciation


def charges_of(
    method: Depreciation, cost: Decimal, life_years: int, unit: Decimal
) -> tuple[Decimal, ...]:
    """Yearly charges of `cost` in whole `unit`s of money by the method of the country.

    Raises ValueError where the authority's table has no such life.
    """
    if cost <= 0:
        return ()
    if method == "straight_line":
        return straight_line(cost.quantize(unit), life_years, unit=unit)
    if method == "macrs":
        return macrs(cost, life_years, unit)
    lives = japan_rates()
    if life_years not in lives:
        raise ValueError(
            f"wanted a life of {', '.join(map(str, lives))} years for {method}, got {life_years}"
        )
    rates = lives[life_years]
    yen = int(cost.quantize(Decimal(1)))
    if yen < 1:
        return ()
    charges = declining_balance_japan(
        yen, life_years, rates.rate, rates.revised_rate, rates.guarantee_rate
    )
    return tuple(map(Decimal, charges))


def macrs(cost: Decimal, life_years: int, unit: Decimal = Decimal(1)) -> tuple[Decimal, ...]:
    """Yearly charges of the general system, half-year convention (IRS Publication 946, A-1).

    A class of five years is charged in six. In whole `unit`s, and they sum to `cost`.

    >>> macrs(Decimal(1000), 5)[:3]
    (Decimal('200'), Decimal('320'), Decimal('192'))
    """
    classes = macrs_percent()
    if life_years not in classes or cost < 0:
        raise ValueError(
            f"wanted a cost of zero or more and a class of {', '.join(map(str, classes))} years, "
            f"got {cost} and {life_years}"
        )
    written_off, so_far = [Decimal(0)], Decimal(0)
    for percent in classes[life_years]:
        so_far += percent
        written_off.append((cost * so_far / 100).quantize(unit))
    written_off[-1] = cost.quantize(unit)
    return tuple(later - earlier for earlier, later in pairwise(written_off))


def straight_line(
    cost: Decimal, years: int, residual: Decimal = Decimal(0), unit: Decimal = Decimal(1)
) -> tuple[Decimal, ...]:
    """Equal yearly charges in whole `unit`s that sum to `cost − residual`.

    >>> straight_line(Decimal(100), 3)
    (Decimal('33'), Decimal('34'), Decimal('33'))
    """
    if years < 1 or not 0 <= residual <= cost:
        raise ValueError(
            f"wanted a year or more and 0 <= residual <= cost, got {years}, {residual} and {cost}"
        )
    written_off = [((cost - residual) * year / years).quantize(unit) for year in range(years)]
    written_off.append(cost - residual)
    return tuple(later - earlier for earlier, later in pairwise(written_off))


def declining_balance_japan(
    cost: int, years: int, rate: Decimal, revised_rate: Decimal, guarantee_rate: Decimal
) -> tuple[int, ...]:
    """Yearly charges in yen of Japan's 200 % declining balance (NTA Tax Answer No. 2106).

    `floor(book · rate)`, and from the year in which that is below `cost · guarantee_rate` on
    `floor(book at that point · revised_rate)`. One yen of memo value stays on the books.
    """
    rates = (rate, revised_rate, guarantee_rate)
    if cost < 1 or years < 1 or not all(0 < each <= 1 for each in rates):
        raise ValueError(
            f"wanted a cost and a life of one or more and rates above 0 up to 1, got {cost} yen, "
            f"{years} years, {', '.join(map(str, rates))}"
        )
    charges: list[int] = []
    book, level = cost, None
    for _ in range(years):
        charge = level if level is not None else int(book * rate)
        if level is None and charge < cost * guarantee_rate:
            charge = level = int(book * revised_rate)
        charges.append(min(charge, book - 1))
        book -= charges[-1]
    return tuple(charges)
