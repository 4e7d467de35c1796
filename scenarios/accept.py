"""`python -m scenarios.accept`: a small folder that says whether a delivered machine is as promised.

The kit goes to the machine; its script measures the workload of the plan there, judges it against
the intervals that the fleet was sized by, and fits the timings, so that the next plan knows them.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import typer

from costmodel.asking import devices_named
from costmodel.transfer import forecast
from domain.acceptance import (
    AcceptanceTerms,
    AcceptanceVerdict,
    PointVerdict,
    PromisedPoint,
    Verdict,
)
from domain.catalogue import devices, model_named
from domain.complaint import BrokenPromise, Complaint
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.measurement import Measurement, MeasuringPlan, PlannedPoint
from domain.prediction import Prediction, Refusal
from domain.record import Estimate, Runtime
from domain.routing import RoutingDistribution
from domain.scenario import FleetOption, Plan, Scenario
from domain.shell import emit, format_named, run_shell
from domain.statistics import median_of_runs
from domain.store import (
    load,
    newest_journal,
    read_journal,
    read_limited,
    results_root,
    save,
    stored_fits,
    write_whole,
)
from domain.tables import Cell, rendered
from domain.units import MILLI, shown
from domain.workload import Workload
from scenarios.fleet import Queue, fleet_of, queue_of
from scenarios.reading import routings_of
from scenarios.sensitivity import log_sd
from scenarios.service import NORMAL_90, Service
from scenarios.sizing import demands_of

TERMS, MEASURING, SCENARIO, VERDICT = "terms.json", "plan.json", "sized.json", "verdict.json"
MEASURED = "measured"
# The profiler measures networks in this runtime.
RUNTIME: Runtime = "eager"
LARGEST_CHECKPOINT_BYTES = 2**30

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Unsettled(Complaint):
    """Nothing could be judged: the measurements are missing or not usable."""

    exit_code = 3


@app.command(
    epilog="Example: python -m scenarios.accept results/plans/inspection-line.json --out kit"
)
def accept(
    plan: Annotated[Path, typer.Argument(help="A stored plan; with --judge, the folder of a kit.")],
    out: Annotated[Path | None, typer.Option(help="New folder; else results/kits/NAME.")] = None,
    device: Annotated[str, typer.Option(help="Of the plan's devices; else the chosen one.")] = "",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Your safetensors file, its card beside it: goes along.")
    ] = None,
    judge: Annotated[
        bool, typer.Option("--judge", help="Judge what the kit's script measured.")
    ] = False,
    journal: Annotated[
        Path | None, typer.Option(help="With --judge: another journal than the kit's own.")
    ] = None,
    format: Annotated[str, typer.Option(help="table, json, csv or md")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write there, not to stdout.")] = None,
) -> None:
    """Write an acceptance kit for a plan's device, or judge one that was run.

    Judging ends with 0 if the machine passed, 7 if it failed, 3 if nothing could be judged.
    """
    shape = format_named(format)
    if judge:
        verdict = judged(plan, journal or plan / MEASURED)
        save(verdict, plan / VERDICT)
        rows = [_row(each) for each in verdict.points]
        text = rendered(rows, shape)
        if shape in ("table", "md"):
            text += f"\n{verdict.verdict.upper()}: {verdict.machine}; {verdict.fleet}\n"
        emit(text, output)
        if verdict.verdict == "fail":
            raise BrokenPromise(f"{plan}: slower than promised; {verdict.fleet}")
        if verdict.verdict == "invalid":
            raise Unsettled(
                f"{plan}: {next(e.why for e in verdict.points if e.verdict == 'invalid')}"
            )
        return
    if journal is not None:
        raise Complaint("wanted --journal with --judge only")
    stored = load(plan, Plan)
    option = _option(stored, device)
    folder = out or results_root() / "kits" / f"{stored.scenario.name}-{option.device_id}"
    if folder.exists() and any(folder.iterdir()):
        raise Complaint(f"{folder} is there already; name another --out")
    terms, measuring = kit_of(stored, option, stored_fits(), has_weights=checkpoint is not None)
    save(measuring, folder / MEASURING)
    save(stored, folder / SCENARIO)
    name = _with_checkpoint(folder, checkpoint)
    write_whole(folder / "run.sh", _script(terms, name).encode())
    (folder / "run.sh").chmod(0o755)
    write_whole(folder / "README.txt", _readme(terms).encode())
    # Last: a folder with terms is a whole kit.
    save(terms, folder / TERMS)
    rows = [_promised_row(each) for each in terms.points]
    emit(rendered(rows, shape) + (f"\nwritten: {folder}\n" if shape == "table" else ""), output)


def kit_of(
    plan: Plan, option: FleetOption, fits: Sequence[Fit], *, has_weights: bool = False
) -> tuple[AcceptanceTerms, MeasuringPlan]:
    """The terms of one fleet's machine, and the points to measure on it.

    With weights of one's own, real images are measured too: for the fit, not for the verdict, as
    their routing is their own.
    """
    scenario = plan.scenario
    ((device, _),) = devices_named(option.device_id, fits, None)
    net, routed, full = routings_of(scenario)
    points: list[PlannedPoint] = []
    promised: list[PromisedPoint] = []
    for batch in _batches(option.batch):
        for routing, is_full in ((routed, False), (full, True)):
            name = f"b{batch}-{'full' if is_full else 'routed'}"
            found = _forecast(scenario, device, fits, batch, routing)
            if isinstance(found, Refusal):
                raise Complaint(f"no promise for {device.name}, batch {batch}: {found.reason}")
            latency = found.latency_s
            spread = math.log(latency.high / latency.value) / NORMAL_90
            sure = Service(seconds=(latency.value,), log_sd=spread, variation=0.0).factor(
                scenario.promise.confidence
            )
            points.append(
                PlannedPoint(
                    id=name,
                    architecture=net,
                    weights="random",
                    batch=batch,
                    precision=scenario.precision,
                    runtime=RUNTIME,
                    executor=scenario.executor,
                    routing_source="forced-distribution",
                    survival=tuple(min(1.0, share) for share in routing.survival),
                    separates="acceptance",
                )
            )
            promised.append(
                PromisedPoint(
                    point=name,
                    batch=batch,
                    is_full_depth=is_full,
                    promised_s=latency,
                    limit_s=latency.value * sure,
                )
            )
    if has_weights:
        points.append(
            PlannedPoint(
                id=f"b{option.batch}-real",
                architecture=net,
                weights="shipped",
                batch=option.batch,
                precision=scenario.precision,
                runtime=RUNTIME,
                executor=scenario.executor,
                routing_source="real-images",
                separates="acceptance, real images",
            )
        )
    terms = AcceptanceTerms(
        plan=scenario.name,
        device_id=device.id,
        device_name=device.name,
        model=net,
        precision=scenario.precision,
        executor=scenario.executor,
        measured_runtime=RUNTIME,
        planned_runtime=scenario.runtime,
        servers=option.servers,
        batch=option.batch,
        points=tuple(promised),
        promised=f"{option.servers} a site answer 99 of 100 images within "
        f"{shown(scenario.promise.p99_latency_s, 's')}",
        made_by="python -m scenarios.accept",
    )
    measuring = MeasuringPlan(name=f"accept-{scenario.name}", runs=3, points=tuple(points))
    return terms, measuring


def judged(folder: Path, journal: Path) -> AcceptanceVerdict:
    """What the delivered machine showed, held against the terms of its kit."""
    terms, plan = load(folder / TERMS, AcceptanceTerms), load(folder / SCENARIO, Plan)
    path = newest_journal(journal)
    if not path.is_file():
        raise Unsettled(f"{folder} has no measurements yet: run its run.sh on the machine")
    measured = read_journal(path)
    by_point: dict[str, list[Measurement]] = {}
    for each in measured:
        by_point.setdefault(each.point, []).append(each)
    verdicts = tuple(
        _judged_point(promise, terms, by_point.get(promise.point, ())) for promise in terms.points
    )
    kinds = {each.verdict for each in verdicts}
    verdict: Verdict = "fail" if "fail" in kinds else "invalid" if "invalid" in kinds else "pass"
    environment = measured[0].environment if measured else None
    machine = (
        f"{environment.device_name}, {environment.threads} threads, torch {environment.torch}"
        if environment
        else "no machine"
    )
    return AcceptanceVerdict(
        terms=terms,
        points=verdicts,
        verdict=verdict,
        fleet=_fleet_said(plan.scenario, terms, verdicts),
        machine=machine,
    )


def _judged_point(
    promise: PromisedPoint, terms: AcceptanceTerms, runs: Sequence[Measurement]
) -> PointVerdict:
    usable = [each for each in runs if each.is_usable and _is_of(each, promise, terms)]
    if not usable:
        why = runs[0].reason or "of another workload" if runs else "it was not measured"
        return PointVerdict(
            point=promise.point,
            verdict="invalid",
            promised_s=promise.promised_s,
            measured_s=None,
            why=f"{promise.point}: {why}",
        )
    value, low, high = median_of_runs([each.samples_s for each in usable])
    is_kept = value <= promise.limit_s
    quicker = value < promise.promised_s.low
    said = "quicker than promised" if quicker else "as promised" if is_kept else "slower"
    return PointVerdict(
        point=promise.point,
        verdict="pass" if is_kept else "fail",
        promised_s=promise.promised_s,
        measured_s=Estimate(value=value, low=low, high=high),
        why=f"{said}: {shown(value, 's')}, the limit is {shown(promise.limit_s, 's')}, "
        f"{len(usable)} runs",
    )


def _is_of(measurement: Measurement, promise: PromisedPoint, terms: AcceptanceTerms) -> bool:
    work = measurement.workload
    return (work.architecture, work.batch, work.precision, work.executor, work.runtime) == (
        terms.model, promise.batch, terms.precision, terms.executor, terms.measured_runtime,
    )  # fmt: skip


def _fleet_said(
    scenario: Scenario, terms: AcceptanceTerms, verdicts: Sequence[PointVerdict]
) -> str:
    """How many devices the measured times need, against what was planned."""
    at_full = scenario.routing.hold_at_full_depth
    seen = {
        promise.batch: verdict.measured_s.value
        for promise, verdict in zip(terms.points, verdicts, strict=True)
        if promise.is_full_depth == at_full and verdict.measured_s is not None
    }
    if terms.batch not in seen:
        return "the plan's batch was not measured, so nothing follows for the fleet"
    if scenario.demand.arrivals == "trace":
        return "the recorded trace is not in the kit: size again with the new fit"
    found = fleet_of(queue_for(scenario, seen, terms.batch))
    needs = found if isinstance(found, str) else f"{found.servers} a site are needed"
    note = ""
    if terms.planned_runtime != terms.measured_runtime:
        note = f" ({terms.measured_runtime} was measured, the plan is for {terms.planned_runtime})"
    return f"planned: {terms.servers} a site; by what was measured {needs}{note}"


def queue_for(scenario: Scenario, seconds: Mapping[int, float], batch: int) -> Queue:
    """The queue of the busiest year with times as measured; a size between takes the next one's."""
    sizes = sorted(seconds)
    curve = [seconds[next(each for each in sizes if each >= size)] for size in range(1, batch + 1)]
    service = Service(
        seconds=tuple(accumulate(curve, max)),
        log_sd=log_sd(scenario.uncertainty.measured_band),
        variation=0.0,
    )
    demand = max(demands_of(scenario), key=lambda each: each.peak_img_per_s)
    return queue_of(demand, scenario.promise, service)


