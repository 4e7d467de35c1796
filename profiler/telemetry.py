"""Energy, power, memory and clocks as the device's own meters give them; else the reason why not.

A driver's call can hang: meters are asked in the worker alone, whose parent ends it when it is late.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from domain.record import Unknown
from domain.units import MEGA, MICRO, MILLI, NANO

# Reason bits of nvml.h. These mean slower by heat or fault, not by choice.
THROTTLING = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
IDLE, CHOSEN, POWER_CAP = 0x01, 0x02, 0x04
# Policies of nvml.h whose violation times are kept: what held the clock down, and for how long.
POLICIES = {"power cap": 0, "thermal slowdown": 1, "board limit": 3, "reliability limit": 5}
# NVML's codes (nvml.h): the board fell off the bus; the field for power without averaging.
GPU_IS_LOST, POWER_INSTANT, SM_CLOCK, GRAPHICS_CLOCK = 15, 186, 1, 0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What holds the clock of a device down now; `slowed` against its will, the rest is in order."""

    slowed: tuple[str, ...] = ()
    is_power_capped: bool = False
    is_chosen: bool = False
    is_idle: bool = False


class Meter(Protocol):
    """What a device says about itself. Every answer is a value or a reason, never 0 for unknown."""

    def energy_j(self) -> float | Unknown:
        """A running total since some start, over wraps; only differences mean something."""
        ...

    def power_w(self) -> float | Unknown:
        """Power drawn now."""
        ...

    def used_bytes(self) -> int | Unknown:
        """Device memory in use, by anyone."""
        ...

    def processes(self) -> int | Unknown:
        """Processes that hold the device, this one included."""
        ...

    def clock_hz(self) -> float | Unknown:
        """Clock of the compute units now."""
        ...

    def usual_clock_hz(self) -> float | Unknown:
        """Clock that they have by default under load; where there is no default, the highest."""
        ...

    def limits(self) -> Limits | Unknown:
        """What holds the clock down now."""
        ...

    def throttling(self) -> tuple[str, ...] | Unknown:
        """What slows the device down now against its will; empty is nothing."""
        ...

    def held_back_s(self) -> dict[str, float] | Unknown:
        """Running totals of the seconds that each cause held the clock down."""
        ...

    def lost(self) -> str:
        """Why nothing more can run on the device; empty while it is there."""
        ...


@dataclass(frozen=True, kw_only=True)
class AbsentMeter:
    """A device without meters, and why; `gone` where the device itself is lost."""

    reason: str
    gone: str = ""

    def energy_j(self) -> float | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def power_w(self) -> float | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def used_bytes(self) -> int | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def processes(self) -> int | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def clock_hz(self) -> float | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def usual_clock_hz(self) -> float | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def limits(self) -> Limits | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def throttling(self) -> tuple[str, ...] | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def held_back_s(self) -> dict[str, float] | Unknown:
        """Unknown."""
        return Unknown(reason=self.reason)

    def lost(self) -> str:
        """Why the device is gone, where it is."""
        return self.gone


class RaplMeter:
    """Energy of the processor packages through powercap files, slowdowns through the kernel's."""

    def __init__(
        self,
        root: Path = Path("/sys/class/powercap"),
        processors: Path = Path("/sys/devices/system/cpu"),
    ) -> None:
        # A zone with two numbers (intel-rapl:0:1) is a part of one with one; psys holds them all.
        self._packages = [
            zone
            for zone in sorted(root.glob("intel-rapl:[0-9]*"))
            if zone.name.count(":") == 1 and _text(zone / "name") != "psys"
        ]
        self._root, self._processors = root, processors
        self._before: list[int] | None = None
        self._total = 0

    def energy_j(self) -> float | Unknown:
        """Sum over the packages since the first reading, each unwrapped where it wrapped.

        A step of more than half a counter's range is no wrap: that counter went backwards. At
        200 W a counter of 262 kJ wraps after twenty minutes.
        """
        if not self._packages:
            return Unknown(reason=f"no RAPL counter under {self._root} (usual in virtual machines)")
        try:
            now = [int((zone / "energy_uj").read_text()) for zone in self._packages]
            ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in self._packages]
        except (OSError, ValueError) as error:
            return Unknown(reason=f"cannot read RAPL: {error}")
        if min(now) < 0:
            return Unknown(reason=f"RAPL gave {min(now)} µJ")
        before, self._before = self._before or now, now
        for earlier, later, largest in zip(before, now, ranges, strict=True):
            step = later - earlier if later >= earlier else later - earlier + largest
            if later < earlier and not 0 <= step <= largest / 2:
                return Unknown(
                    reason=f"the RAPL counter went backwards, from {earlier} µJ to {later} µJ"
                )
            self._total += step
        return self._total * MICRO

    def power_w(self) -> float | Unknown:
        """Unknown: the counter has no power."""
        return Unknown(reason="RAPL counts energy, not power")

    def used_bytes(self) -> int | Unknown:
        """Unknown: no device memory."""
        return Unknown(reason="a CPU has no device memory")

    def processes(self) -> int | Unknown:
        """Unknown: everything runs on a CPU."""
        return Unknown(reason="a CPU is never one process's own")

    def clock_hz(self) -> float | Unknown:
        """Unknown here."""
        return Unknown(reason="RAPL gives no clock")

    def usual_clock_hz(self) -> float | Unknown:
        """Unknown here."""
        return Unknown(reason="RAPL gives no clock")

    def limits(self) -> Limits | Unknown:
        """Unknown here: the kernel keeps totals only."""
        return Unknown(reason="a CPU gives no throttle reasons")

    def throttling(self) -> tuple[str, ...] | Unknown:
        """Unknown here, for the same reason."""
        return Unknown(reason="a CPU gives no throttle reasons")

    def held_back_s(self) -> dict[str, float] | Unknown:
        """Seconds of thermal slowdown of the core, and of the package, that lost the most."""
        totals: dict[str, float] = {}
        for level in ("core", "package"):
            pattern = f"cpu[0-9]*/thermal_throttle/{level}_throttle_total_time_ms"
            times = [_text(path) for path in self._processors.glob(pattern)]
            if times and all(time.isdigit() for time in times):
                totals[f"thermal slowdown of the {level}"] = max(map(int, times)) * MILLI
        return totals or Unknown(reason=f"no thermal_throttle counters under {self._processors}")

    def lost(self) -> str:
        """A CPU stays."""
        return ""


