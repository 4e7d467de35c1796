"""How much memory a process may take: asked of this machine, imposed on this process.

On a CPU the limit is RLIMIT_DATA: what the process may write to and shares with nobody, asked for or
used, torch and its libraries included (0.8 GB before the first tensor). RLIMIT_AS would count the
libraries' code and every reserved address as well: 3.4 GB before the first tensor. Both make
torch raise the same RuntimeError, "can't allocate memory", at the allocation that does not fit.
"""

import resource
from pathlib import Path

from profiler.clock import DeviceKind

# Of what is available now, for a process that must not wake the kernel's out-of-memory killer.
SAFE_SHARE = 0.8


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that could be taken now without swapping: the machine's, or what a container has left."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        most = int((root / "sys/fs/cgroup/memory.max").read_text())
        taken = int((root / "sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free  # no container, or one without a limit ("max")
    return max(0, min(free, most - taken))


def limit_memory(kind: DeviceKind, most_bytes: int) -> None:
    """Let this process have `most_bytes` and no more; what it has already counts."""
    import torch

    if kind == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, most_bytes / total))
        return
    _loaded()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        most_bytes = min(most_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))


def is_memory_limited() -> bool:
    """Whether this process may not take all the memory that there is."""
    return resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY


def _loaded() -> None:
    """Load libraries and start threads: without memory these fail in ways that look like bugs."""
    import torch

    import profiler.passes  # noqa: F401 - loaded for what it loads

    rows = torch.ones(256, 256)
    torch.nn.functional.gelu(rows @ rows)
