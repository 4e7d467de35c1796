"""Cost of ownership: laws first, then cases, then what must not be said."""

from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from costmodel.ownership import Use, ownership_of
from domain.device import DeviceSpec
from domain.record import Estimate, Figure, Unknown
from domain.scenario import Finance, Host, Ownership, Site


def figure(value, confidence="A"):
    return Figure(value=value, source="toy", read_on="2026-11-23", confidence=confidence)


def device(**changes):
    fields = {
        "id": "toy",
        "name": "Toy",
        "device_class": "dc_gpu",
        "family": "Toy",
        "peak_flop_per_s": {"fp32": figure(1e12)},
        "memory_bytes": figure(1e9),
        "memory_bytes_per_s": figure(1e9),
        "cache_bytes": Unknown(reason="not in the source"),
        "power_limit_w": figure(100.0),
        "idle_w": figure(20.0),
        "price_usd": figure(1000.0),
    }
    return DeviceSpec(**{**fields, **changes})


def site(**changes):
    fields = {"country": "USA", "currency": "USD", "energy_price_per_kwh": Decimal("0.1")}
    return Site(**{**fields, **changes})


def exactly(value):
    return Estimate(value=value, low=value, high=value)


def owned(**changes):
    fields = {
        "device": device(),
        "devices": 2,
        "images_per_year": 1e9,
        "busy_share": exactly(0.5),
        "busy_power_w": exactly(100.0),
        "site": site(),
        "finance": Finance(),
    }
    return ownership_of(**{**fields, **changes})


def line(cost, name):
    return next(each for each in cost.lines if each.name == name)


money = st.decimals(0, 10**9, places=4)
rates = st.decimals("-0.5", "0.5", places=4)


@st.composite
def estimates(draw, most):
    low, value, high = sorted(draw(st.floats(0, most)) for _ in range(3))
    return Estimate(value=value, low=low, high=high)


finances = st.builds(
    Finance,
    horizon_years=st.integers(1, 20),
    discount_rate=st.floats(-0.9, 0.9),
    maintenance_per_year=st.floats(0, 0.99),
    residual_share=st.floats(0, 0.99),
    staff_per_year=money,
    price_band=st.floats(0, 0.99),
    network_price=money,
    installation=money,
    licence_per_device_year=money,
    insurance_per_year=st.floats(0, 0.99),
    decommissioning=money,
    tax_rate=st.sampled_from([0.0, 0.3]),
    depreciation=st.sampled_from(["straight_line", "declining_japan", "macrs"]),
)


@given(st.integers(1, 10**6), estimates(1.0), estimates(1e4), finances, money, st.floats(1, 5))
def test_lines_add_up_and_every_interval_holds_its_value(
    devices, busy_share, power, finance, price, pue
):
    cost = owned(
        devices=devices,
        busy_share=busy_share,
        busy_power_w=power,
        finance=finance,
        site=site(energy_price_per_kwh=price, pue=pue),
    )
    assume(isinstance(cost, Ownership))
    for side, whole in (("amount", cost.total), ("low", cost.low), ("high", cost.high)):
        assert sum(getattr(each, side) for each in cost.lines) == whole
    # Relief from tax moves against the costs that it is for.
    assert all(
        each.low <= each.amount <= each.high for each in cost.lines if each.name != "tax-relief"
    )
    cents = Decimal("0.1") * (finance.tax_rate > 0)
    assert cost.low - cents <= cost.total <= cost.high + cents
    # Cash by line and year adds up both ways; undiscounted, it is the amount itself.
    assert all(len(each.by_year) == finance.horizon_years + 1 for each in cost.lines)
    assert sum(cost.by_year) == sum(sum(each.by_year) for each in cost.lines)
    if not finance.discount_rate:
        assert sum(cost.by_year) == cost.total
    assert Ownership.model_validate_json(cost.model_dump_json()) == cost


