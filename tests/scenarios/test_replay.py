"""The quick replay is the plain one, image by image, to the last bit."""

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.scenario import Promise
from scenarios.fleet import PROMISED_SHARE, queue_of
from scenarios.replay import Line, replay, replay_in_time, warm_up_of
from scenarios.service import Service
from tests.scenarios.records import demand


def plainly(arrived_s, service_s, *, servers, timeout_s=0.0, stretch=None):
    """The rules, one image after another, and nothing clever."""
    images, most = len(arrived_s), len(service_s)
    free, done, first, batches, busy_s = [0.0] * servers, [], 0, 0, 0.0
    while first < images:
        start = float(arrived_s[first])
        if timeout_s:
            is_filled = first + most <= images
            fills = float(arrived_s[first + most - 1]) if is_filled else start + timeout_s
            start = min(start + timeout_s, fills)
        start = max(start, heapq.heappop(free))
        last = first + 1
        while last < images and last - first < most and arrived_s[last] <= start:
            last += 1
        seconds = service_s[last - first - 1] * (
            1.0 if stretch is None else float(stretch[batches])
        )
        heapq.heappush(free, start + seconds)
        done += [start + seconds] * (last - first)
        busy_s += seconds
        batches, first = batches + 1, last
    return np.array(done) - arrived_s, busy_s


@st.composite
def queues(draw):
    """Arrivals alone, in bursts or far apart; batches; a time-out; images that differ."""
    images = draw(st.integers(1, 3000))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    gaps_s = random.exponential(draw(st.floats(1e-3, 10)), images)
    gaps_s *= random.random(images) < draw(st.floats(0, 1))
    arrived_s = np.cumsum(gaps_s) - gaps_s[0]
    most = draw(st.integers(1, 12))
    grows = draw(st.floats(0, 1))
    return {
        "arrived_s": arrived_s,
        "service_s": [1.0 + grows * size for size in range(most)],
        "servers": draw(st.integers(1, 40)),
        "timeout_s": draw(st.sampled_from([0.0, 0.5, 3.0])),
        "stretch": draw(st.sampled_from([None, random.gamma(4, 0.25, images)])),
    }


@given(queues())
def test_the_quick_replay_is_the_plain_one(queue):
    latencies_s, busy_s = plainly(**queue)
    seen = replay(**queue)
    assert (seen.latencies_s == latencies_s).all()
    assert seen.busy_s == busy_s


@given(queues(), st.floats(1, 20), st.sampled_from([0.01, 0.1, 0.5]))
def test_what_is_given_up_early_is_what_would_have_failed(queue, limit_s, most_late):
    latencies_s, busy_s = plainly(**queue)
    typical_s = latencies_s[warm_up_of(len(latencies_s)) :]
    fails = bool(len(typical_s)) and (typical_s > limit_s).sum() / len(typical_s) > most_late
    seen = replay_in_time(Line(**queue), limit_s, most_late)
    assert (seen is None) == fails
    if seen is not None:
        assert (seen.latencies_s == latencies_s).all()
        assert seen.busy_s == busy_s


@given(
    st.floats(0.5, 40),
    st.integers(1, 12),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.2]),
    st.floats(0.5, 2),
)
def test_a_queue_asked_again_says_what_it_said(rate, servers, batch, variation, factor):
    queue = queue_of(
        demand(cameras=1, period_s=1 / rate, arrivals="poisson"),
        Promise(p99_latency_s=3.0),
        Service(
            seconds=tuple(1 + size / 10 for size in range(batch)), log_sd=0.1, variation=variation
        ),
        images=2000,
    )
    latencies_s, busy_s = plainly(
        queue.arrived_s, queue.service.times(factor), servers=servers, stretch=queue.stretch
    )
    typical_s = latencies_s[warm_up_of(len(latencies_s)) :]
    late = (typical_s > 3.0 * (1 + 1e-9)).mean()
    for _ in range(2):
        assert queue.holds(servers, factor) == (late <= 1 - PROMISED_SHARE)
        assert queue.replayed(servers, factor).busy_s == busy_s
        assert queue.p99_s(servers, factor).value == np.quantile(typical_s, PROMISED_SHARE)


@pytest.mark.parametrize(
    "nonsense",
    [{"servers": 0}, {"service_s": []}, {"service_s": [0.0]}, {"timeout_s": -1.0}],
)
def test_impossible_lines_are_refused(nonsense):
    given_ = {"arrived_s": np.zeros(1), "service_s": [1.0], "servers": 1} | nonsense
    with pytest.raises(ValueError, match="wanted a server"):
        replay(**given_)
