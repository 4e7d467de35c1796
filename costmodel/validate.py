"""`python -m costmodel.validate`: the accuracy table, made anew from data that the fits had not seen."""

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError
from threadpoolctl import threadpool_limits

from costmodel.accuracy import (
    ANOTHER_OCCASION,
    family_pairs,
    machine_pairs,
    noise_floor,
    occasion_gap,
    occasion_pairs,
    ranking_of,
    row_pairs,
    scores_of,
    summary_of,
)
from costmodel.blame import operator_rows
from costmodel.calibration import held_out_predictions
from costmodel.fewtimings import published_rows
from costmodel.gating import rows_compared
from costmodel.hierarchy import beliefs_about
from costmodel.kernelsplits import kernel_rows
from costmodel.learning import learning_rows
from costmodel.points import Points, by_name, drift_log_sd, usable_points, with_peaks
from costmodel.splits import (
    SELECTIONS,
    cpu_pairs,
    false_fits,
    memory_pairs,
    noise_of,
)
from costmodel.unseencpu import unseen_cpu_rows
from domain.catalogue import devices, published
from domain.complaint import Complaint, CorruptFile, first_error
from domain.fit import Fit, HeldOut, Validation, ValidationRow
from domain.kernels import gemm_rows
from domain.measurement import Measurement
from domain.shell import emit, format_named, run_shell, warn
from domain.store import (
    COMPACT_JOURNAL,
    FIRST_SWEEP,
    SWEEP_AGAIN,
    alone_fits,
    newest_journal,
    read_journal,
    read_limited,
    reference_root,
    reference_sweeps,
    results_root,
    save,
    unread_tail,
    write_whole,
)
from domain.tables import rendered

# Bytes of an accuracy table that are read at most.
LARGEST_TABLE = 2**22
# The parts of the whole table take about as long as two processes need for all of them.
WORKERS = 2

Judged = TypeVar("Judged", HeldOut, ValidationRow)
Accuracy = tuple[list[HeldOut], list[ValidationRow]]

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
    workers: Annotated[int, typer.Option(min=1, max=16, help="Processes of its own.")] = WORKERS,
    format: Annotated[str, typer.Option(help="table, json, csv or md")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write the table there.")] = None,
) -> None:
    """Held-out error, coverage and repeat-to-repeat noise, by split."""
    shape = format_named(format)
    pairs: list[HeldOut] = []
    rows: list[ValidationRow] = []
    parts: list[Callable[[], Accuracy]] = []
    if reference and journal is None:
        parts += [partial(machine_accuracy, name) for name in reference_sweeps()]
        parts += [unseen_cpu_accuracy]
    else:
        path = newest_journal(journal)
        later = None if again is None else _read(newest_journal(again))
        # Here and first: what is wrong with a user's journal is said at once.
        pairs, rows = own_accuracy(_read(path), later)
    if not own_only:
        parts += [left_out_accuracy, few_timings_accuracy, kernels_accuracy]
    for own_pairs, own_rows in made(parts, workers):
        pairs, rows = [*pairs, *own_pairs], [*rows, *own_rows]
    table = [row.model_dump(mode="json") for row in rows]
    folder = reference_root() if reference else results_root() / "predictions"
    if reference and (folder / "validation.json").exists():
        for line in rows_compared(rows_of(folder / "validation.json"), rows).failures:
            warn(f"worked, now fails: {line}")
    save(Validation(rows=tuple(rows), pairs=tuple(pairs)), folder / "validation_pairs.json")
    write_whole(folder / "validation.json", rendered(table, "json").encode())
    emit(rendered(table, shape), output)


def rows_of(path: Path) -> list[ValidationRow]:
    """The rows of an accuracy table. Raises CorruptFile."""
    try:
        return TypeAdapter(list[ValidationRow]).validate_json(read_limited(path, LARGEST_TABLE))
    except ValidationError as error:
        raise CorruptFile(f"{path} is no accuracy table: {first_error(error)}") from error


def made(parts: Sequence[Callable[[], Accuracy]], workers: int) -> list[Accuracy]:
    """What the parts give, in their order; each in a process of its own, so many at a time.

    They are functions of a module. Raises Complaint where a process was ended from outside.
    """
    if workers == 1 or len(parts) < 2:
        return [part() for part in parts]
    spawned = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(
            min(workers, len(parts)), spawned, initializer=threadpool_limits, initargs=(1,)
        ) as pool:
            waiting = [pool.submit(part) for part in parts]
            return [each.result() for each in waiting]
    except BrokenProcessPool:
        raise Complaint(
            "a process that made a part of the table was ended from outside (short of memory?); "
            "nothing was stored; run it again with --workers 1"
        ) from None


def left_out_accuracy() -> Accuracy:
    """Published networks, leaving out rows, devices and families; how devices are ranked."""
    others = row_pairs(published(), devices()) + family_pairs(published(), devices())
    return others, [*summary_of(others, None), ranking_row(others)]


def few_timings_accuracy() -> Accuracy:
    """Published networks on one device from others', without and with a few timings."""
    return [], published_rows(published(), devices())


