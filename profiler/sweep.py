"""The built-in plans: contrasts, in the order of what they tell, and as many as the minutes allow.

A contrast is a few points alike in all but one thing, so that the difference of their seconds is the
cost of that thing. A plan takes contrasts whole, from the front: a larger plan has all that a smaller
one has.
"""

from collections.abc import Iterable, Iterator, Sequence

from domain.architecture import Architecture
from domain.complaint import Complaint
from domain.measurement import MeasuringPlan, PlannedPoint
from domain.record import Precision
from profiler.contrasts import (
    Contrast,
    calls_apart,
    edge_apart,
    executors_apart,
    precisions_apart,
    real_batches,
    real_executors,
    recursions_apart,
    router_apart,
    spread_apart,
    survival_apart,
    tokens_apart,
    trunk_apart,
    widths_apart,
)
from profiler.design import START_S, expected_s, minutes_up, most_s
from profiler.protocol import SETTINGS, Mode, Settings

# The smallest design: with fewer, calls are not told from rates nor attention from products.
LEAST_CONTRASTS = 4
# How many contrasts, from the front, a plan takes.
CONTRASTS_OF: dict[Mode, int] = {"quick": 7, "brief": 23, "default": 23, "rigorous": 99}


def built_in_plan(
    mode: Mode, shipped: Architecture, budget_s: float | None = None
) -> MeasuringPlan:
    """The plan of a mode around the shipped network; with a budget, what fits in those seconds."""
    contrasts = tuple(contrasts_of(shipped))
    if budget_s is None:
        chosen = contrasts[: CONTRASTS_OF[mode]]
    else:
        chosen = within_budget(contrasts, SETTINGS[mode], budget_s)
    return _plan(f"built-in-{mode}", chosen, SETTINGS[mode])


def reference_plan(shipped: Architecture, mode: Mode) -> MeasuringPlan:
    """The plan of the committed reference: both precisions, four widths, every executor.

    No pass has more than 6 GFLOP, 150 ms on a core of 40 GFLOP/s.
    """
    return _plan("reference", tuple(reference_contrasts(shipped)), SETTINGS[mode])


def within_budget(
    contrasts: Sequence[Contrast], settings: Settings, budget_s: float
) -> tuple[Contrast, ...]:
    """As many contrasts, from the front, as are expected to fit in `budget_s` seconds.

    Raises Complaint where not even the smallest design fits, with the minutes that it needs.
    """
    ends = range(1, len(contrasts) + 1)
    spent = [expected_plan_s(points_of(contrasts[:end]), settings) for end in ends]
    if spent[LEAST_CONTRASTS - 1] > budget_s:
        raise Complaint(
            f"{budget_s / 60:g} min are too few to tell the costs of a network apart: the smallest "
            f"design takes {minutes_up(spent[LEAST_CONTRASTS - 1])} min at --{settings.mode}; give "
            f"--budget as many"
        )
    return tuple(contrasts[: sum(each_s <= budget_s for each_s in spent)])


def expected_plan_s(points: Iterable[PlannedPoint], settings: Settings) -> float:
    """Seconds that all runs of `points` are expected to take, at assumed rates."""
    return settings.runs * (START_S + sum(expected_s(point, settings) for point in points))


def most_plan_s(points: Iterable[PlannedPoint], settings: Settings) -> float:
    """Seconds that all runs of `points` take at most, if no single pass is out of the ordinary."""
    return settings.runs * (START_S + sum(most_s(point, settings) for point in points))


def points_of(contrasts: Iterable[Contrast]) -> tuple[PlannedPoint, ...]:
    """Each point of `contrasts` once, saying what it separates (where it first stood)."""
    told: dict[str, PlannedPoint] = {}
    for contrast in contrasts:
        for point in contrast.points:
            if point.id not in told:
                told[point.id] = PlannedPoint(**{**dict(point), "separates": contrast.separates})
    return tuple(told.values())


def _plan(name: str, contrasts: Sequence[Contrast], settings: Settings) -> MeasuringPlan:
    return MeasuringPlan(name=name, runs=settings.runs, points=points_of(contrasts))


def contrasts_of(shipped: Architecture) -> Iterator[Contrast]:
    """Every built-in contrast, the most telling first.

    An order chosen greedily by D-optimality (log det of `design.information` a second) was tried
    in its place: on simulated machines its fits were worse in the fewest minutes and within half a
    per cent otherwise, and it does not say why a point stands where it does.
    """
    yield tokens_apart(192, 4)
    yield calls_apart(192, 16)
    yield executors_apart(192, 197, 4, "mild")
    yield widths_apart((96, 384), 50, 4)
    yield real_batches(shipped, (1, 8, 32))
    yield spread_apart(192, 197, 4)
    yield trunk_apart(192, 50, 16)
    yield executors_apart(192, 197, 4, "even")
    yield recursions_apart(384, 50, 1)
    yield precisions_apart((192, 50, 1), (192, 50, 16))
    yield survival_apart(192, 50, 16)
    yield real_executors(shipped, 8)
    yield router_apart(shipped, 8)
    yield tokens_apart(384, 1)
    yield tokens_apart(96, 4)
    yield calls_apart(384, 4)
    yield calls_apart(96, 16)
    yield executors_apart(384, 197, 1, "mild")
    yield spread_apart(384, 50, 4)
    yield precisions_apart((384, 50, 1), (384, 50, 4), (96, 50, 16))
    yield executors_apart(192, 50, 16, "strong")
    yield edge_apart(192)
    yield trunk_apart(384, 50, 4)
    yield survival_apart(384, 197, 1)
    yield tokens_apart(384, 4)
    yield widths_apart((384, 768), 50, 4)
    yield tokens_apart(768, 1)
    yield real_batches(shipped, (1, 64))
    yield real_executors(shipped, 64)
    yield precisions_apart((384, 197, 1), (384, 50, 16))
    yield executors_apart(384, 197, 4, "strong")
    yield spread_apart(384, 197, 4)
    yield trunk_apart(384, 197, 4)
    yield survival_apart(192, 197, 4)


def reference_contrasts(shipped: Architecture) -> Iterator[Contrast]:
    """The contrasts of the reference: built like the others, over more widths and in bf16 too."""
    images = {128: 8, 192: 4, 256: 2, 384: 1}
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        for width, batch in images.items():
            yield tokens_apart(width, batch, precision)
            yield calls_apart(width, 4 * batch, precision)
        for width in (128, 384):
            yield survival_apart(width, 197, images[width], precision)
        yield executors_apart(192, 197, 2, "strong", precision)
        yield executors_apart(256, 50, 8, "mild", precision)
        yield spread_apart(192, 197, 4, precision)
        yield trunk_apart(256, 50, 8, precision)
    yield executors_apart(384, 50, 4, "strong")
    yield executors_apart(192, 197, 2, "even")
    yield spread_apart(128, 50, 32)
    yield recursions_apart(384, 50, 1)
    yield real_batches(shipped, (1, 8, 32))
    for batch in (1, 8, 32):
        yield real_executors(shipped, batch)
    yield router_apart(shipped, 8)
    yield real_batches(shipped, (1, 32), "bf16")