@given(money, money, finances, estimates(1.0), estimates(1e4))
def test_dearer_energy_never_lowers_cost(price, more, finance, busy_share, power):
    cheap, dear = (
        owned(
            site=site(energy_price_per_kwh=each),
            finance=finance,
            busy_share=busy_share,
            busy_power_w=power,
        )
        for each in (price, price + more)
    )
    assume(isinstance(cheap, Ownership) and isinstance(dear, Ownership))
    # Relief from tax is rounded on its own: a cent a year.
    cents = Decimal("0.01") * finance.horizon_years * (finance.tax_rate > 0)
    assert dear.total >= cheap.total - cents
    if not finance.tax_rate:
        assert dear.low >= cheap.low
        assert dear.high >= cheap.high


def test_zero_use_costs_idle_energy_only():
    cost = owned(busy_share=exactly(0.0), images_per_year=0.0, site=site(pue=1.5))
    idle_kwh = 2 * Decimal("0.020") * Decimal("1.5") * 8760 * 3
    assert line(cost, "energy").amount == (idle_kwh * Decimal("0.1")).quantize(Decimal("0.01"))
    assert isinstance(cost.per_million_images, Unknown)
    assert "no images" in cost.per_million_images.reason


def test_pue_is_applied_once():
    once, twice = (line(owned(site=site(pue=pue)), "energy").amount for pue in (1.0, 2.0))
    assert twice == 2 * once


def test_discounting_makes_later_payments_lighter_and_leaves_the_price():
    later = Finance(discount_rate=0.1, residual_share=0.1)
    plain, discounted = owned(), owned(finance=later)
    assert line(plain, "hardware").amount == line(discounted, "hardware").amount == 2000
    # 100 a year over three years at 10 %: 100 · (1/1.1 + 1/1.21 + 1/1.331) = 248.69.
    assert line(plain, "maintenance").amount == 300
    assert line(discounted, "maintenance").amount == Decimal("248.69")
    assert line(discounted, "residual").amount == Decimal("-150.26")  # 200 / 1.331


def test_the_price_band_bounds_what_depends_on_the_price():
    cost = owned(
        host=Host(price_usd=Decimal(500)), finance=Finance(residual_share=0.1, price_band=0.2)
    )
    assert [(each.name, each.low, each.amount, each.high) for each in cost.lines[:2]] == [
        ("hardware", 1600, 2000, 2400),
        ("host", 800, 1000, 1200),
    ]
    residual = line(cost, "residual")
    assert (residual.low, residual.amount, residual.high) == (-360, -300, -240)


def test_a_foreign_currency_needs_a_dated_rate_and_yen_have_no_decimals():
    yen = {"currency": "JPY", "energy_price_per_kwh": Decimal("25.28")}
    refused = owned(site=site(**yen))
    assert "currency_per_usd" in refused.reason
    cost = owned(site=site(**yen, currency_per_usd=Decimal(150), currency_date="2026-11-23"))
    assert line(cost, "hardware").amount == 300_000
    assert line(cost, "energy").amount == line(cost, "energy").amount.to_integral_value()
    assert "1 USD = 150 JPY (2026-11-23)" in cost.assumptions


@pytest.mark.parametrize(
    ("currency", "unit"),
    [("KRW", "1"), ("VND", "1"), ("JPY", "1"), ("CNY", "0.01"), ("EUR", "0.01"), ("KWD", "0.001")],
)
def test_every_line_is_of_what_can_be_paid_in_its_currency(currency, unit):
    cost = owned(
        site=site(
            currency=currency, energy_price_per_kwh=Decimal("0.12345"),
            currency_per_usd=Decimal("3.33333"), currency_date="2026-11-23",
        ),
        finance=Finance(tax_rate=0.3, discount_rate=0.05),
    )  # fmt: skip
    paid = [
        cash for each in cost.lines for cash in (each.amount, each.low, each.high, *each.by_year)
    ]
    paid += [cost.total, cost.low, cost.high, cost.equivalent_per_year]
    assert all(cash % Decimal(unit) == 0 for cash in paid)
    assert any(cash % (10 * Decimal(unit)) for cash in paid)


