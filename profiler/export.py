"""A journal as Parquet for analysis: page checksums on, and a manifest of SHA-256 sums."""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from domain.complaint import StorageFailed
from domain.measurement import Measurement
from domain.record import Unknown
from domain.store import read_journal, write_whole
from profiler.session import JOURNAL

MANIFEST = "manifest.json"


def exported(folder: Path) -> tuple[Path, ...]:
    """Write `measurements.parquet` and `depths.parquet` beside the journal, and the manifest.

    The journal stays the truth. Gives the paths written.
    """
    records = read_journal(folder / JOURNAL)
    contents = {
        "measurements.parquet": _parquet([_row(record) for record in records]),
        "depths.parquet": _parquet([row for record in records for row in _depth_rows(record)]),
    }
    for name, content in contents.items():
        write_whole(folder / name, content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    sums[JOURNAL] = _sum_of(folder / JOURNAL)
    write_whole(folder / MANIFEST, (json.dumps(sums, indent=1, sort_keys=True) + "\n").encode())
    return tuple(folder / name for name in (*contents, MANIFEST))


def _row(record: Measurement) -> dict[str, Any]:
    work = record.workload
    return {
        "point": record.point,
        "run": record.run,
        "session": record.session,
        "taken_at": record.taken_at,
        "status": record.status,
        "reason": record.reason,
        "device_id": record.environment.device_id,
        "environment_key": record.environment.key(),
        "workload_key": work.key(),
        "architecture": work.architecture.name,
        "batch": work.batch,
        "precision": work.precision,
        "runtime": work.runtime,
        "executor": work.executor,
        "routing_source": record.routing_source,
        "survival": list(work.routing.survival),
        "threads": record.environment.threads,
        "gemm_flop_per_s": record.rates.gemm_flop_per_s,
        "copy_bytes_per_s": record.rates.copy_bytes_per_s,
        "samples_s": list(record.samples_s),
        "cpu_samples_s": list(record.cpu_samples_s),
        "calibration_s": list(record.calibration_s),
        "instrumented_s": list(record.instrumented_s),
        "warmup_s": list(record.warmup_s),
        **_known("peak_bytes", record.peak_bytes),
        **_known("resident_bytes", record.resident_bytes),
        **_known("energy_j", record.energy_j),
        "precision_met": record.precision_met,
        "relaxed": record.relaxed,
        "involuntary_switches": record.involuntary_switches,
    }


def _depth_rows(record: Measurement) -> Iterator[dict[str, Any]]:
    for depth in record.depths:
        yield {
            "point": record.point,
            "run": record.run,
            "stage": depth.stage,
            "counts": list(depth.counts),
            "samples_s": list(depth.samples_s),
            "routed_flop": depth.routed_flop,
            "executed_flop": depth.executed_flop,
            **_known("peak_bytes", depth.peak_bytes),
            **_known("energy_j", depth.energy_j),
        }


def _known(name: str, value: float | Unknown) -> dict[str, Any]:
    """A quantity as two columns: the number or nothing, and why nothing."""
    if isinstance(value, Unknown):
        return {name: None, f"{name}_unknown": value.reason}
    return {name: float(value), f"{name}_unknown": None}


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink, write_page_checksum=True)
    return sink.getvalue()


def _sum_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageFailed(f"cannot read {path}: {error.strerror}") from error
