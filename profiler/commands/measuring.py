"""plan, run, resume: points are chosen, measured, gone on with."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domain.complaint import INTERRUPTED, Complaint
from domain.shell import emit, format_named, say, warn
from domain.tables import Cell, rendered
from profiler.commands.options import (
    Brief,
    Budget,
    Default,
    PlanFile,
    Quick,
    Rigorous,
    Shape,
    mode_of,
)

if TYPE_CHECKING:
    from domain.measurement import MeasuringPlan
    from profiler.protocol import Settings
    from profiler.session import Session


Trace = Annotated[
    bool,
    typer.Option("--trace", help="Then a Chrome trace of each point, never used as a latency."),
]


def run(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, or a catalogue name.")] = "auto",
    quick: Quick = False,
    brief: Brief = False,
    default: Default = False,
    rigorous: Rigorous = False,
    plan: PlanFile = None,
    budget: Budget = None,
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
    lock_clocks: Annotated[
        str, typer.Option(help="base, max or MHz: hold a GPU's clocks while measuring (as root).")
    ] = "",
    trace: Trace = False,
    format: Shape = "table",
) -> None:
    """Measure this machine; stores a journal that every other command reads."""
    format_named(format)
    from profiler.lease import Clocks
    from profiler.messages import Source
    from profiler.starting import started

    def named(path: Path | None) -> str:
        return "" if path is None else str(path.resolve())

    with Clocks(lock_clocks, say) as clocks:
        session, folder, worker = started(
            device=device,
            mode=mode_of(quick, brief, default, rigorous),
            plan_file=plan,
            budget_s=_seconds(budget),
            out=out,
            seed=seed,
            threads=threads,
            source=Source(checkpoint=named(checkpoint), images=named(images)),
            say=say,
            lock=clocks.lock,
        )
        _measure(session, folder, format, worker, trace=trace)


def resume(
    folder: Annotated[Path, typer.Argument(help="The folder that `run` wrote.")],
    trace: Trace = False,
    format: Shape = "table",
) -> None:
    """Measure what an interrupted run has left, on the same machine with the same software."""
    format_named(format)
    from profiler.lease import Clocks
    from profiler.starting import resumed

    with Clocks(say=say) as clocks:
        session, worker = resumed(folder, say=say, lock=clocks.lock_again)
        _measure(session, folder, format, worker, trace=trace)


def plan(
    quick: Quick = False,
    brief: Brief = False,
    default: Default = False,
    rigorous: Rigorous = False,
    plan: PlanFile = None,
    budget: Budget = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="The plan of the committed reference, brief.")
    ] = False,
    write: Annotated[Path | None, typer.Option(help="Store the plan there as JSON.")] = None,
    format: Shape = "table",
) -> None:
    """The points that would be measured, what each is there for, and how long that takes."""
    shape = format_named(format)
    from domain.store import save
    from profiler.messages import Source
    from profiler.protocol import SETTINGS
    from profiler.starting import plan_of, reference_plan_of, said_of

    mode = mode_of(quick, brief, default, rigorous, otherwise="brief" if reference else "quick")
    if reference and (plan is not None or budget is not None):
        raise Complaint("--reference is a plan of its own; leave --plan and --budget away")
    wanted = (
        reference_plan_of(mode) if reference else plan_of(mode, plan, Source(), _seconds(budget))
    )
    emit(rendered(_point_rows(wanted, SETTINGS[mode]), shape), None)
    for line in said_of(wanted, mode):
        say(line)
    if write is not None:
        save(wanted, write)


def _seconds(minutes: float | None) -> float | None:
    return None if minutes is None else 60.0 * minutes


def _measure(session: "Session", folder: Path, format: str, worker: object, *, trace: bool) -> None:
    from profiler.progress import Progress
    from profiler.session import Stop, measure
    from profiler.starting import store_beside
    from profiler.summary import by_point, warnings_of
    from profiler.supervisor import Worker
    from profiler.traces import FOLDER, store_traces

    assert worker is None or isinstance(worker, Worker)
    with Progress(session) as progress, Stop(progress.say) as stop:
        records = measure(session, folder, stop=stop, report=progress.point, first_worker=worker)
        if trace:
            written = store_traces(session, records, folder, stop=stop, say=progress.say)
            progress.say(f"{written} traces in {folder / FOLDER}")
    if stop.is_asked:
        say(f"interrupted; go on with: python -m profiler resume {folder}")
        raise typer.Exit(INTERRUPTED)
    store_beside(folder, session.preparation.source)
    shape = format_named(format)
    emit(rendered(by_point(records, shape), shape), None)
    for warning in warnings_of(by_point(records, "json")):
        warn(warning)
    if format == "table":
        emit(f"\n{folder / 'journal.jsonl'}\n", None)
    say(f"by depth: python -m profiler show {folder} --by depth")
    say(f"next: python -m costmodel.fit --journal {folder}")


def _point_rows(plan: "MeasuringPlan", settings: "Settings") -> list[dict[str, Cell]]:
    from profiler.design import expected_s

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
            "subject": point.subject,
            "seconds_a_run": round(expected_s(point, settings), 1),
            "separates": point.separates,
        }
        for point in plan.points
    ]
