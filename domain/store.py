"""The only door to `results/`: journals that survive a crash, files that are whole or absent."""

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from pydantic import ValidationError

from domain.card import BudgetCard
from domain.compact import SUFFIX, expanded, is_compact
from domain.complaint import CorruptFile, StorageFailed, first_error
from domain.fit import Fit
from domain.lines import line_of, valid_prefix
from domain.measurement import Measurement
from domain.record import Record
from domain.routing import RoutingDistribution
from domain.sealing import SEAL, opened, sealed

RecordType = TypeVar("RecordType", bound=Record)

LARGEST_RECORD_BYTES = 16 * 2**20
LARGEST_JOURNAL_BYTES = 512 * 2**20
LARGEST_TRACE_ROWS = 2_000_000
MOST_RECURSIONS = 64
TOKEN_COUNT_NAMES = (b"tokens", b"token_count", b"num_tokens")

JOURNAL = "journal.jsonl"
COMPACT_JOURNAL = JOURNAL + SUFFIX
# The machine that speaks where a user has measured none, its fit, and the sweep of it that does.
REFERENCE_MACHINE = "zen3"
REFERENCE_FIT = "fits/machine-cpu-amd-epyc-2c-avx2-eager.json"
FIRST_SWEEP = "2-a"
# The same plan on the same machine hours later.
SWEEP_AGAIN = "2-b"

# Measurement format 1: the first. 2: subject, conditions, host seconds, switches, memory levels,
# energy windows.
# Fit format 1: the first. 2: other coefficients, their prior spreads, what neighbours share, a
# machine's drift, the scope `timed`; later, where a machine promises by itself, `scale` and `log_sd`; later
# still, launches in plain calls (fits of before are refused for their coefficients); then `rates_log_sd`,
# which fits of before lack and do not need.


def results_root() -> Path:
    """Where results live: `MORSIZER_RESULTS`, or `results/` beside the packages."""
    named = os.environ.get("MORSIZER_RESULTS")
    return Path(named) if named else Path(__file__).resolve().parent.parent / "results"


def reference_root() -> Path:
    """The committed reference results."""
    return results_root() / "reference"


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by `content` at once: a reader sees the old file or the new one.

    Raises StorageFailed; the old file is then untouched. A kill leaves `.<name>.<letters>`, which
    nobody has locked any more.
    """
    failed = f"cannot write {path} ({len(content)} bytes)"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise StorageFailed(f"{failed}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageFailed(f"{failed}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink(missing_ok=True)


def save(record: Record, path: Path) -> None:
    """Store one record as readable JSON, sealed with the checksum of what it says."""
    write_whole(path, sealed(record.model_dump_json(indent=1)).encode() + b"\n")


def load(
    path: Path, kind: type[RecordType], altered: Callable[[str], None] | None = None
) -> RecordType:
    """Read one record. Raises CorruptFile with the field that is wrong.

    A file that was altered after `save` is refused too, or `altered` hears of it where people may
    well edit that kind. One without a seal, written by hand or long ago, is taken as it is.
    """
    text = read_limited(path, LARGEST_RECORD_BYTES)
    try:
        unsealed, is_whole = opened(text)
        record = kind.model_validate_json(unsealed)
    except ValidationError as error:
        raise CorruptFile(f"{path} is no {kind.__name__}: {first_error(error)}") from error
    except ValueError as error:
        raise CorruptFile(f"{path} is no {kind.__name__}: {error}") from error
    if not is_whole:
        said = f"{path} was altered after it was written: its {SEAL} does not fit"
        if altered is None:
            raise CorruptFile(f"{said}; restore it, or delete that line if the change is yours")
        altered(said)
    return record


def committed_cards(*, with_weights: bool = False) -> tuple[BudgetCard, ...]:
    """Cards of the committed networks: of every seed and control, or those that anyone could run."""
    return tuple(
        load(path, BudgetCard)
        for path in sorted((reference_root() / "networks").glob("*.json"))
        if path.with_suffix(".safetensors").exists() or not with_weights
    )


def stored_fits() -> tuple[Fit, ...]:
    """Every fit at hand, the newest of this machine first, then the committed reference."""
    here = sorted(
        (results_root() / "fits").glob("*.json"),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    return (*_fits_at(here), *reference_fits())


def reference_fits() -> tuple[Fit, ...]:
    """The committed fits."""
    return _fits_at(sorted((reference_root() / "fits").glob("*.json")))


def alone_root() -> Path:
    """Where the fits lie of each committed CPU by its own points alone."""
    return reference_root() / "fits" / "alone"


def alone_fits() -> tuple[Fit, ...]:
    """Each committed CPU by its own points alone: what a class of them and beliefs are made of."""
    return _fits_at(sorted(alone_root().glob("*.json")))


def _fits_at(paths: Iterable[Path]) -> tuple[Fit, ...]:
    try:
        return tuple(load(path, Fit) for path in paths)
    except CorruptFile as error:
        raise CorruptFile(
            f"{error}; remove it or fit again with `python -m costmodel.fit`"
        ) from error


def newest_journal(asked: Path | None = None) -> Path:
    """The journal at `asked` (a file or its folder), or the newest, or the committed reference."""
    if asked is not None:
        return journal_in(asked) if asked.is_dir() else asked
    here = (results_root() / "measurements").glob(f"*/{JOURNAL}*")
    journals = [path for path in here if path.name in (JOURNAL, COMPACT_JOURNAL)]
    return max(journals, key=lambda path: path.stat().st_mtime, default=reference_journal())


def journal_in(folder: Path) -> Path:
    """The journal of a session's folder: as it grew, or compact where only that is there."""
    compact = folder / COMPACT_JOURNAL
    return compact if compact.exists() and not (folder / JOURNAL).exists() else folder / JOURNAL


