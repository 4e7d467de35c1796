import math

import pytest
import torch

from morvit import losses
from morvit.losses import LossWeights
from morvit.votes import Orders
from tests.morvit.networks import TOY, changed, network, pictures


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)]])
    assert float(losses.cross_entropy(logits, torch.tensor([1]))) == pytest.approx(math.log(4 / 3))
    # Half of the smoothing goes to the wrong class: 0.9 log(4/3) + 0.1 log 4.
    smoothed = float(losses.cross_entropy(logits, torch.tensor([1]), smoothing=0.2))
    assert smoothed == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * math.log(4))


def test_auxiliary_by_hand_counts_scored_patches_alone():
    logits = torch.tensor([[[0.0], [math.log(3.0)], [99.0]]])
    scored = torch.tensor([[[True], [True], [False]]])
    chosen = torch.tensor([[[True], [False], [False]]])
    by_hand = (math.log(2) + math.log(4)) / 2
    assert float(losses.auxiliary(logits, scored, chosen)) == pytest.approx(by_hand)


def test_router_z_by_hand():
    logits = torch.zeros(1, 2, 4)
    assert float(losses.router_z(logits)) == pytest.approx(math.log(4) ** 2)
    # With one vote logsumexp is the logit.
    assert float(losses.router_z(torch.full((1, 2, 1), 3.0))) == pytest.approx(9.0)


def test_balancing_by_hand():
    # Three of four patches choose the first of two depths, with probabilities 0.8 and 0.2.
    sure = math.log(4.0)
    logits = torch.tensor([[[sure, 0.0], [sure, 0.0], [sure, 0.0], [0.0, sure]]])
    mean = (0.8 * 3 + 0.2) / 4
    equal = 2 * (0.75 * mean + 0.25 * (1 - mean))
    assert float(losses.balancing(logits)) == pytest.approx(equal)
    aimed = 0.75 * mean / 0.75 + 0.25 * (1 - mean) / 0.25
    assert float(losses.balancing(logits, (0.75, 0.25))) == pytest.approx(aimed) == 1.0


def test_balancing_pushes_towards_the_depth_that_lacks_tokens():
    logits = torch.tensor([[[1.0, 0.0]] * 4], requires_grad=True)
    losses.balancing(logits).backward()
    assert (logits.grad[..., 0] > 0).all()


@pytest.mark.parametrize("router", ["expert-choice", "token-choice"])
def test_the_total_is_the_weighted_sum_of_its_terms(router):
    architecture = changed(router=router)
    weights = LossWeights(auxiliary=0.5, router_z=0.25, balancing=2.0)
    output = network(architecture)(pictures(3))
    terms = losses.total_loss(output, torch.tensor([0, 1, 2]), architecture, weights)
    of = {"auxiliary": 0.5, "router_z": 0.25, "balancing": 2.0, "cross_entropy": 1.0}
    total = sum(of[name] * float(term.detach()) for name, term in terms.items() if name != "total")
    assert float(terms["total"].detach()) == pytest.approx(total, rel=1e-5)
    assert (
        set(terms)
        == {
            "expert-choice": {"cross_entropy", "auxiliary", "total"},
            "token-choice": {"cross_entropy", "balancing", "router_z", "total"},
        }[router]
    )


def test_a_uniform_pass_teaches_expert_choice_nothing():
    architecture = changed(router="expert-choice")
    output = network(architecture)(pictures(2), orders=Orders(uniform=True))
    labels = torch.tensor([0, 1])
    terms = losses.total_loss(output, labels, architecture, LossWeights(), uniform=True)
    assert set(terms) == {"cross_entropy", "total"}


def test_a_plain_network_has_cross_entropy_alone():
    plain = changed(recursions=1)
    output = network(plain)(pictures(2))
    terms = losses.total_loss(output, torch.tensor([0, 1]), plain, LossWeights())
    assert set(terms) == {"cross_entropy", "total"}


def test_what_is_watched_by_hand():
    depths = torch.tensor([[1, 1, 3], [2, 0, 3]])
    assert losses.depth_load(depths, 3).tolist() == pytest.approx([0.4, 0.2, 0.4])
    assert losses.dead_token_ratio(depths, 3) == pytest.approx(2 / 3)
    load = torch.tensor([0.6, 0.2, 0.2])
    assert losses.maximal_violation(load, (1 / 3,) * 3) == pytest.approx(0.8)
    assert losses.entropy(torch.full((3,), 1 / 3)) == pytest.approx(1.0)


def test_scored_patches_are_those_of_the_recursion_before():
    output = network(changed(router="expert-choice"))(pictures(2))
    scored, chosen = losses.scored_and_chosen(output, TOY)
    assert scored[..., 0].all()
    assert torch.equal(scored[..., 1:], chosen[..., :-1])
    assert torch.equal(chosen.sum(dim=1) + 1, output.counts)
