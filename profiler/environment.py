"""The machine and software of a measurement, and what fixed kernels reach on it today."""

import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from domain.complaint import Complaint, NoDevice
from domain.measurement import Environment, Rates
from domain.record import Unknown
from profiler.affinity import allowed_cores, physical_cores
from profiler.board import lasting_gpu_flags
from profiler.clock import DeviceKind, finished
from profiler.preflight import lasting_flags
from profiler.presence import Choice, Gpus, catalogue_id_of, choose, is_known, present_gpus

# What changes the speed of the same code on the same machine.
SETTINGS_THAT_MATTER = (
    "OMP_WAIT_POLICY",
    "OMP_PROC_BIND",
    "OMP_DYNAMIC",
    "GOMP_SPINCOUNT",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "MALLOC_ARENA_MAX",
    "LD_PRELOAD",
    "CUDA_LAUNCH_BLOCKING",
    "NVIDIA_TF32_OVERRIDE",
)
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "bf16")


def present_devices() -> Gpus:
    """The GPUs of this machine; a CPU there always is."""
    return present_gpus()


def choose_device(name: str, gpus: Gpus | None = None) -> Choice:
    """The device to measure: auto, cpu, cuda, or an id or alias of the catalogue.

    Raises NoDevice with what was found and what to do, Complaint for a name that is none. `auto` takes the CPU where torch cannot use
    the GPU.
    """
    choice = choose(name, present_gpus() if gpus is None else gpus)
    if isinstance(choice, str):
        raise NoDevice(choice) if is_known(name) else Complaint(choice)
    if choice.gpu is None:
        return choice
    import torch

    if torch.cuda.is_available():
        return choice
    if name == "auto":
        return Choice(kind="cpu")
    raise NoDevice(
        f"{choice.gpu.name} is here, but torch {torch.__version__} cannot use it; install a torch "
        f"built for this driver, or measure the CPU with --device cpu"
    )


def usable_cores(root: Path = Path("/")) -> int:
    """Physical cores that this process may use: affinity and the container's quota respected."""
    return max(1, min(len(physical_cores(allowed_cores(), root)), _quota(root)))


