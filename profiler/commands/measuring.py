"""plan, run, resume: points are chosen, measured, gone on with."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domain.complaint import INTERRUPTED
from domain.shell import emit, format_named
from domain.tables import Cell, rendered
from profiler.commands.options import Default, PlanFile, Quick, Rigorous, Shape, mode_of, say

if TYPE_CHECKING:
    from domain.measurement import Measurement, MeasuringPlan
    from profiler.session import Session


def run(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, or a catalogue name.")] = "auto",
    quick: Quick = False,
    default: Default = False,
    rigorous: Rigorous = False,
    plan: PlanFile = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder; else results/measurements/<time>.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Order, weights, images, forced counts.")
    ] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Default: one for each usable core.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Your safetensors file, its card beside it; else shipped.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Your images as class/name.png; else the sample.")
    ] = None,
    format: Shape = "table",
) -> None:
    """Measure this machine; stores a journal that every other command reads."""
    format_named(format)
    from profiler.messages import Source
    from profiler.starting import started

    def named(path: Path | None) -> str:
        return "" if path is None else str(path.resolve())

    session, folder, worker = started(
        device=device,
        mode=mode_of(quick, default, rigorous),
        plan_file=plan,
        out=out,
        seed=seed,
        threads=threads,
        source=Source(checkpoint=named(checkpoint), images=named(images)),
        say=say,
    )
    _measure(session, folder, format, worker)


def resume(
    folder: Annotated[Path, typer.Argument(help="The folder that `run` wrote.")],
    format: Shape = "table",
) -> None:
    """Measure what an interrupted run has left, on the same machine with the same software."""
    format_named(format)
    from profiler.starting import resumed

    session, worker = resumed(folder, say=say)
    _measure(session, folder, format, worker)


def plan(
    quick: Quick = False,
    default: Default = False,
    rigorous: Rigorous = False,
    plan: PlanFile = None,
    write: Annotated[Path | None, typer.Option(help="Store the plan there as JSON.")] = None,
    format: Shape = "table",
) -> None:
    """The points that would be measured, and how long that takes."""
    shape = format_named(format)
    from domain.store import save
    from profiler.messages import Source
    from profiler.starting import plan_of
    from profiler.sweep import estimated_s

    mode = mode_of(quick, default, rigorous)
    wanted = plan_of(mode, plan, Source())
    emit(rendered(_point_rows(wanted), shape), None)
    minutes = math.ceil(estimated_s(wanted, mode) / 60)
    say(f"{len(wanted.points)} points, {wanted.runs} runs, at most about {minutes} min")
    if write is not None:
        save(wanted, write)


def _measure(session: "Session", folder: Path, format: str, worker: object) -> None:
    from profiler.progress import Progress
    from profiler.session import Stop, measure
    from profiler.starting import store_beside
    from profiler.supervisor import Worker

    assert worker is None or isinstance(worker, Worker)
    with Progress(session) as progress, Stop(progress.say) as stop:
        records = measure(session, folder, stop=stop, report=progress.point, first_worker=worker)
    if stop.is_asked:
        say(f"interrupted; go on with: python -m profiler resume {folder}")
        raise typer.Exit(INTERRUPTED)
    store_beside(folder, session.preparation.source)
    emit(rendered(_result_rows(records), format_named(format)), None)
    if format == "table":
        emit(f"\n{folder / 'journal.jsonl'}\n", None)
    say(f"next: python -m costmodel.fit --journal {folder}")


def _point_rows(plan: "MeasuringPlan") -> list[dict[str, Cell]]:
    return [
        {
            "point": point.id,
            "weights": point.weights,
            "width": point.architecture.width,
            "tokens": point.architecture.tokens,
            "batch": point.batch,
            "precision": point.precision,
            "executor": point.executor,
            "routing": point.routing_source,
            "survival": ", ".join(f"{share:g}" for share in point.survival or ()),
            "spread": point.spread,
        }
        for point in plan.points
    ]


def _result_rows(
    records: "tuple[Measurement, ...]",
) -> list[dict[str, Cell]]:
    from profiler.progress import summary

    points = dict.fromkeys(record.point for record in records)
    return [summary([record for record in records if record.point == point]) for point in points]
