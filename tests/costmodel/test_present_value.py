"""Equations of money: laws first, then what must be refused."""

from decimal import ROUND_UP, Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from costmodel.cashflow import exact
from costmodel.depreciation import charges_of, declining_balance_japan, macrs, straight_line
from costmodel.ownership import energy_price
from costmodel.present_value import (
    annuity,
    break_even_hours,
    break_even_utilisation,
    equivalent_annual_cost,
    internal_rate,
    net_present_value,
    payback_years,
    rate_of_return,
)
from domain.depreciation import japan_rates, macrs_percent
from domain.record import Unknown

money = st.decimals(0, 10**9, places=4)
rates = st.decimals("-0.5", "0.5", places=4)


@given(money, rates, st.integers(1, 120))
def test_an_annuity_is_worth_its_present_value(present, rate, periods):
    payment = annuity(rate, periods, present)
    worth = net_present_value(rate, [Decimal(0), *[payment] * periods])
    assert float(worth) == pytest.approx(float(present), rel=1e-15)


@given(st.integers(1, 10**6), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
@example(100, [110])
def test_at_the_internal_rate_an_investment_is_worth_nothing(price, returns):
    cash = [Decimal(-price), *map(Decimal, returns)]
    rate = internal_rate(cash)
    if rate is None:
        lowest, highest = Decimal("-0.99"), Decimal(99)
        assert net_present_value(lowest, cash) < 0 or net_present_value(highest, cash) > 0
    else:
        turnover = float(net_present_value(Decimal(repr(rate)), [abs(each) for each in cash]))
        assert abs(net_present_value(Decimal(repr(rate)), cash)) <= 1e-6 * turnover


@pytest.mark.parametrize("cash", [[], [0, 0], [5, 5], [-5, -5], [1, -2, 2]])
def test_cash_without_a_root_has_no_internal_rate(cash):
    assert internal_rate([Decimal(each) for each in cash]) is None


def test_of_two_internal_rates_the_nearer_to_zero_is_given():
    # (x − 1.1)(x − 1.5) = x² − 2.6 x + 1.65
    assert internal_rate([Decimal(1), Decimal("-2.6"), Decimal("1.65")]) == pytest.approx(0.1)


@given(st.integers(0, 10**9), st.integers(1, 50))
def test_straight_line_charges_sum_to_the_cost(cost, years):
    charges = straight_line(Decimal(cost), years)
    assert sum(charges) == cost
    assert max(charges) - min(charges) <= 1


@given(st.integers(1, 10**10), st.integers(2, 20))
def test_declining_charges_never_take_the_last_yen(cost, years):
    rate = Decimal(2) / years
    charges = declining_balance_japan(cost, years, rate, min(rate * 5 / 4, Decimal(1)), rate / 4)
    assert all(charge >= 0 for charge in charges)
    assert sum(charges) <= cost - 1


@given(money, money, money, st.integers(1, 20), st.integers(1, 20))
def test_break_even_does_not_depend_on_the_amortisation_period(
    capex, rented, running, one_life, other_life
):
    """Amortisation spreads the same price; taken out of the running cost again, nothing is left."""
    straight = break_even_hours(capex, rented, running)
    for life in (one_life, other_life):
        charges = straight_line(capex, life, unit=Decimal("0.0001"))
        assert break_even_hours(sum(charges), rented, running) == straight


def test_renting_cheaper_than_running_never_breaks_even():
    assert break_even_hours(Decimal(100), Decimal(1), Decimal(1)).reason.startswith("never")
    assert break_even_hours(Decimal(0), Decimal(1), Decimal(2)) == 0


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda: break_even_hours(Decimal(-1), Decimal(1), Decimal(0)),
        lambda: annuity(Decimal(-1), 3, Decimal(1)),
        lambda: annuity(Decimal(0), 0, Decimal(1)),
        lambda: energy_price(power_w=1.0, pue=0.9, hours=1.0, price_per_kwh=Decimal(1)),
        lambda: energy_price(power_w=float("nan"), pue=1.0, hours=1.0, price_per_kwh=Decimal(1)),
        lambda: straight_line(Decimal(1), 0),
        lambda: declining_balance_japan(0, 5, Decimal("0.4"), Decimal("0.5"), Decimal("0.1")),
    ],
)
def test_impossible_inputs_are_refused(nonsense):
    with pytest.raises(ValueError, match="wanted"):
        nonsense()


@pytest.mark.parametrize("life", sorted(japan_rates()))
def test_japans_rates_follow_from_the_life(life):
    """Twice the straight line to three digits; then, rounded up, one over the years that are left."""
    rates, thousandth = japan_rates()[life], Decimal("0.001")
    assert rates.rate == (Decimal(2) / life).quantize(thousandth)
    left = [(Decimal(1) / n).quantize(thousandth, ROUND_UP) for n in range(1, life)]
    assert rates.revised_rate in (*left, Decimal(1))
    # The guarantee is the charge at the switch: what is left then, at the revised rate.
    switched = [(1 - rates.rate) ** year * rates.revised_rate for year in range(1, life)]
    if life > 2:
        assert min(abs(each - rates.guarantee_rate) for each in switched) < Decimal("0.0002")


