"""Tables that are read strictly: every cell by the reader of its column, errors by line and name."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from domain.complaint import CorruptFile
from domain.record import Unknown

LARGEST_FILE_BYTES = 4 * 2**20

Reader = Callable[[str], object]


def text_of(path: Path) -> str:
    """The text of a catalogue file. Raises CorruptFile for one that is too large or no text."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
        if len(content) > LARGEST_FILE_BYTES:
            raise CorruptFile(f"{path} is larger than {LARGEST_FILE_BYTES} bytes")
        return content.decode()
    except OSError as error:
        raise CorruptFile(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path} is no UTF-8 text: byte {error.start}") from error


@dataclass(frozen=True)
class Column:
    """The field that a column fills, and how its cells are read; `read` raises ValueError."""

    field: str
    read: Reader


def rows_of(path: Path, columns: Mapping[str, Column]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and fields of each row. Raises CorruptFile with file, line and column."""
    reader = csv.reader(io.StringIO(text_of(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        if header != [*columns]:
            raise CorruptFile(f"{path}:1: wanted the columns {', '.join(columns)}, got {header}")
        for row in reader:
            line = reader.line_num
            if len(row) != len(columns):
                raise CorruptFile(f"{path}:{line}: wanted {len(columns)} cells, got {len(row)}")
            fields: dict[str, Any] = {}
            for (name, column), cell in zip(columns.items(), row, strict=True):
                try:
                    fields[column.field] = column.read(cell)
                except ValueError as error:
                    raise CorruptFile(f"{path}:{line}:{name}: {error}") from error
            yield line, fields
    except csv.Error as error:
        raise CorruptFile(f"{path}:{reader.line_num}: {error}") from error


_WHOLE = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_MONEY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")


def text(cell: str) -> str:
    """Printable text without spaces around it."""
    if not cell.isprintable() or cell != cell.strip() or len(cell) > 1000:
        raise ValueError(f"wanted printable text without spaces around it, got {cell[:60]!r}")
    return cell


def _matching(pattern: re.Pattern[str], wanted: str, cell: str) -> str:
    if not pattern.fullmatch(cell):
        raise ValueError(f"wanted {wanted}, got {cell[:60]!r}")
    return cell


def whole(cell: str) -> int:
    """A whole number."""
    return int(_matching(_WHOLE, "a whole number", cell))


def number(cell: str) -> float:
    """A decimal number, without exponent."""
    return float(_matching(_NUMBER, "a decimal number", cell))


def money(cell: str) -> Decimal:
    """An amount of money, zero or more."""
    return Decimal(_matching(_MONEY, "an amount of zero or more", cell))


def yes_or_no(cell: str) -> bool:
    """A claim."""
    if cell not in ("yes", "no"):
        raise ValueError(f"wanted yes or no, got {cell[:60]!r}")
    return cell == "yes"


def scaled(unit: float) -> Reader:
    """A number times the SI value of its unit."""
    return lambda cell: number(cell) * unit


def or_absent(read: Reader, absent: object) -> Reader:
    """What `read` gives, or `absent` for an empty cell."""
    return lambda cell: read(cell) if cell else absent


def or_unknown(read: Reader) -> Reader:
    """What `read` gives, or Unknown for an empty cell."""
    return or_absent(read, Unknown(reason="not in the source"))


def named(**columns: Column | Reader) -> dict[str, Column]:
    """Columns by name; a bare reader fills the field of the same name."""
    return {
        name: column if isinstance(column, Column) else Column(name, column)
        for name, column in columns.items()
    }
