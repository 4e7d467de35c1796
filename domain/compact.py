"""Journals as xz archives: a fraction of the size, the same bytes for the same journal.

Reading is bounded: nothing is kept before it is known how much would come out, and what an archive
demands of memory is refused above a limit.
"""

import lzma
from collections.abc import Iterator
from pathlib import Path

from domain.complaint import CorruptFile

SUFFIX = ".xz"
# What the decoder may use for itself; the packing below asks 65 MiB of it.
MOST_DECODER_BYTES = 128 * 2**20
PRESET = 9
STEP_BYTES = 2**16


def is_compact(path: Path) -> bool:
    """Whether `path` names an archive.

    >>> is_compact(Path("journal.jsonl.xz")), is_compact(Path("journal.jsonl"))
    (True, False)
    """
    return path.suffix == SUFFIX


def compacted(content: bytes) -> bytes:
    """`content` as an xz archive: the same bytes each time, with a checksum of its own."""
    return lzma.compress(content, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=PRESET)


def expanded(archive: bytes, most_bytes: int, path: Path) -> tuple[bytes, str]:
    """What is in an archive, and what is wrong with it in words; empty where nothing is.

    A damaged archive gives what lies before the damage. Raises CorruptFile where more than
    `most_bytes` would come out, which is found out without keeping them, or where `archive` is none.
    """
    # Once to count, once to keep: a bomb costs time, but no memory.
    length = sum(len(piece) for piece, _ in _pieces(archive, most_bytes, path))
    kept = bytearray(length)
    end, damage = 0, ""
    for piece, said in _pieces(archive, most_bytes, path):
        kept[end : end + len(piece)] = piece
        end, damage = end + len(piece), said
    if not length and damage:
        raise CorruptFile(f"{path} is no readable xz archive: {damage}")
    return bytes(kept), damage


def _pieces(archive: bytes, most_bytes: int, path: Path) -> Iterator[tuple[bytes, str]]:
    """Pieces of the content, and with the last one what is wrong with the archive."""
    try:
        decoder = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MOST_DECODER_BYTES)
        left, total = archive, 0
        while not decoder.eof:
            piece = decoder.decompress(left, max_length=STEP_BYTES)
            left = b""
            total += len(piece)
            if total > most_bytes:
                raise CorruptFile(
                    f"{path} holds more than {most_bytes} bytes, the most that is read"
                )
            yield piece, ""
            if not piece and decoder.needs_input and not decoder.eof:
                yield b"", "it ends too early"
                return
        if decoder.unused_data:
            yield b"", f"{len(decoder.unused_data)} bytes follow its end"
    except lzma.LZMAError as error:
        yield b"", str(error).rstrip(".").lower()
