import gzip
import struct

import pytest
import torch

from domain.complaint import Complaint, CorruptFile
from morvit import data
from morvit.data import (
    DEBIAN_FOLDER,
    fashion_mnist,
    held_out,
    image_folder,
    normalised,
    read_idx,
    sample_images,
)

needs_fashion = pytest.mark.skipif(
    not DEBIAN_FOLDER.exists(), reason="Debian package dataset-fashion-mnist is not installed"
)


def idx(path, shape, content, magic=None):
    header = (magic or bytes([0, 0, 8, len(shape)])) + struct.pack(f">{len(shape)}I", *shape)
    path.write_bytes(gzip.compress(header + content))
    return path


def test_the_shipped_sample_is_512_images_with_labels_of_every_class():
    images, labels = sample_images()
    assert images.shape == (512, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert labels.unique().tolist() == list(range(10))
    assert data.SAMPLE.stat().st_size < 500_000


@needs_fashion
def test_the_shipped_sample_is_the_head_of_the_test_set(tmp_path):
    images, labels = sample_images()
    test = fashion_mnist("test")
    assert torch.equal(test.images[:512], images)
    assert torch.equal(test.labels[:512], labels)
    data.write_sample(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == data.SAMPLE.read_bytes()


def test_the_licence_lies_beside_the_sample():
    assert "Zalando SE" in (data.SAMPLE.parent / "LICENSE").read_text()
    assert "first 512 images" in (data.SAMPLE.parent / "README.md").read_text()


def test_normalised_pixels_are_centred():
    images, _ = sample_images()
    pixels = normalised(images)
    assert abs(float(pixels.mean())) < 0.1
    assert abs(float(pixels.std()) - 1) < 0.1


def test_an_idx_file_gives_back_what_was_written(tmp_path):
    path = idx(tmp_path / "a.gz", (2, 1, 3), bytes(range(6)))
    assert read_idx(path, axes=3).tolist() == [[[0, 1, 2]], [[3, 4, 5]]]


@pytest.mark.parametrize(
    ("shape", "content", "magic", "complaint"),
    [
        ((2, 2, 2), bytes(7), None, "holds only 7"),
        ((2, 2, 2), bytes(9), None, "holds more"),
        ((0, 2, 2), b"", None, "states a shape"),
        ((2**32 - 1, 2, 2), b"", None, "states a shape"),
        ((2, 2**31, 2**31), b"", None, "states a shape"),
        ((2_000_000, 4096, 4096), b"", None, "over 1073741824 bytes"),
        ((2, 2, 2), bytes(8), bytes([0, 0, 13, 3]), "no IDX file"),
        ((8,), bytes(8), None, "no IDX file"),
    ],
)
def test_hostile_idx_headers_are_refused(tmp_path, shape, content, magic, complaint):
    with pytest.raises(CorruptFile, match=complaint):
        read_idx(idx(tmp_path / "bad.gz", shape, content, magic), axes=3)


@pytest.mark.parametrize("cut", [0, 5, 20, -4])
def test_torn_gzip_files_are_refused(tmp_path, cut):
    path = idx(tmp_path / "torn.gz", (2, 2, 2), bytes(range(8)))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CorruptFile):
        read_idx(path, axes=3)


def test_a_file_that_is_no_gzip_is_refused(tmp_path):
    (tmp_path / "plain.gz").write_bytes(b"plain text")
    with pytest.raises(CorruptFile, match="as gzip"):
        read_idx(tmp_path / "plain.gz", axes=1)


def test_an_absent_data_set_says_how_to_get_it(tmp_path):
    with pytest.raises(Complaint, match="install the Debian package dataset-fashion-mnist"):
        fashion_mnist("train", tmp_path)


@pytest.mark.parametrize(
    ("labels", "complaint"), [(b"\0\1\2", "2 test images but 3 labels"), (b"\0\12", "has label 10")]
)
def test_labels_must_fit_the_images(tmp_path, labels, complaint):
    idx(tmp_path / "t10k-images-idx3-ubyte.gz", (2, 2, 2), bytes(8))
    idx(tmp_path / "t10k-labels-idx1-ubyte.gz", (len(labels),), labels)
    with pytest.raises(CorruptFile, match=complaint):
        fashion_mnist("test", tmp_path)


def test_png_folders_become_labelled_images(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name, colour in (("bolt", (255, 0, 0)), ("nut", (0, 0, 255))):
        (tmp_path / name).mkdir()
        for place in range(3):
            image.new("RGB", (9, 7), colour).save(tmp_path / name / f"{place}.png")
    found = image_folder(tmp_path, image_size=8, channels=3)
    assert found.names == ("bolt", "nut")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.images[0, :, 0, 0].tolist() == [255, 0, 0]
    assert image_folder(tmp_path, image_size=8, channels=1).images.shape == (6, 1, 8, 8)
    train, test = held_out(found, every=3)
    assert (len(train.labels), test.labels.tolist()) == (4, [0, 1])


def test_folders_without_classes_or_readable_images_are_refused(tmp_path):
    pytest.importorskip("PIL.Image")
    with pytest.raises(Complaint, match="class folders"):
        image_folder(tmp_path, image_size=8, channels=1)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(Complaint, match=r"class/name\.png"):
        image_folder(tmp_path, image_size=8, channels=1)
    (tmp_path / "a" / "x.png").write_bytes(b"no picture")
    with pytest.raises(CorruptFile, match="as PNG"):
        image_folder(tmp_path, image_size=8, channels=1)
    with pytest.raises(Complaint, match="cannot read folder"):
        image_folder(tmp_path / "nowhere", image_size=8, channels=1)
    with pytest.raises(Complaint, match="grey"):
        image_folder(tmp_path, image_size=8, channels=4)
