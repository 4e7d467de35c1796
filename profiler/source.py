"""Whose network and whose images are measured: the shipped ones, or the user's own."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from morvit.data import FASHION_CLASSES, image_folder, sample_images
from morvit.model import MoRViT
from morvit.weights import SHIPPED, Card, load_checkpoint
from profiler.messages import Source


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images as bytes, with labels, the names of the labels, and where they come from."""

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    origin: str


@lru_cache(maxsize=1)
def network_of(source: Source) -> tuple[MoRViT, Card]:
    """The network and its card. Raises CorruptFile for a file that is none."""
    return load_checkpoint(checkpoint_of(source))


def checkpoint_of(source: Source) -> Path:
    """The safetensors file."""
    return Path(source.checkpoint) if source.checkpoint else SHIPPED


def weights_of(source: Source, card: Card) -> str:
    """What a record says of the weights it was measured with."""
    kind = "checkpoint" if source.checkpoint else "shipped"
    return f"{kind} {checkpoint_of(source).name}, sha256 {card.weights_sha256[:16]}"


@lru_cache(maxsize=4)
def pictures_of(source: Source, side: int, channels: int) -> Pictures:
    """Images to show; those of a folder are resized to `side`, the sample is as it is shipped."""
    if not source.images:
        images, labels = sample_images()
        return Pictures(images=images, labels=labels, names=FASHION_CLASSES, origin="sample images")
    folder = Path(source.images)
    found = image_folder(folder, side, channels)
    return Pictures(
        images=found.images,
        labels=found.labels,
        names=found.names,
        origin=f"images of {folder.name}",
    )
