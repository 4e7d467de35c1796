"""lockstep: two points in one process, turn about."""

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domain.complaint import INTERRUPTED, UNSTABLE, Complaint, first_error, nearest
from domain.shell import emit, format_named, say
from profiler.commands.comparing import verdicts_shown
from profiler.commands.options import (
    Brief,
    Default,
    FailOn,
    Level,
    Margin,
    PlanFile,
    Quick,
    Rigorous,
    SameWithin,
    Shape,
    built_executor,
    checked_fail_on,
    mode_of,
)

if TYPE_CHECKING:
    from domain.lockstep import LockstepRun
    from domain.measurement import MeasuringPlan, PlannedPoint
    from profiler.lockstep import Side
    from profiler.messages import Source

FIELDS = ("batch", "executor", "precision", "checkpoint")
SIDE = (
    "A point of --plan, changes to it, or both: NAME,batch=8,executor=masked. Without a NAME it is "
    "the network on real images at batch 8. To change: " + ", ".join(FIELDS) + "."
)


def lockstep(
    before: Annotated[str, typer.Argument(help=SIDE)],
    after: Annotated[str, typer.Argument(help="The same, changed.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, or a catalogue name.")] = "auto",
    quick: Quick = False,
    brief: Brief = False,
    default: Default = False,
    rigorous: Rigorous = False,
    plan: PlanFile = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Your safetensors file, its card beside it; else shipped.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Your images as class/name.png; else the sample.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Default: one for each usable core.")
    ] = None,
    margin: Margin = 0.02,
    same_within: SameWithin = 0.05,
    level: Level = 0.97,
    fail_on: FailOn = "nothing",
    out: Annotated[
        Path | None, typer.Option(help="Folder for lockstep.jsonl; else results/lockstep/<time>.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Order, weights, images, forced counts.")
    ] = 0,
    format: Shape = "table",
) -> None:
    """Which of two points is faster: both in one process, turn about, so that noise cancels.

    Finds differences of a percent or two on a machine whose sessions differ by ten. For two versions
    of the program, measure each and `compare`.
    """
    shape = format_named(format)
    fails_on_slower = checked_fail_on(fail_on)
    from domain.measurement import MeasuringPlan
    from domain.store import load, results_root
    from profiler.comparison import Terms
    from profiler.environment import choose_device, usable_cores
    from profiler.inputs import checked_inputs
    from profiler.lockstep import JOURNAL, WORKER, Contest, all_judged, contested
    from profiler.messages import Preparation, Source
    from profiler.protocol import SETTINGS
    from profiler.session import Stop, prepared_worker

    settings = SETTINGS[mode_of(quick, brief, default, rigorous, otherwise="brief")]
    points = None if plan is None else load(plan, MeasuringPlan)
    source = Source(checkpoint=_named(checkpoint), images=_named(images))
    sides = (_side(before, points, source), _side(after, points, source))
    if {**dict(sides[0].point), "id": ""} == {**dict(sides[1].point), "id": ""} and (
        sides[0].source == sides[1].source
    ):
        say("both sides are the same: this says how well the same thing repeats")
    for side in sides:
        checked_inputs(MeasuringPlan(name="side", runs=1, points=(side.point,)), side.source)
    choice = choose_device(device)
    id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    journal = (out if out is not None else results_root() / "lockstep" / id) / JOURNAL
    if journal.exists():
        raise Complaint(f"{journal} is there already; name another --out")
    preparation = Preparation(
        kind=choice.kind,
        gpu_name=choice.gpu.name if choice.gpu else "",
        gpu_uuid=choice.gpu.uuid if choice.gpu else "",
        threads=threads or usable_cores(),
    )
    worker, environment, _ = prepared_worker(preparation, WORKER)
    contest = Contest(
        session=id,
        pairs=(sides,),
        settings=settings,
        seed=seed,
        preparation=preparation,
        environment=environment,
    )
    with Stop(say) as stop:
        records = contested(contest, journal, stop=stop, report=_said_of_run, first_worker=worker)
    if stop.is_asked:
        say(f"stopped after {len(records)} of {settings.runs} runs; they are in {journal}")
        raise typer.Exit(INTERRUPTED)
    terms = Terms(margin=margin, same_within=same_within, level=level)
    result = all_judged(records, (before, after), terms)
    emit(verdicts_shown(result, shape), None)
    say(f"{len(records)} runs in {journal}")
    [verdict] = [each.verdict for each in result.points]
    if verdict == "INVALID" or (fails_on_slower and verdict == "SLOWER"):
        raise typer.Exit(UNSTABLE)


def _side(text: str, plan: "MeasuringPlan | None", source: "Source") -> "Side":
    """One side as a person wrote it. Raises Complaint for what it cannot be."""
    from pydantic import ValidationError

    from domain.measurement import PlannedPoint
    from profiler.lockstep import Side
    from profiler.messages import Source

    first, *rest = [part.strip() for part in text.split(",")]
    name, changes = (first, rest) if "=" not in first else ("", [first, *rest])
    changed: dict[str, str | int] = {}
    for change in changes:
        field, equals, value = change.partition("=")
        if not equals or field not in FIELDS:
            raise Complaint(f"wanted FIELD=VALUE with one of {', '.join(FIELDS)}, got {change!r}")
        changed[field] = value
    if "batch" in changed:
        changed["batch"] = _count(str(changed["batch"]))
    if "executor" in changed:
        changed["executor"] = built_executor(str(changed["executor"]))
    own = str(changed.pop("checkpoint", ""))
    if own:
        source = Source(checkpoint=_named(Path(own)), images=source.images)
    point = _point(name, plan, source)
    try:
        point = PlannedPoint.model_validate({**dict(point), "id": "side", **changed})
    except ValidationError as error:
        raise Complaint(f"{text} is no point: {first_error(error)}") from error
    return Side(point=point.model_copy(update={"id": _identifier(text)}), source=source)


def _point(name: str, plan: "MeasuringPlan | None", source: "Source") -> "PlannedPoint":
    """The point of a plan; without a name the network itself on real images."""
    from domain.measurement import PlannedPoint
    from profiler.source import network_of

    if name and plan is None:
        raise Complaint(f"{name!r} is the name of a point, but there is no --plan to look in")
    if name:
        assert plan is not None
        points = {point.id: point for point in plan.points}
        if name not in points:
            raise Complaint(f"no point {name!r} in {plan.name}; {nearest(name, points)}")
        return points[name]
    return PlannedPoint(
        id="network",
        architecture=network_of(source)[1].architecture,
        weights="shipped",
        batch=8,
        routing_source="real-images",
    )


def _identifier(text: str) -> str:
    """What was written, as a name in a record."""
    import re

    kept = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return kept[-60:].strip("-") or "network"


def _count(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise Complaint(f"wanted a whole number of images as batch, got {text!r}") from None


def _named(path: Path | None) -> str:
    return "" if path is None else str(path.resolve())


def _said_of_run(record: "LockstepRun") -> None:
    from math import expm1

    from profiler.quartets import median_and_error

    if not record.before_s:
        say(f"run {record.run}: {record.status}: {record.reason}")
        return
    value, error = median_and_error(record.before_s, record.after_s)
    said = f" ({record.reason})" if record.reason else ""
    say(
        f"run {record.run}: {expm1(value):+.2%} a pass, standard error {error:.2%}, "
        f"{len(record.before_s) // 2} quartets, {record.status}{said}"
    )