@pytest.mark.parametrize("life", sorted(japan_rates()))
def test_japans_table_writes_off_all_but_one_yen_in_its_life(life):
    for cost in (1_000_000, 123_457, 10**9):
        charges = charges_of("declining_japan", Decimal(cost), life, Decimal(1))
        assert len(charges) == life
        # Whole yen each year: what the rounding leaves is charged after the life has ended.
        assert cost - 1 - life < sum(charges) <= cost - 1
    assert sum(charges_of("declining_japan", Decimal(1_000_000), life, Decimal(1))) == 999_999


@pytest.mark.parametrize("life", sorted(macrs_percent()))
def test_macrs_percent_are_double_declining_balance_with_half_a_year(life):
    """200 %/life of what is left, half of it in the first year; straight line once that is more."""
    left, rows = 100.0, macrs_percent()[life]
    for year, percent in enumerate(rows):
        years_left = life - year + 0.5 if year else life
        share = max(2 / life, 1 / years_left) if years_left >= 1 else 1.0
        charge = left * share * (0.5 if year == 0 else 1.0)
        assert float(percent) == pytest.approx(charge, abs=0.02)
        left -= charge
    assert sum(rows) == 100


@given(st.decimals("0.01", 10**9, places=2), st.sampled_from(sorted(macrs_percent())))
def test_macrs_charges_sum_to_the_cost(cost, life):
    charges = macrs(cost, life, Decimal("0.01"))
    assert sum(charges) == cost
    assert all(charge >= 0 for charge in charges)


@given(st.integers(0, 10**9), st.sampled_from(["straight_line", "declining_japan", "macrs"]))
def test_no_method_charges_more_than_the_cost(cost, method):
    charges = charges_of(method, Decimal(cost), 5, Decimal(1))
    assert cost - 1 <= sum(charges) <= cost or not charges


@given(st.lists(st.integers(-(10**6), 10**6), min_size=2, max_size=20), rates)
def test_an_equivalent_annual_cost_is_worth_what_it_stands_for(cash, rate):
    amounts = [Decimal(each) for each in cash]
    yearly = equivalent_annual_cost(rate, amounts)
    worth = net_present_value(rate, [Decimal(0), *[yearly] * (len(cash) - 1)])
    turnover = float(net_present_value(rate, [abs(each) for each in amounts]))
    assert float(worth) == pytest.approx(
        float(net_present_value(rate, amounts)), rel=1e-12, abs=1e-12 * turnover + 1e-12
    )


@given(st.integers(1, 10**6), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_after_the_payback_nothing_is_out(price, returns):
    years = payback_years([Decimal(-price), *map(Decimal, returns)])
    if isinstance(years, Unknown):
        assert sum(returns) < price
    else:
        whole, part = divmod(years, 1)
        back = sum(returns[: int(whole)])
        back += part * returns[int(whole)] if part else 0
        assert float(back) == pytest.approx(price)


def test_a_rate_of_return_is_a_rate_or_the_reason_for_none():
    assert rate_of_return([Decimal(-100), Decimal(110)]) == pytest.approx(0.1)
    for cash, words in (
        ([Decimal(5), Decimal(5)], "nothing is paid"),
        ([Decimal(-5), Decimal(-5)], "nothing ever comes back"),
        ([Decimal(1), Decimal(-2), Decimal(2)], "at no rate"),
        ([], "nothing is paid"),
    ):
        assert words in rate_of_return(cash).reason


@given(money, money, money)
def test_at_the_break_even_use_owning_and_renting_cost_the_same(idle, rented, running):
    hours = Decimal(8760)
    share = break_even_utilisation(idle, hours, rented, running)
    if isinstance(share, Unknown):
        assert idle > hours * (rented - running)
    elif idle:
        assert 0 < share <= 1
        owned = idle + share * hours * running
        assert float(owned) == pytest.approx(float(share * hours * rented), rel=1e-12)


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda: charges_of("macrs", Decimal(100), 4, Decimal(1)),
        lambda: charges_of("declining_japan", Decimal(100), 11, Decimal(1)),
        lambda: macrs(Decimal(-1), 5),
        lambda: break_even_utilisation(Decimal(-1), Decimal(1), Decimal(1), Decimal(0)),
        lambda: break_even_utilisation(Decimal(1), Decimal(0), Decimal(1), Decimal(0)),
    ],
)
def test_what_no_table_has_is_refused(nonsense):
    with pytest.raises(ValueError, match="wanted"):
        nonsense()


def test_numbers_are_taken_as_they_are_written():
    assert exact(0.1) == Decimal("0.1")
