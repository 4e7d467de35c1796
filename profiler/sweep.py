"""The built-in plans: points chosen so that every coefficient of the cost model shows.

Width, batch and tokens vary against each other (197 tokens × 4 images and 50 × 16 are the same rows
but not the same attention), routing is mild and even or strong and uneven, executors and a plain ViT
stand beside.
"""

from collections.abc import Iterator

from domain.architecture import Architecture
from domain.measurement import MeasuringPlan, PlannedPoint
from domain.record import Executor
from profiler.protocol import SETTINGS, Mode

# Survival by recursion, and the spread from image to image around it.
ROUTINGS: dict[str, tuple[tuple[float, float, float], float]] = {
    "mild": ((1.0, 0.6, 0.3), 0.25),
    "strong": ((0.7, 0.3, 0.1), 0.8),
}

# A head has 64 channels in the usual networks, 32 in narrow ones.
HEADS = {96: 3, 192: 3, 384: 6, 768: 12}
PATCH_OF_TOKENS = {197: 2, 50: 4}

# Seconds of a point beside its budgets (network, memory, work), and of starting a worker.
BESIDE_S, START_S = 0.8, 6.0


def built_in_plan(mode: Mode, shipped: Architecture) -> MeasuringPlan:
    """The plan of a mode, around the shipped network."""
    points = {"quick": _quick, "default": _default, "rigorous": _rigorous}[mode](shipped)
    return MeasuringPlan(name=f"built-in-{mode}", runs=SETTINGS[mode].runs, points=tuple(points))


def estimated_s(plan: MeasuringPlan, mode: Mode) -> float:
    """Seconds that a plan takes at most, if no single pass is longer than its budget."""
    settings = SETTINGS[mode]
    one_s = settings.most_warmup_s + settings.most_s + settings.most_pairs_s + BESIDE_S
    return plan.runs * (START_S + one_s * len(plan.points))


def _quick(shipped: Architecture) -> Iterator[PlannedPoint]:
    yield _shipped(shipped, 1)
    yield _shipped(shipped, 8)
    yield _shipped(shipped, 32)
    yield _shipped(shipped, 8, "masked")
    yield _uniform(shipped, 8)
    yield _forced(96, 50, 1, "mild")
    yield _forced(192, 197, 4, "mild")
    yield _forced(192, 50, 16, "mild")
    yield _forced(192, 197, 1, "strong")
    yield _forced(384, 50, 4, "strong")
    yield _forced(384, 197, 1, "mild")
    yield _plain(192, 50, 8)


def _default(shipped: Architecture) -> Iterator[PlannedPoint]:
    for batch in (1, 4, 16, 64):
        yield _shipped(shipped, batch)
    yield _shipped(shipped, 1, "masked")
    yield _shipped(shipped, 16, "masked")
    yield _uniform(shipped, 1)
    yield _uniform(shipped, 16)
    for width in (96, 192, 384):
        for tokens, batch in ((50, 1), (50, 16), (197, 1), (197, 4)):
            for routing in ROUTINGS:
                yield _forced(width, tokens, batch, routing)
    yield _forced(192, 197, 4, "strong", "masked")
    yield _forced(192, 50, 16, "strong", "masked")
    yield _forced(384, 197, 1, "mild", "masked")
    yield _forced(96, 50, 16, "mild", "masked")
    yield _plain(96, 197, 4)
    yield _plain(192, 50, 16)
    yield _plain(192, 197, 1)
    yield _plain(384, 50, 4)


def _rigorous(shipped: Architecture) -> Iterator[PlannedPoint]:
    yield from _default(shipped)
    for width in (192, 384):
        for routing in ROUTINGS:
            yield _forced(width, 197, 16, routing)
            yield _forced(width, 50, 64, routing)
            yield _forced(width, 197, 16, routing, "masked")
    for routing in ROUTINGS:
        yield _forced(768, 50, 4, routing)
        yield _forced(768, 197, 1, routing)
    for width in (192, 384):
        yield _plain(width, 197, 8)


def _shipped(network: Architecture, batch: int, executor: Executor = "packed") -> PlannedPoint:
    return PlannedPoint(
        id=f"shipped-real-b{batch}-{executor}",
        architecture=network,
        weights="shipped",
        batch=batch,
        executor=executor,
        routing_source="real-images",
    )


def _uniform(network: Architecture, batch: int) -> PlannedPoint:
    return PlannedPoint(
        id=f"shipped-uniform-b{batch}-packed",
        architecture=network,
        weights="shipped",
        batch=batch,
        routing_source="none",
    )


def _forced(
    width: int, tokens: int, batch: int, routing: str, executor: Executor = "packed"
) -> PlannedPoint:
    survival, spread = ROUTINGS[routing]
    return PlannedPoint(
        id=f"mor-w{width}-n{tokens}-{routing}-b{batch}-{executor}",
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
        executor=executor,
        routing_source="forced-distribution",
        survival=survival,
        spread=spread,
    )


def _plain(width: int, tokens: int, batch: int) -> PlannedPoint:
    return PlannedPoint(
        id=f"vit-w{width}-n{tokens}-b{batch}",
        architecture=Architecture.plain(
            name=f"vit-w{width}-n{tokens}",
            depth=6,
            width=width,
            heads=HEADS[width],
            image_size=28,
            patch_size=PATCH_OF_TOKENS[tokens],
            channels=1,
            classes=10,
        ),
        weights="random",
        batch=batch,
        routing_source="none",
    )
