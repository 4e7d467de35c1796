"""Which NVIDIA devices are here, and whether the one asked for is among them.

Standard library alone: it answers on a fresh machine, before anything is installed
(`python3 -m profiler.presence a100` exits 0, or with one sentence 4; 2 for a name that is none).
"""

import ctypes
import difflib
import os
import sys
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CATALOGUE = Path(__file__).resolve().parent.parent / "domain" / "catalogue"
LIBRARY = "libnvidia-ml.so.1"
USAGE, NO_DEVICE = 2, 4
SLOWEST_DRIVER_S = 10.0
_TEXT_BYTES = 96


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One NVIDIA device as its driver names it."""

    index: int
    name: str
    uuid: str


@dataclass(frozen=True, kw_only=True)
class Gpus:
    """The devices that the driver shows to us; `reason` says why there is none."""

    present: tuple[Gpu, ...] = ()
    reason: str = ""

    @property
    def found(self) -> str:
        """What is here, for the middle of a sentence.

        >>> Gpus(reason="no driver").found
        'no NVIDIA GPU (no driver)'
        """
        names = ", ".join(gpu.name for gpu in self.present)
        return names or f"no NVIDIA GPU ({self.reason})"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The device to measure: this CPU, or one GPU."""

    kind: Literal["cpu", "cuda"]
    gpu: Gpu | None = None


def present_gpus(library: str = LIBRARY) -> Gpus:
    """The GPUs of this machine that `CUDA_VISIBLE_DEVICES` leaves visible.

    A driver that hangs is given up after ten seconds.
    """
    answers: list[Gpus] = []
    asking = threading.Thread(target=lambda: answers.append(_asked(library)), daemon=True)
    asking.start()
    asking.join(SLOWEST_DRIVER_S)
    if not answers:
        return Gpus(reason=f"{library} did not answer in {SLOWEST_DRIVER_S:.0f} s")
    return _visible(answers[0], os.environ.get("CUDA_VISIBLE_DEVICES"))


def choose(name: str, gpus: Gpus) -> Choice | str:
    """The device that `name` means here, or the sentence that says why it cannot be measured.

    `name` is auto, cpu, cuda, or an id or alias of the catalogue.

    >>> choose("auto", Gpus(reason="no driver")).kind
    'cpu'
    """
    if name == "cpu" or (name == "auto" and not gpus.present):
        return Choice(kind="cpu")
    if name in ("auto", "cuda"):
        if gpus.present:
            return Choice(kind="cuda", gpu=gpus.present[0])
        return (
            f"wanted a CUDA device, found {gpus.found}; measure this machine with --device cpu "
            f"(DEVICE=cpu)"
        )
    catalogue = catalogue_names()
    ids = _ids_of(name, catalogue)
    refused = _aliases().get(_plain(name), {})
    if not ids and refused:
        return f"{name} is no one device: {refused.get('why', 'it has several meanings')}"
    if not ids:
        close = difflib.get_close_matches(_plain(name), [*catalogue, *_aliases()], n=4, cutoff=0.45)
        hint = f" (nearest: {', '.join(close)})" if close else ""
        return (
            f"no device {name} in the catalogue{hint}, found {gpus.found}; use auto, cpu, cuda or "
            f"a name that `python -m costmodel.predict --list-devices` lists"
        )
    for gpu in gpus.present:
        if catalogue_id_of(gpu.name, catalogue) in ids:
            return Choice(kind="cuda", gpu=gpu)
    unnamed = "" if any(catalogue[device] for device in ids) else "; no driver's name is known"
    return (
        f"wanted {name} ({' or '.join(ids)}{unnamed}), found {gpus.found}; measure what is here "
        f"with --device auto (DEVICE=auto), or predict it, which needs none: "
        f"`python -m costmodel.predict --device {name}`"
    )