def reference_journal() -> Path:
    """The committed journal that is shown where no other is at hand."""
    return reference_root() / "sweeps" / REFERENCE_MACHINE / FIRST_SWEEP / COMPACT_JOURNAL


def reference_sweeps() -> dict[str, tuple[Path, ...]]:
    """Folders of the committed sweeps of each machine, by its name: several threads and occasions.

    The machine that speaks for others comes first.
    """
    folders: dict[str, list[Path]] = {}
    for path in sorted(reference_root().glob(f"sweeps/*/*/{COMPACT_JOURNAL}")):
        folders.setdefault(path.parent.parent.name, []).append(path.parent)
    names = sorted(folders, key=lambda name: (name != REFERENCE_MACHINE, name))
    return {name: tuple(folders[name]) for name in names}


def read_limited(path: Path, most_bytes: int) -> bytes:
    """The whole of a file that must not be larger than `most_bytes`."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # What is too large is not read first; a pipe has no size to look at.
            content = b"" if size > most_bytes else file.read(most_bytes + 1)
    except OSError as error:
        raise CorruptFile(f"cannot read {path}: {error.strerror}") from error
    if max(size, len(content)) > most_bytes:
        raise CorruptFile(f"{path} is larger than {most_bytes} bytes, the most that is read")
    return content


class Journal(Generic[RecordType]):
    """An append-only file of records of one kind, one JSON line each: number, checksum, record.

    A line counts once it is on the disk (fsync). Opening for writing takes a lock, sets a torn tail
    aside as `<name>.torn` and keeps the valid prefix. Use it in a `with` block.
    """

    def __init__(self, path: Path, kind: type[RecordType]) -> None:
        self.path = path
        self.kind = kind
        self.torn_bytes = 0

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab+", buffering=0)
        except OSError as error:
            raise StorageFailed(f"cannot open journal {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise StorageFailed(_busy(self.path)) from error
        try:
            _sync_folder(self.path.parent)
            self._lines = self._set_torn_tail_aside()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, record: RecordType) -> None:
        """Write one record and wait until the disk has it.

        Raises StorageFailed; the journal is then as it was, for half a line would hide all later
        ones.
        """
        line = line_of(record, self._lines + 1)
        length = os.fstat(self._file.fileno()).st_size
        if length + len(line) > LARGEST_JOURNAL_BYTES:
            raise StorageFailed(
                f"{self.path} has {length} bytes; with {len(line)} more it could not be read again, "
                f"{LARGEST_JOURNAL_BYTES} is the most: measure the rest in another session"
            )
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(length)
            raise StorageFailed(
                f"cannot append {len(line)} bytes to {self.path}: {error.strerror}"
            ) from error
        self._lines += 1

    def _set_torn_tail_aside(self) -> int:
        content = read_limited(self.path, LARGEST_JOURNAL_BYTES)
        lengths = [length for length, _ in valid_prefix(content, self.kind, self.path)]
        valid = sum(lengths)
        if valid < len(content):
            self.torn_bytes = len(content) - valid
            aside = self.path.with_name(self.path.name + ".torn")
            old = aside.read_bytes() if aside.exists() else b""
            write_whole(aside, old + content[valid:])
            self._file.truncate(valid)
            os.fsync(self._file.fileno())
        return len(lengths)


def check_free(path: Path) -> None:
    """Raise StorageFailed where a run writes to the journal at `path` just now."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageFailed(_busy(path)) from error


def _busy(path: Path) -> str:
    return f"{path} is being written by another run; wait for it or name another journal"


def read_journal(path: Path) -> tuple[Measurement, ...]:
    """Every measurement of the valid prefix, in order.

    Raises CorruptFile where the file is absent, holds not one valid record, or one twice.
    """
    records = read_records(path, Measurement)
    seen: set[tuple[str, str, int]] = set()
    for record in records:
        key = (record.session, record.point, record.run)
        if key in seen:
            raise CorruptFile(
                f"{path} holds run {record.run} of {record.point} twice; remove one of the lines"
            )
        seen.add(key)
    return records


