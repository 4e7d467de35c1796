import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.measurement import PlannedPoint
from domain.routing import RoutingDistribution
from profiler.routings import forced_counts, presumed_routing, rotation_of
from tests.profiler.networks import forced

survivals = st.lists(st.floats(0, 1), min_size=3, max_size=3).map(
    lambda shares: tuple(sorted(shares, reverse=True))
)


@given(survivals, st.floats(0, 1), st.integers(0, 10**6), st.integers(1, 64))
def test_forced_counts_are_a_routing_with_the_prefix_always_on(survival, spread, seed, batch):
    point = forced(survival=survival, spread=spread, batch=batch)
    images = batch * rotation_of(batch)
    counts = forced_counts(point, images, seed)
    RoutingDistribution(tokens=point.architecture.tokens, counts=counts)
    assert len(counts) == images
    assert min(map(min, counts)) >= point.architecture.prefix_tokens


@given(st.integers(0, 10**6))
def test_forced_counts_keep_the_planned_mean(seed):
    point = forced(survival=(0.8, 0.5, 0.2), spread=0.25, tokens=197)
    routing = RoutingDistribution(tokens=197, counts=forced_counts(point, 64, seed))
    assert routing.survival == pytest.approx((0.8, 0.5, 0.2), abs=0.004)


def test_forced_counts_are_the_same_for_the_same_seed_only():
    point = forced(spread=0.5, tokens=197)
    assert forced_counts(point, 64, 1) == forced_counts(point, 64, 1)
    assert forced_counts(point, 64, 1) != forced_counts(point, 64, 2)


def test_a_few_images_already_spread_like_all():
    point = forced(survival=(1.0, 0.5, 0.25), spread=0.8, tokens=197)
    counts = forced_counts(point, 64, 0)
    eight = [row[1] for row in counts[:8]]
    assert max(eight) - min(eight) > 0.6 * (max(c[1] for c in counts) - min(c[1] for c in counts))


def test_no_spread_makes_images_alike():
    assert len(set(forced_counts(forced(spread=0.0), 64, 3))) == 1


@given(st.integers(1, 512))
def test_a_rotation_shows_64_images_and_no_batch_too_many(batch):
    assert batch * rotation_of(batch) >= 64
    assert batch * (rotation_of(batch) - 1) < 64


def test_a_point_without_imposed_survival_is_presumed_to_go_everywhere():
    point = PlannedPoint(
        id="p", architecture=forced().architecture, weights="random", batch=2, routing_source="none"
    )
    assert presumed_routing(point, 0).mean_depth == 1.0
