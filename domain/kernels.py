"""Kernel timings that others published: matrix products by shape, one row a device and row count."""

import functools
from pathlib import Path

from pydantic import ValidationError

from domain import columns
from domain.complaint import CorruptFile, first_error
from domain.record import Identifier, Positive, PositiveCount, Record, Sentence
from domain.units import MILLI

FILE = Path(__file__).parent / "catalogue" / "published" / "kernels" / "gemm_bf16.csv"
# Widths whose four products (query-key-value, projection, both of the MLP) the file holds.
WIDTHS = (256, 512, 1024, 2048)


def sites_of(width: int) -> tuple[tuple[int, int], ...]:
    """Columns and inner size of the four products of a layer.

    >>> sites_of(256)
    ((768, 256), (256, 256), (1024, 256), (256, 1024))
    """
    return ((3 * width, width), (width, width), (4 * width, width), (width, 4 * width))


SITES = tuple(site for width in WIDTHS for site in sites_of(width))


class GemmRow(Record):
    """Seconds of one bf16 product (rows × inner)·(inner × columns) for each (columns, inner) of `SITES`.

    Launched in a graph, with what it reads warm in the cache.
    """

    device_id: Identifier
    rows: PositiveCount
    seconds: tuple[Positive, ...]
    framework: Sentence
    source_repo: Sentence
    source_path: Sentence
    source_commit: Sentence
    licence: Sentence


@functools.cache
def gemm_rows() -> tuple[GemmRow, ...]:
    """Every row of the file. Raises CorruptFile with the line that is wrong."""
    rows = []
    for line, cells in columns.rows_of(FILE, _GEMM):
        seconds = tuple(cells.pop(_name(site)) for site in SITES)
        try:
            rows.append(GemmRow(**cells, seconds=seconds))
        except ValidationError as error:
            raise CorruptFile(f"{FILE}:{line}: {first_error(error)}") from error
    return tuple(rows)


def _name(site: tuple[int, int]) -> str:
    return f"n{site[0]}_k{site[1]}_ms"


_GEMM = columns.named(
    device_id=columns.text,
    m=columns.Column("rows", columns.whole),
    **{_name(site): columns.scaled(MILLI) for site in SITES},
    framework=columns.text,
    source_repo=columns.text,
    source_path=columns.text,
    source_commit=columns.text,
    licence=columns.text,
)
