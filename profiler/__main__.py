"""`python -m profiler`: doctor, plan, run, resume, export."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domain.complaint import INTERRUPTED, NO_DEVICE, Complaint, printable
from domain.shell import emit, format_named, run_shell
from domain.tables import rendered

if TYPE_CHECKING:
    from domain.measurement import Measurement, MeasuringPlan
    from profiler.protocol import Mode
    from profiler.session import Session

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__
)

Quick = Annotated[bool, typer.Option("--quick", help="Minutes: a dozen points, 3 runs.")]
Default = Annotated[bool, typer.Option("--default", help="An hour or two: 40 points, 5 runs.")]
Rigorous = Annotated[bool, typer.Option("--rigorous", help="A day: 58 points, 10 runs.")]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="A MeasuringPlan as JSON.")]
Shape = Annotated[str, typer.Option("--format", help="table, json, csv or md")]


@app.command(epilog="Example: python -m profiler run --quick --out results/measurements/mine")
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
        mode=_mode(quick, default, rigorous),
        plan_file=plan,
        out=out,
        seed=seed,
        threads=threads,
        source=Source(checkpoint=named(checkpoint), images=named(images)),
        say=_say,
    )
    _measure(session, folder, format, worker)


@app.command(epilog="Example: python -m profiler resume results/measurements/mine")
def resume(
    folder: Annotated[Path, typer.Argument(help="The folder that `run` wrote.")],
    format: Shape = "table",
) -> None:
    """Measure what an interrupted run has left, on the same machine with the same software."""
    format_named(format)
    from profiler.starting import resumed

    session, worker = resumed(folder, say=_say)
    _measure(session, folder, format, worker)


@app.command(epilog="Example: python -m profiler doctor --format json")
def doctor(
    threads: Annotated[int | None, typer.Option(min=1, max=1024)] = None, format: Shape = "table"
) -> None:
    """What could spoil a measurement here, and the cure; exit 4 where nothing can be measured."""
    shape = format_named(format)
    from profiler.doctor import findings, looked

    found = findings(looked(threads))
    emit(rendered([finding.model_dump() for finding in found], shape), None)
    if any(finding.level == "FAIL" for finding in found):
        raise typer.Exit(NO_DEVICE)


@app.command(epilog="Example: python -m profiler plan --default --write plan.json")
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

    mode = _mode(quick, default, rigorous)
    wanted = plan_of(mode, plan, Source())
    emit(rendered(_point_rows(wanted), shape), None)
    minutes = math.ceil(estimated_s(wanted, mode) / 60)
    _say(f"{len(wanted.points)} points, {wanted.runs} runs, at most about {minutes} min")
    if write is not None:
        save(wanted, write)


@app.command(epilog="Example: python -m profiler export results/measurements/mine")
def export(
    folder: Annotated[Path, typer.Argument(help="The folder that `run` wrote.")],
) -> None:
    """The journal as Parquet, for analysis, with checksums."""
    from profiler.export import exported

    emit("".join(f"{path}\n" for path in exported(folder)), None)


def _measure(session: "Session", folder: Path, format: str, worker: object) -> None:
    from profiler.progress import Progress
    from profiler.session import Stop, measure
    from profiler.starting import store_beside
    from profiler.supervisor import Worker

    assert worker is None or isinstance(worker, Worker)
    with Progress(session) as progress, Stop(progress.say) as stop:
        records = measure(session, folder, stop=stop, report=progress.point, first_worker=worker)
    if stop.is_asked:
        _say(f"interrupted; go on with: python -m profiler resume {folder}")
        raise typer.Exit(INTERRUPTED)
    store_beside(folder, session.preparation.source)
    emit(rendered(_result_rows(records), format_named(format)), None)
    if format == "table":
        emit(f"\n{folder / 'journal.jsonl'}\n", None)
    _say(f"next: python -m costmodel.fit --journal {folder}")


def _mode(quick: bool, default: bool, rigorous: bool) -> "Mode":
    if quick + default + rigorous > 1:
        raise Complaint("wanted one of --quick, --default and --rigorous, got several")
    return "rigorous" if rigorous else "default" if default else "quick"


def _point_rows(plan: "MeasuringPlan") -> list[dict[str, str | float | int | bool | None]]:
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
) -> list[dict[str, str | float | int | bool | None]]:
    from profiler.progress import summary

    points = dict.fromkeys(record.point for record in records)
    return [summary([record for record in records if record.point == point]) for point in points]


def _say(text: str) -> None:
    sys.stderr.write(printable(text) + "\n")


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
