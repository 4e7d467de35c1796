"""A journal as Parquet for analysis: page checksums on, and a manifest of SHA-256 sums."""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from domain.complaint import CorruptFile
from domain.measurement import Conditions, Energy, Measurement
from domain.record import Record, Unknown
from domain.sealing import parsed
from domain.store import (
    COMPACT_JOURNAL,
    JOURNAL,
    check_free,
    journal_in,
    read_journal,
    read_limited,
    write_whole,
)

MANIFEST = "manifest.json"
TABLES = ("measurements.parquet", "depths.parquet")
LARGEST_MANIFEST_BYTES, LARGEST_EXPORT_BYTES = 2**16, 2**30


def exported(folder: Path) -> tuple[Path, ...]:
    """Write `measurements.parquet` and `depths.parquet` beside the journal, and the manifest.

    The journal stays the truth. Gives the paths written.
    """
    journal = journal_in(folder)
    if journal.name == JOURNAL:
        check_free(journal)  # else a run could append between what is read and what is summed
    records = read_journal(journal)
    contents = {
        "measurements.parquet": _parquet([_row(record) for record in records]),
        "depths.parquet": _parquet([row for record in records for row in _depth_rows(record)]),
    }
    for name, content in contents.items():
        write_whole(folder / name, content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    sums[journal.name] = _sum_of(journal)
    write_whole(folder / MANIFEST, (json.dumps(sums, indent=1, sort_keys=True) + "\n").encode())
    return tuple(folder / name for name in (*contents, MANIFEST))


def verified(folder: Path) -> tuple[Path, ...]:
    """The files of an export, each as it was written. Raises CorruptFile for the first that is not.

    A journal that has grown since is no damage, but the export is then no copy of it any more.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sums = _manifest(folder / MANIFEST)
    for name, stated in sums.items():
        if _sum_of(folder / name) != stated:
            raise CorruptFile(
                f"{folder / name} is not the file that {MANIFEST} describes: export again with "
                f"`python -m profiler export {folder}`"
            )
        if name in TABLES:
            try:
                pq.read_table(folder / name, page_checksum_verification=True)
            except (pa.ArrowException, OSError) as error:
                raise CorruptFile(f"{folder / name} is no readable Parquet: {error}") from error
    return tuple(folder / name for name in sums)


def _manifest(path: Path) -> dict[str, str]:
    """Checksums by name: of the two tables and of the journal they were made from, nothing else."""
    try:
        said = parsed(read_limited(path, LARGEST_MANIFEST_BYTES).decode())
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} is no manifest: {error}") from error
    wanted = [{*TABLES, journal} for journal in (JOURNAL, COMPACT_JOURNAL)]
    if not isinstance(said, dict) or set(said) not in wanted:
        raise CorruptFile(
            f"{path} must name {', '.join(TABLES)} and the journal; export again with `python -m "
            f"profiler export {path.parent}`"
        )
    if wrong := [name for name, stated in said.items() if not isinstance(stated, str)]:
        raise CorruptFile(f"{path}: {wrong[0]}: wanted a checksum, got {str(said[wrong[0]])[:60]}")
    return said


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
        "subject": record.subject,
        "survival": list(work.routing.survival),
        "threads": record.environment.threads,
        "gemm_flop_per_s": record.rates.gemm_flop_per_s,
        "copy_bytes_per_s": record.rates.copy_bytes_per_s,
        "samples_s": list(record.samples_s),
        "cpu_samples_s": list(record.cpu_samples_s),
        "host_samples_s": list(record.host_samples_s),
        "switches": list(record.switches),
        "calibration_s": list(record.calibration_s),
        "instrumented_s": list(record.instrumented_s),
        "warmup_s": list(record.warmup_s),
        **_known("peak_bytes", record.peak_bytes),
        **_known("resident_bytes", record.resident_bytes),
        **_known("reserved_bytes", record.reserved_bytes),
        **_known("context_bytes", record.context_bytes),
        **_known("energy_j", record.energy_j),
        **_parts("energy", Energy, record.energy),
        **_parts("conditions", Conditions, record.conditions),
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
            **_known("reserved_bytes", depth.reserved_bytes),
            **_known("device_bytes", depth.device_bytes),
            **_known("energy_j", depth.energy_j),
        }


def _known(name: str, value: float | Unknown) -> dict[str, Any]:
    """A quantity as two columns: the number or nothing, and why nothing."""
    if isinstance(value, Unknown):
        return {name: None, f"{name}_unknown": value.reason}
    return {name: float(value), f"{name}_unknown": None}


def _parts(name: str, kind: type[Record], value: Record) -> dict[str, Any]:
    """A record as a column for each field, all of them empty where it is unknown, and why."""
    said = {} if isinstance(value, Unknown) else value.model_dump()
    columns = {f"{name}_{field}": _plain(said.get(field)) for field in kind.model_fields}
    return {**columns, f"{name}_unknown": value.reason if isinstance(value, Unknown) else None}


def _plain(value: Any) -> Any:
    # A field that is unknown by itself was dumped with its reason.
    return None if isinstance(value, dict) else list(value) if isinstance(value, tuple) else value


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink, write_page_checksum=True)
    return sink.getvalue()


def _sum_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > LARGEST_EXPORT_BYTES:
                raise CorruptFile(f"{path} is larger than {LARGEST_EXPORT_BYTES} bytes")
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CorruptFile(f"cannot read {path}: {error.strerror}") from error
