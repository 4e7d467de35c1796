"""`python -m costmodel.fit`: coefficients from a journal, or from published measurements."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from threadpoolctl import threadpool_limits

from costmodel.calibration import fit_machines
from costmodel.hierarchy import beliefs_about, class_of_machines
from costmodel.points import usable_points, with_peaks
from costmodel.publishedfits import fits_of_published
from domain.catalogue import devices, published
from domain.fit import Fit
from domain.measurement import Measurement
from domain.shell import emit, format_named, run_shell, warn
from domain.store import (
    alone_fits,
    alone_root,
    newest_journal,
    read_journal,
    reference_root,
    reference_sweeps,
    results_root,
    save,
    unread_tail,
)
from domain.tables import Cell, rendered

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python -m costmodel.fit --journal results/measurements/mine")
def fit(
    journal: Annotated[
        Path | None, typer.Option(help="Journal or its folder; default: the newest.")
    ] = None,
    from_published: Annotated[
        bool, typer.Option("--published", help="Fit the catalogue's published rows instead.")
    ] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Replace the committed reference fits.")
    ] = False,
    format: Annotated[str, typer.Option(help="table, json, csv or md")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write the table there.")] = None,
) -> None:
    """Fit the cost model, each precision for itself, and store it under `results/fits`."""
    shape = format_named(format)
    made_by = "python -m costmodel.fit"
    folder = (reference_root() if reference else results_root()) / "fits"
    if from_published:
        fits: tuple[Fit, ...] = fits_of_published(published(), devices(), f"{made_by} --published")
    else:
        asked: list[tuple[Path | None, ...]] = (
            list(reference_sweeps().values()) if reference and journal is None else [(journal,)]
        )
        journals = [_measurements_of(each) for each in asked]
        fits = _reference_fits(journals, made_by) if reference and journal is None else ()
        fits = (*(fit for each in journals for fit in _fits_of(each, made_by)), *fits)
    # The newest file is what others show first: the first precision's is written last.
    for each in reversed(fits):
        save(each, folder / f"{each.name}.json")
    emit(rendered(list(_rows(fits)), shape), output)


def _measurements_of(asked: Sequence[Path | None]) -> list[Measurement]:
    """All runs of one machine, from journals as `--journal` names them."""
    journals = [newest_journal(path) for path in asked]
    measurements = [run for path in journals for run in read_journal(path)]
    for sentence in map(unread_tail, journals):
        warn(sentence)
    restless = sum(each.status == "unstable" for each in measurements)
    if restless:
        warn(f"{restless} of {len(measurements)} runs were taken on a restless machine")
    return measurements


def _reference_fits(journals: Sequence[Sequence[Measurement]], made_by: str) -> tuple[Fit, ...]:
    """Stores each machine by itself alone, for beliefs; gives the class of them all."""
    by_itself = [fit_machines(each, made_by)[0] for each in journals]
    alone = {
        alone_root() / f"{fit.name}.json": fit
        for own in by_itself
        for fit in own
        if fit.precisions == ("fp32",)
    }
    for path, fit in alone.items():
        save(fit, path)
    # A machine that is no longer committed must not go on speaking.
    for path in set(alone_root().glob("*.json")) - set(alone):
        path.unlink()
    # What an unmeasured CPU is told rests on one setting of each, the first.
    return (class_of_machines([own[0] for own in by_itself]),)


def _fits_of(measurements: Sequence[Measurement], made_by: str) -> tuple[Fit, ...]:
    """The fits of one machine, by what others say of it and its own runs; what was left out is said."""
    # Of several machines in a journal the newest is fitted: only its own usable runs say which it is.
    points, _ = with_peaks(usable_points(measurements))
    fits, left_out = fit_machines(measurements, made_by, beliefs_about(points, alone_fits()))
    for sentence in left_out:
        warn(sentence)
    return fits


def _rows(fits: Sequence[Fit]) -> Iterator[dict[str, Cell]]:
    for fit in fits:
        for each in fit.coefficients:
            yield {
                "fit": fit.name,
                "coefficient": each.name,
                "value": each.value,
                "unit": each.unit,
                "log_sd": each.log_sd,
                "contraction": None
                if each.prior_log_sd is None
                else 1 - each.log_sd / each.prior_log_sd,
                "identified": "yes" if each.is_identified else "no (mostly the prior)",
                "residual_log_sd": fit.residual_log_sd,
                "points": fit.points,
            }


def main() -> None:
    """The command."""
    # Of matrices of some hundred rows, threads only wait for each other.
    with threadpool_limits(1):
        run_shell(app)


if __name__ == "__main__":
    main()
