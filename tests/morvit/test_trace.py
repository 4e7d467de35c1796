import torch

from morvit.data import FASHION_CLASSES, sample_images
from morvit.trace import decisions_of, routing_of
from morvit.weights import SHIPPED, load_checkpoint
from tests.morvit.networks import changed, network

FASHION_TOY = changed(image_size=28, patch_size=4, classes=10)


def test_the_routing_of_images_is_what_the_network_counted():
    images, _ = sample_images()
    routing = routing_of(network(FASHION_TOY), images[:130])
    assert routing.tokens == 50
    assert routing.images == 130
    assert all(row[0] == 50 for row in routing.counts)


def test_decisions_lie_on_the_grid_of_the_patches():
    images, labels = sample_images()
    model = network(FASHION_TOY)
    decisions = decisions_of(model, images[:3], labels[:3], FASHION_CLASSES, "random weights")
    assert [image.label for image in decisions.images] == ["Ankle boot", "Pullover", "Trouser"]
    assert len(decisions.images[0].pixels) == 28
    assert decisions.images[0].pixels[14] == tuple(images[0, 0, 14].tolist())
    depths = torch.tensor([image.depths for image in decisions.images])
    assert depths.shape == (3, 7, 7)
    entered = (depths[..., None] > torch.arange(3)).sum(dim=(1, 2)) + 1
    assert entered.tolist() == [list(row) for row in routing_of(model, images[:3]).counts]


def test_the_shipped_network_routes_real_images_differently():
    model, card = load_checkpoint(SHIPPED)
    images, labels = sample_images()
    routing = routing_of(model, images)
    assert len(set(routing.counts)) > 50
    assert routing.mean_depth < 0.75
    with torch.inference_mode():
        decisions = decisions_of(model, images, labels, card.classes, card.weights_sha256)
    right = sum(image.label == image.predicted for image in decisions.images)
    assert abs(right / 512 - card.accuracy) < 0.04
