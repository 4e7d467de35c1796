"""One's own checkpoint and images take the place of the shipped ones."""

import pytest
import torch

from domain.complaint import CorruptFile
from domain.measurement import PlannedPoint
from morvit.model import MoRViT
from morvit.weights import Card, Recipe, save_checkpoint
from profiler.messages import Source
from profiler.source import network_of, pictures_of
from profiler.starting import store_beside
from profiler.subjects import subject_of
from tests.profiler.networks import network


@pytest.fixture
def own(tmp_path):
    image = pytest.importorskip("PIL.Image")
    net = network(name="mine")
    card = Card(
        architecture=net, classes=tuple(f"c{i}" for i in range(net.classes)), data="toy",
        recipe=Recipe(epochs=1), seed=0, trained_epochs=0, test_images=1, accuracy=0.1,
        uniform_accuracy=0.1, survival=(1.0,) * net.recursions, command="none", torch="2",
    )  # fmt: skip
    torch.manual_seed(0)
    path = tmp_path / "mine.safetensors"
    save_checkpoint(MoRViT(net), card, path)
    for name in ("good", "bad"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(8):
            picture = image.new("L", (20, 20), color=number * 30)
            picture.save(tmp_path / "images" / name / f"{number}.png")
    return Source(checkpoint=str(path), images=str(tmp_path / "images"))


def test_own_weights_and_images_are_measured(own):
    net = network_of(own)[1].architecture
    point = PlannedPoint(
        id="mine", architecture=net, weights="shipped", batch=4, routing_source="real-images"
    )
    subject = subject_of(point, "cpu", 0, own)
    assert "mine.safetensors" in subject.weights
    assert "images" in subject.weights
    assert subject.batches[0].shape[-1] == net.image_size


def test_a_point_in_half_precision_leaves_the_weights_as_they_are(own):
    net, _ = network_of(own)
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    point = PlannedPoint(
        id="half", architecture=net.architecture, weights="shipped", batch=4, precision="bf16",
        routing_source="real-images",
    )  # fmt: skip
    subject_of(point, "cpu", 0, own)
    after = network_of(own)[0].state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_what_the_router_decides_on_them_is_stored(own, tmp_path):
    store_beside(tmp_path, own)
    assert (tmp_path / "routing.parquet").exists()
    assert "mine" in (tmp_path / "decisions.json").read_text()


def test_no_checkpoint_is_one_sentence(tmp_path):
    fake = tmp_path / "fake.safetensors"
    fake.write_bytes(b"\x80\x04pickle")
    with pytest.raises(CorruptFile):
        network_of(Source(checkpoint=str(fake)))


def test_the_sample_is_shown_where_nothing_is_named():
    assert len(pictures_of(Source(), 28, 1).images) == 512