def kernels_accuracy() -> Accuracy:
    """Published products of matrices, leaving out their family of devices."""
    return [], kernel_rows(gemm_rows(), devices())


def machine_accuracy(name: str) -> Accuracy:
    """Pairs and rows of the committed sweeps of one machine, all occasions and threads together.

    Another occasion is judged by the wall clock, by a fit of the first occasion of that many
    threads alone. Splits bear the machine's name.
    """
    sweeps = {path.name: _read(path / COMPACT_JOURNAL) for path in reference_sweeps()[name]}
    points = _points_of(sweeps.values())
    pairs: list[HeldOut] = []
    rows: list[ValidationRow] = []
    beliefs = beliefs_about(points, alone_fits())
    found = held_out_predictions(points, beliefs)
    for split, members in cpu_pairs(points, found, beliefs).items():
        own = {pair.point: points[pair.point] for pair in members}
        # A split that selects from the first one has rows of its own, no pairs.
        pairs += [] if split in SELECTIONS else members
        rows += summary_of(members, noise_of(own))
    memory = memory_pairs(points)
    rows += operator_rows(points, scores_of(points, found), beliefs)
    rows += [*summary_of(memory, None), false_fits(points), *learning_rows(points, beliefs)]
    if SWEEP_AGAIN in sweeps:
        _, occasions = own_accuracy(sweeps[FIRST_SWEEP], sweeps[SWEEP_AGAIN])
        rows += [row for row in occasions if row.split.startswith(ANOTHER_OCCASION)]
    return (
        [_named(pair, name) for pair in (*pairs, *memory)],
        [_named(row, name) for row in rows],
    )


def unseen_cpu_accuracy() -> Accuracy:
    """Each committed machine by the others, each fitted alone: its rates, and a few timings."""
    # Who has four timings does not know how far batches go along with the kernel: they are over it.
    machines = {
        name: _points_of((_read(path / COMPACT_JOURNAL) for path in paths), share=1.0)
        for name, paths in reference_sweeps().items()
    }
    alone = alone_fits()
    return unseen_cpu_rows(
        machines, {name: fit_of(points, alone) for name, points in machines.items()}
    )


def fit_of(points: Points, fits: Sequence[Fit]) -> Fit:
    """The fit of the machine of `points`: of most threads and, among those, of fp32. Raises Complaint."""
    machine = next(iter(points.values()))[0].environment.machine_id
    own = [fit for fit in fits if fit.environment is not None and fit.device_id == machine]
    if not own:
        raise Complaint(f"no committed fit of {machine}; run `python -m costmodel.fit --reference`")
    return max(own, key=lambda fit: (fit.threads, fit.precisions == ("fp32",)))


def _points_of(sweeps: Iterable[Sequence[Measurement]], share: float | None = None) -> Points:
    return with_peaks(usable_points((run for sweep in sweeps for run in sweep), share))[0]


def _named(judged: Judged, name: str) -> Judged:
    return type(judged)(**{**dict(judged), "split": f"{judged.split}.{name}"})


def own_accuracy(
    measurements: Sequence[Measurement], again: Sequence[Measurement] | None
) -> Accuracy:
    """Pairs and rows of one machine, all precisions fitted together; `again` is another occasion.

    A precision that cannot be fitted is left out with a warning. Raises TooFewPoints where none
    can be, Complaint where the other occasion has no point of the same machine.
    """
    points, left_out = with_peaks(usable_points(measurements))
    pairs = machine_pairs(points, beliefs_about(points, alone_fits()))
    rows = []
    for split in dict.fromkeys(pair.split for pair in pairs):
        members = [pair for pair in pairs if pair.split == split]
        own = {pair.point: points[pair.point] for pair in members}
        rows += summary_of(members, noise_floor(own))
    if again is not None:
        # What a user feels: seconds of the clock, with the machine's drift in the interval.
        repeated = of_same_machine(by_name(again), points)
        other = occasion_pairs(pairs, repeated, drift_log_sd(measurements))
        for split in dict.fromkeys(pair.split for pair in other):
            members = [pair for pair in other if pair.split == split]
            first = {pair.point: by_name(measurements)[pair.point] for pair in members}
            rows += summary_of(members, occasion_gap(first, repeated))
        pairs += other
    for sentence in left_out:
        warn(sentence)
    return pairs, rows


def ranking_row(pairs: Sequence[HeldOut]) -> ValidationRow:
    """How often two devices are ranked as measured, from their data sheets: Kendall's tau.

    The row's error is 1 − τ, over pairs of devices that ran one workload.
    """
    tau, count = ranking_of(pairs)
    return ValidationRow(
        split="ranking-of-devices",
        quantity="one-minus-kendall-tau",
        tier="spec-only",
        n=count,
        median_abs_error=1 - tau,
        p90_abs_error=1 - tau,
        signed_error=tau - 1,
        coverage_90=1.0,
        half_width=0.0,
        noise_floor=None,
    )


def of_same_machine(later: Points, points: Points) -> Points:
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
    # Of matrices of some hundred rows, threads only wait for each other.
    with threadpool_limits(1):
        run_shell(app)


if __name__ == "__main__":
    main()
