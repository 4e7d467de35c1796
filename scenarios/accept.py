"""`python -m scenarios.accept`: a small folder that says whether a delivered machine is as promised.

The kit goes to the machine; its script measures the workload of the plan there, judges it against
the intervals that the fleet was sized by, and fits the timings, so that the next plan knows them.
"""

from pathlib import Path
from typing import Annotated

import typer

from domain.acceptance import AcceptanceTerms, PointVerdict, PromisedPoint
from domain.complaint import BrokenPromise, Complaint
from domain.scenario import FleetOption, Plan
from domain.shell import emit, format_named, run_shell
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
from domain.units import MILLI
from scenarios.judging import judged
from scenarios.kit import MEASURED, MEASURING, kit_of, readme_of, script_of

TERMS, SCENARIO, VERDICT = "terms.json", "sized.json", "verdict.json"
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

    Judging ends with 0 if the machine passed, 7 if it failed, 3 if it was disturbed or not measured.
    """
    shape = format_named(format)
    if judge:
        path = newest_journal(journal or plan / MEASURED)
        terms, sized = load(plan / TERMS, AcceptanceTerms), load(plan / SCENARIO, Plan)
        if not path.is_file():
            raise Unsettled(f"{plan} has no measurements yet: run its run.sh on the machine")
        verdict = judged(terms, sized, read_journal(path))
        save(verdict, plan / VERDICT)
        rows = [_row(each) for each in verdict.points]
        text = rendered(rows, shape)
        if shape in ("table", "md"):
            text += f"\n{verdict.verdict.upper()}: {verdict.machine}; {verdict.fleet}\n"
        emit(text, output)
        if verdict.verdict == "fail":
            raise BrokenPromise(f"{plan}: slower than promised; {verdict.fleet}")
        if verdict.verdict != "pass":
            why = next(each.why for each in verdict.points if each.verdict == verdict.verdict)
            raise Unsettled(f"{plan}: {verdict.verdict}: {why}")
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
    write_whole(folder / "run.sh", script_of(terms, name).encode())
    (folder / "run.sh").chmod(0o755)
    write_whole(folder / "README.txt", readme_of(terms).encode())
    # Last: a folder with terms is a whole kit.
    save(terms, folder / TERMS)
    rows = [_promised_row(each) for each in terms.points]
    emit(rendered(rows, shape) + (f"\nwritten: {folder}\n" if shape == "table" else ""), output)


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


def _with_checkpoint(folder: Path, checkpoint: Path | None) -> str:
    """Copy the weights and their card into the kit; their name there, or nothing."""
    if checkpoint is None:
        return ""
    if not checkpoint.name:
        raise Complaint("wanted --checkpoint with a safetensors file, got no name")
    card = checkpoint.with_suffix(".json")
    for path in (checkpoint, card):
        content = read_limited(path, LARGEST_CHECKPOINT_BYTES)
        write_whole(folder / path.name, content)
    return checkpoint.name


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
