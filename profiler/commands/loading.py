"""load: queries come as they do in operation; how long do they wait, and how many can there be."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from domain.complaint import BROKEN_PROMISE, INTERRUPTED, UNSTABLE, Complaint, nearest
from domain.loadtest import (
    Batching,
    LatencyPromise,
    LoadResult,
    LoadScenario,
    LoadSummary,
    LoadTrial,
)
from domain.record import Precision, Unknown
from domain.shell import emit, format_named, say
from domain.tables import Cell, rendered
from profiler.commands.options import Shape, built_executor

if TYPE_CHECKING:
    from profiler.loading import LoadSession
    from profiler.supervisor import Worker

# Images of one query (streams) or of one pass (offline), where none are asked for.
IMAGES: dict[LoadScenario, int] = {
    "single-stream": 1,
    "multi-stream": 8,
    "server": 1,
    "offline": 32,
}
MOST_BATCH = 8
OPTIONS_OF: dict[LoadScenario, tuple[str, ...]] = {
    "single-stream": ("--batch", "--latency-ms"),
    "multi-stream": ("--batch", "--latency-ms"),
    "server": ("--qps", "--latency-ms", "--batching-timeout-ms", "--most-batch"),
    "offline": ("--batch",),
}


def load(
    scenario: Annotated[
        str, typer.Option(help="single-stream, multi-stream, server or offline.")
    ] = "single-stream",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, or a catalogue name.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Default: one for each usable core.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Your safetensors file, its card beside it; else shipped.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Your images as class/name.png; else the sample.")
    ] = None,
    executor: Annotated[str, typer.Option(help="packed or masked")] = "packed",
    precision: Annotated[str, typer.Option(help="fp32, tf32, fp16, bf16, amp_bf16, …")] = "fp32",
    batch: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Images of a query (streams) or of a pass (offline)."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1.0, max=86400.0, help="Of each trial; 600 as MLPerf asks.")
    ] = 60.0,
    qps: Annotated[
        float | None, typer.Option(min=0.001, max=1e6, help="server: queries per second.")
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(min=0.001, max=1e6, help="The promise; server without --qps searches."),
    ] = None,
    percentile: Annotated[
        float, typer.Option(min=1.0, max=99.99, help="Share that keeps the promise, in percent.")
    ] = 99.0,
    batching_timeout_ms: Annotated[
        float | None, typer.Option(min=0.0, max=1e5, help="server: longest wait for a batch.")
    ] = None,
    most_batch: Annotated[
        int | None, typer.Option(min=1, max=4096, help="server: most queries in a batch.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Arrivals, and the order of images.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="New folder; else results/loads/<time>.")] = None,
    format: Shape = "table",
) -> None:
    """Latency under load; with --latency-ms the highest rate that keeps it. Exit 3: INVALID."""
    shape = format_named(format)
    kind = _one_of(scenario, LoadScenario, "scenario")
    _refuse_what_does_not_fit(
        kind,
        {
            "--qps": qps,
            "--latency-ms": latency_ms,
            "--batching-timeout-ms": batching_timeout_ms,
            "--most-batch": most_batch,
            "--batch": batch,
        },
    )
    per_query = batch or IMAGES[kind]
    batching = {
        "server": Batching(
            most_batch=most_batch or MOST_BATCH, timeout_s=(batching_timeout_ms or 0.0) / 1e3
        ),
        "offline": Batching(most_batch=per_query),
    }.get(kind, Batching(most_batch=1))
    promise = None
    if latency_ms is not None:
        promise = LatencyPromise(latency_s=latency_ms / 1e3, share=round(percentile / 100, 6))

    from profiler.load_starting import started_load
    from profiler.messages import Source

    def named(path: Path | None) -> str:
        return "" if path is None else str(path.resolve())

    session, folder, worker = started_load(
        scenario=kind,
        device=device,
        threads=threads,
        source=Source(checkpoint=named(checkpoint), images=named(images)),
        executor=built_executor(executor),
        precision=_one_of(precision, Precision, "precision"),
        images_per_query=1 if kind == "offline" else per_query,
        batching=batching,
        seconds=seconds,
        rate_per_s=qps,
        promise=promise,
        seed=seed,
        out=out,
        say=say,
    )
    summary, was_interrupted = _tested(session, folder, worker)
    emit(rendered([_row(trial) for trial in summary.trials], shape), None)
    if format == "table":
        emit(f"\n{folder}\n", None)
    if was_interrupted:
        raise typer.Exit(INTERRUPTED)
    _conclude(summary, session.searches)


def _one_of(name: str, kind: object, what: str) -> Any:
    """`name` where the literal type `kind` has it."""
    known = get_args(kind)
    if name not in known:
        raise Complaint(f"unknown {what} {name!r}; {nearest(name, known)}")
    return name


def _refuse_what_does_not_fit(scenario: LoadScenario, given: Mapping[str, object]) -> None:
    """Raise Complaint for an option that the scenario has no use for, or one that it lacks."""
    fitting = OPTIONS_OF[scenario]
    for option, value in given.items():
        if value is not None and option not in fitting:
            raise Complaint(f"{option} means nothing to {scenario}; it takes {', '.join(fitting)}")
    if scenario == "server" and given["--qps"] is None and given["--latency-ms"] is None:
        raise Complaint("a server wants --qps (a rate), --latency-ms (a promise to search under)")


def _tested(session: "LoadSession", folder: Path, worker: "Worker") -> tuple[LoadSummary, bool]:
    from profiler.loading import load_tested
    from profiler.session import Stop

    def report(result: LoadResult) -> None:
        trial = session.figures_of(result)
        verdict = f"; {trial.verdict.verdict}: {trial.verdict.reason}" if trial.verdict else ""
        rate = "" if trial.asked_per_s is None else f" at {trial.asked_per_s:.4g}/s"
        why = f" ({trial.reason})" if trial.reason else ""
        say(f"trial {trial.trial}, {trial.scenario}{rate}: {trial.status}{why}{verdict}")

    with Stop(say) as stop:
        summary = load_tested(session, folder, stop=stop, report=report, first_worker=worker)
        return summary, stop.is_asked


def _conclude(summary: LoadSummary, was_search: bool) -> None:
    """Say the answer, and end with the exit code that says its kind."""
    last = summary.trials[-1].verdict
    if was_search and isinstance(summary.most_per_s, Unknown):
        say(summary.most_per_s.reason)
        is_judged = last is not None and last.queries_more is None
        raise typer.Exit(BROKEN_PROMISE if is_judged else UNSTABLE)
    if was_search:
        within = summary.within
        said = within.reason if isinstance(within, Unknown) else f"INVALID {within:.0%} above it"
        say(f"highest VALID rate: {summary.most_per_s:.4g} queries per second ({said})")
    elif summary.promise is not None and (last is None or last.verdict != "VALID"):
        raise typer.Exit(UNSTABLE)


def _row(trial: LoadTrial) -> dict[str, Cell]:
    verdict = trial.verdict
    return {
        "trial": trial.trial,
        "scenario": trial.scenario,
        "status": trial.status,
        "asked_per_s": trial.asked_per_s,
        "queries": trial.queries,
        "images_per_s": trial.images_per_s,
        "utilisation": trial.utilisation,
        "median_ms": _milliseconds(trial.median_s),
        "p90_ms": _milliseconds(trial.p90_s),
        "p99_ms": _milliseconds(trial.p99_s),
        "verdict": verdict.verdict if verdict else None,
        "queries_more": verdict.queries_more if verdict else None,
        "reason": verdict.reason if verdict else trial.reason,
    }


def _milliseconds(seconds: float | Unknown) -> Cell:
    return seconds.reason if isinstance(seconds, Unknown) else seconds * 1e3
