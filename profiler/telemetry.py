"""Energy, power, memory and clocks as the device's own meters give them; else the reason why not."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from domain.record import Unknown
from domain.units import MEGA, MICRO, MILLI

# Reason bits that mean slower by heat or fault, not by choice (nvml.h).
THROTTLING = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


class Meter(Protocol):
    """What a device says about itself. Every answer is a number or a reason, never 0 for unknown."""

    def energy_j(self) -> float | Unknown:
        """A running total since some start; only differences mean something."""
        ...

    def spent_j(self, before: float | Unknown, after: float | Unknown) -> float | Unknown:
        """Energy between two totals."""
        ...

    def power_w(self) -> float | Unknown:
        """Power drawn now."""
        ...

    def used_bytes(self) -> int | Unknown:
        """Device memory in use, by anyone."""
        ...

    def clock_hz(self) -> float | Unknown:
        """Clock of the compute units now."""
        ...

    def throttling(self) -> tuple[str, ...] | Unknown:
        """What slows the device down now against its will; empty is nothing."""
        ...


def spent_j(before: float | Unknown, after: float | Unknown) -> float | Unknown:
    """Energy between two totals of a counter that never wraps.

    >>> spent_j(5.0, 8.0), spent_j(8.0, 5.0).reason
    (3.0, 'the energy counter went backwards, from 8 J to 5 J')
    """
    if isinstance(before, Unknown):
        return before
    if isinstance(after, Unknown):
        return after
    if not (math.isfinite(before) and math.isfinite(after)):
        return Unknown(reason=f"the energy counter gave {before} and {after}")
    if after < before:
        return Unknown(
            reason=f"the energy counter went backwards, from {before:g} J to {after:g} J"
        )
    if after == before:
        return Unknown(reason=f"the energy counter stood still at {after:g} J")
    return after - before


@dataclass(frozen=True, kw_only=True)
class AbsentMeter:
    """A device without meters, and why."""

    reason: str

    def energy_j(self) -> float | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def spent_j(self, before: float | Unknown, after: float | Unknown) -> float | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def power_w(self) -> float | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def used_bytes(self) -> int | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def clock_hz(self) -> float | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def throttling(self) -> tuple[str, ...] | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)


class RaplMeter:
    """Package energy of a CPU through the powercap files under `root`."""

    def __init__(self, root: Path = Path("/sys/class/powercap")) -> None:
        self._packages = sorted(root.glob("intel-rapl:[0-9]*"))
        # A zone with two numbers (intel-rapl:0:1) is a part of one with one.
        self._packages = [zone for zone in self._packages if zone.name.count(":") == 1]
        self._root = root

    def energy_j(self) -> float | Unknown:
        """Sum over the packages."""
        return self._sum("energy_uj")

    def spent_j(self, before: float | Unknown, after: float | Unknown) -> float | Unknown:
        """Energy between two totals; with one package a counter that wrapped is unwrapped."""
        if (
            isinstance(before, float)
            and isinstance(after, float)
            and after < before
            and len(self._packages) == 1
        ):
            largest = self._sum("max_energy_range_uj")
            if isinstance(largest, float):
                return spent_j(before, after + largest)
        return spent_j(before, after)

    def power_w(self) -> float | Unknown:
        """Unknown: the counter has no power."""
        return Unknown(reason="RAPL counts energy, not power")

    def used_bytes(self) -> int | Unknown:
        """Unknown: no device memory."""
        return Unknown(reason="a CPU has no device memory")

    def clock_hz(self) -> float | Unknown:
        """Unknown here."""
        return Unknown(reason="RAPL gives no clock")

    def throttling(self) -> tuple[str, ...] | Unknown:
        """Unknown here."""
        return Unknown(reason="RAPL gives no throttle reasons")

    def _sum(self, name: str) -> float | Unknown:
        if not self._packages:
            return Unknown(reason=f"no RAPL counter under {self._root} (usual in virtual machines)")
        try:
            readings = [int((zone / name).read_text()) for zone in self._packages]
        except (OSError, ValueError) as error:
            return Unknown(reason=f"cannot read RAPL: {error}")
        if min(readings) < 0:
            return Unknown(reason=f"RAPL gave {min(readings)} µJ")
        return sum(readings) * MICRO


class NvmlMeter:
    """An NVIDIA board through NVML. Every NVML error becomes the reason of an Unknown."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    def energy_j(self) -> float | Unknown:
        """Total since the driver was loaded."""
        return self._asked(
            "nvmlDeviceGetTotalEnergyConsumption", lambda millijoules: millijoules * MILLI
        )

    def spent_j(self, before: float | Unknown, after: float | Unknown) -> float | Unknown:
        """Energy between two totals."""
        return spent_j(before, after)

    def power_w(self) -> float | Unknown:
        """Power of the board, which newer ones average over a second."""
        watts = self._asked("nvmlDeviceGetPowerUsage", lambda milliwatts: milliwatts * MILLI)
        if isinstance(watts, float) and not watts > 0:
            return Unknown(reason=f"NVML gave {watts:g} W")
        return watts

    def used_bytes(self) -> int | Unknown:
        """Memory of the board in use, by anyone."""
        used = self._asked("nvmlDeviceGetMemoryInfo", lambda memory: float(memory.used))
        return used if isinstance(used, Unknown) else int(used)

    def clock_hz(self) -> float | Unknown:
        """Clock of the multiprocessors."""
        return self._asked("nvmlDeviceGetClockInfo", lambda megahertz: megahertz * MEGA, 1)

    def throttling(self) -> tuple[str, ...] | Unknown:
        """Thermal and fault reasons; idling and a chosen power cap are none."""
        bits = self._asked("nvmlDeviceGetCurrentClocksThrottleReasons", float)
        if isinstance(bits, Unknown):
            return bits
        return tuple(name for bit, name in THROTTLING.items() if int(bits) & bit)

    def _asked(
        self, function: str, value_of: Callable[[Any], float], *more: int
    ) -> float | Unknown:
        try:
            value = float(value_of(getattr(self._nvml, function)(self._handle, *more)))
        except (self._nvml.NVMLError, AttributeError) as error:
            return Unknown(reason=f"NVML: {error}")
        if not math.isfinite(value) or value < 0:
            return Unknown(reason=f"{function} gave {value}")
        return value


def nvml_meter(uuid: str) -> Meter:
    """The meter of the GPU with that UUID, or one that says why there is none."""
    try:
        import pynvml
    except ImportError as error:
        return AbsentMeter(reason=f"{error}; run `pip install nvidia-ml-py`")
    if not hasattr(pynvml, "nvmlDeviceGetHandleByUUID"):
        return AbsentMeter(reason=f"{pynvml.__file__} is not nvidia-ml-py; reinstall that")
    try:
        pynvml.nvmlInit()
        return NvmlMeter(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
    except pynvml.NVMLError as error:
        return AbsentMeter(reason=f"NVML: {error}")
