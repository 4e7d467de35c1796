"""The quick cost is the exact one, within what rounding to cents leaves."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from costmodel.drawn import power_of
from costmodel.ownership import hosts_of
from costmodel.unitcost import unit_cost
from domain.scenario import Finance, Host, Ownership
from tests.costmodel.test_ownership import device, exactly, finances, money, owned, site

# Lines by year are whole cents: of all lines of twenty years, less than this.
CENTS = 5.0


@given(
    st.integers(1, 10_000),
    st.floats(0, 1),
    finances,
    money,
    st.floats(1, 3),
    st.integers(1, 8),
    st.sampled_from(["edge", "dc_gpu"]),
)
def test_the_quick_cost_is_the_exact_one(count, share, finance, price, pue, in_host, kind):
    host, spec = (
        Host(price_usd=price, devices_per_host=in_host, power_w=30.0),
        device(device_class=kind),
    )
    place = site(
        energy_price_per_kwh=price / 10**6,
        energy_levy_per_kwh=price / 10**8,
        demand_charge_per_kw_month=price / 10**7,
        space_per_kw_month=price / 10**7,
        pue=pue,
    )
    finance = Finance(**{**dict(finance), "discount_rate": finance.discount_rate / 3})
    cost = owned(
        device=spec,
        devices=count,
        busy_share=exactly(share),
        finance=finance,
        site=place,
        host=host,
    )
    assume(isinstance(cost, Ownership))
    power, hosts = power_of(spec, exactly(100.0)), hosts_of(count, host)
    own_w = hosts * host.power_w
    quick = unit_cost(place, finance, kind).total(
        devices=count,
        capital=count * 1000.0 + hosts * float(host.price_usd),
        mean_w=count * power.mean_w(exactly(share)).value + own_w,
        peak_w=count * 100.0 + own_w,
    )
    turnover = sum(abs(float(line.amount)) for line in cost.lines)
    # Tax floors each year's charge to whole units of money: each is moved to a later year at most,
    # and a unit of the last year is worth the most where money gains with time.
    units = finance.tax_rate * (finance.life_years + 1) + CENTS
    rounding = units * max(1.0, (1 + finance.discount_rate) ** -finance.horizon_years)
    assert quick == pytest.approx(float(cost.total), rel=0, abs=1e-8 * turnover + rounding)
