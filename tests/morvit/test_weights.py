import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from domain.complaint import CORRUPT, CorruptFile
from domain.store import load, save
from morvit import tensors as tensors_module
from morvit import weights
from morvit.weights import (
    SHIPPED,
    Card,
    Recipe,
    card_path,
    load_checkpoint,
    save_checkpoint,
)
from tests.morvit.networks import TOY, changed, network, pictures

CARD = Card(
    architecture=TOY,
    classes=tuple("abcde"),
    data="nothing",
    recipe=Recipe(epochs=1),
    seed=0,
    trained_epochs=1,
    test_images=1,
    accuracy=0.5,
    uniform_accuracy=0.5,
    survival=(1.0, 0.5, 0.25),
    command="python -m morvit.train",
    torch="2",
)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "toy.safetensors"
    save_checkpoint(network(), CARD, path)
    return path


@pytest.fixture(autouse=True)
def _nothing_is_allocated_for_a_bad_file(request, monkeypatch):
    """Tests named *_refused must not get as far as reading tensors."""
    if "refused_early" in request.node.name:

        def reached(content):
            raise AssertionError("tensors were read")

        monkeypatch.setattr(tensors_module, "tensors_in", reached)


@pytest.mark.parametrize("router", ["token-choice", "expert-choice"])
def test_store_then_load_is_the_identity(tmp_path, router):
    architecture = changed(router=router)
    recipe = Recipe(epochs=1, capacities=(0.9, 0.5, 0.2), selection="threshold")
    model = network(architecture, capacities=recipe.capacities, selection=recipe.selection)
    card = Card(**{**dict(CARD), "architecture": architecture, "recipe": recipe})
    stored = save_checkpoint(model, card, tmp_path / "toy.safetensors")
    loaded, found = load_checkpoint(tmp_path / "toy.safetensors")
    assert found == stored
    assert not loaded.training
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    images = pictures(2)
    assert torch.equal(loaded(images).logits, model(images).logits)
    loaded.train()(images).logits.sum().backward()


def test_the_shipped_checkpoint_loads_and_is_what_its_card_says():
    model, card = load_checkpoint(SHIPPED)
    assert card.architecture.name == "morvit-fmnist"
    assert SHIPPED.stat().st_size < 8e6
    assert sum(weight.numel() for weight in model.parameters()) == card.architecture.parameters
    assert card.accuracy > 0.8
    assert card.survival[0] == 1.0


def test_complaints_about_files_have_their_own_exit_code(tmp_path):
    with pytest.raises(CorruptFile) as caught:
        load_checkpoint(tmp_path / "absent.safetensors")
    assert caught.value.exit_code == CORRUPT


def retold(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the header of a checkpoint."""
    content = checkpoint.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    checkpoint.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


HEADERS = {
    "dtype": (lambda h: h["prefix"].update(dtype="F16"), "should be F32"),
    "shape": (lambda h: h["prefix"].update(shape=[8, 1]), r"should be F32 \[1, 8\]"),
    "huge shape": (lambda h: h["prefix"].update(shape=[2**62]), "should be F32"),
    "lacking": (lambda h: h.pop("prefix"), "lacks tensor prefix"),
    "unknown": (lambda h: h.update(more=h["prefix"]), "unknown tensor more"),
    "outside": (lambda h: h["prefix"].update(data_offsets=[0, 2**50]), "does not lie"),
    "overlap": (lambda h: h["prefix"].update(data_offsets=h["positions"]["data_offsets"]), "lie"),
    "no object": (lambda h: h.update(prefix=3), "should be F32"),
    "odd offsets": (lambda h: h["prefix"].update(data_offsets="x"), "does not lie"),
    "notes": (lambda h: h.update(__metadata__={"a": [1]}), "notes"),
}


@pytest.mark.parametrize(("change", "complaint"), HEADERS.values(), ids=HEADERS)
def test_a_header_that_does_not_fit_is_refused_early(checkpoint, change, complaint):
    retold(checkpoint, change)
    with pytest.raises(CorruptFile, match=complaint):
        load_checkpoint(checkpoint)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("bomb"),))


def as_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()) + bytes(100_000))


def as_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()) + bytes(100_000))


def with_long_header(path: Path) -> None:
    path.write_bytes((2**62).to_bytes(8, "little") + b"{" + bytes(100_000))


def with_torn_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def with_a_tail(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def without_json(path: Path) -> None:
    path.write_bytes((9).to_bytes(8, "little") + b"{no json}" + bytes(100_000))


def with_deep_json(path: Path) -> None:
    deep = b'{"a":' * 100_000
    path.write_bytes(len(deep).to_bytes(8, "little") + deep)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (as_pickle, "never opened"),
        (as_zip, "never opened"),
        (with_long_header, "at most"),
        (with_torn_end, "bytes of tensors"),
        (with_a_tail, "bytes of tensors"),
        (without_json, "no JSON"),
        (with_deep_json, "no JSON"),
        (empty, "cannot hold"),
    ],
)
def test_a_file_of_another_kind_is_refused_early(checkpoint, spoil, complaint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    spoil(checkpoint)
    with pytest.raises(CorruptFile, match=complaint):
        load_checkpoint(checkpoint)
    assert not Path("bomb").exists()


def test_a_card_that_asks_for_more_than_the_file_holds_is_refused_early(checkpoint):
    huge = changed(width=8 * 2**20, heads=2, mlp_width=2**30)
    save(Card(**{**dict(CARD), "architecture": huge}), card_path(checkpoint))
    with pytest.raises(CorruptFile, match="cannot hold"):
        load_checkpoint(checkpoint)
    many = changed(recursions=10**9)
    save(Card(**{**dict(CARD), "architecture": many}), card_path(checkpoint))
    with pytest.raises(CorruptFile, match="cannot hold"):
        load_checkpoint(checkpoint)


def test_a_card_of_a_network_that_is_not_built_is_refused_early(checkpoint):
    headless = changed(prefix_tokens=0)
    save(Card(**{**dict(CARD), "architecture": headless}), card_path(checkpoint))
    with pytest.raises(CorruptFile, match="head reads CLS"):
        load_checkpoint(checkpoint)


def test_a_link_out_of_the_folder_is_refused_early(checkpoint, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = elsewhere / checkpoint.name
    link.symlink_to(checkpoint)
    card_path(link).write_bytes(card_path(checkpoint).read_bytes())
    with pytest.raises(CorruptFile, match="link out of its folder"):
        load_checkpoint(link)


def test_a_missing_or_broken_card_is_refused_early(checkpoint):
    card_path(checkpoint).write_text("{}")
    with pytest.raises(CorruptFile, match="no Card"):
        load_checkpoint(checkpoint)
    card_path(checkpoint).unlink()
    with pytest.raises(CorruptFile, match="no card"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(checkpoint, bad):
    model = network()
    with torch.no_grad():
        model.prefix[0, 0] = bad
    save_file(model.state_dict(), checkpoint)
    with pytest.raises(CorruptFile, match="NaN or infinity"):
        load_checkpoint(checkpoint)


def test_other_weights_than_the_card_tells_of_are_refused(checkpoint):
    save_file(network(seed=5).state_dict(), checkpoint)
    with pytest.raises(CorruptFile, match="checksums differ"):
        load_checkpoint(checkpoint)


def test_the_card_is_readable_by_itself(checkpoint):
    assert load(card_path(checkpoint), Card).architecture == TOY
    assert weights.card_path(SHIPPED).name == "morvit-fmnist.json"
