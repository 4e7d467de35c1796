"""What a machine is set to before anything is measured: facts that explain a number afterwards.

What nobody can read says why, and is never left out. Settings that last (`lasting_flags`) belong to
the environment and separate records; what varies from minute to minute (temperature, other
processes, the PCIe link of an idle board) is kept with the session alone.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from domain.units import MILLI

ROOT = Path("/")
UNREADABLE = "unreadable"
HOTTEST_C = 80.0
LARGEST_HELD_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One setting or state; a `cure` is there where it may spoil a measurement."""

    subject: str
    found: str
    cure: str = ""


def machine_facts(root: Path = ROOT, settings: Mapping[str, str] = os.environ) -> tuple[Fact, ...]:
    """Processor, its limits, and what stands between this process and it."""
    return tuple(_machine_facts(root, settings))


def lasting_flags(root: Path = ROOT, settings: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Settings of the machine that change the speed of the same code and do not come and go."""
    lasting = ("smt", "numa nodes", "turbo", "container", "power mode")
    return {
        fact.subject.replace(" ", "_"): fact.found
        for fact in _machine_facts(root, settings)
        if fact.subject in lasting
    }


def _machine_facts(root: Path, settings: Mapping[str, str]) -> Iterator[Fact]:
    cpu = root / "sys/devices/system/cpu"
    yield Fact(subject="smt", found=_switch(_line(cpu / "smt/active")))
    nodes = len(list((root / "sys/devices/system/node").glob("node[0-9]*")))
    yield Fact(subject="numa nodes", found=str(nodes) if nodes else UNREADABLE)
    no_turbo = _line(cpu / "intel_pstate/no_turbo")
    boost = {"0": "1", "1": "0"}.get(no_turbo, _line(cpu / "cpufreq/boost"))
    yield Fact(subject="turbo", found=_switch(boost))
    yield Fact(subject="container", found=_container(root, settings))
    yield Fact(subject="virtual machine", found=_virtual_machine(root))
    yield _quota(root)
    hottest = _hottest_c(root)
    yield Fact(
        subject="temperature",
        found=UNREADABLE if hottest is None else f"{hottest:.0f} °C",
        cure="let it cool: a hot processor slows down" if (hottest or 0) > HOTTEST_C else "",
    )
    yield from _jetson_facts(root)


def _quota(root: Path) -> Fact:
    """How much CPU time the container may have, and how often it was stopped for it."""
    group = root / "sys/fs/cgroup"
    quota, _, period = _line(group / "cpu.max").partition(" ")
    if not quota:  # the first version of control groups
        quota = _line(group / "cpu/cpu.cfs_quota_us")
        period = _line(group / "cpu/cpu.cfs_period_us")
    if quota in ("max", "-1"):
        return Fact(subject="cpu quota", found="none")
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return Fact(subject="cpu quota", found=UNREADABLE)
    counts = _fields(group / "cpu.stat") or _fields(group / "cpu/cpu.stat")
    periods, held = (counts.get(name, 0) for name in ("nr_periods", "nr_throttled"))
    share = held / periods if periods else 0.0
    return Fact(
        subject="cpu quota",
        found=f"{int(quota) / int(period):g} cores, used up in {share:.1%} of the periods so far",
        cure="raise the quota or pass fewer --threads: the kernel stops a process that used it up"
        if share > LARGEST_HELD_SHARE
        else "",
    )


def _container(root: Path, settings: Mapping[str, str]) -> str:
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    if settings.get("container"):
        return settings["container"][:64]
    groups = _text(root / "proc/1/cgroup")
    return next((name for name in ("kubepods", "docker", "lxc") if name in groups), "none seen")


def _virtual_machine(root: Path) -> str:
    """Whether a hypervisor is below, and what the firmware calls the machine."""
    firmware = root / "sys/class/dmi/id"
    named = " ".join(
        filter(None, (_line(firmware / "sys_vendor"), _line(firmware / "product_name")))
    )
    below = "yes" if "hypervisor" in _text(root / "proc/cpuinfo").split() else "no sign of one"
    return f"{below} ({named[:120]})" if named else below


def _hottest_c(root: Path) -> float | None:
    readings = []
    for path in (root / "sys/class/thermal").glob("thermal_zone*/temp"):
        with suppress(ValueError):
            readings.append(int(_line(path)) * MILLI)
    return max(readings, default=None)


def _jetson_facts(root: Path) -> Iterator[Fact]:
    """Power mode, fixed clocks and fan of a Jetson; nothing on any other machine."""
    release = _line(root / "etc/nv_tegra_release")
    if not release:
        return
    yield Fact(subject="Jetson", found=release[:120])
    mode = _line(root / "var/lib/nvpmodel/status")
    yield Fact(
        subject="power mode",
        found=mode or UNREADABLE,
        cure="" if mode else "say which: `sudo nvpmodel -q`; it changes every clock",
    )
    policy = root / "sys/devices/system/cpu/cpu0/cpufreq"
    least, most = _line(policy / "scaling_min_freq"), _line(policy / "scaling_max_freq")
    is_fixed = bool(least) and least == most
    yield Fact(
        subject="jetson_clocks",
        found="on" if is_fixed else "off" if least else UNREADABLE,
        cure="" if is_fixed else "as deployed is fine; `sudo jetson_clocks` gives steady clocks",
    )
    fans = [_line(path) for path in sorted((root / "sys/class/hwmon").glob("hwmon*/pwm1"))]
    yield Fact(subject="fan", found=f"pwm {' '.join(fans)}" if any(fans) else UNREADABLE)


def torch_facts() -> tuple[Fact, ...]:
    """Switches of torch that trade exactness for speed, as they are in this process."""
    import torch

    cudnn = torch.backends.cudnn
    version = cudnn.version()  # type: ignore[no-untyped-call]
    found = {
        "cuDNN": "none" if version is None else str(version),
        "TF32": f"products {on_off(torch.backends.cuda.matmul.allow_tf32)}, "
        f"convolutions {on_off(cudnn.allow_tf32)}; each point sets its own",
        "cudnn.benchmark": on_off(cudnn.benchmark),
        "deterministic": on_off(torch.are_deterministic_algorithms_enabled()),
    }
    return tuple(Fact(subject=subject, found=value) for subject, value in found.items())


def on_off(value: bool) -> str:
    """A switch in a word."""
    return "on" if value else "off"


def _switch(text: str) -> str:
    return {"1": "on", "0": "off"}.get(text, UNREADABLE)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _line(path: Path) -> str:
    return _text(path).partition("\n")[0].strip()


def _fields(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
