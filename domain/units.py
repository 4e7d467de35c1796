"""Decimal prefixes, at the edge only: how SI values are read in and shown."""

from decimal import Decimal

from domain.currencies import decimals_of

KILO, MEGA, GIGA, TERA = 1e3, 1e6, 1e9, 1e12
MILLI, MICRO, NANO = 1e-3, 1e-6, 1e-9
SECONDS_PER_HOUR = 3600.0
HOURS_PER_YEAR = 8760.0

_PREFIXES = (
    (1e15, "P"),
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
    (1e-9, "n"),
)


def shown(value: float, unit: str, digits: int = 3) -> str:
    """`value` with the decimal prefix that keeps one to three digits before the point.

    >>> shown(0.00254, "s"), shown(312e12, "FLOP/s"), shown(0.0, "J")
    ('2.54 ms', '312 TFLOP/s', '0 J')
    """
    if value == 0:
        return f"0 {unit}".strip()
    # Rounding first, and once: 999.9996 ms is shown as 1 s, not as 1e+03 ms.
    rounded = float(f"{value:.{digits}g}")
    scale, prefix = next(
        ((scale, prefix) for scale, prefix in _PREFIXES if abs(rounded) >= scale), (1e-9, "n")
    )
    return f"{significant(rounded / scale, digits)} {prefix}{unit}".strip()


def significant(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits and no exponent.

    >>> significant(1234.5), significant(0.05678), significant(2.0)
    ('1,230', '0.0568', '2')
    """
    rounded = Decimal(f"{value:.{digits}g}")
    return f"{rounded.normalize():,f}"


def shown_chance(probability: float) -> str:
    """A probability in percent; never as certain, as nothing drawn or modelled is.

    >>> shown_chance(0.953), shown_chance(1.0), shown_chance(0.0)
    ('95.3%', '>99.9%', '<0.1%')
    """
    if probability > 0.999:
        return ">99.9%"
    return f"{probability:.1%}" if probability >= 0.001 else "<0.1%"


def shown_money(amount: Decimal, currency: str) -> str:
    """Money with thousands separators; decimals where the currency has them and they matter.

    >>> shown_money(Decimal("12.5"), "USD"), shown_money(Decimal("1234.5"), "USD")
    ('12.50 USD', '1,234 USD')
    >>> shown_money(Decimal("-0"), "JPY"), shown_money(Decimal("12.5"), "KRW")
    ('0 JPY', '12 KRW')
    """
    decimals = 0 if abs(amount) >= 1000 else decimals_of(currency)
    # Adding zero takes the sign off a negative zero.
    return f"{amount + 0:,.{decimals}f} {currency}"
