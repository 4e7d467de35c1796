"""Cells and tables: a number in its unit with its interval, or the reason for a missing one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from domain.record import Estimate, Unknown
from domain.units import shown, shown_money, significant
from reports.contents import Say

_TAKE_PREFIX = {"s", "B", "J", "W", "FLOP", "FLOP/s", "B/s"}


@dataclass(frozen=True)
class Cell:
    """What one cell says; an interval and a remark stand small below it.

    `badge` gives it a tier's colour.
    """

    text: str
    interval: str = ""
    remark: str = ""
    badge: str = ""
    span: int = 1


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under columns; the last `total_rows` rows stand out."""

    id: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    total_rows: int = 0


def percent(share: float) -> str:
    """A share as a percentage.

    >>> percent(0.0525)
    '5.25 %'
    """
    return f"{significant(100 * share)} %"


def measure(value: float, unit: str) -> str:
    """A value in its unit, with a prefix where the unit takes one.

    >>> measure(0.002, "s"), measure(0.8, ""), measure(0.8, "share of peak")
    ('2 ms', '0.8', '0.8 share of peak')
    """
    return shown(value, unit) if unit in _TAKE_PREFIX else f"{significant(value)} {unit}".strip()


def money(amount: Decimal | Unknown, currency: str) -> str:
    """Money with its currency, or the reason why it is not known."""
    return amount.reason if isinstance(amount, Unknown) else shown_money(amount, currency)


def unit_price(amount: Decimal | Unknown, currency: str) -> str:
    """Money for a unit, with three digits however little it is; or why it is not known.

    >>> unit_price(Decimal("0.01234"), "USD"), unit_price(Decimal("12.345"), "USD")
    ('0.0123 USD', '12.34 USD')
    """
    if isinstance(amount, Unknown) or not 0 < abs(amount) < 10:
        return money(amount, currency)
    return f"{significant(float(amount))} {currency}"


def estimate(value: Estimate, unit: str, say: Say) -> Cell:
    """A value with its interval below it; a single run has none."""
    if value.low == value.high:
        return Cell(measure(value.value, unit))
    interval = between(measure(value.low, unit), measure(value.high, unit), say)
    return Cell(measure(value.value, unit), interval=interval)


def figure(value: Estimate | float | Unknown, unit: str, say: Say) -> Cell:
    """A value with its interval if it has one; n/a where it is not known."""
    if isinstance(value, Unknown):
        return Cell(say("page.not_offered"))
    if isinstance(value, Estimate):
        return estimate(value, unit, say)
    return Cell(measure(value, unit))


def counted(value: Estimate, say: Say) -> Cell:
    """A mean count with the least and the most below it."""
    if value.low == value.high:
        return Cell(f"{value.value:,.0f}")
    ends = between(f"{value.low:,.0f}", f"{value.high:,.0f}", say)
    return Cell(f"{value.value:,.1f}", interval=ends)


def bounded(amount: Decimal, low: Decimal, high: Decimal, currency: str, say: Say) -> Cell:
    """Money with its interval below it."""
    interval = between(money(low, currency), money(high, currency), say)
    return Cell(money(amount, currency), interval=interval)


def between(low: str, high: str, say: Say) -> str:
    """Both ends of an interval, with the unit once where it is the same."""
    number, _, unit = low.partition(" ")
    return say("page.interval", low=number if high.partition(" ")[2] == unit else low, high=high)


def reasons(key: str, values: Sequence[object], say: Say) -> Iterator[str]:
    """A sentence for each reason why a value is unknown, with how often."""
    given = [value.reason for value in values if isinstance(value, Unknown)]
    for reason in dict.fromkeys(given):
        count = str(given.count(reason))
        yield say(key, reason=reason.rstrip("."), count=count, all=str(len(values)))
