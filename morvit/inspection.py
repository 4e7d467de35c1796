"""The inspection task: photographs of real textures, with rendered defects of graded size and contrast.

Real texture, rendered defect: no photograph of a real defect is in it. Crops of brick, grass and
gravel (scikit-image, CC0) are turned, mirrored and lit; on all but the class `none` one defect is
drawn, which covers a few of the 196 patches. Training and test crops come from different halves of
each photograph. Everything follows from a seed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from domain.complaint import Complaint
from morvit.data import LabelledImages, Split
from morvit.tensors import Kind, read_tensors, write_tensors

TEXTURES = Path(__file__).resolve().parent / "sample" / "textures.safetensors"
PHOTOGRAPHS = ("brick", "grass", "gravel")
PHOTOGRAPH_SIDE, SIDE = 512, 224

Defect = Literal["none", "hole", "stain", "scratch", "crack"]
DEFECTS: tuple[Defect, ...] = ("none", "hole", "stain", "scratch", "crack")
# Grey levels that the middle of a defect lies above or below its surroundings.
LEAST_CONTRAST, MOST_CONTRAST = 40.0, 120.0
# A photograph has this mean and deviation before it is lit.
MEAN, DEVIATION = 128.0, 14.0

Plane = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """Images with their class, and how hard each is.

    `contrast` are grey levels, `extent` pixels (radius of a hole or stain, length of a line); both 0
    where there is no defect. `box` is the defect's (top, left, bottom, right).
    """

    labelled: LabelledImages
    contrast: NDArray[np.float64]
    extent: NDArray[np.float64]
    box: NDArray[np.int64]


def inspection(split: Split, count: int, seed: int = 0) -> Inspected:
    """`count` images of a split, grey, 224 × 224; as many of each class as of the others."""
    photographs = textures()
    random = np.random.default_rng([seed, int(split == "test")])
    images = np.empty((count, 1, SIDE, SIDE), dtype=np.uint8)
    labels = np.arange(count) % len(DEFECTS)
    contrast, extent = np.zeros(count), np.zeros(count)
    box = np.zeros((count, 4), dtype=np.int64)
    for place, label in enumerate(labels):
        background = _background(photographs, split, random)
        drawing, extent[place] = DRAWINGS[DEFECTS[label]](random)
        if drawing.any():
            contrast[place] = random.uniform(LEAST_CONTRAST, MOST_CONTRAST)
            box[place] = _box(drawing)
        background += _sign(DEFECTS[label], random) * contrast[place] * drawing
        images[place, 0] = background.clip(0, 255).round()
    order = random.permutation(count)
    return Inspected(
        labelled=LabelledImages(
            images=torch.from_numpy(images[order]),
            labels=torch.from_numpy(labels[order]),
            names=DEFECTS,
            origin=f"inspection, {split} set: {count} real textures with rendered defects, seed {seed}",
        ),
        contrast=contrast[order],
        extent=extent[order],
        box=box[order],
    )


def textures() -> NDArray[np.uint8]:
    """The shipped photographs, grey: brick, grass, gravel (each 512 × 512)."""
    shape = (PHOTOGRAPH_SIDE, PHOTOGRAPH_SIDE)
    stored, _, _ = read_tensors(TEXTURES, {name: Kind("U8", shape) for name in PHOTOGRAPHS})
    return np.stack([stored[name].numpy() for name in PHOTOGRAPHS])


def write_textures(path: Path = TEXTURES) -> None:
    """Make the shipped photographs again from scikit-image."""
    try:
        from skimage import data
    except ImportError as error:
        raise Complaint("the photographs are in scikit-image; install the extra `train`") from error
    write_tensors(
        path,
        {name: torch.from_numpy(np.asarray(getattr(data, name)())) for name in PHOTOGRAPHS},
        {"origin": "scikit-image: brick, grass and gravel, photographs in the public domain (CC0)"},
    )


def _background(photographs: NDArray[np.uint8], split: Split, random: np.random.Generator) -> Plane:
    """A lit crop of one photograph: its left half is for training, its right half for tests."""
    photograph = photographs[random.integers(len(photographs))]
    half = PHOTOGRAPH_SIDE // 2
    top = random.integers(PHOTOGRAPH_SIDE - SIDE + 1)
    left = random.integers(half - SIDE + 1) + half * (split == "test")
    crop = photograph[top : top + SIDE, left : left + SIDE].astype(np.float64)
    crop = np.rot90(crop, int(random.integers(4)))
    if random.random() < 0.5:
        crop = crop[:, ::-1]
    crop = (crop - photograph.mean()) / photograph.std() * DEVIATION + MEAN
    ramp = np.linspace(-1, 1, SIDE)
    light = random.uniform(-15, 15) * ramp[:, None] + random.uniform(-15, 15) * ramp
    return (crop - MEAN) * random.uniform(0.8, 1.2) + MEAN + random.uniform(-20, 20) + light


def _hole(random: np.random.Generator) -> tuple[Plane, float]:
    """A dark disc."""
    radius = random.uniform(6, 18)
    row, column = random.uniform(radius, SIDE - radius, 2)
    return _edge(radius - _distance(row, column)), radius


def _stain(random: np.random.Generator) -> tuple[Plane, float]:
    """A few blots that run into each other, without a sharp edge."""
    radius = random.uniform(14, 34)
    row, column = random.uniform(radius, SIDE - radius, 2)
    plane = np.zeros((SIDE, SIDE))
    for _ in range(4):
        step = random.normal(0, 0.4 * radius, 2)
        spread = random.uniform(0.35, 0.6) * radius
        plane = np.maximum(
            plane, np.exp(-0.5 * (_distance(row + step[0], column + step[1]) / spread) ** 2)
        )
    return np.where(plane > 0.05, plane, 0.0), radius


def _scratch(random: np.random.Generator) -> tuple[Plane, float]:
    """A long thin arc."""
    length, angle = random.uniform(50, 150), random.uniform(0, 2 * math.pi)
    bend = random.uniform(-0.6, 0.6)
    angles = angle + bend * np.linspace(0, 1, 12)
    return _line(angles, length / len(angles), random.uniform(1.2, 2.4), random), length


def _crack(random: np.random.Generator) -> tuple[Plane, float]:
    """A jagged line."""
    length, angle = random.uniform(50, 150), random.uniform(0, 2 * math.pi)
    steps = max(5, round(length / 9))
    angles = angle + random.normal(0, 0.75, steps)
    return _line(angles, length / steps, random.uniform(1.2, 2.4), random), length


def _nothing(random: np.random.Generator) -> tuple[Plane, float]:
    return np.zeros((SIDE, SIDE)), 0.0


DRAWINGS: dict[Defect, Callable[[np.random.Generator], tuple[Plane, float]]] = {
    "none": _nothing,
    "hole": _hole,
    "stain": _stain,
    "scratch": _scratch,
    "crack": _crack,
}


def _sign(defect: Defect, random: np.random.Generator) -> float:
    """Holes and cracks are dark, a scratch shines, a stain may be either."""
    if defect == "stain":
        return 1.0 if random.random() < 0.5 else -1.0
    return 1.0 if defect == "scratch" else -1.0


def _line(
    angles: NDArray[np.float64], step: float, half_width: float, random: np.random.Generator
) -> Plane:
    """How far each pixel is covered by a line of so many steps, somewhere inside the image."""
    steps = step * np.stack([np.sin(angles), np.cos(angles)])
    points = np.concatenate([np.zeros((2, 1)), steps.cumsum(axis=1)], axis=1)
    margin = 4.0
    low, high = points.min(axis=1), points.max(axis=1)
    room = np.maximum(SIDE - 2 * margin - (high - low), 0.0)
    points = points - (low - margin - room * random.random(2))[:, None]
    nearest = np.full((SIDE, SIDE), np.inf)
    for (row, column), (next_row, next_column) in zip(points.T[:-1], points.T[1:], strict=True):
        nearest = np.minimum(nearest, _to_segment(row, column, next_row, next_column))
    return _edge(half_width - nearest)


def _to_segment(row: float, column: float, next_row: float, next_column: float) -> Plane:
    """Pixels from the segment between two points."""
    down, right = next_row - row, next_column - column
    rows, columns = ROWS - row, COLUMNS - column
    along = ((rows * down + columns * right) / (down**2 + right**2)).clip(0, 1)
    return np.hypot(rows - along * down, columns - along * right)


def _distance(row: float, column: float) -> Plane:
    return np.hypot(ROWS - row, COLUMNS - column)


def _edge(inside: Plane) -> Plane:
    """Coverage of a pixel whose middle lies so far inside an outline."""
    return (inside + 0.5).clip(0, 1)


def _box(drawing: Plane) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(drawing > 0.1)
    return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1


ROWS: Plane = np.arange(SIDE, dtype=np.float64)[:, None]
COLUMNS: Plane = np.arange(SIDE, dtype=np.float64)[None, :]
