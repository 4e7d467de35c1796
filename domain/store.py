"""The only door to `results/`: journals that survive a crash, files that are whole or absent."""

import contextlib
import errno
import fcntl
import json
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from pydantic import ValidationError

from domain.complaint import CorruptFile, StorageFailed, first_error
from domain.fit import Fit
from domain.measurement import Measurement
from domain.record import Record
from domain.routing import RoutingDistribution

RecordType = TypeVar("RecordType", bound=Record)

LARGEST_RECORD_BYTES = 16 * 2**20
LARGEST_JOURNAL_BYTES = 512 * 2**20
LARGEST_TRACE_ROWS = 2_000_000
MOST_RECURSIONS = 64
TOKEN_COUNT_NAMES = (b"tokens", b"token_count", b"num_tokens")

# Measurement format 1: the first. 2: subject, conditions, host seconds, switches, memory levels,
# energy windows.
# Fit format 1: the first.


def results_root() -> Path:
    """Where results live: `MORSIZER_RESULTS`, or `results/` beside the packages."""
    named = os.environ.get("MORSIZER_RESULTS")
    return Path(named) if named else Path(__file__).resolve().parent.parent / "results"


def reference_root() -> Path:
    """The committed reference results."""
    return results_root() / "reference"


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by `content` at once: a reader sees the old file or the new one.

    Raises StorageFailed; the old file is then untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise StorageFailed(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageFailed(
            f"cannot write {path} ({len(content)} bytes): {error.strerror}"
        ) from error
    finally:
        Path(name).unlink(missing_ok=True)


def save(record: Record, path: Path) -> None:
    """Store one record as readable JSON."""
    write_whole(path, record.model_dump_json(indent=1).encode() + b"\n")


def load(path: Path, kind: type[RecordType]) -> RecordType:
    """Read one record. Raises CorruptFile with the field that is wrong."""
    text = read_limited(path, LARGEST_RECORD_BYTES)
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise CorruptFile(f"{path} is no {kind.__name__}: {first_error(error)}") from error


def stored_fits() -> tuple[Fit, ...]:
    """Every fit at hand, the newest of this machine first, then the committed reference."""
    here = sorted(
        (results_root() / "fits").glob("*.json"),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    reference = sorted((reference_root() / "fits").glob("*.json"))
    try:
        return tuple(load(path, Fit) for path in (*here, *reference))
    except CorruptFile as error:
        raise CorruptFile(
            f"{error}; remove it or fit again with `python -m costmodel.fit`"
        ) from error


def newest_journal(asked: Path | None = None) -> Path:
    """The journal at `asked` (a file or its folder), or the newest, or the committed reference."""
    if asked is not None:
        return asked / "journal.jsonl" if asked.is_dir() else asked
    here = (results_root() / "measurements").glob("*/journal.jsonl")
    reference = reference_root() / "journal.jsonl"
    return max(here, key=lambda path: path.stat().st_mtime, default=reference)


def read_limited(path: Path, most_bytes: int) -> bytes:
    """The whole of a file that must not be larger than `most_bytes`."""
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise CorruptFile(f"cannot read {path}: {error.strerror}") from error
    if len(content) > most_bytes:
        raise CorruptFile(f"{path} is larger than {most_bytes} bytes, the most that is read")
    return content


class Journal(Generic[RecordType]):
    """An append-only file of records of one kind, one JSON line each with its checksum.

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
            raise StorageFailed(
                f"{self.path} is being written by another run; wait for it or name another journal"
            ) from error
        try:
            self._set_torn_tail_aside()
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
        line = _line_of(record)
        length = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(length)
            raise StorageFailed(f"cannot append to {self.path}: {error.strerror}") from error

    def _set_torn_tail_aside(self) -> None:
        content = read_limited(self.path, LARGEST_JOURNAL_BYTES)
        valid = sum(length for length, _ in _valid_prefix(content, self.kind))
        if valid < len(content):
            self.torn_bytes = len(content) - valid
            aside = self.path.with_name(self.path.name + ".torn")
            old = aside.read_bytes() if aside.exists() else b""
            write_whole(aside, old + content[valid:])
            self._file.truncate(valid)
            os.fsync(self._file.fileno())


def read_journal(path: Path) -> tuple[Measurement, ...]:
    """Every measurement of the valid prefix, in order.

    Raises CorruptFile where the file is absent or holds not one valid record.
    """
    return read_records(path, Measurement)


def read_records(path: Path, kind: type[RecordType]) -> tuple[RecordType, ...]:
    """Every record of one kind in the valid prefix of a journal, in order.

    Raises CorruptFile where the file is absent or holds not one valid record.
    """
    content = read_limited(path, LARGEST_JOURNAL_BYTES)
    records = tuple(record for _, record in _valid_prefix(content, kind))
    if not records:
        named = {"Measurement": "measurement"}.get(kind.__name__, kind.__name__)
        raise CorruptFile(
            f"{path} holds no valid {named}; run `python -m profiler run` to make a journal"
        )
    return records


def unread_tail(path: Path) -> str:
    """What `read_journal` had to leave out, as a sentence; empty where it read everything."""
    content = read_limited(path, LARGEST_JOURNAL_BYTES)
    prefix = list(_valid_prefix(content, Measurement))
    left = len(content) - sum(length for length, _ in prefix)
    if not left:
        return ""
    return f"{path}: the last {left} bytes, after line {len(prefix)}, are damaged and were not read"


def _line_of(record: Record) -> bytes:
    body = record.model_dump_json()
    return f'{{"crc32":{zlib.crc32(body.encode())},"record":{body}}}\n'.encode()


def _valid_prefix(content: bytes, kind: type[RecordType]) -> Iterator[tuple[int, RecordType]]:
    """Length and record of each line, up to the first that is torn or altered."""
    for line in content.splitlines(keepends=True):
        record = _record_of(line, kind)
        if record is None:
            return
        yield len(line), record


def _record_of(line: bytes, kind: type[RecordType]) -> RecordType | None:
    if not line.endswith(b"}\n"):
        return None
    head, separator, rest = line.partition(b',"record":')
    body = rest[:-2]
    try:
        stated = json.loads(head + b"}")["crc32"] if separator else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if stated != zlib.crc32(body):
        return None
    try:
        return kind.model_validate_json(body)
    except ValidationError:
        return None


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
