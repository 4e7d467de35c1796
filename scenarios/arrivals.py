"""A recorded trace of arrivals: a CSV file of seconds, one row an image or a burst of several."""

import csv
import hashlib
import io
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domain.complaint import CorruptFile
from domain.demand import Recording
from domain.store import read_limited

LARGEST_TRACE_BYTES = 64 * 2**20
MOST_IMAGES = 2_000_000
HEADS = (["arrived_s"], ["arrived_s", "images"])


def read_arrivals(path: Path) -> NDArray[np.float64]:
    """Seconds at which each image arrived, in order. Raises CorruptFile with the line.

    The file has the column `arrived_s`, never falling, and may have `images`, a count of one or
    more that arrived at that instant.
    """
    content = read_limited(path, LARGEST_TRACE_BYTES)
    try:
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig")), strict=True)
        head = next(rows, [])
        if head not in HEADS:
            raise ValueError(f"wanted the columns arrived_s or arrived_s,images, got {head[:4]}")
        times: list[float] = []
        for number, row in enumerate(rows, start=2):
            times += _row(row, len(head), number, times[-1] if times else -math.inf)
            if len(times) > MOST_IMAGES:
                raise ValueError(f"line {number}: wanted up to {MOST_IMAGES:,} images, got more")
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise CorruptFile(f"{path} is no trace of arrivals: {error}") from error
    if len(times) < 2 or times[-1] <= times[0]:
        raise CorruptFile(f"{path} is no trace of arrivals: wanted two instants or more")
    return np.asarray(times)


def _row(row: list[str], width: int, number: int, before: float) -> list[float]:
    if len(row) != width:
        raise ValueError(f"line {number}: wanted {width} cells, got {len(row)}")
    time_s = float(row[0])
    count = row[1] if width == 2 else "1"
    if not (math.isfinite(time_s) and 0 <= time_s <= 1e10 and time_s >= before):
        raise ValueError(
            f"line {number}: wanted seconds of zero or more that never fall, got {row[0][:40]!r}"
        )
    if not (
        count.isascii() and count.isdigit() and len(count) <= 7 and 1 <= int(count) <= MOST_IMAGES
    ):
        raise ValueError(f"line {number}: wanted a count of images, got {count[:40]!r}")
    return [time_s] * int(count)


def recording_of(path: Path, times_s: NDArray[np.float64]) -> Recording:
    """What a trace says of itself."""
    return described(times_s, hashlib.sha256(path.read_bytes()).hexdigest())


def described(times_s: NDArray[np.float64], sha256: str) -> Recording:
    """What arrivals from that file are like. Their span is one mean gap more than it shows."""
    bursts, sizes = np.unique(times_s, return_counts=True)
    gaps = np.diff(bursts)
    span_s = float((times_s[-1] - times_s[0]) * len(bursts) / (len(bursts) - 1))
    return Recording(
        sha256=sha256,
        images=len(times_s),
        span_s=span_s,
        gap_variation=float(gaps.var() / gaps.mean() ** 2),
        largest_burst=int(sizes.max()),
    )


def thinned(
    times_s: NDArray[np.float64], share: float, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each image to the one side with that probability, else to the other, whatever came before.

    What a dispatcher does that looks at nothing; of Poisson arrivals it makes two such streams.
    """
    is_of_one = random.random(len(times_s)) < share
    return times_s[is_of_one], times_s[~is_of_one]


def at_rate(times_s: NDArray[np.float64], img_per_s: float) -> NDArray[np.float64]:
    """The same pattern from time zero on, stretched to a mean rate."""
    assert all(later >= earlier for earlier, later in pairwise(times_s[:2])), "read in order"
    started = times_s - times_s[0]
    bursts = len(np.unique(times_s))
    span_s = started[-1] * bursts / (bursts - 1)
    return np.asarray(started * (len(times_s) / img_per_s / span_s))
