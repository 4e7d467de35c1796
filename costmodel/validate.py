"""`python -m costmodel.validate`: the accuracy table, made anew from data that the fits had not seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from costmodel.accuracy import (
    family_pairs,
    machine_pairs,
    noise_floor,
    occasion_gap,
    occasion_pairs,
    row_pairs,
    summary_of,
)
from costmodel.calibration import TooFewPoints, by_precision, usable_points
from domain.catalogue import devices, published
from domain.complaint import Complaint
from domain.fit import HeldOut, Validation, ValidationRow
from domain.measurement import Measurement
from domain.shell import emit, format_named, run_shell, warn
from domain.store import (
    newest_journal,
    read_journal,
    reference_again,
    reference_journal,
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
    again: Annotated[
        Path | None,
        typer.Option(help="Another occasion of the same plan and machine: predicted, too."),
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
    path = newest_journal(journal)
    if reference and journal is None:
        path, again = reference_journal(), again or reference_again()
    pairs, rows = own_accuracy(_read(path), None if again is None else _read(newest_journal(again)))
    if not own_only:
        others = row_pairs(published(), devices()) + family_pairs(published(), devices())
        pairs, rows = [*pairs, *others], [*rows, *summary_of(others, None)]
    table = [row.model_dump(mode="json") for row in rows]
    folder = reference_root() if reference else results_root() / "predictions"
    save(Validation(rows=tuple(rows), pairs=tuple(pairs)), folder / "validation_pairs.json")
    write_whole(folder / "validation.json", rendered(table, "json").encode())
    emit(rendered(table, shape), output)


def own_accuracy(
    measurements: Sequence[Measurement], again: Sequence[Measurement] | None
) -> tuple[list[HeldOut], list[ValidationRow]]:
    """Pairs and rows of one machine, each precision for itself; `again` is another occasion of it.

    A precision that cannot be fitted is left out with a warning. Raises TooFewPoints where none
    can be, Complaint where the other occasion has no point of the same machine.
    """
    pairs: list[HeldOut] = []
    rows: list[ValidationRow] = []
    later = {} if again is None else by_precision(again)
    left_out: list[str] = []
    for precision, alike in by_precision(measurements).items():
        points = usable_points(alike)
        try:
            own = machine_pairs(points)
        except TooFewPoints as complaint:
            left_out.append(f"{precision} was not judged: {complaint}")
            continue
        pairs += own
        rows += summary_of(own, noise_floor(points))
        if precision in later:
            repeated = of_same_machine(usable_points(later[precision]), points)
            other = occasion_pairs(own, repeated)
            pairs += other
            rows += summary_of(other, occasion_gap(points, repeated))
    if not rows:
        raise TooFewPoints("; ".join(left_out))
    for sentence in left_out:
        warn(sentence)
    return pairs, rows


def of_same_machine(
    later: dict[str, list[Measurement]], points: dict[str, list[Measurement]]
) -> dict[str, list[Measurement]]:
    """`later`, where it is of the same machine as `points` and shares one of them."""
    one, other = (next(iter(each.values()))[0].environment for each in (points, later))
    if one.key() != other.key():
        raise Complaint(
            f"--again must be of the same environment: {one.device_name} with {one.threads} threads, "
            f"got {other.device_name} with {other.threads} (or other software)"
        )
    if not points.keys() & later.keys():
        raise Complaint("--again shares no point with the journal; measure the same plan twice")
    return later


def _read(path: Path) -> tuple[Measurement, ...]:
    warn(unread_tail(path))
    return read_journal(path)


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
