import pytest
import torch

from domain.complaint import Complaint, CorruptFile

image = pytest.importorskip("PIL.Image")
pytest.importorskip("torchvision")
from morvit.streamed import StreamedFolder  # noqa: E402 - after what it needs


@pytest.fixture
def folder(tmp_path):
    for place, name in enumerate(("cat", "dog", "owl")):
        (tmp_path / name).mkdir()
        for number in range(3):
            shade = (80 * place, 10 * number, 0)
            image.new("RGB", (40 + number, 30), shade).save(tmp_path / name / f"{number}.jpeg")
    return tmp_path


def test_images_are_cropped_to_one_size_and_keep_their_class(folder):
    data = StreamedFolder(folder, 16)
    images, labels = data.batch(torch.tensor([0, 4, 8]))
    assert len(data) == 9
    assert data.names == ("cat", "dog", "owl")
    assert images.shape == (3, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert labels.tolist() == [0, 1, 2]
    assert images[:, 0].float().mean(dim=(1, 2)).round().tolist() == pytest.approx(
        [0, 80, 160], abs=4
    )


def test_some_of_it_comes_from_every_class(folder):
    assert StreamedFolder(folder, 16, channels=1).first(3).labels.tolist() == [0, 1, 2]


def test_a_file_that_is_no_image_is_named(folder):
    (folder / "cat" / "0.jpeg").write_bytes(b"no image")
    with pytest.raises(CorruptFile, match=r"0\.jpeg as JPEG or PNG or"):
        StreamedFolder(folder, 16).batch(torch.tensor([0]))


def test_folders_that_cannot_be_trained_on_are_refused(folder, tmp_path):
    with pytest.raises(Complaint, match="cannot read folder"):
        StreamedFolder(tmp_path / "nowhere", 16)
    single = tmp_path / "single"
    (single / "one").mkdir(parents=True)
    image.new("RGB", (8, 8)).save(single / "one" / "0.png")
    with pytest.raises(Complaint, match="wanted 2 to"):
        StreamedFolder(single, 16)
    with pytest.raises(Complaint, match="grey"):
        StreamedFolder(folder, 16, channels=2)


def test_a_stated_size_without_end_is_refused_before_it_is_read(folder):
    import struct
    import zlib

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")
    (folder / "cat" / "0.jpeg").write_bytes(bomb)
    with pytest.raises(CorruptFile, match=r"0\.jpeg"):
        StreamedFolder(folder, 16).batch(torch.tensor([0]))
