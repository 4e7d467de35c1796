"""The laws of a purchase, each over thousands of cases: `make laws` runs 5,000 of each.

Whole plans on toy devices where a law is of a fleet, the cost alone where it is of money.
"""

from decimal import Decimal

from hypothesis import assume, given
from hypothesis import strategies as st

from costmodel.ownership import Use, ownership_of
from costmodel.renting import break_even, rent_of
from domain.record import Estimate, Unknown
from domain.scenario import CloudTerms, Finance, Host, Hosts, Ownership, Promise
from scenarios.candidates import Forecasts
from scenarios.sizing import plan_of
from tests.costmodel.test_ownership import device as card
from tests.costmodel.test_ownership import exactly, finances, money, site
from tests.costmodel.test_renting import rate
from tests.scenarios.records import demand, device, prediction, scenario

kinds = st.sampled_from(["takt", "poisson", "offline"])
counts = st.integers(1, 5000)
classes = st.sampled_from(["edge", "dc_gpu"])


def fleet(**changes):
    """The one option of a plan on one toy device, by closed form."""
    one = prediction(
        "one",
        changes.pop("latency_s", 0.01),
        spread=changes.pop("spread", 1.5),
        batch=changes.get("batch", 1),
    )
    toy = device("one", device_class=changes.pop("device_class", "edge"))
    plan = plan_of(
        scenario(**changes),
        {"one": Forecasts.of_one(one, one)},
        {"one": toy},
        "test",
        is_replayed=False,
    )
    return plan.options[0]


def needed(option):
    return 10**9 if option.reason else option.devices


@given(
    counts, counts, kinds, st.floats(1e-4, 0.4), st.sampled_from([1, 2, 8]), st.integers(0, 3),
    st.floats(0.1, 0.95), classes,
)  # fmt: skip
def test_more_demand_never_needs_fewer_devices(
    cameras, more, kind, latency_s, batch, spares, target, device_class
):
    few, many = (
        fleet(
            demand=demand(number, 2.0, kind),
            promise=Promise(p99_latency_s=0.5, spare_devices=spares, target_utilisation=target),
            latency_s=latency_s,
            batch=batch,
            device_class=device_class,
        )
        for number in (cameras, cameras + more)
    )
    assert needed(few) <= needed(many)


def owned(share, power, place, finance, count=3, host=Host()):  # noqa: B008 - frozen
    return ownership_of(
        device=card(),
        devices=count,
        images_per_year=0.0 if share.value == 0 else 1e6,
        busy_share=share,
        busy_power_w=power,
        site=place,
        finance=finance,
        host=host,
        years=[
            Use(devices=count, images=0.0 if share.value == 0 else 1e6, busy_share=share)
        ] * finance.horizon_years,
    )  # fmt: skip


@given(money, money, finances, st.floats(0, 1), st.floats(20, 500), st.integers(1, 1000))
def test_dearer_energy_never_lowers_cost(price, more, finance, share, watts, count):
    cheap, dear = (
        owned(
            exactly(share), exactly(watts), site(energy_price_per_kwh=each), finance, count
        )
        for each in (price, price + more)
    )  # fmt: skip
    assume(isinstance(cheap, Ownership) and isinstance(dear, Ownership))
    assert cheap.total <= dear.total
    assert cheap.high <= dear.high


@given(
    st.integers(2, 10), st.sampled_from(["straight_line", "declining_japan"]),
    st.integers(1, 20), st.floats(0, 0.3), st.decimals("0.01", 100, places=2),
    st.floats(0, 1), st.floats(1, 8760),
)  # fmt: skip
def test_break_even_does_not_depend_on_the_amortisation_period(
    life, method, years, discount, usd, share, hours
):
    place = site()
    found = []
    for terms in ({}, {"life_years": life, "depreciation": method}):
        finance = Finance(horizon_years=years, discount_rate=discount, **terms)
        own = owned(exactly(share), exactly(100.0), place, finance)
        rented = rent_of(
            rate(str(usd)),
            devices=[3] * years,
            running_hours=[hours] * years,
            images=1e6,
            site=place,
            finance=finance,
            cloud=CloudTerms(),
        )
        found.append(break_even(own, rented, rate(str(usd)), 1, hours))
    assert found[0] == found[1]


