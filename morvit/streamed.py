"""Image folders too large for memory, ImageNet-1K among them: read batch by batch through torchvision."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from domain.complaint import Complaint, CorruptFile, printable
from morvit.data import MOST_CLASSES, LabelledImages, opened_picture

# The shorter side is brought to this over the side of the crop (224 of 256, as ViT and DeiT do).
CROP_SHARE = 0.875
READERS = 4
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")


class StreamedFolder:
    """Images as `folder/class/any name`, RGB or grey, resized and cropped in the middle when read.

    What torchvision's ImageFolder lists; ImageNet's `train` and `val` folders are such. Raises
    Complaint without torchvision, or where there are no two classes; CorruptFile for a file that is
    no image, when it is read.
    """

    def __init__(self, folder: Path, image_size: int, channels: int = 3) -> None:
        try:
            from torchvision.datasets import ImageFolder
        except ImportError as error:
            raise Complaint(
                "large image folders take torchvision; install the extra `peers`"
            ) from error
        if channels not in (1, 3):
            raise Complaint(f"a folder gives grey (1) or RGB (3) images, got {channels}")
        try:
            self._files = ImageFolder(str(folder))
        except OSError as error:
            raise Complaint(f"cannot read folder {folder}: {error}") from error
        if not 2 <= len(self._files.classes) <= MOST_CLASSES:
            raise Complaint(
                f"wanted 2 to {MOST_CLASSES} class folders in {folder}, got "
                f"{len(self._files.classes)}"
            )
        self._mode = "L" if channels == 1 else "RGB"
        self._shape = (channels, image_size, image_size)
        self.names = tuple(printable(name) for name in self._files.classes)
        self.origin = f"image folder {folder.name}"

    def __len__(self) -> int:
        return len(self._files.samples)

    def batch(
        self, chosen: Int[Tensor, " batch"]
    ) -> tuple[UInt8[Tensor, "batch channels rows columns"], Int[Tensor, " batch"]]:
        """The images at these places, and their labels."""
        files = [self._files.samples[place] for place in chosen.tolist()]
        images = torch.empty(len(files), *self._shape, dtype=torch.uint8)

        def read(place: int) -> None:
            images[place] = self._read(Path(files[place][0]))

        with ThreadPoolExecutor(READERS) as readers:
            for _ in readers.map(read, range(len(files))):
                pass
        return images, torch.tensor([label for _, label in files])

    def first(self, count: int) -> LabelledImages:
        """So many of its images in memory, evenly from all of it."""
        places = torch.linspace(0, len(self) - 1, min(count, len(self))).long()
        images, labels = self.batch(places)
        return LabelledImages(images=images, labels=labels, names=self.names, origin=self.origin)

    def _read(self, path: Path) -> UInt8[Tensor, "channels rows columns"]:
        from PIL import Image

        if not path.is_file():
            raise CorruptFile(f"{printable(str(path))} is no plain file")
        side = self._shape[-1]
        with opened_picture(path, FORMATS) as picture:
            # The middle is cut out before anything is resized, so that a thin image stays small.
            width, height = picture.size
            half = CROP_SHARE * min(width, height) / 2
            middle = (width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half)
            cropped = picture.convert(self._mode).resize(
                (side, side), Image.Resampling.BILINEAR, box=middle
            )
        pixels = torch.from_numpy(np.array(cropped))
        return pixels.view(side, side, -1).permute(2, 0, 1)
