import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from morvit.router import ExpertChoice, TokenChoice, depth_at_least, highest, router_for
from tests.morvit.networks import changed, network, pictures

EXPERT = changed(router="expert-choice")


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
    assert torch.equal(took, scored & (output.router_logits > 0))
    assert model.train()(pictures(8)).counts.tolist() == [[17, 10, 5]] * 8


def test_token_choice_goes_as_deep_as_its_arg_max():
    output = network()(pictures(8))
    assert torch.equal(output.depths[:, 1:], output.router_logits.argmax(dim=-1) + 1)


def test_token_choice_gates_with_the_probability_of_that_depth_or_more():
    router = TokenChoice(changed())
    patches = torch.randn(1, 16, 8)
    vote = router.ballot(patches)(1, patches, torch.ones(1, 16, dtype=torch.bool))
    probability = router.scores(patches).softmax(dim=-1)
    torch.testing.assert_close(vote.gates, probability[..., 1] + probability[..., 2])


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=6))
def test_deeper_is_never_likelier(logits):
    tails = depth_at_least(torch.tensor(logits))
    assert float(tails[0]) == pytest.approx(1, abs=1e-5)
    assert (tails[1:] <= tails[:-1] + 1e-6).all()


def test_expert_choice_gates_with_the_sigmoid():
    router = ExpertChoice(EXPERT)
    patches = torch.randn(1, 16, 8)
    vote = router.vote(2, patches, torch.ones(1, 16, dtype=torch.bool))
    torch.testing.assert_close(vote.gates, vote.logits.sigmoid())


@pytest.mark.parametrize("shares", [(1.0, 0.5), (0.5, 0.6, 0.3), (1.2, 0.5, 0.3), (1.0, 0.5, 0.0)])
def test_impossible_capacities_are_refused(shares):
    with pytest.raises(ValueError, match="capacities"):
        ExpertChoice(EXPERT, shares)


def test_the_architecture_names_its_router():
    assert isinstance(router_for(changed()), TokenChoice)
    assert isinstance(router_for(EXPERT), ExpertChoice)