@given(
    finances, money, st.floats(0, 1), st.integers(1, 10**6), st.integers(1, 8), money,
    st.floats(0, 500),
)  # fmt: skip
def test_lines_sum_to_the_total_today_and_in_every_year(
    finance, price, share, count, in_host, host_price, host_w
):
    host = Host(price_usd=host_price, devices_per_host=in_host, power_w=host_w)
    place = site(
        energy_price_per_kwh=price / 100,
        energy_levy_per_kwh=price / 1000,
        demand_charge_per_kw_month=price / 10,
        space_per_kw_month=price / 10,
    )
    cost = owned(exactly(share), exactly(100.0), place, finance, count, host)
    if isinstance(cost, Unknown):
        assert cost.reason
        return
    for side, whole in (("amount", cost.total), ("low", cost.low), ("high", cost.high)):
        assert sum(getattr(line, side) for line in cost.lines) == whole
    # Relief from tax is rounded by itself.
    tolerance = Decimal("0.1") * (finance.tax_rate > 0)
    assert cost.low - tolerance <= cost.total <= cost.high + tolerance
    by_year = [sum(line.by_year[year] for line in cost.lines) for year in range(len(cost.by_year))]
    assert tuple(by_year) == cost.by_year
    cents = Decimal(1).scaleb(-2)
    assert all(line.amount == line.amount.quantize(cents) for line in cost.lines)


@given(finances, money, st.floats(20, 1000), st.floats(20, 1000), st.integers(1, 1000))
def test_a_fleet_without_use_costs_its_price_and_idling_only(finance, price, busy, other, count):
    nothing = exactly(0.0)
    costs = [
        owned(nothing, exactly(watts), site(energy_price_per_kwh=price / 1000), finance, count)
        for watts in (busy, other)
    ]
    assume(all(isinstance(cost, Ownership) for cost in costs))
    # What a busy device draws is of no account; what an idle one draws (20 W) is paid.
    assert costs[0].total == costs[1].total
    energy = next(line for line in costs[0].lines if line.name == "energy")
    idle_kwh = Decimal(20) * count / 1000 * Decimal("1.6") * 8760
    assert energy.by_year[1] == (idle_kwh * price / 1000).quantize(Decimal("0.01"))
    assert isinstance(costs[0].per_million_images, Unknown)


@given(
    st.sampled_from([1e-9, 1.0, 1e3, 1e9]),
    st.sampled_from([-0.99, -0.5, 0.0, 0.99]),
    st.sampled_from(["0", "1e-9", "1", "1e9", "1e19"]),
    st.sampled_from([1.0, 10.0]),
    st.sampled_from([0.0, 1e-12, 1.0]),
    st.sampled_from([0.01, 1.0, 1e15]),
    st.sampled_from([("USD", Decimal(1), ""), ("JPY", Decimal(150), ""), ("JPY", Decimal(150), "x")]),
    st.sampled_from([0.0, 0.99]),
    kinds,
)  # fmt: skip
def test_every_extreme_input_gets_an_answer_or_a_reason(
    img_per_s, discount, price, pue, share, unit_price, currency, tax, kind
):
    """No use, no and negative discount, free energy, mixed currency, 1e9 images/s: R15."""
    code, per_usd, dated = currency
    place = site(
        currency=code,
        currency_per_usd=per_usd,
        currency_date=dated,
        energy_price_per_kwh=Decimal(price),
        pue=pue,
    )
    finance = Finance(discount_rate=discount, tax_rate=tax, horizon_years=20)
    cost = ownership_of(
        device=card(price_usd=device("x", unit_price).price_usd),
        devices=1,
        images_per_year=img_per_s * 3600 * 8760 * share,
        busy_share=Estimate(value=share, low=0.0, high=1.0),
        busy_power_w=exactly(100.0),
        site=place,
        finance=finance,
    )
    option = fleet(
        demand=demand(max(1, int(img_per_s)), min(1e8, max(1.0, 1 / img_per_s)), kind),
        promise=Promise(p99_latency_s=0.5),
        site=place,
        finance=finance,
        hosts=Hosts(),
    )
    for found in (cost, option.ownership):
        if isinstance(found, Unknown):
            assert 0 < len(found.reason) < 500
        else:
            assert found.total.is_finite()
            assert sum(line.amount for line in found.lines) == found.total
            assert isinstance(found.per_million_images, Unknown) or found.images
    assert option.reason or option.devices > 0
    if code == "JPY" and not dated:
        assert isinstance(cost, Unknown)
        assert "currency_date" in cost.reason
