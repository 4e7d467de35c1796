"""Records as rows that a person reads: by point, by depth, and what in them is a warning."""

import math
from collections.abc import Sequence

import numpy as np

from domain.measurement import DepthRecord, Measurement
from domain.record import Unknown
from domain.statistics import (
    LEAST_SAMPLES_OF,
    median,
    median_of_runs,
    relative_spread,
    stage_medians,
    upper_percentile,
)
from domain.tables import Cell, Format
from domain.units import GIGA, MEGA, MILLI

Row = dict[str, Cell]

PERCENTILES = {"p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99}
# Samples of one run, and medians of runs, further apart than this are worth a warning.
LARGEST_IQR, LARGEST_BETWEEN = 0.10, 0.03
# How long a sample lasts at least, see `profiler.protocol`.
LEAST_SAMPLE_S = 1e-3

# What fits a terminal of 120 columns; the rest is in json and csv.
_SHORT = (
    "point", "met", "latency_ms", "within", "p95_ms", "images/s", "iqr", "between", "status",
)  # fmt: skip


def by_point(records: Sequence[Measurement], format: Format) -> list[Row]:
    """A row for each point: all there is in json and csv, a readable part in table and md."""
    rows = [summary(runs) for runs in _by_point(records)]
    return rows if format in ("json", "csv") else [_short(row) for row in rows]


def summary(runs: Sequence[Measurement]) -> Row:
    """All runs of one point as a row; null, with a reason beside it, where there is no number.

    `latency_ms` is the median of run medians with a bootstrap interval over runs; percentiles are
    upper bounds at 99 % confidence over the samples of all runs. `images_per_s` is images over
    seconds of all clean samples together. `iqr` is the median over runs of the interquartile range
    over the median, `between` the standard deviation of the log run medians. `overhead` is what
    splitting by stage cost, `depth_rest` the share of the split pass that no stage explains (both
    the median over pairs); `cpu_share` the thread CPU over wall seconds of a clean sample, and
    `switches_per_s` the involuntary context switches in a second of them.
    """
    usable = [record for record in runs if record.is_usable]
    work = runs[0].workload
    row: Row = {
        "point": runs[0].point,
        "batch": work.batch,
        "subject": runs[0].subject,
        "precision": work.precision,
        "executor": work.executor,
        "runs": len(usable),
        "precision_met": sum(record.precision_met for record in usable),
        "status": " ".join(dict.fromkeys(record.status for record in runs)),
        "samples": sum(len(record.samples_s) for record in usable),
    }
    return row | _latency(usable) | _spread(usable) | _split(usable) | _machine(usable)


def warnings_of(rows: Sequence[Row]) -> list[str]:
    """A sentence for each gate that points of `by_point(…, "json")` did not pass."""
    gates = (
        ("iqr", LARGEST_IQR, "samples of one run spread (IQR over median)"),
        ("between", LARGEST_BETWEEN, "runs differ"),
    )
    said = []
    for column, limit, what in gates:
        over = [
            (value, row["point"])
            for row in rows
            if isinstance(value := row[column], float) and value > limit
        ]
        if over:
            worst, point = max(over, key=lambda each: each[0])
            said.append(
                f"{what} by more than {limit:.0%} at {len(over)} of {len(rows)} points; most at "
                f"{point}, {worst:.1%}"
            )
    return said


def by_depth(records: Sequence[Measurement]) -> list[Row]:
    """A row for each stage of each point: routed and executed work beside the measured time.

    FLOP are of one batch, `tokens` the mean that enter of one image. Seconds are the stage's share of
    the split pass, scaled to the clean pass. Time that follows executed and not routed FLOP is not
    saved by routing: masked tokens are computed all the same.
    """
    return [row for runs in _by_point(records) for row in _depth_rows(runs)]


def _by_point(records: Sequence[Measurement]) -> list[list[Measurement]]:
    points: dict[str, list[Measurement]] = {}
    for record in records:
        points.setdefault(record.point, []).append(record)
    return list(points.values())


def _latency(usable: Sequence[Measurement]) -> Row:
    samples = [each for record in usable for each in record.samples_s]
    row: Row = {"latency_ms": None, "low_ms": None, "high_ms": None}
    passes = max([_passes(record) for record in usable], default=1)
    for name, share in PERCENTILES.items():
        bound = upper_percentile(samples, share) if passes == 1 else None
        row[name] = None if bound is None else bound / MILLI
        row[f"{name}_unknown"] = None if bound is not None else _why_none(share, samples, passes)
    row["images_per_s"] = None
    if usable:
        value, low, high = median_of_runs([record.samples_s for record in usable])
        row |= {"latency_ms": value / MILLI, "low_ms": low / MILLI, "high_ms": high / MILLI}
        row["images_per_s"] = usable[0].workload.batch * len(samples) / math.fsum(samples)
    return row


def _why_none(share: float, samples: Sequence[float], passes: int) -> str:
    if passes > 1:
        return f"samples are means of {passes} passes, whose tail nobody saw"
    return f"needs {LEAST_SAMPLES_OF[share]}, have {len(samples)}"


def _passes(record: Measurement) -> int:
    """Passes that a sample is the mean of; of older records as many as fill a millisecond."""
    kept = record.passes_per_sample
    if isinstance(kept, Unknown):
        return max(1, math.ceil(LEAST_SAMPLE_S / median(record.samples_s)))
    return kept


def _spread(usable: Sequence[Measurement]) -> Row:
    logs = np.log([median(record.samples_s) for record in usable])
    return {
        "iqr": median([relative_spread(each.samples_s) for each in usable]) if usable else None,
        "between": float(logs.std(ddof=1)) if len(usable) > 1 else None,
    }


def _split(usable: Sequence[Measurement]) -> Row:
    """What the passes split by stage say of themselves, over the pairs of all runs."""
    overheads = [
        marked / clean - 1
        for record in usable
        for marked, clean in zip(record.instrumented_s, record.paired_s, strict=True)
    ]
    rests = [
        1 - math.fsum(stages) / whole
        for record in usable
        if record.depths
        for *stages, whole in zip(
            *(depth.samples_s for depth in record.depths), record.instrumented_s, strict=True
        )
    ]
    return {
        "overhead": median(overheads) if overheads else None,
        "depth_rest": median(rests) if rests else None,
    }


def _machine(usable: Sequence[Measurement]) -> Row:
    shares = [
        median(np.divide(record.cpu_samples_s, record.samples_s))
        for record in usable
        if record.cpu_samples_s
    ]
    seconds = math.fsum(_passes(record) * math.fsum(record.samples_s) for record in usable)
    switches = sum(record.involuntary_switches for record in usable)
    peaks = [each.peak_bytes for each in usable if not isinstance(each.peak_bytes, Unknown)]
    return {
        "cpu_share": median(shares) if shares else None,
        "switches_per_s": switches / seconds if seconds else None,
        "mean_depth": usable[0].workload.routing.mean_depth if usable else None,
        "peak_mb": max(peaks) / MEGA if peaks else None,
    }


def _short(row: Row) -> Row:
    """The columns of `_SHORT` as text."""
    shares = {name: _percent(row[name]) for name in ("iqr", "between")}
    bound = row["p95_ms"] if row["p95_ms"] is not None else f"n/a ({row['p95_ms_unknown']})"
    text = row | shares | {"met": f"{row['precision_met']}/{row['runs']}", "p95_ms": bound}
    text |= {"within": _within(row), "images/s": row["images_per_s"]}
    return {name: text[name] for name in _SHORT}


def _within(row: Row) -> str | None:
    low, value, high = row["low_ms"], row["latency_ms"], row["high_ms"]
    if isinstance(low, float) and isinstance(value, float) and isinstance(high, float):
        return f"±{max(high - value, value - low) / value:.1%}"
    return None


def _percent(cell: Cell) -> str | None:
    return f"{cell:.1%}" if isinstance(cell, float) else None


def _depth_rows(runs: Sequence[Measurement]) -> list[Row]:
    usable = [record for record in runs if record.is_usable and record.depths]
    if not usable:
        return []
    scaled = [
        stage_medians({each.stage: each.samples_s for each in run.depths}, run.samples_s)
        for run in usable
    ]
    stages = {
        depth.stage: median([run[depth.stage] for run in scaled]) for depth in usable[0].depths
    }
    whole_s = math.fsum(stages.values())
    return [
        _depth_row(usable[0].point, depth, usable, stages[depth.stage], whole_s)
        for depth in usable[0].depths
    ]


def _depth_row(
    point: str, depth: DepthRecord, usable: Sequence[Measurement], stage_s: float, whole_s: float
) -> Row:
    peaks = [
        each.peak_bytes
        for run in usable
        for each in run.depths
        if each.stage == depth.stage and not isinstance(each.peak_bytes, Unknown)
    ]
    return {
        "point": point,
        "stage": depth.stage,
        "tokens": float(np.mean(depth.counts)) if depth.counts else None,
        "routed_mflop": depth.routed_flop / MEGA,
        "executed_mflop": depth.executed_flop / MEGA,
        "executed_over_routed": depth.executed_flop / depth.routed_flop
        if depth.routed_flop
        else None,
        "ms": stage_s / MILLI,
        "share": stage_s / whole_s,
        "executed_gflop_per_s": depth.executed_flop / stage_s / GIGA,
        "peak_mb": max(peaks) / MEGA if peaks else None,
    }
