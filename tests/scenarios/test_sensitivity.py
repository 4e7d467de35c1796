"""Drawn costs: laws of the draws, the tornado and the worth of knowing, on toy devices."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.demand import Stage
from domain.scenario import Finance, Promise, Site, Uncertainty
from scenarios.candidates import Forecasts
from scenarios.choosing import candidate_of
from scenarios.sensitivity import drawn, holding_of, known_saving, resized, still
from scenarios.sizing import option_of
from scenarios.swings import measuring_of, swings_of
from tests.scenarios.records import demand, device, figure, prediction, scenario

CALM = Uncertainty(
    load_band=0.0,
    energy_band=0.0,
    currency_band=0.0,
    cloud_band=0.0,
    routing_band=0.0,
    measured_band=0.0,
)


def holding(name="one", latency_s=0.01, spread=1.5, price=1000.0, is_replayed=True, **changes):
    wanted = scenario(**changes)
    spec = device(name, price)
    one = prediction(name, latency_s, spread=spread)
    forecasts = Forecasts.of_one(one, prediction(name, 2 * latency_s, spread=spread))
    option = option_of(wanted, spec, forecasts, is_replayed=is_replayed)
    assert not option.reason
    return holding_of(wanted, spec, option, candidate_of(wanted, forecasts, option.batch))


def test_where_nothing_is_off_every_draw_is_the_exact_cost():
    sure = holding(spread=1.0, uncertainty=CALM, finance=Finance(price_band=0.0))
    seen = drawn(sure.scenario, [sure], 100, seed=1)
    exact = float(sure.option.ownership.total)
    assert seen.costs["one"] == pytest.approx(exact, rel=1e-9)
    assert seen.interval("one").low == seen.interval("one").high
    assert seen.promise("one") == 1


def test_the_same_seed_gives_the_same_draws_and_more_draws_the_same_answer():
    one = holding()
    first, again, other = (
        drawn(one.scenario, [one], 2000, seed=seed).costs["one"] for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()
    assert np.median(first) == pytest.approx(np.median(other), rel=0.03)


def test_the_interval_holds_the_exact_cost_and_the_promise_its_share():
    one = holding(demand=demand(40, 2.0, "poisson"))
    seen = drawn(one.scenario, [one], 10_000, seed=3)
    interval = seen.interval("one")
    assert interval.low < float(one.option.ownership.total) < interval.high
    alone = holding(demand=demand(40, 2.0, "poisson"), uncertainty=CALM)
    kept = drawn(alone.scenario, [alone], 10_000, seed=3).promise("one")
    assert kept == pytest.approx(alone.option.promise_probability, abs=0.02)


def test_a_cheaper_device_is_cheaper_with_a_probability_that_adds_up():
    one, two = holding("one", price=1000.0), holding("two", price=1100.0)
    seen = drawn(one.scenario, [one, two], 4000, seed=0)
    assert 0.5 < seen.cheaper("one", "two") < 1
    assert seen.cheaper("one", "two") + seen.cheaper("two", "one") == pytest.approx(1)
    assert seen.cheapest("one") == seen.cheaper("one", "two")


@given(st.floats(0.5, 2), st.floats(0.5, 2), st.floats(0, 1))
def test_dearer_prices_and_more_use_never_cost_less(hardware, energy, stray):
    one = ONE
    ones = np.ones(1)
    base = one.cost(still(), ones)[0]
    off = one.cost(still(hardware=hardware, energy=energy, stray=stray), ones)[0]
    if min(hardware, energy) >= 1:
        assert off >= base - 1e-9
    if max(hardware, energy) <= 1 and not stray:
        assert off <= base + 1e-9


ONE = holding()


@given(st.floats(0.2, 5), st.floats(1, 3), st.floats(0.2, 5), st.floats(1, 3))
def test_slower_devices_and_more_demand_never_need_fewer(latency, slower, load, more):
    few = resized(ONE, latency=latency, load=load)
    many = resized(ONE, latency=latency * slower, load=load * more)
    if many is not None:
        assert few is not None
        assert few <= many


def test_the_tornado_has_the_widest_swing_of_what_matters_most():
    one = holding(finance=Finance(horizon_years=1, price_band=0.5))
    swings = {each.name: each for each in swings_of(one.scenario, [one])}
    price, energy = swings["price of hardware"], swings["price of energy"]
    assert price.high_total - price.low_total > energy.high_total - energy.low_total > 0
    assert swings["demand"].low_devices <= swings["demand"].high_devices
    assert "exchange rate" not in swings
    yen = Site(**{**dict(one.scenario.site), "currency": "JPY", "currency_date": "today"})
    abroad = holding(site=yen)
    assert "exchange rate" in {each.name for each in swings_of(abroad.scenario, [abroad])}


roll_outs = st.lists(
    st.tuples(st.integers(1, 80), st.integers(1, 12)), min_size=1, max_size=3, unique=True
)


@settings(max_examples=60)
@given(roll_outs)
def test_the_tornado_of_a_roll_out_turns_about_the_fleet_that_is_bought(stages):
    """Where sites become smaller and more, or larger and fewer, too: nothing off, the same fleet."""
    years = Finance(horizon_years=3, price_band=0.0)
    named = tuple(
        Stage(name="stage", from_year=year, cameras=cameras, sites=sites)
        for year, (cameras, sites) in enumerate(stages, start=1)
    )
    one = holding(stages=named, finance=years, uncertainty=CALM, spread=1.0, is_replayed=False)
    for swing in swings_of(one.scenario, [one]):
        assert swing.low_devices == swing.high_devices == one.option.devices
        assert swing.low_total == swing.high_total == one.option.ownership.total


@pytest.mark.parametrize("arrivals", ["takt", "poisson"])
def test_the_promise_of_a_roll_out_is_of_its_busiest_site(arrivals):
    first = Stage(name="large line", from_year=1, cameras=40)
    many = Stage(name="roll-out", from_year=2, cameras=10, sites=8)
    years = Finance(horizon_years=3)
    rolled = holding(demand=demand(40, 2.0, arrivals), stages=(first, many), finance=years)
    alone = holding(demand=demand(40, 2.0, arrivals), finance=years)
    assert rolled.option.promise_probability == alone.option.promise_probability
    assert rolled.bearable == alone.bearable
    assert rolled.per_site * 8 == rolled.option.devices


def test_knowing_saves_what_uncertainty_costs_and_nothing_where_there_is_none():
    unsure, sure = holding(spread=3.0), holding(spread=1.0)
    (worth,) = measuring_of(unsure.scenario, [unsure])
    (nothing,) = measuring_of(sure.scenario, [sure])
    assert worth.saved > 0
    assert nothing.saved == 0
    # Never more than the whole cost, and less where a rival is nearly as cheap.
    assert worth.saved < unsure.option.ownership.total
    now = float(unsure.cost(still(), np.ones(1), resized(unsure))[0])
    alone, _ = known_saving(unsure, now * 10, now, 0.05)
    beside, _ = known_saving(unsure, now * 1.01, now, 0.05)
    assert alone <= beside + 1e-6


def test_a_million_draws_cost_little_memory_and_the_price_is_ones_own():
    priced = holding(price=123.0, promise=Promise(p99_latency_s=0.5))
    assert priced.price_usd == 123.0
    assert priced.cost(still(3, hardware=2.0), np.ones(3)).shape == (3,)
    assert figure(1.0).value == 1.0
    assert priced.scenario.site.energy_price_per_kwh == Decimal("0.1")