class NvmlMeter:
    """An NVIDIA board through NVML. Every NVML error becomes the reason of an Unknown."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self._lost = ""
        # Asked once: two sensors in one series would be no series.
        self._has_instant = isinstance(self._instant_w(), float)

    def energy_j(self) -> float | Unknown:
        """Total since the driver was loaded."""
        return self._asked(
            "nvmlDeviceGetTotalEnergyConsumption", lambda millijoules: millijoules * MILLI
        )

    def power_w(self) -> float | Unknown:
        """Power of the board: of this instant where the driver gives it, else as it averages it.

        Boards since Ampere average over a second (except GA100).
        """
        if self._has_instant:
            return self._instant_w()
        return self._above_zero("W", "nvmlDeviceGetPowerUsage", lambda power: power * MILLI)

    def used_bytes(self) -> int | Unknown:
        """Memory of the board in use, by anyone."""
        used = self._above_zero("B", "nvmlDeviceGetMemoryInfo", lambda memory: memory.used)
        return used if isinstance(used, Unknown) else int(used)

    def processes(self) -> int | Unknown:
        """Processes with a context on the board. NVML hides those of other containers."""
        seen = 0.0
        for function in ("Compute", "Graphics"):
            count = self._asked(f"nvmlDeviceGet{function}RunningProcesses", len)
            if isinstance(count, Unknown):
                return count
            seen += count
        return int(seen) or Unknown(reason="NVML lists no process here (usual in containers)")

    def clock_hz(self) -> float | Unknown:
        """Clock of the multiprocessors."""
        return self._clock_hz("nvmlDeviceGetClockInfo", SM_CLOCK)

    def usual_clock_hz(self) -> float | Unknown:
        """Default application clock; the highest of a board that knows no application clocks."""
        usual = self._clock_hz("nvmlDeviceGetDefaultApplicationsClock", GRAPHICS_CLOCK)
        if isinstance(usual, float):
            return usual
        return self._clock_hz("nvmlDeviceGetMaxClockInfo", SM_CLOCK)

    def limits(self) -> Limits | Unknown:
        """Thermal and fault reasons; idling, a chosen clock and a power cap are in order."""
        answer = self._asked("nvmlDeviceGetCurrentClocksThrottleReasons", float)
        if isinstance(answer, Unknown):
            return answer
        bits = int(answer)
        return Limits(
            slowed=tuple(name for bit, name in THROTTLING.items() if bits & bit),
            is_power_capped=bool(bits & POWER_CAP),
            is_chosen=bool(bits & CHOSEN),
            is_idle=bool(bits & IDLE),
        )

    def throttling(self) -> tuple[str, ...] | Unknown:
        """Thermal and fault reasons alone."""
        limits = self.limits()
        return limits if isinstance(limits, Unknown) else limits.slowed

    def held_back_s(self) -> dict[str, float] | Unknown:
        """Violation times by policy, of those that this board counts."""
        totals: dict[str, float] = {}
        reason = Unknown(reason="this board counts no violation times")
        for name, policy in POLICIES.items():
            seconds = self._asked(
                "nvmlDeviceGetViolationStatus", lambda status: status.violationTime * NANO, policy
            )
            if isinstance(seconds, Unknown):
                reason = seconds
            else:
                totals[name] = seconds
        return totals or reason

    def lost(self) -> str:
        """Why nothing more can run on the board: once NVML has called it lost."""
        if not self._lost:
            self.clock_hz()
        return self._lost

    def _instant_w(self) -> float | Unknown:
        def watts_of(values: Any) -> float:
            if values[0].nvmlReturn:
                raise self._nvml.NVMLError(values[0].nvmlReturn)
            return float(values[0].value.uiVal * MILLI)

        return self._above_zero("W", "nvmlDeviceGetFieldValues", watts_of, [POWER_INSTANT])

    def _clock_hz(self, function: str, kind: int) -> float | Unknown:
        return self._above_zero("Hz", function, lambda clock: clock * MEGA, kind)

    def _above_zero(
        self, unit: str, function: str, value_of: Callable[[Any], float], *more: object
    ) -> float | Unknown:
        value = self._asked(function, value_of, *more)
        if isinstance(value, float) and not value > 0:
            return Unknown(reason=f"{function} gave {value:g} {unit}")
        return value

    def _asked(
        self, function: str, value_of: Callable[[Any], float], *more: object
    ) -> float | Unknown:
        try:
            value = float(value_of(getattr(self._nvml, function)(self._handle, *more)))
        except (self._nvml.NVMLError, AttributeError) as error:
            if getattr(error, "value", None) == GPU_IS_LOST:
                self._lost = f"the GPU was lost (NVML: {error})"
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
        is_lost = getattr(error, "value", None) == GPU_IS_LOST
        return AbsentMeter(
            reason=f"NVML: {error}", gone=f"the GPU was lost (NVML: {error})" if is_lost else ""
        )


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
