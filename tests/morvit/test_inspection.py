import hashlib

import numpy as np
import pytest
import torch

from domain.complaint import CorruptFile
from morvit import inspection as room
from morvit.inspection import DEFECTS, DRAWINGS, SIDE, inspection, textures


@pytest.fixture(scope="module")
def some():
    return inspection("train", 25, seed=3)


def test_a_seed_decides_every_pixel_and_a_split_has_pixels_of_its_own(some):
    again, other, test = (
        inspection("train", 25, seed=3), inspection("train", 25, seed=4), inspection("test", 25, seed=3)
    )  # fmt: skip
    assert torch.equal(some.labelled.images, again.labelled.images)
    digests = {
        hashlib.sha256(each.labelled.images.numpy().tobytes()).hexdigest()
        for each in (some, other, test)
    }
    assert len(digests) == 3


def test_every_class_is_as_frequent_as_the_others_and_in_a_drawn_order(some):
    labels = some.labelled.labels
    assert torch.bincount(labels).tolist() == [5] * len(DEFECTS)
    assert labels.tolist() != sorted(labels.tolist())
    assert some.labelled.images.shape == (25, 1, SIDE, SIDE)


def test_what_has_no_defect_has_neither_contrast_nor_box(some):
    is_whole = some.labelled.labels.numpy() == DEFECTS.index("none")
    assert (some.contrast[is_whole] == 0).all()
    assert (some.box[is_whole] == 0).all()
    assert (some.contrast[~is_whole] >= room.LEAST_CONTRAST).all()
    top, left, bottom, right = some.box[~is_whole].T
    assert ((top < bottom) & (left < right) & (bottom <= SIDE) & (right <= SIDE)).all()


@pytest.mark.parametrize("name", [name for name in DEFECTS if name != "none"])
def test_a_defect_covers_something_and_little_of_the_image(name):
    for seed in range(8):
        drawing, extent = DRAWINGS[name](np.random.default_rng(seed))
        assert drawing.shape == (SIDE, SIDE)
        assert 0 <= drawing.min() <= drawing.max() <= 1
        assert drawing.max() > 0.9
        assert 0 < (drawing > 0.1).mean() < 0.15
        assert extent > 0


def test_training_and_test_crops_share_no_pixel_of_a_photograph(monkeypatch):
    marked = np.zeros((3, 512, 512), dtype=np.uint8)
    marked[:, :, :256] = 40 + (np.arange(512) % 2)[:, None]
    marked[:, :, 256:] = 200 + (np.arange(512) % 2)[:, None]
    random = np.random.default_rng(0)
    for split, level in (("train", 40), ("test", 200)):
        for _ in range(20):
            seen = []
            monkeypatch.setattr(
                np, "rot90", lambda crop, turns, seen=seen: seen.append(crop) or crop
            )
            room._background(marked, split, random)
            assert set(np.unique(seen[0])) == {level, level + 1}


def test_the_shipped_photographs_are_those_of_scikit_image(tmp_path):
    data = pytest.importorskip("skimage.data")
    for name, stored in zip(room.PHOTOGRAPHS, textures(), strict=True):
        assert np.array_equal(stored, getattr(data, name)())
    room.write_textures(tmp_path / "textures.safetensors")
    assert (tmp_path / "textures.safetensors").read_bytes() == room.TEXTURES.read_bytes()


def test_damaged_photographs_are_refused(tmp_path, monkeypatch):
    torn = tmp_path / "textures.safetensors"
    torn.write_bytes(room.TEXTURES.read_bytes()[:-5])
    monkeypatch.setattr(room, "TEXTURES", torn)
    with pytest.raises(CorruptFile, match="bytes of tensors"):
        inspection("train", 1)
