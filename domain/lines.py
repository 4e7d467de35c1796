"""The lines of a journal: number, checksum and record of each, read up to the first that is wrong."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from domain.complaint import CorruptFile, first_error
from domain.record import Record
from domain.sealing import parsed

RecordType = TypeVar("RecordType", bound=Record)


def line_of(record: Record, number: int) -> bytes:
    """One record as a line: its number in the journal, a checksum, the record."""
    body = record.model_dump_json()
    head = f'{{"line":{number},"crc32":{zlib.crc32(body.encode())}'
    return f'{head},"record":{body}}}\n'.encode()


def valid_prefix(
    content: bytes, kind: type[RecordType], path: Path
) -> Iterator[tuple[int, RecordType]]:
    """Length and record of each line, up to the first that is torn, altered or out of its place.

    Raises CorruptFile for a whole line that holds something else: nobody may cut that off.
    """
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        body = body_of(line, number)
        if body is None:
            return
        try:
            parsed(body.decode())  # pydantic takes the last of two keys, and says nothing
            record = kind.model_validate_json(body)
        except (ValueError, RecursionError) as error:
            said = first_error(error) if isinstance(error, ValidationError) else str(error)
            raise CorruptFile(
                f"{path}:{number}: no {kind.__name__} that this version reads: {said}"
            ) from error
        yield len(line), record


def body_of(line: bytes, number: int) -> bytes | None:
    """The record in a whole line that is in its place; None for any other."""
    if not line.endswith(b"}\n"):
        return None
    head, separator, rest = line.partition(b',"record":')
    body = rest[:-2]
    try:
        said = parsed((head + b"}").decode()) if separator else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not set(said) <= {"line", "crc32"}:
        return None
    # The lines of older journals bear no number.
    is_in_place = said.get("line", number) == number
    return body if is_in_place and said.get("crc32") == zlib.crc32(body) else None
