"""`python -m costmodel.gate`: today's predictions against the committed ones; only "worked, now fails" blocks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from costmodel.gating import Comparison, answers_of, compared, rows_compared
from costmodel.validate import rows_of
from domain.catalogue import devices, published
from domain.complaint import BrokenPromise, Complaint
from domain.fit import Fit
from domain.prediction import Answers
from domain.shell import emit, format_named, run_shell, warn
from domain.store import load, reference_root, save
from domain.tables import Cell, rendered

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python -m costmodel.gate")
def gate(
    update: Annotated[
        bool, typer.Option("--update", help="Commit to what is answered today, if nothing fails.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --update: even what fails; say why in the commit.")
    ] = False,
    against: Annotated[
        Path | None, typer.Option(help="An older validation.json to hold today's against.")
    ] = None,
    format: Annotated[str, typer.Option(help="table, json, csv or md")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write the table there.")] = None,
) -> None:
    """Old against new. Exit code 7 where something worked and fails now; drift is only told."""
    shape = format_named(format)
    if force and not update:
        raise Complaint("--force is for --update: it replaces answers that fail now")
    # Fits of a user's own machine are no part of what is committed.
    fits = [load(path, Fit) for path in sorted((reference_root() / "fits").glob("*.json"))]
    today = Answers(answers=tuple(answers_of(published(), devices(), fits)))
    path = reference_root() / "answers.json"
    seen = compared(load(path, Answers).answers, today.answers) if path.exists() else None
    judged = None if against is None else _tables_compared(against)
    parts = {"predictions": seen, "accuracy": judged}
    found = {name: each for name, each in parts.items() if each is not None}
    emit(rendered([_row(name, each) for name, each in found.items()] or [_first()], shape), output)
    failures = [line for each in found.values() for line in each.failures]
    for line in failures:
        warn(f"worked, now fails: {line}")
    if update and (force or not failures):
        save(today, path)
    elif failures:
        raise BrokenPromise(
            f"{len(failures)} answers worked and fail now; mend the change, or accept them with "
            "--update --force and say why"
        )


def _tables_compared(older: Path) -> Comparison:
    return rows_compared(rows_of(older), rows_of(reference_root() / "validation.json"))


def _row(name: str, seen: Comparison) -> dict[str, Cell]:
    moved: Mapping[str, float] = seen.drift
    sizes = np.abs(list(moved.values())) if moved else np.zeros(1)
    farthest = max(moved, key=lambda each: abs(moved[each])) if moved else ""
    return {
        "of": name,
        "compared": len(moved),
        "fail_now": len(seen.failures),
        "not_asked_any_more": len(seen.unasked),
        "median_drift": float(np.median(sizes)),
        "largest_drift": float(sizes.max()),
        "farthest": farthest,
    }


def _first() -> dict[str, Cell]:
    return {"of": "predictions", "compared": 0, "farthest": "none committed: use --update"}


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