def _option(plan: Plan, name: str) -> FleetOption:
    if not name:
        # Without a price nothing is chosen, but a fleet may still be accepted.
        kept = [option for option in plan.options if option.devices]
        if not kept:
            raise Complaint(
                f"no fleet of {plan.scenario.name} keeps its promise: nothing to accept"
            )
        return plan.chosen or kept[0]
    for option in plan.options:
        if option.device_id == name:
            if not option.devices:
                raise Complaint(f"{name} has no fleet in this plan: {option.reason}")
            return option
    known = ", ".join(option.device_id for option in plan.options)
    raise Complaint(f"unknown device {name!r}; the plan has {known}")


def _batches(batch: int) -> tuple[int, ...]:
    """The plan's batch and one image; with full depth beside it, the four points of a fit."""
    return (1, batch) if batch > 1 else (1, 4)


def _forecast(
    scenario: Scenario,
    device: DeviceSpec,
    fits: Sequence[Fit],
    batch: int,
    routing: RoutingDistribution,
) -> Prediction | Refusal:
    workload = Workload(
        architecture=model_named(scenario.model),
        batch=batch,
        precision=scenario.precision,
        runtime=RUNTIME,
        executor=scenario.executor,
        routing=routing,
    )
    return forecast(workload, device, fits)


