"""operators, largest-batch: what a machine can do, asked in small questions."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domain.complaint import INTERRUPTED, UNSTABLE, Complaint
from domain.record import Precision
from domain.shell import emit, format_named, say
from domain.tables import Cell, rendered
from domain.units import shown
from profiler.commands.options import Shape, built_executor

if TYPE_CHECKING:
    from domain.measurement import Measurement
    from domain.microbenchmark import OperatorTiming
    from profiler.largest import Found
    from profiler.messages import Preparation, Source

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, or a catalogue name.")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Default: one for each usable core.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Order and operands.")]


def operators(
    device: Device = "auto",
    threads: Threads = None,
    minutes: Annotated[float, typer.Option(min=0.1, max=600, help="For all runs together.")] = 1.0,
    precision: Annotated[
        str, typer.Option(help="Of fp32, tf32, fp16, bf16; several with commas. Default: usual.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for operators.jsonl; else results/operators/<time>.")
    ] = None,
    seed: Seed = 0,
    format: Shape = "table",
) -> None:
    """Time the operators of this family of networks by size and precision: where they saturate."""
    shape = format_named(format)
    from profiler.messages import SHIPPED_SOURCE
    from profiler.microbench import JOURNAL, RUNS, Benchmark, benchmarked, fitting, share_of
    from profiler.microbench import WORKER as COMMAND
    from profiler.operators import USUAL, grid
    from profiler.session import Stop, prepared_worker

    preparation = _preparation(device, threads, SHIPPED_SOURCE)
    wanted = _precisions(precision, preparation.kind) or USUAL[preparation.kind]
    id, folder = _named_now("operators", out)
    journal = _new(folder / JOURNAL)
    worker, environment, rates = prepared_worker(preparation, COMMAND)
    assert rates is not None
    try:
        everything = grid(wanted)
        points = fitting(everything, 60 * minutes, rates)
    except BaseException:
        worker.end()
        raise
    share_s = share_of(len(points), 60 * minutes)
    say(
        f"{len(points)} of {len(everything)} operators fit in {minutes:g} min, {RUNS} runs of "
        f"{shown(share_s, 's')} each; operands in four sets in turn, as warm as in a network"
    )
    benchmark = Benchmark(
        session=id,
        points=points,
        runs=RUNS,
        share_s=share_s,
        seed=seed,
        preparation=preparation,
        environment=environment,
        rates=rates,
    )

    def report(record: "OperatorTiming", number: int, total: int) -> None:
        if number % 50 == 0 or number == total or not record.samples_s:
            what = record.reason if not record.samples_s else record.status
            say(f"{number}/{total} run {record.run} {record.point.id}: {what}")

    with Stop(say) as stop:
        records = benchmarked(benchmark, journal, stop=stop, report=report, first_worker=worker)
    emit(rendered(_operator_rows(records), shape), None)
    say(f"{len(records)} records in {journal}")
    if stop.is_asked:
        raise typer.Exit(INTERRUPTED)


def largest_batch(
    device: Device = "auto",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Your safetensors file, its card beside it; else shipped.")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16, amp_bf16, ...")] = "fp32",
    executor: Annotated[str, typer.Option(help="packed or masked")] = "packed",
    limit_bytes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most memory of the process (CPU; default 80 % of what is free) or GPU."
        ),
    ] = None,
    most: Annotated[int, typer.Option(min=1, max=2**20, help="No larger batch is tried.")] = 4096,
    threads: Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for largest.jsonl; else results/largest/<time>.")
    ] = None,
    seed: Seed = 0,
    format: Shape = "table",
) -> None:
    """The largest batch that has room, by trying: each batch in a process of its own."""
    shape = format_named(format)
    from domain.measurement import PlannedPoint
    from profiler.largest import JOURNAL, Search, rows_of, searched
    from profiler.messages import Source
    from profiler.session import Stop
    from profiler.source import network_of

    source = Source(checkpoint="" if checkpoint is None else str(checkpoint.resolve()))
    net = network_of(source)[1].architecture
    point = PlannedPoint.model_validate(
        {
            "id": "largest",
            "architecture": net,
            "weights": "shipped",
            "batch": 1,
            "precision": precision,
            "executor": built_executor(executor),
            "routing_source": "real-images",
        }
    )
    preparation = _preparation(device, threads, source)
    limit, said = _limit(preparation.kind, limit_bytes)
    if limit is not None:
        preparation = type(preparation)(**{**dict(preparation), "memory_limit_bytes": limit})
    id, folder = _named_now("largest", out)
    journal = _new(folder / JOURNAL)
    say(f"{net.name}, {precision}, {executor}; {said}")
    wanted = Search(
        session=id,
        point=point,
        most=most,
        seed=seed,
        preparation=preparation,
    )
    with Stop(say) as stop:
        found = searched(wanted, journal, stop=stop, report=_said_of_try)
    emit(rendered(list(rows_of(found)), shape), None)
    say(f"{_conclusion(found)} ({said}); {len(found.tries)} tries in {journal}")
    if stop.is_asked:
        raise typer.Exit(INTERRUPTED)
    if found.undecided:
        raise typer.Exit(UNSTABLE)


def _said_of_try(record: "Measurement") -> None:
    said = "has room" if record.status == "ok" else f"{record.status}: {record.reason}"
    say(f"batch {record.workload.batch}: {said}")


def _conclusion(found: "Found") -> str:
    if found.undecided:
        return (
            f"largest batch known to have room: {found.batch}; the search ended: {found.undecided}"
        )
    if found.is_most:
        return f"largest batch: {found.batch} or more; give a larger --most"
    if found.batch == 0:
        return "not even one image has room"
    return f"largest batch: {found.batch}; {found.batch + 1} has no room"


def _limit(kind: str, asked: int | None) -> tuple[int | None, str]:
    """Bytes that a worker may take, and what is said of it."""
    from profiler.limits import SAFE_SHARE, available_bytes

    if kind == "cuda":
        limited = asked is not None
        return asked, f"limit {shown(asked or 0, 'B')} of the GPU" if limited else "all of the GPU"
    limit = int(SAFE_SHARE * available_bytes()) if asked is None else asked
    whose = f"{SAFE_SHARE:.0%} of what is free now" if asked is None else "as asked"
    return limit, f"limit {shown(limit, 'B')} of process data, libraries included ({whose})"


def _preparation(device: str, threads: int | None, source: "Source") -> "Preparation":
    from profiler.environment import choose_device, usable_cores
    from profiler.messages import Preparation

    choice = choose_device(device)
    return Preparation(
        kind=choice.kind,
        gpu_name=choice.gpu.name if choice.gpu else "",
        gpu_uuid=choice.gpu.uuid if choice.gpu else "",
        threads=threads or usable_cores(),
        wants_rates=True,
        source=source,
    )


def _precisions(text: str, kind: str) -> tuple[Precision, ...]:
    """The precisions named; those of operators are fewer than those of networks."""
    from profiler.operators import PRECISIONS_OF

    known: Sequence[Precision] = PRECISIONS_OF["cuda" if kind == "cuda" else "cpu"]
    names = [name.strip() for name in text.split(",") if name.strip()]
    chosen = tuple(dict.fromkeys(each for name in names for each in known if each == name))
    if len(chosen) < len(set(names)):
        raise Complaint(
            f"wanted precisions of {', '.join(known)} for an operator on {kind}, got {text}"
        )
    return chosen


def _named_now(under: str, out: Path | None) -> tuple[str, Path]:
    import secrets

    from domain.store import results_root

    id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    return id, out if out is not None else results_root() / under / id


def _new(journal: Path) -> Path:
    if journal.exists():
        raise Complaint(f"{journal} is there already; name another --out")
    return journal


def _operator_rows(records: "Sequence[OperatorTiming]") -> list[dict[str, Cell]]:
    from profiler.microbench import summary

    ids = sorted({record.point.id for record in records})
    return [summary([record for record in records if record.point.id == id]) for id in ids]
