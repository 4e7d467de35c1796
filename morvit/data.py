"""Images with labels: Fashion-MNIST, folders of class/name.png, and a small sample shipped here."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from domain.complaint import Complaint, CorruptFile, printable
from morvit.tensors import Kind, read_tensors, write_tensors

if TYPE_CHECKING:
    from PIL import Image

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SAMPLE = Path(__file__).resolve().parent / "sample" / "fashion-mnist-512.safetensors"
SAMPLE_IMAGES = 512

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# Mean and deviation of Fashion-MNIST's training pixels, from 0 to 1; any other image gets the same.
PIXEL_MEAN, PIXEL_DEVIATION = 0.2860, 0.3530

MOST_IMAGES = 2_000_000
LARGEST_SIDE = 4096
LARGEST_IDX_BYTES = 2**30
MOST_FOLDER_IMAGES = 200_000
MOST_CLASSES = 10_000

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images as grey levels or colours 0-255, the class of each, and the names of the classes."""

    images: UInt8[Tensor, "images channels rows columns"]
    labels: Int[Tensor, " images"]
    names: tuple[str, ...]
    origin: str

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, chosen: Int[Tensor, " batch"]
    ) -> tuple[UInt8[Tensor, "batch channels rows columns"], Int[Tensor, " batch"]]:
        """The images at these places, and their labels."""
        return self.images[chosen], self.labels[chosen]


def normalised(
    images: UInt8[Tensor, "images channels rows columns"],
) -> Float[Tensor, "images channels rows columns"]:
    """Pixels as the network takes them: mean near zero, deviation near one."""
    return (images.float() / 255 - PIXEL_MEAN) / PIXEL_DEVIATION


def sample_images() -> tuple[UInt8[Tensor, "images channels rows columns"], Int[Tensor, " images"]]:
    """The shipped sample: the first 512 test images of Fashion-MNIST and their labels."""
    expected = {
        "images": Kind("U8", (SAMPLE_IMAGES, 1, 28, 28)),
        "labels": Kind("U8", (SAMPLE_IMAGES,)),
    }
    tensors, _, _ = read_tensors(SAMPLE, expected)
    return tensors["images"], tensors["labels"].long()


def write_sample(path: Path, folder: Path = DEBIAN_FOLDER) -> None:
    """Make the shipped sample again from the data set."""
    test = fashion_mnist("test", folder)
    first = slice(SAMPLE_IMAGES)
    write_tensors(path, {"images": test.images[first], "labels": test.labels[first].byte()})


def fashion_mnist(split: Split, folder: Path = DEBIAN_FOLDER) -> LabelledImages:
    """Fashion-MNIST from its four IDX files. Raises CorruptFile for a damaged or hostile one."""
    part = "train" if split == "train" else "t10k"
    images_path = folder / f"{part}-images-idx3-ubyte.gz"
    if not images_path.exists():
        raise Complaint(
            f"no Fashion-MNIST in {folder} (looked for {images_path.name}); install the Debian "
            "package dataset-fashion-mnist or name the folder with --data"
        )
    images = read_idx(images_path, axes=3)
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz", axes=1)
    if len(images) != len(labels):
        raise CorruptFile(f"{folder} has {len(images)} {split} images but {len(labels)} labels")
    if int(labels.max()) >= len(FASHION_CLASSES):
        raise CorruptFile(f"{folder} has label {int(labels.max())}; Fashion-MNIST has 0 to 9")
    return LabelledImages(
        images=images.unsqueeze(1),
        labels=labels.long(),
        names=FASHION_CLASSES,
        origin=f"Fashion-MNIST, {split} set",
    )


def read_idx(path: Path, axes: int) -> UInt8[Tensor, "..."]:
    """One gzipped IDX file of bytes with that many axes.

    The header is checked before anything of the size it states is read.
    """
    try:
        with gzip.open(path) as file:
            header = file.read(4 + 4 * axes)
            shape = _idx_shape(header, axes, path)
            size = int(np.prod(shape, dtype=np.int64))
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptFile(f"cannot read {path} as gzip: {error}") from error
    if len(content) != size:
        more = "more" if len(content) > size else f"only {len(content)}"
        raise CorruptFile(f"{path} states {size} bytes of data and holds {more}")
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).reshape(shape).copy())


