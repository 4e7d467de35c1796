"""Money: laws first, then worked examples with published answers, then what must not be said."""

from decimal import Decimal

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from costmodel.ownership import (
    annuity,
    break_even_hours,
    declining_balance_japan,
    energy_price,
    internal_rate,
    net_present_value,
    ownership_of,
    straight_line,
)
from domain.device import DeviceSpec
from domain.record import Estimate, Figure, Unknown
from domain.scenario import Finance, Ownership, Site


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
    host_price_usd=money,
    maintenance_per_year=st.floats(0, 0.99),
    residual_share=st.floats(0, 0.99),
    staff_per_year=money,
    price_band=st.floats(0, 0.99),
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
    assert all(each.low <= each.amount <= each.high for each in cost.lines)
    assert cost.low <= cost.total <= cost.high
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
    assert dear.total >= cheap.total
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
    cost = owned(finance=Finance(host_price_usd=Decimal(500), residual_share=0.1, price_band=0.2))
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


def test_lenovo_8_1_break_even():
    hours = break_even_hours(Decimal(833_806), Decimal("98.32"), Decimal("0.87"))
    assert round(hours, 4) == Decimal("8556.2442")
    assert round(hours) == 8556
    assert round(hours / 720, 3) == Decimal("11.884")
    assert round(hours / 730, 3) == Decimal("11.721")


@pytest.mark.parametrize(
    ("hours_per_day", "exact", "published", "tolerance"),
    [
        (4, "5.860", "5.9", "0.05"),
        (8, "2.930", "2.9", "0.05"),
        (12, "1.953", "1.96", "0.01"),
        (16, "1.465", "1.47", "0.01"),
    ],
)
def test_lenovo_8_1_break_even_by_duty(hours_per_day, exact, published, tolerance):
    hours = break_even_hours(Decimal(833_806), Decimal("98.32"), Decimal("0.87"))
    years = hours / (hours_per_day * 365)
    assert round(years, 3) == Decimal(exact)
    assert abs(years - Decimal(published)) <= Decimal(tolerance)


def test_hamilton_8_2_lines_to_the_cent_and_shares_as_published():
    monthly = Decimal("0.05") / 12
    facility = annuity(monthly, 120, Decimal(88_000_000))
    lines = {
        "servers": annuity(monthly, 36, 45_978 * Decimal(1450)),
        "network": annuity(monthly, 48, Decimal(12_810_000)),
        "power and cooling": facility * Decimal("0.82"),
        "other": facility * Decimal("0.18"),
        "power": energy_price(
            power_w=8e6 * 0.8, pue=1.45, hours=730.0, price_per_kwh=Decimal("0.07")
        ),
        "people": Decimal(85_000),
    }
    assert [round(each, 2) for each in lines.values()] == [
        Decimal(each)
        for each in (
            "1998102.77", "295005.25", "765368.76", "168007.78", "474208.00", "85000.00",
        )
    ]  # fmt: skip
    total = sum(lines.values())
    assert round(total, 2) == Decimal("3785692.55")
    assert [round(100 * each / total) for each in lines.values()] == [53, 8, 20, 4, 13, 2]


def test_hennessy_patterson_8_3_energy_to_the_cent():
    price = energy_price(
        power_w=45_978 * 225.0, pue=1.0, hours=720.0, price_per_kwh=Decimal("0.07")
    )
    assert price == Decimal("521390.52")


def test_japan_8_4_declining_balance():
    rates = Decimal("0.200"), Decimal("0.250"), Decimal("0.06552")
    charges = declining_balance_japan(1_000_000, 10, *rates)
    assert charges == (
        200_000, 160_000, 128_000, 102_400, 81_920, 65_536, 65_536, 65_536, 65_536, 65_535,
    )  # fmt: skip
    assert sum(charges) == 999_999


def test_n1_amortisation_is_not_counted_twice():
    capex = 8 * Decimal(35_000) * Decimal("1.4")
    energy = energy_price(power_w=8 * 700.0, pue=1.4, hours=400.0, price_per_kwh=Decimal("0.12"))
    facility, rented = Decimal(3000), 8 * Decimal("4.5") * 400
    assert round(energy, 2) == Decimal("376.32")
    assert round(energy + facility + capex / 48, 2) == Decimal("11542.99")
    # A month is the unit here: 400 hours of it.
    months = break_even_hours(capex, rented, energy + facility)
    assert round(months, 2) == Decimal("35.56")
    wrong = break_even_hours(capex, rented, energy + facility + capex / 48)
    assert round(wrong, 1) == Decimal("137.2")


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