def _with_checkpoint(folder: Path, checkpoint: Path | None) -> str:
    """Copy the weights and their card into the kit; their name there, or nothing."""
    if checkpoint is None:
        return ""
    card = checkpoint.with_suffix(".json")
    for path in (checkpoint, card):
        content = read_limited(path, LARGEST_CHECKPOINT_BYTES)
        write_whole(folder / path.name, content)
    return checkpoint.name


def _script(terms: AcceptanceTerms, checkpoint: str) -> str:
    """The kit's script: measure, judge, fit. Run from a checkout of this suite."""
    device = "auto" if terms.device_id not in devices() else terms.device_id
    weights = f' --checkpoint "$kit/{checkpoint}"' if checkpoint else ""
    return f"""#!/bin/sh
# Accept a delivered machine: {terms.device_name}.
# Run from a checkout of the suite that is set up there: sh KIT/run.sh [device]
set -eu
kit=$(cd "$(dirname "$0")" && pwd)
python=${{PYTHON:-.venv/bin/python}}
"$python" -m profiler run --device "${{1:-{device}}}" --quick --plan "$kit/{MEASURING}" \\
  --out "$kit/{MEASURED}"{weights}
"$python" -m costmodel.fit --journal "$kit/{MEASURED}" || echo "no fit: see above" >&2
"$python" -m scenarios.accept "$kit" --judge
"""