def read_records(path: Path, kind: type[RecordType]) -> tuple[RecordType, ...]:
    """Every record of one kind in the valid prefix of a journal, in order.

    Raises CorruptFile where the file is absent or holds not one valid record.
    """
    records = records_so_far(path, kind)
    if not records:
        named = {"Measurement": "measurement"}.get(kind.__name__, kind.__name__)
        raise CorruptFile(
            f"{path} holds no valid {named}; run `python -m profiler run` to make a journal"
        )
    return records


def records_so_far(path: Path, kind: type[RecordType]) -> tuple[RecordType, ...]:
    """Every record of the valid prefix of a journal, in order; none where its first line is torn.

    Raises CorruptFile where the file is absent, too large, or whole but of another kind.
    """
    content, _ = _journal_content(path)
    return tuple(record for _, record in valid_prefix(content, kind, path))


def unread_tail(path: Path, kind: type[Record] = Measurement) -> str:
    """What `read_records` had to leave out, as a sentence; empty where it read everything."""
    content, damage = _journal_content(path)
    prefix = list(valid_prefix(content, kind, path))
    if damage:
        return f"{path}: the archive is damaged after line {len(prefix)} ({damage}); what follows was not read"
    left = len(content) - sum(length for length, _ in prefix)
    if not left:
        return ""
    return f"{path}: the last {left} bytes, after line {len(prefix)}, are damaged and were not read"


def _journal_content(path: Path) -> tuple[bytes, str]:
    """The lines of a journal, out of its archive where it is one; what is wrong with that."""
    content = read_limited(path, LARGEST_JOURNAL_BYTES)
    return expanded(content, LARGEST_JOURNAL_BYTES, path) if is_compact(path) else (content, "")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_trace(routing: RoutingDistribution, path: Path) -> None:
    """Store a routing trace as Parquet: one row an image, a column a recursion."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        f"recursion_{r + 1}": pa.array([row[r] for row in routing.counts], pa.int32())
        for r in range(routing.recursions)
    }
    # Page checksums cover the counts only; the key covers what the footer says about them.
    stated = {"tokens": str(routing.tokens), "key": routing.key()}
    table = pa.table(columns).replace_schema_metadata(stated)
    sink = io.BytesIO()
    pq.write_table(table, sink, write_page_checksum=True)
    write_whole(path, sink.getvalue())


def _pandas_facts(metadata: Mapping[bytes, bytes]) -> tuple[set[str], dict[bytes, bytes]]:
    """Names of the columns that hold a pandas index, and the frame's own attributes."""
    try:
        said = json.loads(metadata.get(b"pandas", b"{}"))
        index = {name for name in said.get("index_columns", []) if isinstance(name, str)}
        attributes = said.get("attributes", {})
        return index, {str(key).encode(): str(value).encode() for key, value in attributes.items()}
    except (ValueError, AttributeError, TypeError, RecursionError):
        return set(), {}


def read_trace(path: Path) -> RoutingDistribution:
    """Read a routing trace. Raises CorruptFile with the column or row that is wrong."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    content = read_limited(path, LARGEST_RECORD_BYTES)
    try:
        file = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
        # pandas stores its index as a column of its own.
        index, attributes = _pandas_facts(file.schema_arrow.metadata or {})
        names = [name for name in file.schema_arrow.names if name not in index]
        if file.metadata.num_rows > LARGEST_TRACE_ROWS or len(names) > MOST_RECURSIONS:
            raise CorruptFile(
                f"{path} has {file.metadata.num_rows} rows and {len(names)} columns; wanted "
                f"{LARGEST_TRACE_ROWS} and {MOST_RECURSIONS} at most"
            )
        if not names or len(set(names)) < len(names):
            raise CorruptFile(
                f"{path} has the columns {names}; wanted one for each recursion, in order"
            )
        table = file.read(columns=names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorruptFile(f"{path} is no readable Parquet trace: {error}") from error
    metadata = table.schema.metadata or {}
    known = {**attributes, **metadata}
    stated = next((known[name] for name in TOKEN_COUNT_NAMES if name in known), b"")
    if not (stated.isdigit() and len(stated) < 10):
        raise CorruptFile(
            f"{path} lacks the token count; wanted metadata `tokens` with a whole number"
        )
    try:
        # Safe casts refuse fractions and text; a gap would be no count.
        columns = [table[name].cast(pa.int64()).to_pylist() for name in names]
    except pa.ArrowException as error:
        raise CorruptFile(f"{path}: counts must be whole numbers: {error}") from error
    if any(count is None for column in columns for count in column):
        raise CorruptFile(f"{path}: counts must have no gaps")
    try:
        routing = RoutingDistribution(tokens=int(stated), counts=tuple(zip(*columns, strict=True)))
    except ValidationError as error:
        raise CorruptFile(f"{path}: {first_error(error)}") from error
    # A trace that somebody else wrote has no key.
    key = metadata.get(b"key")
    if key is not None and key.decode(errors="replace") != routing.key():
        raise CorruptFile(f"{path} does not match its own key: it was altered after it was written")
    return routing
