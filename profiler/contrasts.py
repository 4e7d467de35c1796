"""Contrasts: points alike in all but one thing, so that their seconds differ by the cost of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from domain.architecture import Architecture
from domain.measurement import PlannedPoint
from domain.record import Executor, Precision

# Survival by recursion, and the spread from image to image around it. `even` and `uneven` keep the
# same mean: no image of them is cut off at all its tokens.
ROUTINGS: dict[str, tuple[tuple[float, float, float], float]] = {
    "mild": ((1.0, 0.6, 0.3), 0.25),
    "strong": ((0.7, 0.3, 0.1), 0.8),
    "even": ((0.5, 0.3, 0.14), 0.0),
    "uneven": ((0.5, 0.3, 0.14), 0.9),
    "everywhere": ((1.0, 1.0, 1.0), 0.0),
    "edge-1": ((127 / 197,) * 3, 0.0),
    "edge": ((128 / 197,) * 3, 0.0),
    "edge+1": ((129 / 197,) * 3, 0.0),
}

# A head has 64 channels in the usual networks, 32 in narrow ones.
HEADS = {96: 3, 128: 2, 192: 3, 256: 4, 384: 6, 768: 12}
PATCH_OF_TOKENS = {197: 2, 50: 4}


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Points to be compared with one another, and which costs that separates."""

    separates: str
    points: tuple[PlannedPoint, ...]


def tokens_apart(width: int, images: int, precision: Precision = "fp32") -> Contrast:
    """Images of many tokens against more images of few.

    197 tokens × 4 images and 50 × 16 are about the same rows, but not the same attention.
    """
    return Contrast(
        separates="attention from matrix products: tokens of an image at the same rows",
        points=(
            forced(width, 197, images, "mild", precision=precision),
            forced(width, 50, 4 * images, "mild", precision=precision),
        ),
    )


def calls_apart(width: int, most: int, precision: Precision = "fp32") -> Contrast:
    """One image against `most`."""
    return Contrast(
        separates="the cost of a call from rates: few rows against many",
        points=tuple(forced(width, 50, b, "mild", precision=precision) for b in (1, most)),
    )


def executors_apart(
    width: int, tokens: int, batch: int, routing: str, precision: Precision = "fp32"
) -> Contrast:
    """Every executor on the same routing; those for images alike only where they are."""
    ragged = ROUTINGS[routing][1] > 0
    return Contrast(
        separates="gather, scatter and the wait for shapes from computing: executors",
        points=tuple(
            forced(width, tokens, batch, routing, each, precision) for each in _built(ragged)
        ),
    )


def widths_apart(widths: Sequence[int], tokens: int, batch: int) -> Contrast:
    """Networks of several widths."""
    return Contrast(
        separates="arithmetic from traffic: widths at the same rows",
        points=tuple(forced(width, tokens, batch, "mild") for width in widths),
    )


def real_batches(
    network: Architecture, batches: Sequence[int], precision: Precision = "fp32"
) -> Contrast:
    """The shipped network by batch."""
    return Contrast(
        separates="what a trained router does with real images, by batch",
        points=tuple(shipped_point(network, batch, precision=precision) for batch in batches),
    )


def real_executors(network: Architecture, batch: int) -> Contrast:
    """Every executor that takes images of any count, on the same real images."""
    return Contrast(
        separates="packing from masking on real images",
        points=tuple(shipped_point(network, batch, executor) for executor in _built(ragged=True)),
    )


def router_apart(network: Architecture, batch: int) -> Contrast:
    """The shipped network with its router and without."""
    return Contrast(
        separates="routing from its network: real images, uniform depth",
        points=(shipped_point(network, batch), uniform(network, batch)),
    )


def spread_apart(width: int, tokens: int, batch: int, precision: Precision = "fp32") -> Contrast:
    """Images alike against images that differ, of the same mean."""
    return Contrast(
        separates="attention's squares and groups from tokens: spread between images",
        points=tuple(
            forced(width, tokens, batch, routing, precision=precision)
            for routing in ("even", "uneven")
        ),
    )


def survival_apart(width: int, tokens: int, batch: int, precision: Precision = "fp32") -> Contrast:
    """Mild against strong routing."""
    return Contrast(
        separates="the cost of a token from that of a recursion: survival",
        points=tuple(
            forced(width, tokens, batch, routing, precision=precision)
            for routing in ("mild", "strong")
        ),
    )


