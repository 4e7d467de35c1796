"""Time: what a wall clock says, what a thread used, and when each stage of a pass ended."""

import time
from collections.abc import Callable, Iterable
from typing import Literal, Protocol

DeviceKind = Literal["cpu", "cuda"]


class Clock(Protocol):
    """Two running readings, in seconds from an arbitrary start."""

    def now_s(self) -> float:
        """Wall time."""
        ...

    def cpu_s(self) -> float:
        """CPU time of the calling thread."""
        ...


class RealClock:
    """Monotonic wall time and CPU time of this thread."""

    def now_s(self) -> float:
        """Wall time."""
        return time.perf_counter()

    def cpu_s(self) -> float:
        """CPU time of the calling thread."""
        return time.thread_time()


class SettledClock(RealClock):
    """Wall time once the GPU has done all that it was given."""

    def now_s(self) -> float:
        """Wall time."""
        finished("cuda")
        return super().now_s()


class ScriptedClock:
    """Readings from a script; CPU time stands where wall time last stood.

    >>> clock = ScriptedClock([0.0, 1.0, 3.0])
    >>> laps = Laps(clock)
    >>> laps.lap()[0], laps.lap()[0]
    (1.0, 2.0)
    """

    def __init__(self, readings_s: Iterable[float]) -> None:
        self._readings = iter(readings_s)
        self._last = 0.0

    def now_s(self) -> float:
        """The next reading."""
        self._last = next(self._readings)
        return self._last

    def cpu_s(self) -> float:
        """The wall reading before."""
        return self._last


class Laps:
    """Durations between successive readings: the end of one lap is the start of the next."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started_s = self._wall = clock.now_s()
        self._cpu = clock.cpu_s()

    def lap(self) -> tuple[float, float]:
        """Wall and CPU seconds since the lap before. Raises ValueError for a clock that stood.

        CPU time that rounds to nothing is a nanosecond, the resolution of the counter.
        """
        wall, cpu = self._clock.now_s(), self._clock.cpu_s()
        took_wall, took_cpu = wall - self._wall, max(cpu - self._cpu, 1e-9)
        self._wall, self._cpu = wall, cpu
        if not took_wall > 0:
            raise ValueError(f"wanted a clock that moves on, got a lap of {took_wall} s")
        return took_wall, took_cpu

    @property
    def elapsed_s(self) -> float:
        """Seconds from the start to the end of the last lap."""
        return self._wall - self.started_s


class StageClock(Protocol):
    """Hears the stages of one pass; `read` gives the seconds of each."""

    def start(self) -> None:
        """Begin the first stage."""
        ...

    def mark(self, stage: str) -> None:
        """`stage` has ended."""
        ...

    def read(self) -> dict[str, float]:
        """Seconds by stage, in order."""
        ...


class HostStages:
    """Stages on a CPU, where a call returns when its work is done."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._marks: list[tuple[str, float]] = []

    def start(self) -> None:
        """Begin the first stage."""
        self._marks = [("", self._clock.now_s())]

    def mark(self, stage: str) -> None:
        """`stage` has ended."""
        self._marks.append((stage, self._clock.now_s()))

    def read(self) -> dict[str, float]:
        """Seconds by stage, in order."""
        return {
            stage: end - begin
            for (_, begin), (stage, end) in zip(self._marks, self._marks[1:], strict=False)
        }


class CudaStages:
    """Stages on a GPU: events on the compute stream, one wait at the end."""

    def __init__(self, clock: Clock) -> None:
        import torch

        self._torch = torch
        self._events: list[tuple[str, torch.cuda.Event]] = []

    def start(self) -> None:
        """Begin the first stage."""
        self._events = []
        self.mark("")

    def mark(self, stage: str) -> None:
        """`stage` has ended, once the stream gets there."""
        event = self._torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._events.append((stage, event))

    def read(self) -> dict[str, float]:
        """Seconds by stage, in order; waits for the last of them."""
        self._events[-1][1].synchronize()
        return {
            stage: begin.elapsed_time(end) / 1e3
            for (_, begin), (stage, end) in zip(self._events, self._events[1:], strict=False)
        }


STAGE_CLOCKS: dict[DeviceKind, Callable[[Clock], StageClock]] = {
    "cpu": HostStages,
    "cuda": CudaStages,
}


CLOCKS: dict[DeviceKind, Callable[[], Clock]] = {"cpu": RealClock, "cuda": SettledClock}


def finished(kind: DeviceKind) -> None:
    """Return when all work handed to the device is done."""
    if kind == "cuda":
        import torch

        torch.cuda.synchronize()
