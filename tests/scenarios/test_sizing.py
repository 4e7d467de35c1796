"""Fleets: laws first, then cases on toy devices."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.prediction import Refusal
from domain.record import Unknown
from domain.scenario import Drift, Finance, Ownership, Promise
from scenarios.candidates import Candidate, Forecasts
from scenarios.demand import running_share
from scenarios.fleet import (
    Fleet,
    fleet_of,
    least_fleet,
    p99_latency_s,
    promise_probability,
    queue_of,
    utilisation,
)
from scenarios.placing import spares_for
from scenarios.pricing import busy_share
from scenarios.service import Service, service_of, service_variation
from scenarios.sizing import plan_of
from tests.scenarios.records import demand, device, figure, planned, prediction, scenario

arrivals = st.sampled_from(["takt", "poisson"])
batches = st.sampled_from([1, 2, 8, 64])
latencies = st.floats(1e-4, 0.5)


def service(*seconds, log_sd=0.0, variation=0.0):
    return Service(seconds=seconds, log_sd=log_sd, variation=variation)


def candidate(one):
    own = service_of({one.workload.batch: one}, one.workload.batch)
    return Candidate(batch=one.workload.batch, prediction=one, loaded=own, promised=own, full=own)


@given(st.integers(1, 5000), st.integers(0, 5000), arrivals, batches, latencies)
def test_more_demand_never_needs_fewer_devices(cameras, more, kind, batch, latency_s):
    promise = Promise(p99_latency_s=0.5)
    fleets = [
        least_fleet(demand(count, 2.0, kind), promise, latency_s, batch, 0.1)
        for count in (cameras, cameras + more)
    ]
    counts = [fleet.servers if isinstance(fleet, Fleet) else 10**9 for fleet in fleets]
    assert counts[0] <= counts[1]


@given(st.integers(1, 5000), arrivals, batches, latencies, st.floats(0.1, 0.95))
def test_the_least_fleet_keeps_the_promise_and_one_device_less_breaks_it(
    cameras, kind, batch, latency_s, target
):
    wanted = demand(cameras, 2.0, kind)
    promise = Promise(p99_latency_s=0.5, target_utilisation=target)
    fleet = least_fleet(wanted, promise, latency_s, batch, 0.0)
    assert isinstance(fleet, Fleet)
    assert fleet.utilisation <= target
    assert fleet.p99_latency_s <= 0.5
    if fleet.servers > 1:
        fewer = (wanted, latency_s, batch, fleet.servers - 1)
        assert utilisation(*fewer) > target or p99_latency_s(*fewer, 0.0) > 0.5


@settings(max_examples=100)
@given(latencies, st.floats(1, 4), st.floats(1, 4), arrivals)
def test_less_certainty_never_needs_fewer_devices(latency_s, one, other, kind):
    narrow, wide = sorted((one, other))
    counts = [
        planned(
            {"one": prediction("one", latency_s / 8, spread=spread)},
            demand=demand(40, 2.0, kind),
            promise=Promise(p99_latency_s=0.5),
        )
        .options[0]
        .devices
        for spread in (narrow, wide)
    ]
    assert counts[0] <= counts[1]


@given(st.floats(0, 10), st.floats(0, 10))
def test_dearer_energy_never_lowers_the_cost_of_the_plan(price, more):
    fields = scenario().site.model_dump()
    totals = [
        planned(
            {"one": prediction("one")},
            site=type(scenario().site)(**{**fields, "energy_price_per_kwh": Decimal(repr(each))}),
        )
        .options[0]
        .ownership.total
        for each in (price, price + more)
    ]
    assert totals[0] <= totals[1]


def test_a_burst_needs_rounds_enough_and_spares_come_on_top():
    # 40 images in batches of 8 of 30 ms, promise 100 ms: 3 rounds of 2 devices, not 5 of 1.
    option = planned({"one": prediction("one", 0.03, batch=8)}, batch=8).options[0]
    assert option.devices == 2 + 1
    assert option.p99_latency_s == pytest.approx(0.09)
    assert option.utilisation == pytest.approx(5 * 0.03 / (2 * 2.0))
    assert option.meets_full_depth


def test_a_burst_must_be_done_before_the_next_one():
    slow = p99_latency_s(demand(40, 0.5), 0.1, 8, 1, 0.0)
    assert slow == pytest.approx(0.5)
    assert p99_latency_s(demand(41, 0.5), 0.1, 8, 1, 0.0) == float("inf")


def test_cheapest_first_then_unpriced_then_refused():
    predictions = {
        "dear": prediction("dear"),
        "refused": Refusal(device_id="refused", reason="no fit"),
        "unpriced": prediction("unpriced"),
        "slow": prediction("slow", 1.0),
        "cheap": prediction("cheap"),
        "small": prediction("small", fits=0.1),
    }
    prices = {"dear": 5000.0, "unpriced": None}
    devices = {name: device(name, prices.get(name, 1000.0)) for name in predictions}
    devices["forgotten"] = device("forgotten")
    plan = planned(predictions, devices=devices)
    assert [option.device_id for option in plan.options] == [
        "cheap", "dear", "unpriced", "refused", "slow", "small", "forgotten",
    ]  # fmt: skip
    assert plan.chosen is plan.options[0]
    unpriced, *refused = plan.options[2:]
    assert isinstance(unpriced.ownership, Unknown)
    assert unpriced.devices > 0
    assert not unpriced.reason
    assert all(option.reason and not option.devices for option in refused)
    # No batch is smaller than one, so none is offered.
    assert refused[1].reason == "one batch of 1 takes up to 1 s, the promise is 100 ms"
    assert "smaller batch" in least_fleet(demand(), Promise(p99_latency_s=0.1), 0.2, 2, 0.0)
    assert "10%" in refused[2].reason
    assert type(plan).model_validate_json(plan.model_dump_json()) == plan


def test_a_fleet_may_keep_its_promise_and_break_it_at_full_depth():
    routed = {"one": prediction("one", 0.002)}
    for full, keeps in (
        ({"one": prediction("one", 0.0024)}, True),
        ({"one": prediction("one", 0.004)}, False),
        ({"one": prediction("one", 0.0024, spread=2.0)}, False),
        ({"one": Refusal(device_id="one", reason="no fit")}, False),
        ({}, False),
    ):
        assert planned(routed, full).options[0].meets_full_depth is keeps


def test_demand_beyond_any_fleet_is_refused_in_words():
    for cameras, kind in ((10**9, "takt"), (10**9, "poisson")):
        option = planned({"one": prediction("one")}, demand=demand(cameras, 1e-300, kind)).options[
            0
        ]
        assert "100,000 devices" in option.reason


def test_only_running_hours_are_busy_and_spares_share_the_work():
    half = demand(hours_per_day=12.0)
    assert running_share(half) == 0.5
    assert running_share(demand(days_per_year=366.0)) == 1.0
    fleet = Fleet(servers=1, batch=1, utilisation=0.2, p99_latency_s=0.0)
    share = busy_share(
        half, candidate(prediction("one", 0.01, spread=2.0)), fleet, fleet.servers + 1
    )
    assert share.value == pytest.approx(0.2 / 2 * 0.5)
    assert share.low == pytest.approx(share.value / 2)
    assert share.high == pytest.approx(share.value * 2)


@given(st.integers(1, 1000), latencies, st.floats(1, 3), batches, arrivals)
def test_the_busy_share_is_a_share_with_its_value_inside(cameras, latency_s, spread, batch, kind):
    one = prediction("one", latency_s, spread=spread, batch=batch)
    wanted = demand(cameras, 2.0, kind)
    fleet = least_fleet(wanted, Promise(p99_latency_s=9.0), one.latency_s.high, batch, 0.0)
    assert isinstance(fleet, Fleet)
    share = busy_share(wanted, candidate(one), fleet, fleet.servers + 1)
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_variation_of_the_service_comes_from_the_routing():
    alike = prediction("one", counts=((5, 3), (5, 3)))
    assert service_variation(alike) == 0
    # Each recursion takes a quarter: times 1/2 + 1/4 + 1/4 · (2/3 or 4/3) of the mean.
    apart = prediction("one", counts=((5, 2), (5, 4)))
    assert service_variation(apart) == pytest.approx((1 / 12) ** 2)
    masked = prediction("one", counts=((5, 2), (5, 4)), executor="masked")
    assert service_variation(masked) == 0
    assert service_variation(prediction("one", counts=((5, 0), (5, 0)))) == 0


def test_cost_follows_the_finance_of_the_scenario():
    plans = [
        planned({"one": prediction("one")}, finance=Finance(horizon_years=years))
        for years in (1, 5)
    ]
    short, long = (plan.options[0].ownership for plan in plans)
    assert isinstance(short, Ownership)
    assert isinstance(long, Ownership)
    assert short.total < long.total
    assert long.images == 5 * plans[0].scenario.demand.images_per_year


def test_a_given_price_is_the_price_paid():
    spec = device("one", price_usd=figure(123.0))
    plan = planned({"one": prediction("one")}, devices={"one": spec})
    cost = plan.options[0].ownership
    assert isinstance(cost, Ownership)
    assert cost.lines[0].amount == plan.options[0].devices * 123


@given(st.integers(1, 300), st.integers(0, 300), arrivals, st.floats(1e-3, 0.1), st.floats(0, 0.02))
def test_more_demand_never_needs_fewer_devices_in_the_replay_either(
    cameras, more, kind, latency_s, per_image_s
):
    one = service(latency_s, latency_s + per_image_s, latency_s + 2 * per_image_s, log_sd=0.2)
    counts = []
    for each in (cameras, cameras + more):
        promise = Promise(p99_latency_s=0.5)
        queue = queue_of(demand(each, 2.0, kind), promise, one, images=400)
        found = fleet_of(queue)
        assert isinstance(found, Fleet)
        closed = least_fleet(
            queue.demand, promise, one.full_s * queue.factor, one.batch, one.variation
        )
        assert isinstance(closed, Fleet)
        assert found.servers <= closed.servers
        counts.append(found.servers)
    # Drawn arrivals in batches may differ by one device where demand is alike.
    assert counts[0] <= counts[1] + (kind == "poisson")


@given(st.integers(1, 2000), st.integers(0, 2000), st.floats(0.9, 0.999), st.integers(0, 3))
def test_more_servers_never_need_fewer_devices_with_their_spares(servers, more, up, least):
    promise = Promise(
        p99_latency_s=1.0, spare_devices=least, availability=0.999, device_availability=up
    )
    few, many = (count + spares_for(count, promise) for count in (servers, servers + more))
    assert few <= many
    assert spares_for(servers, promise) >= least


def test_a_fleet_sized_for_a_probability_holds_with_it():
    for confidence in (0.6, 0.95):
        promise = Promise(p99_latency_s=0.1, confidence=confidence)
        queue = queue_of(demand(40, 2.0), promise, service(0.01, log_sd=0.3))
        found = fleet_of(queue)
        assert isinstance(found, Fleet)
        assert promise_probability(queue, found.servers) >= confidence - 1e-3
        if found.servers > 1:
            assert promise_probability(queue, found.servers - 1) < confidence


def test_the_largest_batch_is_not_always_the_cheapest():
    # Batches of 8 take ten times as long as one image: 5 devices against 4.
    by_batch = {1: prediction("one", 0.01), 8: prediction("one", 0.1, batch=8)}
    both = plan_of(
        scenario(batch=8, promise=Promise(p99_latency_s=0.1)),
        {"one": Forecasts(routed=by_batch, full=by_batch)},
        {"one": device("one")},
        "test",
    )
    assert both.options[0].batch == 1
    assert both.options[0].servers == 4


def test_full_depth_is_what_counts_where_the_promise_must_hold_there():
    routed, full = {"one": prediction("one", 0.002)}, {"one": prediction("one", 0.004)}
    typical = planned(routed, full).options[0]
    worst = planned(routed, full, routing=Drift(hold_at_full_depth=True)).options[0]
    assert (typical.servers, typical.meets_full_depth) == (1, False)
    assert (worst.servers, worst.meets_full_depth) == (2, True)
    unknown = {"one": Refusal(device_id="one", reason="no fit")}
    refused = planned(routed, unknown, routing=Drift(fallback_share=0.1)).options[0]
    assert "full depth" in refused.reason


@pytest.mark.parametrize(("share", "servers"), [(0.0, 1), (0.01, 1), (0.011, 2), (1.0, 2)])
def test_more_time_in_fallback_than_may_be_late_is_promised_too(share, servers):
    routed, full = {"one": prediction("one", 0.002)}, {"one": prediction("one", 0.004)}
    option = planned(routed, full, routing=Drift(fallback_share=share)).options[0]
    assert (option.servers, option.meets_full_depth) == (servers, servers == 2)


def test_time_in_fallback_costs_energy():
    routed, full = {"one": prediction("one", 0.002)}, {"one": prediction("one", 0.02)}
    never, often = (
        planned(routed, full, routing=Drift(fallback_share=share)).options[0].ownership
        for share in (0.0, 0.5)
    )
    assert often.total > never.total
