import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.currencies import DECIMALS, smallest_unit
from domain.units import shown, shown_money, significant

SCALES = {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
# The values just below a prefix, where rounding could show a thousand of the smaller one.
edges = st.builds(
    lambda mantissa, power: mantissa * 10.0**power,
    st.sampled_from([9.994999, 9.995, 9.995001, 9.999999, 1.0]),
    st.integers(min_value=-8, max_value=13),
)


@given(st.one_of(st.floats(min_value=1e-9, max_value=9e14), edges))
def test_a_value_is_shown_with_one_to_three_digits_before_the_point(value):
    match = re.fullmatch(r"([\d.]+) (.?)s", shown(value, "s"))
    assert match
    mantissa = float(match[1])
    assert 1 <= mantissa < 1000
    assert mantissa * SCALES[match[2]] == pytest.approx(value, rel=0.00501)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 s"),
        (0.0009995, "999 µs"),
        (0.9999996, "1 s"),
        (-0.5, "-500 ms"),
        (1e-12, "0.001 ns"),
        (312e12, "312 Ts"),
    ],
)
def test_edges_of_the_prefixes(value, text):
    assert shown(value, "s") == text


@given(st.floats(min_value=1e-6, max_value=1e12), st.integers(min_value=1, max_value=6))
def test_significant_digits_have_no_exponent_and_round_to_the_nearest(value, digits):
    text = significant(value, digits)
    assert "e" not in text.lower()
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))


amounts = st.decimals(-(10**9), 10**9, places=5, allow_nan=False)


@given(amounts, st.sampled_from([*DECIMALS, "USD", "EUR", "CNY", "TWD"]))
def test_money_is_shown_to_what_can_be_paid(amount, currency):
    number, code = shown_money(amount, currency).split(" ")
    number, unit = Decimal(number.replace(",", "")), smallest_unit(currency)
    assert code == currency
    assert number % unit == 0
    assert abs(number - amount) <= max(unit, Decimal(abs(amount) >= 1000)) / 2


def test_money_has_the_decimals_of_its_currency():
    assert shown_money(Decimal("1234567.891"), "USD") == "1,234,568 USD"
    assert shown_money(Decimal("1234567.891"), "JPY") == "1,234,568 JPY"
