"""Memory of a pass, whole and by stage, on four levels.

| level     | on a GPU                                  | on a CPU                                    |
|-----------|-------------------------------------------|---------------------------------------------|
| allocated | what torch's allocator handed out         | bytes of all tensor storages alive at once  |
| reserved  | what it keeps of the device for that      | unknown: memory goes back to the system     |
| device    | all that is in use on it, by anyone       | unknown: the resident set stands instead    |
| context   | device less reserved, when nobody else is | unknown: the runtime is in the resident set |

Weights and input are in every level. On a CPU, what kernels take and give back inside one operator
(workspaces, packed copies) is seen by the resident set alone. Plan capacity with the device level.
"""

import ctypes
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from domain.record import Unknown
from profiler.clock import DeviceKind
from profiler.telemetry import Meter


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensor storages that are alive, and the most since the last mark.

    Each storage counts once, however many views it has, until the last of them is gone.
    """

    def __init__(self, already: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self.stages: dict[str, int] = {}
        self._since_mark = 0
        self._known: set[int] = set()
        for tensor in already:
            self._see(tensor)

    def mark(self, stage: str) -> None:
        """`stage` has ended: keep its peak."""
        self.stages[stage] = self._since_mark
        self._since_mark = self.live_bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        # The object stands for the storage as long as that lives: torch keeps the two together.
        place = storage._cdata
        if place in self._known:
            return
        size = storage.nbytes()
        self._known.add(place)
        weakref.finalize(storage, self._forget, place, size).atexit = False
        self.live_bytes += size
        self._since_mark = max(self._since_mark, self.live_bytes)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _forget(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.live_bytes -= size


class PassWithMarks(Protocol):
    """One forward pass that says when each stage ended."""

    def __call__(self, mark: Callable[[str], None]) -> object:
        """Run it."""
        ...


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Most bytes of one stage: of tensors, kept by the allocator, in use on the device by anyone."""

    peak_bytes: int | Unknown
    reserved_bytes: int | Unknown
    device_bytes: int | Unknown


@dataclass(frozen=True, kw_only=True)
class PassMemory:
    """Most bytes of a pass on every level, and of each of its stages."""

    peak_bytes: int | Unknown
    reserved_bytes: int | Unknown
    context_bytes: int | Unknown
    stages: dict[str, StageMemory]


def peak_on_cpu(model: nn.Module, inputs: Tensor, run: PassWithMarks) -> tuple[int, dict[str, int]]:
    """Peak bytes of a pass and of each of its stages, on a CPU."""
    with LiveBytes((*model.parameters(), *model.buffers(), inputs)) as watched:
        run(watched.mark)
    return watched.peak_bytes, watched.stages


def peaks_on_cuda(run: PassWithMarks, beside_bytes: int = 0) -> dict[str, StageMemory]:
    """Peak bytes of each stage of a pass, as torch's allocator and the device count them.

    `beside_bytes` of what is allocated are other batches of the rotation, which a service would not
    hold: they are taken off the peak, not off what is reserved and in use, for that is as it was.

    Allocation is counted when a call is made, not when the device gets there: a mark waits for
    nothing. Each starts allocated and reserved peaks anew, so both are read before. What is reserved
    holds what earlier passes left there, as it does in service.
    """
    stages: dict[str, StageMemory] = {}

    def mark(stage: str) -> None:
        stages[stage] = StageMemory(
            peak_bytes=_some(
                torch.cuda.max_memory_allocated() - beside_bytes, "torch has allocated nothing"
            ),
            reserved_bytes=_some(torch.cuda.max_memory_reserved(), "torch has reserved nothing"),
            device_bytes=in_use_on_device(),
        )
        torch.cuda.reset_peak_memory_stats()

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run(mark)
    return stages


def in_use_on_device() -> int | Unknown:
    """Memory in use on the current CUDA device, by anyone, in bytes."""
    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError as error:
        return Unknown(reason=f"the device does not say what is free: {_one_line(error)}")
    return _some(total - free, "the device calls all of its memory free")