def test_unknown_busy_power_spans_idle_to_limit_and_says_so():
    cost = owned(busy_power_w=Unknown(reason="no meter"), busy_share=exactly(1.0))
    energy = line(cost, "energy")
    assert energy.low == line(owned(busy_share=exactly(0.0)), "energy").amount
    assert energy.high == line(owned(busy_share=exactly(1.0)), "energy").amount
    assert any("busy power is unknown" in each for each in cost.assumptions)


@pytest.mark.parametrize(
    ("unknown", "words"), [("price_usd", "--price-usd"), ("power_limit_w", "power limit")]
)
def test_what_nobody_knows_is_refused_by_name(unknown, words):
    bare = device(**{unknown: Unknown(reason="no data sheet")})
    cost = owned(device=bare, busy_power_w=Unknown(reason="no meter"))
    assert "Toy" in cost.reason
    assert words in cost.reason


def test_unmeasured_idle_power_widens_the_interval():
    guessed = owned(device=device(idle_w=figure(20.0, "C")), busy_share=exactly(0.0))
    energy = line(guessed, "energy")
    assert float(energy.low / energy.amount) == pytest.approx(0.5, rel=1e-3)
    assert float(energy.high / energy.amount) == pytest.approx(1.5, rel=1e-3)
    assert any("idle power is an estimate" in each for each in guessed.assumptions)


def test_defaults_are_named_with_their_values_and_given_values_are_not():
    said = "\n".join(owned().assumptions)
    assert "PUE 1.6 (default)" in said
    assert "±30% (default)" in said
    assert "5.00% of hardware and host a year (default)" in said
    assert "3 years (default)" in said
    assert "PUE 1.6," in "\n".join(owned(site=site(pue=1.6)).assumptions)


@pytest.mark.parametrize(
    "nonsense",
    [
        {"devices": 0},
        {"busy_share": exactly(1.5)},
        {"busy_share": exactly(-0.1)},
        {"images_per_year": -1.0},
        {"images_per_year": float("inf")},
        {"images_per_year": float("nan")},
        {"images_per_year": 1.7e308},
    ],
)
def test_impossible_use_is_refused(nonsense):
    with pytest.raises(ValueError, match="wanted"):
        owned(**nonsense)


@pytest.mark.parametrize(
    "extreme",
    [
        {"devices": 10**30},
        {"site": site(energy_price_per_kwh=Decimal("1e5000"))},
        {"finance": Finance(discount_rate=-0.999999999, horizon_years=20)},
        {"finance": Finance(staff_per_year=Decimal("1e40"))},
        {"device": device(price_usd=figure(1e300))},
    ],
)
def test_absurd_amounts_are_refused_in_words(extreme):
    assert len(owned(**extreme).reason) < 200


def test_tiny_and_free_are_answered():
    free = owned(
        device=device(price_usd=figure(1e-300)),
        images_per_year=5e-324,
        busy_share=exactly(1e-300),
        site=site(energy_price_per_kwh=Decimal(0)),
    )
    assert free.total == free.per_million_images == 0


def test_capital_is_deducted_as_it_is_depreciated_and_never_twice():
    taxed = Finance(
        horizon_years=5, maintenance_per_year=0.0, tax_rate=0.3, depreciation="straight_line"
    )
    free = site(energy_price_per_kwh=Decimal(0))
    cost = owned(finance=taxed, site=free)
    relief = line(cost, "tax-relief")
    assert relief.by_year == (0, -120, -120, -120, -120, -120)
    assert cost.total == 2000 - 600
    # Two years of five: the rest of the books is written off when the machines go.
    short = owned(finance=Finance(**{**dict(taxed), "horizon_years": 2}), site=free)
    assert line(short, "tax-relief").by_year == (0, -120, -480)
    # What they are sold for is taxed.
    sold = owned(
        finance=Finance(**{**dict(taxed), "residual_share": 0.5}), site=free, images_per_year=0.0
    )
    assert sold.total == (2000 - 1000) * Decimal("0.7")


