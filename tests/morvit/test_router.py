import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from morvit.router import (
    Chance,
    ExpertChoice,
    TokenChoice,
    depth_at_least,
    largest_from,
    patch_statistics,
    router_for,
)
from morvit.votes import Orders, Seen, best, highest
from tests.morvit.networks import changed, network, pictures

EXPERT = changed(router="expert-choice")
EVERYONE = torch.ones(1, 16, dtype=torch.bool)


def seen(seed=0):
    """One image of 16 patches after CLS, at width 8."""
    torch.manual_seed(seed)
    state = torch.randn(1, 17, 8)
    return Seen(state=state, moved=state[0], rows=None, statistics=torch.rand(1, 16, 2), prefix=1)


def test_the_highest_are_taken_from_the_eligible_alone():
    scores = torch.tensor([[0.9, 0.1, 0.5, 0.7]])
    eligible = torch.tensor([[False, True, True, True]])
    assert highest(scores, eligible, torch.tensor([2])).tolist() == [[False, False, True, True]]
    assert highest(scores, eligible, torch.tensor([0])).sum() == 0
    assert torch.equal(highest(scores, eligible, torch.tensor([4])), eligible)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 99))
def test_as_many_are_taken_as_wanted_even_where_all_are_equal(wanted, seed):
    torch.manual_seed(seed)
    scores = torch.randint(0, 2, (len(wanted), 6)).float()
    took = highest(scores, torch.ones_like(scores, dtype=torch.bool), torch.tensor(wanted))
    assert took.sum(dim=1).tolist() == wanted


def test_expert_choice_keeps_its_capacity_of_every_image_and_cls():
    output = network(EXPERT, capacities=(1.0, 0.6, 0.3))(pictures(4))
    # 16 patches: 16, ⌊9.6⌋, ⌊4.8⌋, each with CLS beside.
    assert output.counts.tolist() == [[17, 10, 5]] * 4


def test_expert_choice_keeps_one_patch_at_least():
    assert ExpertChoice(EXPERT, (0.5, 0.1, 0.01)).kept == (8, 1, 1)


def test_the_threshold_lets_counts_differ_by_image_and_training_does_not_use_it():
    model = network(EXPERT, selection="threshold", capacities=(1.0, 0.6, 0.3))
    output = model(pictures(8))
    assert len({tuple(row) for row in output.counts.tolist()}) > 1
    took = output.depths[:, 1:, None] > torch.arange(3)
    scored = output.depths[:, 1:, None] >= torch.arange(3)
    above = output.router_logits > 0
    # Training sends all through the first recursion, so nothing is held back there.
    above[..., 0] = True
    assert torch.equal(took, scored & above)
    assert model.train()(pictures(8)).counts.tolist() == [[17, 10, 5]] * 8


def test_a_threshold_leaves_alone_what_training_sends_everywhere():
    model = network(EXPERT, selection="threshold", capacities=(1.0,) * 3)
    images = pictures(4)
    everywhere = model(images, orders=Orders(uniform=True))
    torch.testing.assert_close(model(images).logits, everywhere.logits)


def test_token_choice_goes_as_deep_as_its_arg_max():
    output = network()(pictures(8))
    assert torch.equal(output.depths[:, 1:], output.router_logits.argmax(dim=-1) + 1)


def test_token_choice_gates_with_the_probability_of_that_depth_or_more():
    router = TokenChoice(changed())
    vote = router.ballot(seen())(1, seen(), EVERYONE)
    probability = router.scores(seen().state[:, 1:]).softmax(dim=-1)
    torch.testing.assert_close(vote.gates, probability[..., 1] + probability[..., 2])


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=6))
def test_deeper_is_never_likelier(logits):
    tails = depth_at_least(torch.tensor(logits))
    assert float(tails[0]) == pytest.approx(1, abs=1e-5)
    assert (tails[1:] <= tails[:-1] + 1e-6).all()


def test_expert_choice_gates_with_the_sigmoid():
    router = ExpertChoice(EXPERT)
    vote = router.vote(2, seen(), EVERYONE)
    torch.testing.assert_close(vote.gates, vote.logits.sigmoid())


@pytest.mark.parametrize("shares", [(1.0, 0.5), (0.5, 0.6, 0.3), (1.2, 0.5, 0.3), (1.0, 0.5, 0.0)])
def test_impossible_capacities_are_refused(shares):
    with pytest.raises(ValueError, match="capacities"):
        ExpertChoice(EXPERT, shares)


def test_the_architecture_names_its_router():
    assert isinstance(router_for(changed()), TokenChoice)
    assert isinstance(router_for(EXPERT), ExpertChoice)
    assert isinstance(router_for(changed(router="random")), Chance)


@given(st.integers(1, 6), st.integers(0, 99))
def test_the_best_are_the_highest(wanted, seed):
    torch.manual_seed(seed)
    scores = torch.randn(3, 9)
    eligible = torch.zeros(3, 9, dtype=torch.bool)
    eligible[:, torch.randperm(9)[:6]] = True
    expected = highest(scores, eligible, torch.tensor([wanted] * 3))
    assert torch.equal(best(scores, eligible, wanted), expected)


