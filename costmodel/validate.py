"""`python -m costmodel.validate`: the accuracy table, made anew from data that the fits had not seen."""

from pathlib import Path
from typing import Annotated

import typer

from costmodel.accuracy import family_pairs, machine_pairs, noise_floor, row_pairs, summary_of
from costmodel.calibration import usable_points
from domain.catalogue import devices, published
from domain.fit import Validation
from domain.shell import emit, format_named, run_shell, warn
from domain.store import (
    newest_journal,
    read_journal,
    reference_root,
    results_root,
    save,
    unread_tail,
    write_whole,
)
from domain.tables import rendered

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python -m costmodel.validate --format md")
def validate(
    journal: Annotated[
        Path | None, typer.Option(help="Journal or its folder; default: the newest.")
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Judge the committed journal, replace its table.")
    ] = False,
    own_only: Annotated[
        bool, typer.Option("--own", help="This machine only, not the published rows.")
    ] = False,
    format: Annotated[str, typer.Option(help="table, json, csv or md")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write the table there.")] = None,
) -> None:
    """Held-out error, coverage and repeat-to-repeat noise, by split."""
    shape = format_named(format)
    source = reference_root() if reference and journal is None else journal
    path = newest_journal(source)
    points = usable_points(read_journal(path))
    warn(unread_tail(path))
    pairs = machine_pairs(points)
    if not own_only:
        pairs += row_pairs(published(), devices()) + family_pairs(published(), devices())
    rows = summary_of(pairs, noise_floor(points))
    table = [row.model_dump(mode="json") for row in rows]
    folder = reference_root() if reference else results_root() / "predictions"
    save(Validation(rows=tuple(rows), pairs=tuple(pairs)), folder / "validation_pairs.json")
    write_whole(folder / "validation.json", rendered(table, "json").encode())
    emit(rendered(table, shape), output)


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