def context_on_cuda(meter: Meter) -> int | Unknown:
    """What this process holds of the device beside torch's allocator: context, kernels, libraries.

    All in use less all reserved, at one moment; that is ours only where nobody else is.
    """
    holders = meter.processes()
    if isinstance(holders, Unknown):
        return Unknown(reason=f"who else holds the device is not known: {holders.reason}")
    if holders > 1:
        return Unknown(reason=f"{holders} processes hold the device, not this one alone")
    in_use = in_use_on_device()
    if isinstance(in_use, Unknown):
        return in_use
    reserved = torch.cuda.memory_reserved()
    return _some(in_use - reserved, f"{in_use} B in use on the device, {reserved} B reserved")


def memory_on_cpu(
    model: nn.Module, inputs: Tensor, run: PassWithMarks, meter: Meter, beside_bytes: int = 0
) -> PassMemory:
    """Memory of a pass and of each of its stages, on a CPU."""
    peak, stages = peak_on_cpu(model, inputs, run)
    reserved = Unknown(reason="a CPU's memory goes back to the system: see resident_bytes")
    device = Unknown(reason=f"a CPU has no memory of its own: see resident_bytes{_of_group()}")
    return PassMemory(
        peak_bytes=peak,
        reserved_bytes=reserved,
        context_bytes=Unknown(reason="on a CPU resident_bytes holds the runtime too"),
        stages={
            stage: StageMemory(peak_bytes=most, reserved_bytes=reserved, device_bytes=device)
            for stage, most in stages.items()
        },
    )


def memory_on_cuda(
    model: nn.Module, inputs: Tensor, run: PassWithMarks, meter: Meter, beside_bytes: int = 0
) -> PassMemory:
    """Memory of a pass and of each of its stages, on a GPU."""
    stages = peaks_on_cuda(run, beside_bytes)
    return PassMemory(
        peak_bytes=_largest([stage.peak_bytes for stage in stages.values()]),
        reserved_bytes=_largest([stage.reserved_bytes for stage in stages.values()]),
        context_bytes=context_on_cuda(meter),
        stages=stages,
    )


class MemoryPass(Protocol):
    """One pass that is watched for memory; `beside_bytes` lie on the device and are not of it."""

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        run: PassWithMarks,
        meter: Meter,
        beside_bytes: int = 0,
    ) -> PassMemory:
        """Run it."""
        ...


MEMORIES: dict[DeviceKind, MemoryPass] = {"cpu": memory_on_cpu, "cuda": memory_on_cuda}


def forget_peak(process: Path = Path("/proc/self")) -> str:
    """Start the peak resident set anew; gives why that is not allowed, or nothing.

    What the allocator kept of earlier work goes back to the system first, where it can be asked to.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        (process / "clear_refs").write_text("5")
    except OSError as error:
        return f"the kernel does not let the peak be reset: {error.strerror}"
    return ""


def peak_resident(process: Path = Path("/proc/self")) -> int | Unknown:
    """Largest resident set of a process since its start or since `forget_peak`, in bytes."""
    try:
        for line in (process / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError) as error:
        return Unknown(reason=f"cannot read the peak resident set: {error}")
    return Unknown(reason="this kernel reports no peak resident set")


def peak_of_group(
    process: Path = Path("/proc/self"), root: Path = Path("/sys/fs/cgroup")
) -> int | Unknown:
    """Largest memory of the control group of a process since it was made, in bytes.

    That is every process of the group, and files that the kernel keeps in memory for them.
    """
    try:
        for line in (process / "cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                return int((root / line[len("0::/") :] / "memory.peak").read_text())
    except (OSError, ValueError) as error:
        return Unknown(reason=f"cannot read the peak of the control group: {error}")
    return Unknown(reason="this process is in no control group (version 2)")


def _of_group() -> str:
    peak = peak_of_group()
    return "" if isinstance(peak, Unknown) else f"; its whole control group peaked at {peak} B"


def _largest(values: list[int | Unknown]) -> int | Unknown:
    """The largest of the stages; the first reason where one of them is unknown."""
    known = [value for value in values if isinstance(value, int)]
    if len(known) == len(values):
        return max(known)
    return next(value for value in values if isinstance(value, Unknown))


def _some(size: int, otherwise: str) -> int | Unknown:
    return size if size > 0 else Unknown(reason=otherwise)


def _one_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
