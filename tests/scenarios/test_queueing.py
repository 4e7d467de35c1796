"""Closed forms: laws, a published answer, and the simulation as a second method."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.demand import Demand, Recording
from scenarios.demand import arrivals_s
from scenarios.queueing import (
    allen_cunneen_s,
    batched_quantile_s,
    burst_latency_s,
    erlang_b,
    erlang_c,
    md1_wait_s,
    mean_wait_s,
    mgc_wait_s,
    wait_quantile_s,
    wait_tail,
)
from scenarios.replay import replay
from scenarios.simulate import simulate
from tests.scenarios.records import demand

servers = st.integers(1, 200)
shares = st.floats(0, 0.999)
variations = st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0])


def poisson(rate_per_s):
    return demand(cameras=1, period_s=1 / rate_per_s, arrivals="poisson")


def test_erlang_c_8_5_as_published_by_pyworkforce():
    load = 100 * 3 / 30
    assert erlang_c(load, 14) == pytest.approx(0.1741319335950498, abs=1e-12)
    assert 1 - wait_tail(20.0, load, 14, 180.0) == pytest.approx(0.8883500191794669, abs=1e-12)
    assert load / 14 == pytest.approx(0.7142857142857143, abs=1e-12)
    assert math.ceil(14 / 0.7) == 20


def test_erlang_b_recursion_is_erlang_b_by_factorials():
    load, count = 10.0, 14
    weights = [load**k / math.factorial(k) for k in range(count + 1)]
    assert erlang_b(load, count) == pytest.approx(weights[-1] / sum(weights), abs=1e-15)


@given(servers, shares, shares)
def test_more_load_never_waits_less(count, one, other):
    less, more = sorted((one * count, other * count))
    assert erlang_b(more, count) >= erlang_b(less, count) - 1e-15
    assert erlang_c(more, count) >= erlang_c(less, count) - 1e-15
    assert 0 <= erlang_b(more, count) <= erlang_c(more, count) <= 1


@given(servers, st.sampled_from([1, 2, 8, 64]), shares, shares, variations)
def test_the_99th_percentile_grows_with_load_and_shrinks_with_servers(
    count, batch, one, other, variation
):
    def wait_s(rate, among):
        return batched_quantile_s(0.99, rate, among, batch, 1.0, service_variation=variation)

    less, more = sorted((one * count * batch, other * count * batch))
    assert wait_s(more, count) >= wait_s(less, count) - 1e-12
    assert wait_s(more, count + 1) <= wait_s(more, count) + 1e-12


@given(servers, st.sampled_from([1, 8]))
def test_without_load_nobody_waits(count, batch):
    assert batched_quantile_s(0.99, 1e-9, count, batch, 1.0, service_variation=1.0) == 0
    assert mean_wait_s(0.0, count, 1.0) == 0


@given(servers, st.floats(1, 10))
def test_servers_that_fall_behind_never_catch_up(count, excess):
    load = count * excess
    assert erlang_c(load, count) == wait_tail(1.0, load, count, 1.0) == 1
    assert mean_wait_s(load, count, 1.0) == math.inf
    assert wait_quantile_s(0.99, load, count, 1.0) == math.inf


@given(st.floats(0.01, 0.99))
def test_allen_cunneen_is_exact_where_an_exact_answer_is_known(load):
    fixed = allen_cunneen_s(load, 1, 1.0, arrival_variation=1.0, service_variation=0.0)
    assert fixed == pytest.approx(md1_wait_s(load, 1.0))
    random = allen_cunneen_s(load, 1, 1.0, arrival_variation=1.0, service_variation=1.0)
    assert random == mean_wait_s(load, 1, 1.0)
    assert allen_cunneen_s(load, 1, 1.0, arrival_variation=0.0, service_variation=0.0) == 0


@given(servers, st.floats(0.5, 0.99))
def test_quantile_and_tail_agree_for_random_service(count, busy):
    load = busy * count
    wait_s = wait_quantile_s(0.9, load, count, 1.0)
    if wait_s:
        assert wait_tail(wait_s, load, count, 1.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("burst", "count", "batch", "rounds"),
    [(40, 1, 40, 1), (40, 1, 1, 40), (40, 2, 8, 3), (40, 5, 8, 1), (41, 5, 8, 2), (1, 9, 64, 1)],
)
def test_the_last_of_a_burst_waits_for_every_round(burst, count, batch, rounds):
    assert burst_latency_s(burst, count, batch, 1.0) == rounds
    in_step = demand(cameras=burst, period_s=1000.0)
    seen = simulate(in_step, servers=count, batch=batch, service_s=1.0, images=40 * burst)
    assert seen.latencies_s.max() == pytest.approx(rounds)


@pytest.mark.parametrize(("load", "count"), [(0.5, 1), (1.4, 2), (5.0, 8)])
def test_erlang_c_and_the_mean_wait_lie_in_the_simulations_interval(load, count):
    seen = simulate(
        poisson(load), servers=count, batch=1, service_s=1.0, service_variation=1.0, seed=1
    )
    waiting, wait_s = seen.waiting_share(), seen.mean_wait_s()
    assert waiting.low <= erlang_c(load, count) <= waiting.high
    assert wait_s.low <= mean_wait_s(load, count, 1.0) <= wait_s.high


def test_a_fixed_service_time_waits_as_long_as_in_the_simulation():
    seen = simulate(poisson(0.7), servers=1, batch=1, service_s=1.0, seed=2).mean_wait_s()
    assert seen.low <= md1_wait_s(0.7, 1.0) <= seen.high


@pytest.mark.parametrize(
    ("rate", "count", "batch"), [(0.7, 1, 1), (5.0, 8, 1), (5.6, 1, 8), (11.0, 2, 8), (2.0, 4, 8)]
)
def test_the_closed_99th_percentile_is_not_below_the_simulations_interval(rate, count, batch):
    closed = 1 + batched_quantile_s(0.99, rate, count, batch, 1.0, service_variation=0.0)
    seen = simulate(poisson(rate), servers=count, batch=batch, service_s=1.0, seed=3).p99_s()
    assert seen.low <= closed <= 2 * seen.high


def test_the_same_seed_gives_the_same_simulation():
    runs = [
        simulate(poisson(0.7), servers=1, batch=2, service_s=1.0, images=500, seed=seed)
        for seed in (7, 7, 8)
    ]
    assert (runs[0].latencies_s == runs[1].latencies_s).all()
    assert (runs[0].latencies_s != runs[2].latencies_s).any()


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda: erlang_b(-1.0, 1),
        lambda: erlang_b(math.nan, 1),
        lambda: erlang_b(1.0, -1),
        lambda: wait_quantile_s(1.0, 0.5, 1, 1.0),
        lambda: simulate(poisson(1.0), servers=0, batch=1, service_s=1.0),
        lambda: simulate(poisson(1.0), servers=1, batch=1, service_s=math.nan),
        lambda: simulate(poisson(1.0), servers=1, batch=1, service_s=1.0, images=3),
    ],
)
def test_impossible_queues_are_refused(nonsense):
    with pytest.raises(ValueError, match="wanted"):
        nonsense()


@pytest.mark.parametrize("timeout_s", [0.0, 0.5, 3.0])
@pytest.mark.parametrize(("rate", "count", "most"), [(0.8, 1, 1), (3.0, 2, 4), (9.0, 3, 8)])
def test_the_replay_is_the_simulation_image_by_image(rate, count, most, timeout_s):
    curve = [1.0 + 0.1 * size for size in range(most)]
    seen = simulate(
        poisson(rate),
        servers=count,
        batch=most,
        service_s=curve,
        timeout_s=timeout_s,
        images=1000,
        seed=5,
    )
    arrived_s = arrivals_s(poisson(rate), 1000, np.random.default_rng(5))
    again = replay(arrived_s, curve, servers=count, timeout_s=timeout_s)
    np.testing.assert_allclose(again.latencies_s[100:], seen.latencies_s, rtol=0, atol=1e-9)


def test_a_recorded_trace_is_replayed_and_simulated_alike():
    recorded_s = np.array([0.0, 0.0, 0.5, 0.5, 0.5, 2.0])
    wanted = Demand(
        cameras=1,
        period_s=0.4,
        arrivals="trace",
        trace="a.csv",
        recording=Recording(
            sha256="0" * 64, images=6, span_s=3.0, gap_variation=0.25, largest_burst=3
        ),
    )
    seen = simulate(wanted, servers=1, batch=2, service_s=0.3, images=300, recorded_s=recorded_s)
    arrived_s = arrivals_s(wanted, 300, np.random.default_rng(0), recorded_s)
    assert len(arrived_s) / arrived_s[-1] == pytest.approx(2.5, rel=0.02)
    again = replay(arrived_s, [0.3, 0.3], servers=1)
    np.testing.assert_allclose(again.latencies_s[30:], seen.latencies_s, rtol=0, atol=1e-9)


@given(st.floats(0.01, 0.99), st.integers(1, 50), st.floats(0, 1))
def test_the_wait_of_many_servers_lies_between_fixed_and_exponential(share, count, variation):
    load = share * count
    wait_s = mgc_wait_s(load, count, 1.0, variation)
    assert mean_wait_s(load, count, 1.0) / 2 * (1 - 1e-12) <= wait_s
    assert wait_s <= mean_wait_s(load, count, 1.0) * (1 + 1e-12)
    assert mgc_wait_s(load, count, 1.0, 1.0) == mean_wait_s(load, count, 1.0)


def test_as_the_load_goes_to_zero_the_latency_is_the_service_time():
    for count in (1, 4):
        assert mgc_wait_s(1e-9, count, 1.0, 0.5) == pytest.approx(0, abs=1e-8)
    arrived_s = arrivals_s(poisson(1e-6), 100, np.random.default_rng(1))
    assert replay(arrived_s, [1.5], servers=1).latencies_s == pytest.approx(1.5)