@pytest.mark.parametrize(
    ("method", "first"), [("straight_line", 400), ("declining_japan", 800), ("macrs", 400)]
)
def test_each_method_spreads_the_price_its_own_way(method, first):
    finance = Finance(horizon_years=5, maintenance_per_year=0.0, tax_rate=0.5, depreciation=method)
    cost = owned(finance=finance, site=site(energy_price_per_kwh=Decimal(0)))
    assert line(cost, "tax-relief").by_year[1] == -first * Decimal("0.5")
    assert cost.total == 1000


def test_devices_are_bought_when_they_are_first_needed():
    years = [Use(devices=n, images=1e6, busy_share=exactly(0.5)) for n in (1, 3, 2)]
    cost = owned(years=years, finance=Finance(discount_rate=0.1, maintenance_per_year=0.0))
    assert line(cost, "hardware").by_year == (1000, 2000, 0, 0)
    assert line(cost, "hardware").amount == 1000 + (Decimal(2000) / Decimal("1.1")).quantize(
        Decimal("0.01")
    )
    kwh = [n * Decimal("0.060") * Decimal("1.6") * 8760 for n in (1, 3, 2)]
    assert line(cost, "energy").by_year == (
        0, *((each * Decimal("0.1")).quantize(Decimal("0.01")) for each in kwh),
    )  # fmt: skip


def test_levy_demand_charge_space_and_carbon_are_counted_once():
    cost = owned(
        site=site(
            pue=1.5,
            energy_levy_per_kwh=Decimal("0.02"),
            demand_charge_per_kw_month=Decimal(10),
            space_per_kw_month=Decimal(100),
            carbon_g_per_kwh=500.0,
        ),
        finance=Finance(horizon_years=1),
    )
    kwh = 2 * Decimal("0.060") * Decimal("1.5") * 8760
    assert line(cost, "energy-levy").amount == (kwh * Decimal("0.02")).quantize(Decimal("0.01"))
    assert line(cost, "demand-charge").amount == Decimal("0.2") * Decimal("1.5") * 12 * 10
    assert line(cost, "space").amount == Decimal("0.2") * 12 * 100
    assert cost.carbon_kg == pytest.approx(float(kwh) * 0.5)
    assert owned().carbon_kg is None


def test_hosts_hold_several_cards_and_draw_power_of_their_own():
    host = Host(price_usd=Decimal(500), devices_per_host=4, power_w=100.0)
    money_for = Finance(horizon_years=1)
    cost = owned(devices=5, host=host, finance=money_for, busy_share=exactly(0.0))
    assert line(cost, "host").amount == 1000
    watts = 5 * 20 + 2 * 100
    expected = Decimal(watts) / 1000 * Decimal("1.6") * 8760 * Decimal("0.1")
    assert line(cost, "energy").amount == expected.quantize(Decimal("0.01"))
    apart = Use(devices=6, images=1.0, busy_share=exactly(0.0), sites=3)
    everywhere = owned(devices=6, host=host, finance=money_for, years=[apart])
    assert line(everywhere, "host").amount == 1500


@given(finances)
def test_the_equivalent_annual_cost_does_not_depend_on_the_depreciation_before_tax(finance):
    costs = {
        owned(
            finance=Finance(
                **{**dict(finance), "tax_rate": 0.0, "depreciation": method, "life_years": life}
            )
        ).total
        for method, life in (("straight_line", 3), ("declining_japan", 5), ("macrs", 7))
        if isinstance(owned(finance=finance), Ownership)
    }
    assert len(costs) <= 1