def _readme(terms: AcceptanceTerms) -> str:
    rows = "".join(
        f"  {each.point}: at most {shown(each.limit_s, 's')} a batch\n" for each in terms.points
    )
    return (
        f"Acceptance of {terms.device_name} for the plan {terms.plan}\n\n"
        f"Promised: {terms.promised}, in batches of up to {terms.batch}.\n"
        f"On this machine, {terms.precision} {terms.measured_runtime}, {terms.executor}:\n{rows}\n"
        "Copy this folder to the machine, set the suite up there (make setup), and run\n"
        "  sh run.sh\n"
        "It measures these points, says pass or fail, and fits the timings, so that\n"
        "`python -m scenarios.size` knows this machine from then on.\n"
        + (
            f"The plan is for {terms.planned_runtime}; the profiler measures "
            f"{terms.measured_runtime}, so the intervals are of that.\n"
            if terms.planned_runtime != terms.measured_runtime
            else ""
        )
    )


def _promised_row(each: PromisedPoint) -> dict[str, Cell]:
    return {
        "point": each.point,
        "batch": each.batch,
        "promised_ms": each.promised_s.value / MILLI,
        "low_ms": each.promised_s.low / MILLI,
        "high_ms": each.promised_s.high / MILLI,
        "limit_ms": each.limit_s / MILLI,
    }


def _row(each: PointVerdict) -> dict[str, Cell]:
    seen = each.measured_s
    return {
        "point": each.point,
        "verdict": each.verdict,
        "promised_ms": each.promised_s.value / MILLI,
        "high_ms": each.promised_s.high / MILLI,
        "measured_ms": seen.value / MILLI if seen else None,
        "measured_low_ms": seen.low / MILLI if seen else None,
        "measured_high_ms": seen.high / MILLI if seen else None,
        "why": each.why,
    }


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