def test_a_budget_takes_that_share_of_full_depth_and_one_is_everything():
    model = network(changed(router="expert-choice", image_size=32, recursions=4))
    for budget in (0.2, 0.4, 0.8):
        counts = model(pictures(2, model.architecture), orders=Orders.at_budget(budget, 4)).counts
        assert (counts == counts[0]).all()
        assert float((counts - 1).float().mean() / 256) == pytest.approx(budget, abs=0.01)
    assert (
        model(pictures(2, model.architecture), orders=Orders.at_budget(1.0, 4)).counts == 257
    ).all()


@given(
    st.sampled_from(["expert-choice", "token-choice", "random"]),
    st.integers(0, 9),
    st.sampled_from(["masked", "padded", "packed"]),
)
def test_an_image_all_of_which_is_to_go_on_goes_as_if_there_were_no_router(router, seed, executor):
    model, images = network(changed(router=router), seed), pictures(3, seed=seed)
    everywhere = model(images, orders=Orders(uniform=True)).logits
    tokens = model.architecture.tokens
    mixed = torch.tensor([[tokens] * 3, [tokens, 9, 4], [tokens] * 3])
    for orders in (
        Orders(capacities=(1.0,) * 3),
        Orders(thresholds=(0.0,) * 3),
        Orders(imposed=torch.full((3, 3), tokens)),
        Orders(imposed=mixed),
    ):
        logits = model(images, orders=orders, executor=executor).logits
        # Whatever goes on beside it in the batch.
        torch.testing.assert_close(logits[[0, 2]], everywhere[[0, 2]], rtol=1e-4, atol=1e-4)


@given(st.sampled_from(["expert-choice", "token-choice"]), st.integers(0, 9))
def test_a_higher_threshold_never_lets_more_go_on(router, seed):
    model, images = network(changed(router=router), seed), pictures(4, seed=seed)
    lower, higher = (
        model(images, orders=Orders(thresholds=(level,) * 3)).counts for level in (0.3, 0.6)
    )
    assert (higher[:, 0] <= lower[:, 0]).all()


def test_a_router_that_reads_the_context_answers_to_cls_and_to_pixels():
    model = network(changed(router="expert-choice", router_reads="token-and-context"))
    scores = model.router.scores[0]
    first = scores.of(seen())
    louder, other = seen(), seen()
    louder.state[:, 0] += 1.0
    other.statistics[:] += 1.0
    # CLS is the first row of `moved` too, but only patches are scored.
    assert (scores.of(louder) != first).all()
    assert (scores.of(other) != first).all()
    plain = network(EXPERT).router.scores[0]
    assert torch.equal(plain.of(other), plain.of(seen()))


def test_patches_that_were_not_moved_are_not_scored():
    scores = ExpertChoice(EXPERT).scores[0]
    whole = seen()
    rows = torch.tensor([0, 3, 9])
    some = Seen(state=whole.state, moved=whole.moved[rows], rows=rows, statistics=None, prefix=1)
    came, full = scores.of(some)[0, :, 0], scores.of(whole)[0, :, 0]
    places = rows[1:] - 1
    torch.testing.assert_close(came[places], full[places])
    assert came.count_nonzero() == 2


def test_chance_is_the_same_for_a_picture_and_differs_between_pictures():
    model = network(changed(router="random"), capacities=(1.0, 0.5, 0.25))
    images = pictures(6)
    one, again = model(images), model(images[:3])
    assert torch.equal(one.depths[:3], again.depths)
    assert one.counts.tolist() == [[17, 9, 5]] * 6
    assert len({tuple(row) for row in one.depths.tolist()}) > 3
    assert sum(weight.numel() for weight in model.router.parameters()) == 0


def test_loss_free_balancing_moves_the_bias_towards_depths_that_are_chosen_too_seldom():
    router = TokenChoice(changed(router_bias=True))
    router.rebalance(torch.tensor([0.7, 0.2, 0.1]), (1 / 3, 1 / 3, 1 / 3), 0.01)
    torch.testing.assert_close(router.bias, torch.tensor([-0.01, 0.01, 0.01]))
    logits = torch.zeros(1, 2, 3)
    assert router.depths(logits).tolist() == [[1, 1]]


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=6))
def test_sigmoid_gates_never_rise_on_the_way_down(logits):
    gates = largest_from(torch.tensor(logits))
    assert (gates[1:] <= gates[:-1]).all()


def test_patch_statistics_are_in_the_order_of_the_patches():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    means = patch_statistics(image, 2)[0, :, 0].tolist()
    assert means == [2.5, 4.5, 10.5, 12.5]


def test_a_budget_on_token_choice_takes_those_who_would_go_furthest():
    """All go one deep or more: the first cut is by who would go two deep or more."""
    model = network(changed(router="token-choice"))
    images = pictures(6)
    output = model(images, orders=Orders(capacities=(0.5, 0.25, 0.1)))
    took = output.depths[:, 1:] > 0
    further = output.router_logits.softmax(dim=-1)[..., 1:].sum(dim=-1)
    worst_taken = further.masked_fill(~took, 2).amin(dim=1)
    assert (further.masked_fill(took, -1).amax(dim=1) <= worst_taken + 1e-6).all()
