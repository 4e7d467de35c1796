"""The smallest amount of each currency that can be paid: one table for sums and for what is shown."""

from decimal import Decimal

# Decimals of the minor unit by ISO 4217 where they are not two; list of 2025-02-04, as Firefox has it.
DECIMALS: dict[str, int] = {
    **dict.fromkeys(
        (
            "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI",
            "VND", "VUV", "XAF", "XOF", "XPF",
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}  # fmt: skip
USUAL_DECIMALS = 2


def decimals_of(currency: str) -> int:
    """Decimals of the least amount that can be paid.

    >>> decimals_of("USD"), decimals_of("KRW"), decimals_of("KWD")
    (2, 0, 3)
    """
    return DECIMALS.get(currency, USUAL_DECIMALS)


def smallest_unit(currency: str) -> Decimal:
    """The least amount that can be paid: a yen has no decimals.

    >>> smallest_unit("USD"), smallest_unit("JPY")
    (Decimal('0.01'), Decimal('1'))
    """
    return Decimal(1).scaleb(-decimals_of(currency))
