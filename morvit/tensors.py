"""Safetensors files, checked whole before anything is allocated. Pickles are never opened."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_in
from safetensors.torch import save as bytes_of
from torch import Tensor

from domain.complaint import CorruptFile, printable
from domain.store import write_whole

LARGEST_HEADER_BYTES = 2**20
BYTES_OF = {"F32": 4, "U8": 1}
_NAME_OF = {torch.float32: "F32", torch.uint8: "U8"}


@dataclass(frozen=True)
class Kind:
    """What a stored tensor must be."""

    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> "Kind":
        """The kind of a tensor at hand."""
        return cls(_NAME_OF[tensor.dtype], tuple(tensor.shape))

    @property
    def bytes(self) -> int:
        """Bytes it takes in the file."""
        return BYTES_OF[self.dtype] * math.prod(self.shape)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> bytes:
    """Replace `path` at once by these tensors; gives the bytes written."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = bytes_of(whole, dict(notes) if notes else None)
    write_whole(path, content)
    return content


def read_tensors(
    path: Path, expected: Mapping[str, Kind], largest_header: int = LARGEST_HEADER_BYTES
) -> tuple[dict[str, Tensor], dict[str, str], bytes]:
    """The tensors, the notes and the bytes of a file that holds just what is `expected`.

    Raises CorruptFile, before reading any tensor, where a name, dtype, shape, offset or the size of
    the file is not what it must be; and where a weight is not a number.
    """
    check_it_is_here(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length, header = _header(file.read(9 + largest_header), path, largest_header)
            notes = _check(header, expected, size - 8 - length, path)
            file.seek(0)
            content = file.read(size)
    except OSError as error:
        raise CorruptFile(f"cannot read {path}: {error.strerror}") from error
    if len(content) != size:
        raise CorruptFile(f"{path} changed while it was read")
    try:
        tensors = {name: tensor.clone() for name, tensor in tensors_in(content).items()}
    except SafetensorError as error:
        raise CorruptFile(f"{path} is no safetensors file: {error}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise CorruptFile(f"{path}: tensor {name} holds NaN or infinity; train it again")
    return tensors, notes, content


PICKLE_OR_ZIP = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def refuse_pickle(start: bytes, path: Path) -> None:
    """Refuse a file that begins like a pickle or a zip of pickles."""
    if start[:2] in PICKLE_OR_ZIP:
        raise CorruptFile(
            f"{path} is a pickle or zip checkpoint, which can run code and is never opened; "
            "convert it to safetensors"
        )


def check_it_is_here(path: Path) -> None:
    """Refuse a path that is absent, no plain file, or a link out of its folder."""
    if path.resolve().parent != path.parent.resolve():
        raise CorruptFile(f"{path} is a link out of its folder; put the file itself there")
    if not path.is_file():
        raise CorruptFile(f"no file {path}")


def _header(start: bytes, path: Path, largest: int) -> tuple[int, dict[str, object]]:
    length = int.from_bytes(start[:8], "little")
    is_plausible = len(start) > 8 and start[8:9] == b"{" and length <= largest
    if not is_plausible:
        refuse_pickle(start, path)
    if not is_plausible or len(start) < 8 + length:
        raise CorruptFile(
            f"{path} is no safetensors file: wanted a JSON header of at most {largest} bytes"
        )
    try:
        header = json.loads(start[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} has a header that is no JSON") from error
    if not isinstance(header, dict):
        raise CorruptFile(f"{path} has a header that is no JSON object")
    return length, header


def _check(
    header: dict[str, object], expected: Mapping[str, Kind], data_bytes: int, path: Path
) -> dict[str, str]:
    """Compare the header with what is expected; gives the notes in it."""
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise CorruptFile(f"{path} has notes that are no text")
    for name in sorted(header.keys() ^ expected.keys()):
        verb = "lacks" if name in expected else "has an unknown"
        raise CorruptFile(f"{path} {verb} tensor {printable(name)[:80]}")
    end = 0
    for name, stated in sorted(header.items(), key=_place):
        wanted = expected[name]
        came = stated if isinstance(stated, dict) else {}
        if (came.get("dtype"), came.get("shape")) != (wanted.dtype, list(wanted.shape)):
            raise CorruptFile(
                f"{path}: tensor {name} should be {wanted.dtype} {list(wanted.shape)}, is "
                f"{printable(str(came.get('dtype')))[:20]} {str(came.get('shape'))[:60]}"
            )
        if came.get("data_offsets") != [end, end + wanted.bytes]:
            raise CorruptFile(f"{path}: tensor {name} does not lie where it should")
        end += wanted.bytes
    if end != data_bytes:
        raise CorruptFile(f"{path} should hold {end} bytes of tensors, holds {data_bytes}")
    return notes


def _place(entry: tuple[str, object]) -> int:
    offsets = entry[1].get("data_offsets") if isinstance(entry[1], dict) else None
    first = offsets[0] if isinstance(offsets, list) and offsets else -1
    return first if isinstance(first, int) else -1