def _idx_shape(header: bytes, axes: int, path: Path) -> tuple[int, ...]:
    if len(header) != 4 + 4 * axes or header[:4] != bytes([0, 0, 8, axes]):
        raise CorruptFile(f"{path} is no IDX file of bytes with {axes} axes")
    shape = tuple(int(side) for side in np.frombuffer(header[4:], dtype=">u4"))
    count, *sides = shape
    if not 1 <= count <= MOST_IMAGES or not all(1 <= side <= LARGEST_SIDE for side in sides):
        raise CorruptFile(
            f"{path} states a shape of {shape}; wanted 1 to {MOST_IMAGES} items with sides of 1 to "
            f"{LARGEST_SIDE}"
        )
    if int(np.prod(shape, dtype=np.int64)) > LARGEST_IDX_BYTES:
        raise CorruptFile(f"{path} states a shape of {shape}, over {LARGEST_IDX_BYTES} bytes")
    return shape


def image_folder(folder: Path, image_size: int, channels: int) -> LabelledImages:
    """Images in `folder/class/name.png`, classes in the order of their names, made square.

    Pillow does the reading; it is no dependency of this package. Raises Complaint without it.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise Complaint("reading PNG folders takes Pillow; run `pip install pillow`") from error

    if channels not in (1, 3):
        raise Complaint(f"a folder gives grey (1) or RGB (3) images, the network takes {channels}")
    classes = sorted(entry.name for entry in _entries(folder) if entry.is_dir())
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise Complaint(
            f"wanted 2 to {MOST_CLASSES} class folders with PNG files in {folder}, got "
            f"{len(classes)}"
        )
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).glob("*.png"))
    ]
    if not 1 <= len(files) <= MOST_FOLDER_IMAGES:
        raise Complaint(
            f"wanted 1 to {MOST_FOLDER_IMAGES} files class/name.png in {folder}, got {len(files)}"
        )
    images = np.empty((len(files), image_size, image_size, channels), dtype=np.uint8)
    for place, (path, _) in enumerate(files):
        with opened_picture(path, ("PNG",)) as picture:
            fitted = picture.convert("L" if channels == 1 else "RGB").resize(
                (image_size, image_size), Image.Resampling.BILINEAR
            )
        images[place] = np.asarray(fitted).reshape(image_size, image_size, channels)
    return LabelledImages(
        images=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        labels=torch.tensor([label for _, label in files]),
        names=tuple(printable(name) for name in classes),
        origin=f"PNG folders {folder.name}",
    )


@contextmanager
def opened_picture(path: Path, formats: tuple[str, ...]) -> Iterator["Image.Image"]:
    """A picture of one of Pillow's `formats`, its pixels not read yet, its size looked at.

    Raises CorruptFile for what is none, or was made to harm; also while it is read inside.
    """
    from PIL import Image, UnidentifiedImageError

    named = printable(str(path))
    try:
        with Image.open(path, formats=formats) as picture:
            if max(picture.size) > LARGEST_SIDE:
                raise CorruptFile(f"{named} is {picture.size}; sides go up to {LARGEST_SIDE}")
            yield picture
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        ValueError,
        SyntaxError,
    ) as error:
        raise CorruptFile(f"cannot read {named} as {' or '.join(formats)}: {error}") from error


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise Complaint(f"cannot read folder {folder}: {error.strerror}") from error


def held_out(data: LabelledImages, every: int = 6) -> tuple[LabelledImages, LabelledImages]:
    """The data split in two: one image in `every` is for testing, the rest for training."""
    place = torch.arange(len(data.labels))
    is_test = place % every == every - 1
    train, test = (
        LabelledImages(
            images=data.images[chosen],
            labels=data.labels[chosen],
            names=data.names,
            origin=f"{data.origin}, {part}",
        )
        for chosen, part in ((~is_test, "training part"), (is_test, f"every {every}th image"))
    )
    return train, test
