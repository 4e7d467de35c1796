"""Runs of one point side by side: the medians, intervals and counts that the report shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from domain.measurement import DepthRecord, Measurement
from domain.record import Estimate, Unknown
from domain.statistics import median, median_of_runs
from reports.contents import Say

RUN_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a point over all its runs; times, work, memory and energy are of a batch."""

    name: str
    time_s: Estimate
    share: float
    tokens: Estimate
    routed_flop: float
    executed_flop: float
    peak_bytes: int | Unknown
    energy_j: Estimate | Unknown


@dataclass(frozen=True, kw_only=True)
class Point:
    """One configuration in one environment; times, work, memory and energy are of a batch."""

    name: str
    label: str
    runs: tuple[Measurement, ...]
    time_s: Estimate
    stages: tuple[Stage, ...]
    peak_bytes: int | Unknown
    resident_bytes: int | Unknown
    energy_j: Estimate | Unknown

    @property
    def batch(self) -> int:
        """Images in a batch."""
        return self.runs[0].workload.batch

    @property
    def executor(self) -> str:
        """How the routing was executed."""
        return self.runs[0].workload.executor

    @property
    def routed_flop(self) -> float:
        """Work of the tokens that the router kept."""
        return sum(stage.routed_flop for stage in self.stages)

    @property
    def executed_flop(self) -> float:
        """Work that was done."""
        return sum(stage.executed_flop for stage in self.stages)

    @property
    def stages_s(self) -> float:
        """Sum of the medians of the stages."""
        return sum(stage.time_s.value for stage in self.stages)


@dataclass(frozen=True, kw_only=True)
class Saving:
    """The masked executor over another one, everything else equal."""

    masked: Point
    other: Point
    time_ratio: Estimate
    work_ratio: float | None


def points_of(measurements: Sequence[Measurement], say: Say) -> tuple[Point, ...]:
    """Usable runs by environment and point, in the order of batch and executor.

    Points with trained weights if there is one, else those with random weights.
    """
    usable = [each for each in measurements if each.is_usable]
    trained = [each for each in usable if has_trained_weights(each)]
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for each in trained or usable:
        groups.setdefault((each.environment.key(), each.point), []).append(each)
    runs_of_points = sorted(groups.values(), key=_order)
    labels = _labels_of([runs[0] for runs in runs_of_points], say)
    return tuple(_point_of(runs, label) for runs, label in zip(runs_of_points, labels, strict=True))


def has_trained_weights(measurement: Measurement) -> bool:
    """Whether the network that was measured had weights worth looking at."""
    return not measurement.weights.lower().startswith("random")


def savings_of(points: Sequence[Point]) -> tuple[Saving, ...]:
    """Each routed executor beside the masked one on the same workload."""
    masked = {_workload_but_executor(point): point for point in points if _is_masked(point)}
    return tuple(
        _saving_of(masked[key], point)
        for point in points
        if not _is_masked(point) and (key := _workload_but_executor(point)) in masked
    )


def stage_name(stage: str, say: Say) -> str:
    """A stage's name for people."""
    kind, _, number = stage.partition("-")
    return say(f"stage.{kind}", number=number)


def _point_of(runs: Sequence[Measurement], label: str) -> Point:
    names = [depth.stage for depth in runs[0].depths]
    complete = [run for run in runs if [depth.stage for depth in run.depths] == names]
    columns = [[run.depths[i] for run in complete] for i in range(len(names))]
    times = [
        _over_runs([record.samples_s for record in column if record.samples_s])
        for column in columns
    ]
    whole_s = sum(time.value for time in times if time is not None)
    return Point(
        name=runs[0].point,
        label=label,
        runs=tuple(runs),
        time_s=_certain(_over_runs([run.samples_s for run in runs])),
        stages=tuple(
            _stage_of(column, time, whole_s)
            for column, time in zip(columns, times, strict=True)
            if time is not None
        ),
        peak_bytes=_most([run.peak_bytes for run in runs]),
        resident_bytes=_most([run.resident_bytes for run in runs]),
        energy_j=_energy([run.energy_j for run in runs]),
    )


def _stage_of(records: Sequence[DepthRecord], time_s: Estimate, whole_s: float) -> Stage:
    counts = [count for record in records for count in record.counts] or [0]
    return Stage(
        name=records[0].stage,
        time_s=time_s,
        share=time_s.value / whole_s,
        tokens=Estimate(value=sum(counts) / len(counts), low=min(counts), high=max(counts)),
        routed_flop=median([record.routed_flop for record in records]),
        executed_flop=median([record.executed_flop for record in records]),
        peak_bytes=_most([record.peak_bytes for record in records]),
        energy_j=_energy([record.energy_j for record in records]),
    )


def _over_runs(runs: Sequence[Sequence[float]]) -> Estimate | None:
    if not runs:
        return None
    value, low, high = median_of_runs(runs, level=RUN_LEVEL)
    return Estimate(value=value, low=min(low, value), high=max(high, value), level=RUN_LEVEL)


def _certain(estimate: Estimate | None) -> Estimate:
    assert estimate is not None, "a usable measurement has samples"
    return estimate


def _most(figures: Sequence[int | Unknown]) -> int | Unknown:
    known = [figure for figure in figures if isinstance(figure, int)]
    return max(known) if known else next(f for f in figures if isinstance(f, Unknown))


def _energy(figures: Sequence[float | Unknown]) -> Estimate | Unknown:
    known = _over_runs([(figure,) for figure in figures if isinstance(figure, float)])
    return known or next(figure for figure in figures if isinstance(figure, Unknown))


def _is_masked(point: Point) -> bool:
    return point.executor == "masked"


def _workload_but_executor(point: Point) -> tuple[str, ...]:
    run = point.runs[0]
    work = run.workload
    # The same images give the same routing, up to how each executor rounds; an imposed one is exact.
    imposed = work.routing.key() if run.routing_source == "forced-distribution" else ""
    return (
        run.environment.key(), work.architecture.key(), str(work.batch), work.precision,
        work.runtime, run.routing_source, run.weights, imposed,
    )  # fmt: skip


def _saving_of(masked: Point, other: Point) -> Saving:
    over, under = masked.time_s, other.time_s
    return Saving(
        masked=masked,
        other=other,
        time_ratio=Estimate(
            value=over.value / under.value,
            low=over.low / under.high,
            high=over.high / under.low,
            level=RUN_LEVEL,
        ),
        work_ratio=masked.executed_flop / other.executed_flop if other.executed_flop else None,
    )


def _order(runs: Sequence[Measurement]) -> tuple[str, str, int, str, str]:
    work = runs[0].workload
    return (
        runs[0].environment.device_id, work.architecture.name, work.batch, work.executor,
        runs[0].point,
    )  # fmt: skip


def _labels_of(runs: Sequence[Measurement], say: Say) -> list[str]:
    """Batch and executor, with whatever else differs between the points."""
    facets: list[Callable[[Measurement], str]] = [
        lambda run: run.environment.device_name,
        lambda run: run.workload.architecture.name,
        lambda run: run.workload.precision,
        lambda run: run.workload.runtime,
        lambda run: run.routing_source,
    ]
    differing = [facet for facet in facets if len({facet(run) for run in runs}) > 1]
    labels = [
        " · ".join(
            (
                say("measured.batch", batch=str(run.workload.batch)),
                run.workload.executor,
                *(facet(run) for facet in differing),
            )
        )
        for run in runs
    ]
    return [
        f"{label} · {run.point}" if labels.count(label) > 1 else label
        for label, run in zip(labels, runs, strict=True)
    ]
