"""Published worked examples to the digits they publish, and published ones that are wrong."""

from decimal import Decimal

import pytest

from costmodel.depreciation import declining_balance_japan
from costmodel.ownership import energy_price
from costmodel.present_value import annuity, break_even_hours
from costmodel.renting import rates_for, rent_of
from domain.catalogue import cloud_prices
from domain.scenario import CloudTerms, Finance, Site


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


def test_n2_eight_gpus_sixteen_hours_a_day_cost_what_their_inputs_say():
    """Printed: 36,024 USD a month."""
    price = next(each for each in cloud_prices() if each.device_id == "h100-sxm-80")
    fields = {name: getattr(price, name) for name in type(price).model_fields}
    row = type(price)(**{**fields, "gpu_count": 1.0, "on_demand_usd_per_h": Decimal("3.10")})
    (rate,) = rates_for("h100-sxm-80", [row], [])
    cost = rent_of(
        rate,
        devices=[8],
        running_hours=[16.0 * 30],
        images=1.0,
        site=Site(country="USA", currency="USD", energy_price_per_kwh=Decimal("0.1")),
        finance=Finance(horizon_years=1),
        cloud=CloudTerms(),
    )
    assert cost.total == Decimal("11904.00")


def test_n2_a_year_of_electricity_costs_what_its_inputs_say():
    """Printed: 33,600 USD."""
    price = energy_price(power_w=8 * 700.0, pue=1.4, hours=8760.0, price_per_kwh=Decimal("0.10"))
    assert price == Decimal("6867.84")


def test_n2_break_even_after_the_price_cut_is_what_its_inputs_say():
    """Printed: 4.8 years."""
    hours = break_even_hours(Decimal(833_806), Decimal(33), Decimal("0.87"))
    assert round(hours / (12 * 365), 2) == Decimal("5.92")