def usable_bytes(root: Path = Path("/")) -> int:
    """Memory that this process may use: the machine's, or the container's limit."""
    import psutil

    total = int(psutil.virtual_memory().total)
    limit = _first_line(root / "sys/fs/cgroup/memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


def fingerprint(
    choice: Choice,
    threads: int,
    settings: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
    cores: int | None = None,
    affinity: str = "",
    clocks: str = "",
) -> Environment:
    """The environment of measurements on `choice`; nothing in it changes from minute to minute.

    A process that was pinned says how many `cores` it could use before, and its `affinity` now;
    `clocks` are what those of a GPU are locked to.
    """
    import torch

    cores = cores or usable_cores(root)
    processor, known_flags = _processor(root)
    flags = {
        "processor": processor,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_flags": " ".join(flag for flag in CPU_FLAGS if flag in known_flags),
        "virtualised": "yes" if "hypervisor" in known_flags else "no",
        "governor": _first_line(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        or "unreadable",
        **{name: settings[name] for name in SETTINGS_THAT_MATTER if name in settings},
        **({"affinity": affinity} if affinity else {}),
        **({"clocks": clocks} if clocks else {}),
        **lasting_flags(root, settings),
    }
    device_id, name, memory = f"cpu-{slug(processor)}-{cores}c", processor, usable_bytes(root)
    if choice.gpu is not None:
        board = torch.cuda.get_device_properties(0)
        name, memory = choice.gpu.name, board.total_memory
        device_id = catalogue_id_of(name) or slug(name)
        flags |= {
            "capability": f"{board.major}.{board.minor}",
            "multiprocessors": str(board.multi_processor_count),
            "cuda": str(torch.version.cuda),
            "driver": _driver(),
            "uuid": choice.gpu.uuid,
            **lasting_gpu_flags(choice.gpu),
        }
    return Environment(
        device_id=device_id,
        device_name=name,
        kind=choice.kind,
        threads=threads,
        cores=cores,
        memory_bytes=memory,
        operating_system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        flags=tuple(sorted(flags.items())),
    )


def measured_rates(kind: DeviceKind) -> Rates:
    """What large products and a large copy (bytes read and written) reach, best of several."""
    import torch

    device = torch.device(kind)
    side, elements = (1024, 2**24) if kind == "cpu" else (8192, 2**28)
    left = torch.randn(side, side, device=device)
    right = torch.randn(side, side, device=device)
    product = torch.empty(side, side, device=device)
    source = torch.randn(elements, device=device)
    target = torch.empty(elements, device=device)
    product_s = _best_s(kind, lambda: torch.mm(left, right, out=product))
    copy_s = _best_s(kind, lambda: target.copy_(source))
    return Rates(
        gemm_flop_per_s=2 * side**3 / product_s,
        copy_bytes_per_s=2 * source.nbytes / copy_s,
        gemm_bf16_flop_per_s=_bf16_flop_per_s(kind, side),
    )


def _bf16_flop_per_s(kind: DeviceKind, side: int) -> float | Unknown:
    """What a large product in bf16 reaches; unknown where this torch has none for the device."""
    import torch

    try:
        left, right = (torch.randn(side, side, device=kind, dtype=torch.bfloat16) for _ in range(2))
        product_s = _best_s(kind, lambda: torch.mm(left, right))
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        return Unknown(reason=f"no bf16 product on this device: {said}")
    return 2 * side**3 / product_s


def slug(name: str) -> str:
    """A name as an identifier.

    >>> slug("Intel(R) Xeon(R) Platinum 8480+ @ 2.0GHz")
    'intel-xeon-platinum-8480-2.0ghz'
    """
    plain = re.sub(r"\((?:r|tm|c)\)", "", name.lower())
    return re.sub(r"[^a-z0-9.]+", "-", plain).strip("-.")[:96] or "unnamed"


def difference(wanted: Environment, came: Environment) -> str:
    """The first field in which two environments differ, for a sentence; empty where none does."""
    before = {**wanted.model_dump(exclude={"flags"}), **dict(wanted.flags)}
    now = {**came.model_dump(exclude={"flags"}), **dict(came.flags)}
    for field in sorted(before.keys() | now.keys()):
        if before.get(field) != now.get(field):
            return f"{field} was {before.get(field, 'not set')}, is {now.get(field, 'not set')}"
    return ""


def _best_s(
    kind: DeviceKind, run: Callable[[], object], times: int = 12, most_s: float = 3.0
) -> float:
    run()
    best, until_s = float("inf"), time.perf_counter() + most_s
    for _ in range(times):
        if best < float("inf") and time.perf_counter() > until_s:
            break  # a precision without units of its own may take seconds
        finished(kind)
        begin = time.perf_counter()
        run()
        finished(kind)
        best = min(best, time.perf_counter() - begin)
    return best


def _processor(root: Path) -> tuple[str, frozenset[str]]:
    """Model name and flags of the first processor."""
    fields: dict[str, str] = {}
    try:
        for line in (root / "proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip().lower(), value.strip())
    except OSError:
        pass
    name = fields.get("model name") or platform.processor() or platform.machine()
    flags = fields.get("flags") or fields.get("features") or ""
    return name, frozenset(flags.split())


def _quota(root: Path) -> int:
    quota, _, period = _first_line(root / "sys/fs/cgroup/cpu.max").partition(" ")
    if not (quota.isdigit() and period.isdigit()):
        return 2**31
    return max(1, int(quota) // int(period))


def _first_line(path: Path) -> str:
    try:
        return path.read_text().partition("\n")[0].strip()
    except OSError:
        return ""


def _driver() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception as error:  # the driver's version is worth a note, not a failure
        return f"unknown: {error}"