def trunk_apart(width: int, tokens: int, batch: int, precision: Precision = "fp32") -> Contrast:
    """A routed network that keeps every token against a plain ViT."""
    return Contrast(
        separates="routing from a plain ViT as deep, every token everywhere",
        points=(
            forced(width, tokens, batch, "everywhere", precision=precision),
            plain(width, tokens, batch, precision),
        ),
    )


def recursions_apart(width: int, tokens: int, batch: int) -> Contrast:
    """A network whose recursions have the same rows, and the second of them alone."""
    whole = forced(width, tokens, batch, "everywhere")
    alone = PlannedPoint(
        **{**dict(whole), "id": f"{whole.id}-recursion-2", "subject": "recursion-2"}
    )
    return Contrast(
        separates="weights read first from weights read again: recursions at the same rows",
        points=(whole, alone),
    )


def precisions_apart(*shapes: tuple[int, int, int]) -> Contrast:
    """(width, tokens, batch) of `shapes` in fp32 and in bf16."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    return Contrast(
        separates="bytes from FLOP: the same work in half precision",
        points=tuple(
            forced(*shape, "mild", precision=precision)
            for shape in shapes
            for precision in precisions
        ),
    )


def edge_apart(width: int) -> Contrast:
    """Rows around a multiple of the tiles of matrix products."""
    return Contrast(
        separates="whole tiles from rows begun: 128 rows, one less, one more",
        points=tuple(forced(width, 197, 1, routing) for routing in ("edge-1", "edge", "edge+1")),
    )


def shipped_point(
    network: Architecture, batch: int, executor: Executor = "packed", precision: Precision = "fp32"
) -> PlannedPoint:
    """The shipped network on real images, its own router deciding."""
    return PlannedPoint(
        id=f"shipped-real-b{batch}-{executor}{_suffix(precision)}",
        architecture=network,
        weights="shipped",
        batch=batch,
        precision=precision,
        executor=executor,
        routing_source="real-images",
    )


def uniform(network: Architecture, batch: int) -> PlannedPoint:
    """The shipped network with every token everywhere, its router not asked."""
    return PlannedPoint(
        id=f"shipped-uniform-b{batch}-packed",
        architecture=network,
        weights="shipped",
        batch=batch,
        routing_source="none",
    )


def forced(
    width: int,
    tokens: int,
    batch: int,
    routing: str,
    executor: Executor = "packed",
    precision: Precision = "fp32",
) -> PlannedPoint:
    """A routed network of random weights with an imposed routing."""
    survival, spread = ROUTINGS[routing]
    return PlannedPoint(
        id=f"mor-w{width}-n{tokens}-{routing}-b{batch}-{executor}{_suffix(precision)}",
        architecture=Architecture(
            name=f"mor-w{width}-n{tokens}",
            image_size=28,
            patch_size=PATCH_OF_TOKENS[tokens],
            channels=1,
            classes=10,
            width=width,
            heads=HEADS[width],
            mlp_width=4 * width,
            layers_before=1,
            shared_layers=2,
            recursions=3,
            layers_after=1,
        ),
        weights="random",
        batch=batch,
        precision=precision,
        executor=executor,
        routing_source="forced-distribution",
        survival=survival,
        spread=spread,
    )


def plain(width: int, tokens: int, batch: int, precision: Precision = "fp32") -> PlannedPoint:
    """A plain ViT as deep as the routed network is for a token that goes everywhere."""
    return PlannedPoint(
        id=f"vit-w{width}-n{tokens}-b{batch}{_suffix(precision)}",
        architecture=Architecture.plain(
            name=f"vit-w{width}-n{tokens}",
            depth=8,
            width=width,
            heads=HEADS[width],
            image_size=28,
            patch_size=PATCH_OF_TOKENS[tokens],
            channels=1,
            classes=10,
        ),
        weights="random",
        batch=batch,
        precision=precision,
        routing_source="none",
    )


def _suffix(precision: Precision) -> str:
    return "" if precision == "fp32" else f"-{precision}"


def _built(ragged: bool) -> tuple[Executor, ...]:
    from morvit.executors import EXECUTORS, RECTANGULAR  # torch: only where points are made

    return tuple(name for name in EXECUTORS if not (ragged and name in RECTANGULAR))
