"""What could spoil a measurement on this machine, and the cure. Looking and judging are apart."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from domain.record import Unknown
from domain.store import results_root
from domain.units import shown
from profiler.board import LONGEST_ANSWER_S, driver_facts
from profiler.environment import usable_bytes, usable_cores
from profiler.preflight import Fact, machine_facts, torch_facts
from profiler.presence import Gpus, present_gpus
from profiler.session import Finding
from profiler.telemetry import Meter, RaplMeter, nvml_meter

LEAST_TORCH = (2, 10)
LEAST_FREE_BYTES, LEAST_DISK_BYTES = 2e9, 2e8
LARGEST_STEAL, LARGEST_LOAD = 0.02, 0.5


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the doctor looked at, in figures."""

    cores: int
    threads: int
    load: float
    steal: float | Unknown
    memory_bytes: int
    free_bytes: int
    disk_bytes: int
    torch: str
    governor: str
    energy: str
    gpus: Gpus
    cuda_problem: str
    has_checkpoint: bool
    facts: tuple[Fact, ...] = ()


def findings(seen: Seen) -> tuple[Finding, ...]:
    """A verdict on everything seen, with the cure where one is needed."""
    return tuple(_judged(seen))


def _judged(seen: Seen) -> Iterator[Finding]:
    version = tuple(int(part) for part in seen.torch.split("+")[0].split(".")[:2] if part.isdigit())
    yield _found(
        version >= LEAST_TORCH,
        "torch",
        seen.torch or "not installed",
        "pip install 'torch>=2.10' (older ones load hostile checkpoints)",
        fatal=True,
    )
    yield _found(
        seen.has_checkpoint,
        "shipped checkpoint",
        "here" if seen.has_checkpoint else "absent",
        "restore morvit/checkpoints from the repository, or run `python -m morvit.train`",
        fatal=True,
    )
    yield _found(
        seen.disk_bytes >= LEAST_DISK_BYTES,
        "disk",
        f"{shown(seen.disk_bytes, 'B')} free for results",
        "make room, or set MORSIZER_RESULTS to another disk",
        fatal=True,
    )
    yield _found(
        seen.free_bytes >= LEAST_FREE_BYTES,
        "memory",
        f"{shown(seen.free_bytes, 'B')} free of {shown(seen.memory_bytes, 'B')}",
        "close what takes memory; large batches will end with status oom",
    )
    yield _found(
        seen.cores > 1,
        "cores",
        f"{seen.cores} usable",
        "one core also runs everything else: expect noise; use a larger machine",
    )
    yield _found(
        seen.threads <= seen.cores,
        "threads",
        f"{seen.threads} on {seen.cores} cores",
        f"pass --threads {seen.cores}: threads that wait for a core cost more than they give",
    )
    yield _found(
        seen.load <= LARGEST_LOAD * seen.cores,
        "load",
        f"{seen.load:.2f} on {seen.cores} cores (mean of the last minute)",
        "stop other work, or wait a minute: contended runs are slower than one thread alone",
    )
    steal = 0.0 if isinstance(seen.steal, Unknown) else seen.steal
    yield _found(
        steal <= LARGEST_STEAL,
        "steal",
        seen.steal.reason
        if isinstance(seen.steal, Unknown)
        else f"{steal:.1%} of CPU time taken by the host",
        "use a dedicated host or another hour of the day",
    )
    yield _found(
        seen.governor in ("performance", "unreadable"),
        "governor",
        seen.governor,
        "cpupower frequency-set -g performance (as deployed is fine too; it is recorded)",
    )
    yield _found(
        seen.energy == "readable",
        "energy meter",
        seen.energy,
        "energy will be stored as unknown with this reason, never as zero",
    )
    yield _found(
        not seen.cuda_problem,
        "GPU",
        seen.cuda_problem or seen.gpus.found,
        "install a torch built for this driver; the CPU is measured meanwhile",
    )
    for fact in seen.facts:
        yield _found(not fact.cure, fact.subject, fact.found, fact.cure)


def _found(good: bool, subject: str, found: str, cure: str, *, fatal: bool = False) -> Finding:
    if good:
        return Finding(level="PASS", subject=subject, found=found)
    return Finding(level="FAIL" if fatal else "WARN", subject=subject, found=found, cure=cure)


def looked(threads: int | None = None, root: Path = Path("/")) -> Seen:
    """This machine now. Takes a third of a second, to see what the host steals."""
    import psutil
    import torch

    from morvit.weights import SHIPPED, card_path

    cores = usable_cores(root)
    gpus = present_gpus()
    energy = _energy_of(gpus)
    blind = bool(gpus.present) and not torch.cuda.is_available()
    results = results_root()
    existing = next(path for path in (results, *results.resolve().parents) if path.exists())
    return Seen(
        cores=cores,
        threads=threads or cores,
        load=os.getloadavg()[0],
        steal=_steal(root / "proc/stat"),
        memory_bytes=usable_bytes(root),
        free_bytes=int(psutil.virtual_memory().available),
        disk_bytes=shutil.disk_usage(existing).free,
        torch=torch.__version__,
        governor=_governor(root),
        energy=energy.reason if isinstance(energy, Unknown) else "readable",
        gpus=gpus,
        cuda_problem=f"{gpus.found}, which torch {torch.__version__} cannot use" if blind else "",
        has_checkpoint=SHIPPED.is_file() and card_path(SHIPPED).is_file(),
        facts=(*machine_facts(root), *torch_facts(), *_boards(gpus)),
    )


def _boards(gpus: Gpus) -> Iterator[Fact]:
    """What the driver says of every GPU, each named where there are several."""
    for gpu in gpus.present:
        name = f"GPU {gpu.index} " if len(gpus.present) > 1 else ""
        for fact in driver_facts(gpu):
            yield Fact(subject=f"{name}{fact.subject}", found=fact.found, cure=fact.cure)


def _energy_of(gpus: Gpus) -> float | Unknown:
    """What the energy meter says; a driver that does not answer in time is given up."""

    def ask() -> None:
        meter: Meter = nvml_meter(gpus.present[0].uuid) if gpus.present else RaplMeter()
        answers.append(meter.energy_j())

    answers: list[float | Unknown] = []
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(LONGEST_ANSWER_S)
    return answers[0] if answers else Unknown(reason=f"no answer in {LONGEST_ANSWER_S:.0f} s")


def _steal(counters: Path, wait_s: float = 0.3) -> float | Unknown:
    """Share of CPU time that the host gave to others, over `wait_s`."""
    first = _ticks(counters)
    time.sleep(wait_s)
    ticks = [now - before for before, now in zip(first, _ticks(counters), strict=False)]
    if len(ticks) < 8 or sum(ticks) <= 0:
        return Unknown(reason=f"{counters} does not say what the host takes")
    return ticks[7] / sum(ticks)


def _ticks(counters: Path) -> list[int]:
    try:
        # user nice system idle iowait irq softirq steal; guest time is in user already.
        return [int(part) for part in counters.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return []


def _governor(root: Path) -> str:
    try:
        return (root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return "unreadable"
