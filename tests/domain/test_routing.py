from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.routing import (
    RoutingDistribution,
    capacities_of_budget,
    default_capacities,
    kept_of,
    routing_of_budget,
)
from tests.domain.strategies import architectures, routings, survivals

tokens_ = st.integers(min_value=1, max_value=600)
images_ = st.integers(min_value=1, max_value=40)


@given(routings())
def test_survival_never_rises(routing):
    assert all(later <= earlier for earlier, later in pairwise((1.0, *routing.survival)))


@given(routings())
def test_the_mean_depth_is_the_mean_of_the_depths_of_all_tokens(routing):
    # A token has depth d when it enters the first d recursions.
    depths = [
        sum(token < count for count in row)
        for row in routing.counts
        for token in range(routing.tokens)
    ]
    mean = sum(depths) / len(depths) / routing.recursions
    assert routing.mean_depth == pytest.approx(mean)


@given(survivals(), tokens_, images_)
def test_a_survival_is_hit_to_half_a_token_of_the_whole_set(survival, tokens, images):
    routing = RoutingDistribution.from_survival(survival, tokens, always=0, images=images)
    for wanted, came in zip(survival, routing.survival, strict=True):
        assert abs(came - wanted) <= 1 / (2 * tokens * images) + 1e-9


@given(survivals(), tokens_, images_)
def test_the_images_of_a_survival_are_alike_and_keep_their_prefix(survival, tokens, images):
    routing = RoutingDistribution.from_survival(survival, tokens, always=1, images=images)
    assert routing.images == images
    for column in zip(*routing.counts, strict=True):
        assert max(column) - min(column) <= 1
        assert min(column) >= 1


@pytest.mark.parametrize("survival", [(0.5, 0.6), (1.1,), (-0.1,), (float("nan"),), ()])
def test_a_survival_that_is_none_is_refused(survival):
    with pytest.raises(ValueError, match="wanted"):
        RoutingDistribution.from_survival(survival, tokens=10)


@pytest.mark.parametrize(
    ("tokens", "counts"),
    [(4, ((5,),)), (4, ((2, 3),)), (4, ((2, -1),)), (4, ((2, 1), (2,))), (4, ()), (0, ((0,),))],
)
def test_counts_that_no_router_gives_are_refused(tokens, counts):
    with pytest.raises(ValidationError):
        RoutingDistribution(tokens=tokens, counts=counts)


@given(routings(), tokens_)
def test_resizing_keeps_the_order_of_images_and_the_shares(routing, tokens):
    resized = routing.resized(tokens, always=0)
    assert resized.tokens == tokens
    for before, after in zip(
        zip(*routing.counts, strict=True), zip(*resized.counts, strict=True), strict=True
    ):
        for i, j in pairwise(sorted(range(len(before)), key=before.__getitem__)):
            assert after[i] <= after[j]
    for before, after in zip(routing.survival, resized.survival, strict=True):
        assert after == pytest.approx(before, abs=0.5 / tokens + 1e-9)


@given(routings())
def test_resizing_to_the_same_size_changes_nothing(routing):
    assert routing.resized(routing.tokens) == routing


@given(tokens_, st.integers(min_value=1, max_value=8))
def test_full_routing_goes_everywhere(tokens, recursions):
    assert RoutingDistribution.full(tokens, recursions).mean_depth == 1


@given(st.floats(min_value=0, max_value=1), st.integers(min_value=1, max_value=12))
def test_the_capacities_of_a_budget_have_that_mean_and_never_rise(budget, recursions):
    survival = capacities_of_budget(budget, recursions)
    assert sum(survival) / recursions == pytest.approx(budget, abs=1e-9)
    assert all(later <= earlier for earlier, later in pairwise((1.0, *survival)))


@given(st.floats(min_value=0, max_value=1), st.integers(min_value=1, max_value=12))
def test_capacities_of_a_budget_send_everything_through_one_recursion_before_any_through_two(
    budget, recursions
):
    first, *others = capacities_of_budget(budget, recursions)
    assert first == 1 or not any(others)


@given(architectures(), st.floats(min_value=0, max_value=1))
def test_a_budget_is_served_in_whole_patches_to_one_patch_a_recursion(net, budget):
    assert routing_of_budget(1.0, net) == RoutingDistribution.full(net.tokens, net.recursions)
    routing = routing_of_budget(budget, net)
    assert routing.images == 1
    if not net.is_routed:
        assert routing.mean_depth == 1
        return
    kept = kept_of(capacities_of_budget(budget, net.recursions), net.patches)
    assert routing.counts == (tuple(net.prefix_tokens + each for each in kept),)
    of_patches = sum(kept) / net.recursions / net.patches
    assert budget - 1 / net.patches - 1e-9 <= of_patches <= budget + 1 / net.patches


def test_default_capacities_fall_from_one_in_equal_steps():
    assert default_capacities(4) == (1.0, 0.75, 0.5, 0.25)
