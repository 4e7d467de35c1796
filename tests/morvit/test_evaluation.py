import pytest
import torch

from domain.routing import routing_of_budget
from morvit.data import LabelledImages, normalised
from morvit.evaluation import by_budget, evaluated, thresholds_at
from morvit.router import unlikeness
from morvit.votes import Orders, Seen
from tests.morvit.networks import changed, network

WIDE = changed(router="expert-choice", image_size=16)


def images(count=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return LabelledImages(
        images=torch.randint(0, 256, (count, 1, 16, 16), generator=generator).byte(),
        labels=torch.arange(count) % 5,
        names=tuple("abcde"),
        origin="noise",
    )


@pytest.mark.parametrize("budget", [0.3, 0.6])
def test_thresholds_send_as_many_on_as_the_budget_says_and_counts_differ_by_image(budget):
    model, seen = network(WIDE), images()
    thresholds = thresholds_at(model, seen.images, budget)
    came = evaluated(model, seen.images, seen.labels, Orders(thresholds=thresholds))
    fixed = evaluated(model, seen.images, seen.labels, Orders.at_budget(budget, 3))
    for free, wanted in zip(came.counts.float().mean(0), fixed.counts.float().mean(0), strict=True):
        assert float(free) == pytest.approx(float(wanted), abs=1.0)
    assert len(set(map(tuple, came.counts.tolist()))) > 1
    assert len(set(fixed.counts[:, 0].tolist())) == 1


def test_one_network_serves_every_budget_and_the_whole_of_it_is_uniform_depth():
    model, seen = network(WIDE), images()
    points = by_budget(model, seen, seen, budgets=(0.2, 0.5, 1.0))
    depths = [point.mean_depth for point in points]
    predicted = [routing_of_budget(point.budget, WIDE).mean_depth for point in points]
    assert depths == pytest.approx(predicted)
    assert depths == sorted(depths)
    assert depths[-1] == 1.0
    uniform = evaluated(model, seen.images, seen.labels, Orders(uniform=True))
    assert points[-1].accuracy == uniform.accuracy
    assert points[-1].thresholds == ()
    assert len(points[0].thresholds) == 3


def test_where_training_lets_all_in_those_least_like_the_rest_are_let_in_first():
    model, seen = network(WIDE), images()
    with torch.inference_mode():
        state, route = model.begun(normalised(seen.images))
        vote, _ = model.voted(0, state, route, chooses=False)
    patches = state[:, WIDE.prefix_tokens :]
    unlike = (patches - patches.mean(dim=1, keepdim=True)).norm(dim=-1)
    few = Orders(capacities=(0.25, 0.1, 0.1))
    entered = evaluated(model, seen.images, seen.labels, few).depths[:, WIDE.prefix_tokens :] > 0
    for image, came in zip(unlike, entered, strict=True):
        assert came.sum() == len(image) // 4
        assert image[came].min() >= image[~came].max()
    assert ((vote.chosen_by() >= 0.5) & (vote.chosen_by() < 1)).all()
    assert (vote.gates == 1).all()


def test_patches_that_are_all_alike_rank_a_half():
    state = torch.full((2, 5, 3), 0.5)
    seen = Seen(state=state, moved=state.flatten(0, 1), rows=None, statistics=None, prefix=1)
    assert unlikeness(seen).flatten().tolist() == pytest.approx([0.5] * 8)


def test_a_plain_vit_has_no_budgets():
    plain = network(changed(recursions=1, image_size=16))
    assert by_budget(plain, images(), images()) == ()


def test_evaluation_counts_right_answers():
    model, seen = network(WIDE), images()
    answers = model(seen.images.float() / 255 / 0.353 - 0.286 / 0.353).logits.argmax(dim=1)
    expected = float((answers == seen.labels).float().mean())
    assert evaluated(model, seen.images, seen.labels).accuracy == pytest.approx(expected)
