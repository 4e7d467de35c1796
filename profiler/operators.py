"""The operators of this family of networks by size and precision, and how much work each is.

The four products of a layer at widths 96 to 768, attention over 4 to 577 tokens, layer norm with
GELU and residual, rows gathered and put back as the packed executor does.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from domain.device import BYTES_OF
from domain.measurement import Rates
from domain.microbenchmark import OperatorClass, OperatorPoint
from domain.record import Precision, Unknown
from profiler.clock import DeviceKind

PRECISIONS_OF: dict[DeviceKind, tuple[Precision, ...]] = {
    "cpu": ("fp32", "bf16"),
    "cuda": ("fp32", "tf32", "fp16", "bf16"),
}
USUAL: dict[DeviceKind, tuple[Precision, ...]] = {"cpu": ("fp32",), "cuda": ("fp32", "bf16")}

HEADS = {96: 3, 192: 3, 384: 6, 768: 12}
# Columns of the products of a layer, in widths: (in, out).
PRODUCTS = {"qkv": (1, 3), "projection": (1, 1), "mlp-in": (1, 4), "mlp-out": (4, 1)}
ROWS = (8, 32, 128, 512, 2048)
ATTENDED = (
    *((width, images, tokens) for width in (192, 768) for images in (1, 8)
      for tokens in (4, 17, 50, 197)),
    (192, 1, 577), (768, 1, 577), (192, 64, 4), (192, 64, 17),
)  # fmt: skip
MOVED = ((8, 192), (64, 768), (256, 96), (400, 384), (1576, 192), (1576, 768), (6304, 192))
KEPT = (0.9, 0.3)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an operator asks of a machine at least: arithmetic, and operands moved once."""

    flop: float
    bytes_moved: float


def _gemm(point: OperatorPoint, size: int) -> Work:
    """2·n·k·m FLOP, two for each multiply-add; both operands read and the result written."""
    rows, inner, columns = point.rows, point.width, point.out_width
    moved = size * (rows * inner + inner * columns + rows * columns)
    return Work(flop=2.0 * rows * inner * columns, bytes_moved=moved)


def _attention(point: OperatorPoint, size: int) -> Work:
    """QKᵀ and the weighted sum of V: 4·d·n² FLOP an image; q, k, v read and the result written.

    The scores stay on the chip (FlashAttention, arXiv 2205.14135), so they are no traffic.
    """
    rows, width, images = point.rows, point.width, point.images
    return Work(flop=4.0 * images * width * rows**2, bytes_moved=4.0 * size * images * rows * width)


def _elementwise(point: OperatorPoint, size: int) -> Work:
    """Layer norm and GELU read and write, the residual reads two and writes one: 2 + 2 + 3."""
    return Work(flop=0.0, bytes_moved=7.0 * size * point.rows * point.width)


def _gather(point: OperatorPoint, size: int) -> Work:
    """The chosen rows read and written, with their places in int64."""
    return Work(flop=0.0, bytes_moved=point.out_rows * (2.0 * size * point.width + 8.0))


def _scatter(point: OperatorPoint, size: int) -> Work:
    """The whole matrix copied, then the chosen rows read and written over it, with their places."""
    copied = 2.0 * size * point.width * point.rows
    return Work(flop=0.0, bytes_moved=copied + point.out_rows * (2.0 * size * point.width + 8.0))


_WORK: dict[OperatorClass, Callable[[OperatorPoint, int], Work]] = {
    "gemm": _gemm,
    "attention": _attention,
    "elementwise": _elementwise,
    "gather": _gather,
    "scatter": _scatter,
}


def work_of(point: OperatorPoint) -> Work:
    """FLOP and bytes of one call, in closed form.

    >>> toy = OperatorPoint(
    ...     id="toy", operator="gemm", precision="fp32", rows=2, width=3, out_width=5
    ... )
    >>> work_of(toy)
    Work(flop=60.0, bytes_moved=124)
    """
    return _WORK[point.operator](point, BYTES_OF[point.precision])


def least_s(point: OperatorPoint, rates: Rates) -> float:
    """Seconds of one call at the rates of fixed kernels, whichever is slower.

    A precision without a fixed kernel is taken to be no slower than fp32.
    """
    work, peak = work_of(point), rates.peak_flop_per_s(point.precision)
    flop_per_s = rates.gemm_flop_per_s if isinstance(peak, Unknown) else peak
    return max(work.flop / flop_per_s, work.bytes_moved / rates.copy_bytes_per_s)


def grid(precisions: Sequence[Precision]) -> tuple[OperatorPoint, ...]:
    """Every operator of the benchmark, those of one class beside each other."""
    return tuple(point for precision in precisions for point in _grid(precision))


def _grid(precision: Precision) -> Iterator[OperatorPoint]:
    sizes = product(enumerate(ROWS), enumerate(HEADS), enumerate(PRODUCTS.items()))
    for (row, rows), (column, width), (kind, (_, (inner, columns))) in sizes:
        if (row + column + kind) % 2 == 0:  # every other one, in all three directions
            yield _named(
                operator="gemm", precision=precision, rows=rows,
                width=inner * width, out_width=columns * width,
            )  # fmt: skip
    for width, images, tokens in ATTENDED:
        yield _named(
            operator="attention", precision=precision, images=images, rows=tokens, width=width,
            heads=HEADS[width],
        )  # fmt: skip
    for rows, width in MOVED:
        yield _named(operator="elementwise", precision=precision, rows=rows, width=width)
    movers: tuple[OperatorClass, ...] = ("gather", "scatter")
    for operator, kept, (rows, width) in product(movers, KEPT, MOVED):
        yield _named(
            operator=operator, precision=precision, rows=rows, width=width,
            out_rows=max(1, round(kept * rows)),
        )  # fmt: skip


def shape_of(point: OperatorPoint) -> str:
    """The size of an operator in a word.

    >>> shape_of(_named(operator="gemm", precision="fp32", rows=8, width=96, out_width=288))
    '8x96x288'
    """
    match point.operator:
        case "gemm":
            return f"{point.rows}x{point.width}x{point.out_width}"
        case "attention":
            return f"{point.images}x{point.rows}x{point.width}h{point.heads}"
        case "elementwise":
            return f"{point.rows}x{point.width}"
        case _:
            return f"{point.out_rows}of{point.rows}x{point.width}"


def _named(**fields: object) -> OperatorPoint:
    blank = OperatorPoint(**{"id": "blank", **fields})  # type: ignore[arg-type]
    name = f"{blank.operator}-{shape_of(blank)}-{blank.precision}"
    return OperatorPoint(**{**dict(blank), "id": name})
