"""Peak memory of a pass, whole and by stage.

On a CPU: bytes of all tensor storages alive at the same time, weights and input included. What
kernels take and give back inside one operator (workspaces, packed copies) is not seen; the peak
resident set of the process, which holds everything and the runtime too, stands beside it.
On a GPU: what torch's allocator handed out.
"""

import ctypes
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from domain.record import Unknown
from profiler.clock import DeviceKind


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


def peak_on_cpu(model: nn.Module, inputs: Tensor, run: PassWithMarks) -> tuple[int, dict[str, int]]:
    """Peak bytes of a pass and of each of its stages, on a CPU."""
    with LiveBytes((*model.parameters(), *model.buffers(), inputs)) as watched:
        run(watched.mark)
    return watched.peak_bytes, watched.stages


def peak_on_cuda(
    model: nn.Module, inputs: Tensor, run: PassWithMarks
) -> tuple[int, dict[str, int]]:
    """Peak bytes of a pass and of each of its stages, as torch's allocator counts them."""
    stages: dict[str, int] = {}

    def mark(stage: str) -> None:
        stages[stage] = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run(mark)
    return max(stages.values()), stages


PEAKS: dict[
    DeviceKind,
    Callable[[nn.Module, Tensor, PassWithMarks], tuple[int, dict[str, int]]],
] = {"cpu": peak_on_cpu, "cuda": peak_on_cuda}


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
