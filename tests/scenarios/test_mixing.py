"""Fleets of several kinds: nothing is lost or paid twice where a demand is split."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.demand import Shift
from domain.scenario import Finance, Ownership, Promise
from scenarios.choosing import Found
from scenarios.mixing import Workshop, halves_of, mixed_ways
from scenarios.sensitivity import drawn
from scenarios.sizing import Forecasts
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
        if (part := SHOP.part(whole, name, is_replayed=False))
    ]


@given(st.integers(1, 2000), st.sampled_from(["takt", "poisson", "offline"]), st.floats(0.01, 0.99))
def test_halves_serve_every_image_and_people_are_paid_once(cameras, kind, share):
    finance = Finance(staff_per_year=Decimal(1000), installation=Decimal(10))
    whole = wanted(demand=demand(cameras, 2.0, kind), finance=finance)
    halves = halves_of(whole, share)
    assume(halves is not None)
    rates = [half.demand.peak_img_per_s for half in halves]
    assert sum(rates) == pytest.approx(whole.demand.peak_img_per_s)
    assert sum(half.finance.staff_per_year for half in halves) == 1000
    assert sum(half.finance.installation for half in halves) == 10


def test_one_camera_of_a_takt_is_not_split():
    assert halves_of(wanted(demand=demand(1, 2.0)), 0.5) is None


def test_a_split_is_drawn_as_its_parts_and_its_lines_add_up():
    whole = wanted()
    (split,) = mixed_ways(whole, FORECASTS, DEVICES, owned(whole))
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
    (split,) = mixed_ways(whole, FORECASTS, DEVICES, owned(whole))
    quick = min(sum(part.cost.total for part in parts) for parts in SHOP.splits(whole))
    # Sized again image by image, no dearer than by closed form.
    assert split.cost.total <= quick * Decimal("1.001")


def test_a_peak_is_rented_and_paid_in_its_hours_only():
    whole = wanted(demand=demand(400, 2.0, "poisson", shifts=PEAK))
    split, burst = mixed_ways(whole, FORECASTS, DEVICES, owned(whole))
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


def test_recorded_arrivals_and_stages_are_not_split():
    whole = wanted()
    found = owned(whole)
    assert mixed_ways(whole, FORECASTS, DEVICES, found[:1]) == []
    far = wanted(promise=Promise(p99_latency_s=0.5, confidence=0.9))
    assert mixed_ways(far, FORECASTS, DEVICES, [replace(each, kind="edge") for each in found]) == []
