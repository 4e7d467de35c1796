"""Queries against one server in virtual time: laws, closed forms, and the simulation as a witness."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import scenarios.simulate
from domain.loadtest import Batching, LatencyPromise
from domain.scenario import Demand
from domain.statistics import LEAST_SAMPLES_OF
from profiler.load import (
    Cut,
    VirtualServer,
    highest_rate,
    poisson_arrivals_s,
    served,
    streamed,
    taken,
)
from profiler.load_evidence import at_most, least_queries, most_late, verdict_on
from scenarios.queueing import md1_wait_s

ONE_BY_ONE = Batching(most_batch=1)
arrival_patterns = st.lists(st.floats(0, 10), min_size=1, max_size=60).map(sorted)
rules = st.builds(Batching, most_batch=st.integers(1, 8), timeout_s=st.floats(0, 2))
services = st.floats(0.01, 3)


def after(arrivals_s, rule=ONE_BY_ONE, service_s=1.0, cut=None):
    server = VirtualServer(lambda first, count: service_s)
    return served(arrivals_s, rule, server, cut or Cut())


def waits_s(seen):
    return np.repeat(seen.started_s, seen.batch_queries) - np.asarray(seen.arrivals_s)


@given(arrival_patterns, rules, services)
def test_every_query_is_answered_once_and_never_faster_than_its_service(arrivals, rule, service_s):
    seen = after(arrivals, rule, service_s)
    assert sum(seen.batch_queries) == len(arrivals)
    assert max(seen.batch_queries) <= rule.most_batch
    assert min(seen.latencies_s) >= service_s * (1 - 1e-9)


@given(arrival_patterns, rules, services)
def test_batches_follow_one_another_and_take_no_query_before_it_came(arrivals, rule, service_s):
    seen = after(arrivals, rule, service_s)
    assert all(start >= done for done, start in zip(seen.done_s, seen.started_s[1:], strict=False))
    assert min(waits_s(seen)) >= 0


@given(arrival_patterns, services, st.floats(1, 5))
def test_the_same_arrivals_closer_together_never_wait_less(arrivals, service_s, factor):
    slow = after(arrivals, ONE_BY_ONE, service_s)
    fast = after([each / factor for each in arrivals], ONE_BY_ONE, service_s)
    for one, other in zip(slow.latencies_s, fast.latencies_s, strict=True):
        assert other >= one - 1e-9


@given(arrival_patterns, rules, services, st.floats(0, 2))
def test_a_free_server_waits_for_its_time_out_and_no_longer(arrivals, rule, service_s, more_s):
    seen = after(arrivals, rule, service_s)
    firsts = np.cumsum([0, *seen.batch_queries[:-1]])
    free = [0.0, *seen.done_s[:-1]]
    for first, free_s, start in zip(firsts, free, seen.started_s, strict=True):
        assert start <= max(free_s, arrivals[first] + rule.timeout_s) + 1e-9


def test_without_load_a_query_takes_its_service_time():
    assert after([0.0, 100.0, 200.0]).latencies_s == [1.0, 1.0, 1.0]


def test_without_load_a_query_waits_for_the_batching_time_out():
    rule = Batching(most_batch=4, timeout_s=0.5)
    assert after([0.0, 100.0], rule).latencies_s == [1.5, 1.5]


def test_a_full_batch_starts_before_its_time_out():
    seen = after([0.0, 0.1, 0.2, 0.3], Batching(most_batch=3, timeout_s=0.5))
    assert seen.batch_queries == [3, 1]
    assert seen.started_s == [0.2, 1.2]


def test_queries_that_should_have_come_during_a_stall_show_the_wait():
    # Ten queries a second, 10 ms each; the eleventh stalls for a second. A closed loop would show
    # one slow query. Here nine more were due meanwhile, and waited 0.9 s, 0.8 s, …
    arrivals = [each / 10 for each in range(40)]
    server = VirtualServer(lambda first, count: 1.0 if first == 10 else 0.01)
    latencies = served(arrivals, ONE_BY_ONE, server).latencies_s
    assert latencies[10] == pytest.approx(1.0)
    for late in range(1, 10):
        assert latencies[10 + late] == pytest.approx(1.0 - late / 10 + late * 0.01)
    assert sum(latency > 0.05 for latency in latencies) == 11
    assert latencies[-1] == pytest.approx(0.01)


def test_a_stream_issues_the_next_query_when_the_last_is_answered():
    seen = streamed(VirtualServer(lambda first, count: 0.3), until_s=1.0, most_queries=99)
    assert seen.arrivals_s == pytest.approx([0.0, 0.3, 0.6, 0.9])
    assert seen.latencies_s == pytest.approx([0.3] * 4)
    assert len(streamed(VirtualServer(lambda first, count: 0.3), 1.0, 2).done_s) == 2


@pytest.mark.parametrize("load", [0.2, 0.5, 0.7, 0.9])
def test_the_mean_wait_of_random_arrivals_is_that_of_pollaczek_and_khinchine(load):
    queries = 150_000
    waits = waits_s(after(poisson_arrivals_s(load, queries, seed=7)))[queries // 10 :]
    means = np.array([group.mean() for group in np.array_split(waits, 15)])
    # Student's t for 99.9 %, 14 degrees of freedom, on the means of consecutive groups.
    error = 4.14 * means.std(ddof=1) / len(means) ** 0.5
    assert abs(waits.mean() - md1_wait_s(load, 1.0)) < error
    assert error < 0.2 * md1_wait_s(load, 1.0)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("load", [0.3, 0.8, 1.5])
def test_the_loop_and_the_simulation_agree_on_every_query(batch, load):
    demand = Demand(cameras=1, period_s=1 / load, arrivals="poisson")
    simulated = scenarios.simulate.simulate(
        demand, servers=1, batch=batch, service_s=1.0, images=3000, seed=5
    )
    seen = after(poisson_arrivals_s(load, 3000, seed=5), Batching(most_batch=batch))
    np.testing.assert_allclose(seen.latencies_s[300:], simulated.latencies_s, rtol=0, atol=1e-9)
    np.testing.assert_allclose(waits_s(seen)[300:], simulated.waits_s, rtol=0, atol=1e-9)


def test_the_loop_and_the_simulation_agree_where_services_differ(monkeypatch):
    drawn = np.random.default_rng(3).gamma(2.0, 0.5, 3000).tolist()
    monkeypatch.setattr(scenarios.simulate, "_services_s", lambda *_: iter(drawn))
    demand = Demand(cameras=1, period_s=1 / 0.7, arrivals="poisson")
    simulated = scenarios.simulate.simulate(
        demand, servers=1, batch=3, service_s=1.0, images=3000, seed=5
    )
    in_turn = iter(drawn)
    server = VirtualServer(lambda first, count: next(in_turn))
    seen = served(poisson_arrivals_s(0.7, 3000, seed=5), Batching(most_batch=3), server)
    np.testing.assert_allclose(seen.latencies_s[300:], simulated.latencies_s, rtol=0, atol=1e-9)


def test_another_rate_stretches_the_same_pattern():
    slow, fast = (np.array(poisson_arrivals_s(rate, 500, seed=1)) for rate in (1.0, 4.0))
    np.testing.assert_allclose(slow, 4 * fast)
    assert slow[-1] == pytest.approx(499, rel=0.15)
    assert poisson_arrivals_s(1.0, 500, seed=2) != tuple(slow)


@pytest.mark.parametrize(("rate", "queries"), [(0.0, 5), (-1.0, 5), (float("nan"), 5), (1.0, 0)])
def test_no_arrivals_come_at_no_rate(rate, queries):
    with pytest.raises(ValueError, match="wanted a rate above 0"):
        poisson_arrivals_s(rate, queries, seed=0)


def test_an_overloaded_trial_is_given_up_at_its_time():
    seen = after([each / 2 for each in range(100)], cut=Cut(at_s=50.0))
    assert len(seen.done_s) == 51
    assert len(seen.arrivals_s) == 100


def test_a_broken_promise_ends_a_trial_once_it_can_no_longer_be_kept():
    seen = after([0.0] * 100, cut=Cut(latency_s=5.0, most_late=3))
    assert len(seen.done_s) == 9  # five in time, and the fourth late one
    assert len(after([0.0] * 6, cut=Cut(latency_s=5.0, most_late=3)).done_s) == 6


@given(st.integers(0, 20), st.floats(0, 9), st.floats(0, 9), rules)
def test_a_server_takes_more_the_more_wait_and_the_longer(waiting, oldest_s, now_s, rule):
    count = taken(waiting, oldest_s, now_s, rule)
    assert 0 <= count <= min(waiting, rule.most_batch)
    assert taken(waiting + 1, oldest_s, now_s, rule) >= count
    assert taken(waiting, oldest_s, now_s + 1, rule) >= count


def test_the_fewest_queries_are_those_of_loadgen():
    shares = (0.5, 0.9, 0.95, 0.99, 0.999)
    table = [[least_queries(late, share) for share in shares] for late in range(4)]
    assert table == [
        [7, 44, 90, 459, 4603],
        [11, 64, 130, 662, 6636],
        [14, 81, 165, 838, 8403],
        [17, 97, 198, 1001, 10042],
    ]
    assert dict(zip(shares, table[1], strict=True)) == LEAST_SAMPLES_OF


@given(st.integers(0, 400), st.integers(1, 400), st.floats(0.001, 0.999))
def test_the_binomial_is_that_of_scipy(late, queries, share):
    expected = scipy.stats.binom.cdf(late, queries, share)
    assert at_most(late, queries, share) == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 5000), st.sampled_from([0.5, 0.9, 0.97, 0.99]))
def test_most_late_and_fewest_queries_say_the_same(queries, share):
    late = most_late(queries, share)
    assert least_queries(late + 1, share) > queries
    assert late < 0 or least_queries(late, share) <= queries


PROMISE = LatencyPromise(latency_s=1.0, share=0.9)


@pytest.mark.parametrize(
    ("in_time", "late", "unserved", "verdict", "more", "said"),
    [
        (64, 0, 0, "VALID", None, "1 may at 99 % confidence"),
        (63, 1, 0, "VALID", None, "1 of 64 queries took longer than 1000 ms"),
        (40, 0, 0, "INVALID", 4, "needs 44 with no more late, have 40"),
        (62, 2, 0, "INVALID", 17, "needs 81 with no more late, have 64"),
        (80, 30, 0, "INVALID", None, "27.27%; 0.1 may"),
        (99, 1, 5, "INVALID", None, "5 more were given up"),
    ],
)
def test_a_verdict_has_its_reason_and_what_is_lacking(in_time, late, unserved, verdict, more, said):
    judged = verdict_on([0.5] * in_time + [1.5] * late, unserved, PROMISE)
    assert (judged.verdict, judged.queries_more) == (verdict, more)
    assert said in judged.reason


@given(st.integers(0, 300), st.integers(0, 30))
def test_so_many_more_queries_in_time_make_it_valid(in_time, late):
    judged = verdict_on([0.5] * in_time + [1.5] * late, 0, PROMISE)
    if judged.queries_more:
        enough = in_time + judged.queries_more
        assert verdict_on([0.5] * enough + [1.5] * late, 0, PROMISE).verdict == "VALID"
        assert verdict_on([0.5] * (enough - 1) + [1.5] * late, 0, PROMISE).verdict == "INVALID"


def test_few_false_promises_pass():
    # 12 % are late where 10 % may: 1,000 tests of 400 queries, 1 % of which may pass at the border.
    late = np.random.default_rng(0).binomial(400, 0.12, 1000)
    assert np.mean([each <= most_late(400, 0.9) for each in late]) < 0.01
    at_the_border = np.random.default_rng(1).binomial(400, 0.1, 5000)
    assert np.mean([each <= most_late(400, 0.9) for each in at_the_border]) < 0.015


@given(st.floats(0.01, 100), st.floats(0.1, 10))
def test_the_highest_rate_is_found_within_the_share_asked(limit, start):
    search = highest_rate(lambda rate: rate <= limit, start, within=0.05)
    if search.valid_per_s is None:
        assert limit < start / 16 * 1.001
    else:
        assert search.valid_per_s <= limit < search.invalid_per_s
        assert search.invalid_per_s <= search.valid_per_s * 1.05


def test_a_search_that_is_stopped_keeps_what_it_has():
    answers = iter([True, True, None])
    search = highest_rate(lambda rate: next(answers), 1.0)
    assert (search.valid_per_s, search.invalid_per_s) == (2.0, None)


def test_a_search_ends_where_nothing_is_ever_invalid():
    tried = itertools.count(1)
    highest_rate(lambda rate: next(tried) < 100, 1.0, most_trials=5)
    assert next(tried) == 6