def catalogue_names(folder: Path = CATALOGUE) -> dict[str, str | None]:
    """Every id of the catalogue with the end of the name that its driver gives, where it has one."""
    names: dict[str, str | None] = {}
    for path in sorted((folder / "devices").glob("*.toml")):
        for device, fields in tomllib.loads(path.read_text(encoding="utf-8")).items():
            names[device] = fields.get("nvml_name")
    return names


def catalogue_id_of(gpu_name: str, catalogue: dict[str, str | None] | None = None) -> str | None:
    """The catalogue's id of a device that the driver calls `gpu_name`, the longest match first.

    The driver's name ends in the catalogue's: a MIG slice or an "RTX 3090 Ti" is another device.

    >>> catalogue_id_of("NVIDIA X2", {"x": "X", "x2": "X2"})
    'x2'
    """
    known = catalogue_names() if catalogue is None else catalogue
    ends = [
        (len(end), device)
        for device, end in known.items()
        if end and f" {gpu_name}".lower().endswith(f" {end.lower()}")
    ]
    return max(ends)[1] if ends else None


def main(arguments: list[str]) -> int:
    """Exit status for a Makefile; the sentence goes to stderr."""
    choice = choose(arguments[0] if arguments else "auto", present_gpus())
    if isinstance(choice, str):
        sys.stderr.write(f"error: {choice}\n")
        return NO_DEVICE if is_known(arguments[0] if arguments else "auto") else USAGE
    return 0


def is_known(name: str) -> bool:
    """Whether `name` means one device, here or elsewhere.

    >>> is_known("cuda"), is_known("no-such-device")
    (True, False)
    """
    return name in ("auto", "cpu", "cuda") or bool(_ids_of(name, catalogue_names()))


def _aliases(folder: Path = CATALOGUE) -> dict[str, Any]:
    path = folder / "aliases.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _ids_of(name: str, catalogue: dict[str, str | None]) -> tuple[str, ...]:
    wanted = _plain(name)
    if wanted in catalogue:
        return (wanted,)
    alias = _aliases().get(wanted)
    return (alias["device"], *alias.get("others", ())) if alias and "device" in alias else ()


def _plain(name: str) -> str:
    return "-".join(name.lower().replace("_", " ").split())


def _visible(gpus: Gpus, visible: str | None) -> Gpus:
    if visible is None or not gpus.present:
        return gpus
    wanted = [part.strip() for part in visible.split(",") if part.strip()]
    kept = tuple(
        gpu
        for part in wanted
        for gpu in gpus.present
        if part == str(gpu.index) or gpu.uuid.startswith(part)
    )
    return Gpus(present=kept, reason="" if kept else f"CUDA_VISIBLE_DEVICES is {visible!r}")


def _asked(library: str) -> Gpus:
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return Gpus(reason=f"{library} is not installed")
    status = nvml.nvmlInit_v2()
    if status:
        return Gpus(reason=_error(nvml, status))
    try:
        count = ctypes.c_uint()
        status = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        if status:
            return Gpus(reason=_error(nvml, status))
        listed = [_gpu(nvml, index) for index in range(count.value)]
    finally:
        nvml.nvmlShutdown()
    present = tuple(gpu for gpu in listed if gpu is not None)
    return Gpus(present=present, reason="" if present else "the driver shows none that answers")


def _gpu(nvml: ctypes.CDLL, index: int) -> Gpu | None:
    handle = ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)):
        return None
    name, uuid = (ctypes.create_string_buffer(_TEXT_BYTES) for _ in range(2))
    size = ctypes.c_uint(_TEXT_BYTES)
    if nvml.nvmlDeviceGetName(handle, name, size) or nvml.nvmlDeviceGetUUID(handle, uuid, size):
        return None
    return Gpu(
        index=index,
        name=name.value.decode(errors="replace"),
        uuid=uuid.value.decode(errors="replace"),
    )


def _error(nvml: ctypes.CDLL, status: int) -> str:
    nvml.nvmlErrorString.restype = ctypes.c_char_p
    text: bytes = nvml.nvmlErrorString(status) or b"unknown error"
    return f"NVML: {text.decode(errors='replace')}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
