"""Renting: laws of its lines, contracts and break-even, and the catalogue's own rows."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.ownership import Use, ownership_of
from costmodel.renting import break_even, instances_of, rates_for, rent_of
from domain.catalogue import cloud_prices, commitment_discounts
from domain.prices import HourlyRate
from domain.record import Unknown
from domain.scenario import CloudTerms, Finance, Ownership
from tests.costmodel.test_ownership import device, exactly, line, site

H100 = next(
    each
    for each in rates_for("h100-sxm-80", cloud_prices(), commitment_discounts())
    if each.price.instance == "p5.48xlarge" and each.contract == "on-demand"
)


def rate(usd="8", gpus=8.0, contract="on-demand"):
    fields = {name: getattr(H100.price, name) for name in type(H100.price).model_fields}
    price = type(H100.price)(**{**fields, "gpu_count": gpus})
    return HourlyRate(
        price=price, contract=contract, usd_per_h=Decimal(usd), is_estimate=False, how="toy"
    )


def rented(of=None, devices=3, hours=1000.0, **changes):
    finance = changes.pop("finance", Finance(horizon_years=2))
    return rent_of(
        of or rate(),
        devices=[devices] * finance.horizon_years,
        running_hours=[hours] * finance.horizon_years,
        images=1e6,
        site=changes.pop("site", site()),
        finance=finance,
        cloud=CloudTerms(**changes),
    )


def test_no_price_from_before_a_cut_and_no_slice_is_offered():
    for each in cloud_prices():
        if each.device_id:
            for offered in rates_for(each.device_id, cloud_prices(), commitment_discounts()):
                assert "PRE-CUT" not in offered.price.notes
                assert "HISTORICAL" not in offered.price.notes
                assert offered.price.gpu_count >= 1


def test_a_reserved_price_nobody_published_is_called_an_estimate():
    found = rates_for("l4", cloud_prices(), commitment_discounts())
    assert {each.contract for each in found} >= {"on-demand", "reserved-1y", "reserved-3y"}
    for each in found:
        assert each.is_estimate == each.contract.startswith("reserved")
        if each.is_estimate:
            assert "estimate" in each.how
    per_device = [each.usd_per_h / Decimal(each.price.gpu_count) for each in found]
    assert per_device == sorted(per_device)


def test_what_can_not_be_rented_singly_is_paid_and_shown():
    cost = rented()
    assert instances_of(rate(), 3) == 1
    assert line(cost, "compute").amount == 3 * 1 * 1000 * 2
    assert line(cost, "unused-devices").amount == 5 * 1 * 1000 * 2
    assert line(cost, "idle-hours").amount == 0


def test_a_reservation_is_paid_day_and_night():
    cost = rented(rate(contract="reserved-1y"))
    assert line(cost, "idle-hours").amount == 8 * (8760 - 1000) * 2
    assert cost.total == 8 * 8760 * 2


@given(
    st.integers(1, 100), st.floats(0, 8760), st.decimals("0.01", 1000, places=4), st.floats(0, 0.9)
)
def test_lines_add_up_and_more_use_never_costs_less(devices, hours, usd, discount):
    finance = Finance(horizon_years=3, discount_rate=discount, tax_rate=0.3)
    few, many = (
        rented(rate(str(usd)), count, hours, finance=finance, egress_gb_per_month=10.0)
        for count in (devices, devices + 8)
    )
    for cost in (few, many):
        assert sum(each.amount for each in cost.lines) == cost.total
    assert few.total <= many.total + Decimal("0.05")
    none = rented(rate(str(usd)), devices, 0.0, finance=finance)
    assert none.total == 0


def owned(**changes):
    finance = changes.pop("finance", Finance(horizon_years=2, maintenance_per_year=0.0))
    return ownership_of(
        device=device(),
        devices=8,
        images_per_year=1e6,
        busy_share=exactly(0.1),
        busy_power_w=exactly(100.0),
        site=site(**changes),
        finance=finance,
        years=[Use(devices=8, images=1e6, busy_share=exactly(0.1))] * finance.horizon_years,
    )


def test_break_even_is_of_cash_over_the_hours_of_use():
    own = owned(energy_price_per_kwh=Decimal(0))
    found = break_even(own, rented(devices=8), rate(), 1, 1000.0)
    assert (found.hours, found.years) == (1000, 1)
    assert found.utilisation == pytest.approx(Decimal(4000) / (8760 * 8), rel=Decimal("1e-5"))
    assert found.payback_years == 1
    assert found.net_present_value == 8000
    # −8000, 8000, 8000: (1 + r)² = (1 + r) + 1, the golden ratio.
    assert found.rate_of_return == pytest.approx(0.618034, abs=1e-6)


@given(st.integers(2, 10), st.sampled_from(["straight_line", "declining_japan"]))
def test_break_even_does_not_depend_on_how_the_price_is_written_off(life, method):
    finances = (
        Finance(horizon_years=2),
        Finance(horizon_years=2, life_years=life, depreciation=method),
    )
    first, second = (
        break_even(owned(finance=each), rented(devices=8), rate(), 1, 1000.0) for each in finances
    )
    assert first == second


@given(st.decimals(0, 10**6, places=2), st.sampled_from([0.0, 0.3]))
def test_people_on_both_sides_do_not_move_the_break_even_utilisation(wages, tax):
    alone, with_people = (
        Finance(horizon_years=2, maintenance_per_year=0.0, tax_rate=tax, staff_per_year=paid)
        for paid in (Decimal(0), wages)
    )
    free, paid = (
        break_even(owned(finance=each), rented(devices=8, finance=each), rate(), 1, 1000.0)
        for each in (alone, with_people)
    )
    assert paid.utilisation == pytest.approx(free.utilisation, rel=Decimal("2e-5"))


def test_what_a_cloud_asks_however_few_hours_speaks_for_owning_not_for_hours():
    # 8,000 of devices over two years; renting asks 12 × 100 a year beside its 8 an hour.
    found = break_even(
        owned(energy_price_per_kwh=Decimal(0)),
        rented(devices=8, uplink_per_month=Decimal(100)),
        rate(),
        1,
        1000.0,
    )
    assert found.utilisation == pytest.approx(
        Decimal(4000 - 1200) / (8760 * 8), rel=Decimal("1e-5")
    )


def test_renting_that_is_cheaper_than_running_never_breaks_even():
    own = owned(energy_price_per_kwh=Decimal(10))
    found = break_even(own, rented(devices=8), rate(), 1, 1000.0)
    assert "never" in found.hours.reason
    assert "still out" in found.payback_years.reason
    assert isinstance(found.rate_of_return, Unknown)
    assert found.net_present_value < 0


def test_a_foreign_price_needs_a_dated_rate():
    yen = site(currency="JPY", currency_per_usd=Decimal(150))
    assert "currency_date" in rented(site=yen).reason
    dated = site(currency="JPY", currency_per_usd=Decimal(150), currency_date="today")
    cost = rented(site=dated)
    assert isinstance(cost, Ownership)
    assert cost.total == rented().total * 150
