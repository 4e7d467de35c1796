"""Fleets of several kinds: nothing is lost or paid twice where a demand is split."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.demand import Shift, Stage
from domain.scenario import Finance, Ownership, Promise
from scenarios.arrivals import described
from scenarios.candidates import Forecasts
from scenarios.choosing import Found
from scenarios.mixing import GROWS, Half, Workshop, halves_of, mixed_ways
from scenarios.sensitivity import drawn
from tests.scenarios.records import demand, device, prediction, scenario

DEVICES = {"board": device("board", 300.0), "t4": device("t4", 3000.0, device_class="dc_gpu")}
ONES = {
    "board": prediction("board", 0.05, spread=1.5),
    "t4": prediction("t4", 0.005, spread=1.5),
}
FORECASTS = {name: Forecasts.of_one(one, one) for name, one in ONES.items()}
SHOP = Workshop(forecasts=FORECASTS, devices=DEVICES, boards=["board"], servers=["t4"])
PROMISE = Promise(p99_latency_s=0.5, spare_devices=0)
PEAK = (
    Shift(days=("mon", "tue", "wed", "thu", "fri"), start_hour=9.0, end_hour=10.0),
    Shift(days=("sat", "sun"), start_hour=0.0, end_hour=24.0, load=0.25),
)


def wanted(**changes):
    fields = {"demand": demand(400, 2.0, "poisson"), "promise": PROMISE}
    return scenario(**{**fields, **changes})


def owned(whole):
    """Both kinds, as `owned_ways` would find them."""
    return [
        Found(kind=kind, option=part.option, cost=part.cost, how="toy")
        for kind, name in (("edge", "board"), ("on-premises", "t4"))
        if (part := SHOP.part(Half(scenario=whole), name, is_replayed=False))
    ]


@given(st.integers(1, 2000), st.sampled_from(["takt", "poisson", "offline"]), st.floats(0.01, 0.99))
def test_halves_serve_every_image_and_people_are_paid_once(cameras, kind, share):
    finance = Finance(staff_per_year=Decimal(1000), installation=Decimal(10))
    whole = wanted(demand=demand(cameras, 2.0, kind), finance=finance)
    halves = halves_of(Half(scenario=whole), share)
    assume(halves is not None)
    halves = [half.scenario for half in halves]
    rates = [half.demand.peak_img_per_s for half in halves]
    assert sum(rates) == pytest.approx(whole.demand.peak_img_per_s)
    assert sum(half.finance.staff_per_year for half in halves) == 1000
    assert sum(half.finance.installation for half in halves) == 10


def test_one_camera_of_a_takt_is_not_split():
    assert halves_of(Half(scenario=wanted(demand=demand(1, 2.0))), 0.5) is None


def test_a_split_is_drawn_as_its_parts_and_its_lines_add_up():
    whole = wanted()
    (split,), _ = mixed_ways(whole, FORECASTS, DEVICES, owned(whole))
    assert split.kind == "mixed"
    assert split.option.device_id == "board+t4"
    assert split.option.promise_probability >= whole.promise.confidence
    assert len(split.holdings) == 2
    assert split.rent == 0
    assert sum(line.amount for line in split.cost.lines) == split.cost.total
    assert split.cost.total == sum(held.option.ownership.total for held in split.holdings)
    assert split.option.devices == sum(held.option.devices for held in split.holdings)
    seen = drawn(whole, split.holdings, 200, 0)
    assert set(seen.costs) == {"board", "t4"}


def test_of_all_splits_the_cheapest_is_taken():
    whole = wanted()
    (split,), _ = mixed_ways(whole, FORECASTS, DEVICES, owned(whole))
    quick = min(
        sum(part.cost.total for part in parts) for parts in SHOP.splits(Half(scenario=whole))
    )
    # Sized again image by image, no dearer than by closed form.
    assert split.cost.total <= quick * Decimal("1.001")


def test_a_peak_is_rented_and_paid_in_its_hours_only():
    whole = wanted(demand=demand(400, 2.0, "poisson", shifts=PEAK))
    (split, burst), _ = mixed_ways(whole, FORECASTS, DEVICES, owned(whole))
    assert split.rate is None
    assert burst.rate is not None
    assert burst.rent > 0
    lines = {line.name: line for line in burst.cost.lines}
    assert lines["compute"].amount + lines["unused-devices"].amount == burst.rent
    assert isinstance(burst.cost, Ownership)
    # Five hours a week of the peak, not the two days of the base load.
    per_device = burst.rate.usd_per_h * Decimal(5 * 365) / 7 * 3
    assert burst.rent % per_device == pytest.approx(0, abs=1) or burst.rent > per_device
    assert "261 hours" in burst.how
    assert burst.option.p99_latency_s > whole.cloud.network_s


def test_where_nothing_is_split_the_reason_is_said():
    whole = wanted()
    found = owned(whole)
    ways, ((_, why),) = mixed_ways(whole, FORECASTS, DEVICES, found[:1])
    assert ways == []
    assert "boards and one of servers" in why
    one = wanted(demand=demand(1, 2.0))
    ways, ((_, why),) = mixed_ways(one, FORECASTS, DEVICES, owned(one))
    assert ways == []
    assert "nothing to split" in why
    grows = wanted(demand=demand(400, 2.0, "poisson", shifts=PEAK, growth_per_year=0.1))
    (split,), ((name, why),) = mixed_ways(grows, FORECASTS, DEVICES, owned(grows))
    assert split.kind == "mixed"
    assert (name, why) == ("own the base, rent the peak", GROWS)


def traced(times_s, cameras=40, period_s=2.0):
    recording = described(times_s, "0" * 64)
    return Half(
        scenario=wanted(
            demand=demand(
                cameras, period_s, "trace", trace="a.csv", recording=recording
            )
        ),
        recorded_s=times_s,
    )  # fmt: skip


@given(st.integers(0, 2**32), st.integers(20, 2000), st.floats(0.05, 0.95))
def test_every_recorded_image_goes_to_one_side_and_rates_add_up(seed, images, share):
    times_s = np.cumsum(np.random.default_rng(seed).exponential(0.05, images).round(2))
    assume(len(np.unique(times_s)) > 10)
    whole = traced(times_s)
    halves = halves_of(whole, share)
    assume(halves is not None)
    again = halves_of(whole, share)
    both = np.sort(np.concatenate([half.recorded_s for half in halves]))
    assert (both == times_s).all()
    assert all((a.recorded_s == b.recorded_s).all() for a, b in zip(halves, again, strict=True))
    rates = [half.scenario.demand.peak_img_per_s for half in halves]
    assert sum(rates) == pytest.approx(whole.scenario.demand.peak_img_per_s)
    for half in halves:
        assert half.scenario.demand.recording.images == len(half.recorded_s)


def test_a_thinned_trace_of_random_arrivals_is_as_random():
    times_s = np.cumsum(np.random.default_rng(1).exponential(1.0, 20_000))
    for half, share in zip(halves_of(traced(times_s), 0.3), (0.3, 0.7), strict=True):
        seen = half.scenario.demand.recording
        assert seen.images == pytest.approx(20_000 * share, rel=0.05)
        # Squared coefficient of variation of exponential gaps: one, within five standard errors.
        assert seen.gap_variation == pytest.approx(1.0, abs=5 * math.sqrt(8 / seen.images))


def test_a_recorded_trace_is_split_and_both_parts_keep_the_promise():
    times_s = np.cumsum(np.random.default_rng(2).exponential(0.05, 5000))
    whole = traced(times_s)
    parts = [
        Found(kind=kind, option=part.option, cost=part.cost, how="toy")
        for kind, name in (("edge", "board"), ("on-premises", "t4"))
        if (part := SHOP.part(whole, name, is_replayed=False))
    ]
    (split,), why_not = mixed_ways(whole.scenario, FORECASTS, DEVICES, parts, times_s)
    assert why_not == []
    assert len(split.holdings) == 2
    for held in split.holdings:
        assert held.option.replayed_p99_s.value <= whole.scenario.promise.p99_latency_s


@given(
    st.integers(2, 50),
    st.integers(2, 400),
    st.floats(0.05, 0.95),
    st.sampled_from(["takt", "poisson"]),
)
def test_stages_are_split_stage_by_stage(first, then, share, kind):
    stages = (
        Stage(name="pilot", from_year=1, cameras=first, sites=1),
        Stage(name="roll-out", from_year=2, cameras=then, sites=3),
    )
    whole = wanted(demand=demand(first, 2.0, kind), stages=stages)
    halves = halves_of(Half(scenario=whole), share)
    assume(halves is not None)
    for year in range(1, whole.finance.horizon_years + 1):
        parts = [half.scenario.demand_in(year) for half in halves]
        assert sum(part.peak_img_per_s for part in parts) == pytest.approx(
            whole.demand_in(year).peak_img_per_s
        )
        assert {part.sites for part in parts} == {whole.demand_in(year).sites}
