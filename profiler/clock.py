"""Time: what a wall clock says, what a thread used, and when each stage of a pass ended."""

import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

DeviceKind = Literal["cpu", "cuda"]
_THIS_THREAD = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)


class Clock(Protocol):
    """Running readings, in seconds from an arbitrary start."""

    def host_s(self) -> float:
        """Wall time, whatever the device still has to do."""
        ...

    def now_s(self) -> float:
        """Wall time once the device has done all that it was given."""
        ...

    def cpu_s(self) -> float:
        """CPU time of the calling thread."""
        ...

    def switches(self) -> int:
        """Times that the scheduler took the core from the calling thread."""
        ...


class RealClock:
    """Monotonic wall time, CPU time and context switches of this thread."""

    def host_s(self) -> float:
        """Wall time."""
        return time.perf_counter()

    def now_s(self) -> float:
        """Wall time: on a CPU a call returns when its work is done."""
        return time.perf_counter()

    def cpu_s(self) -> float:
        """CPU time of the calling thread."""
        return time.thread_time()

    def switches(self) -> int:
        """Involuntary context switches; of the whole process where threads are not told apart."""
        return resource.getrusage(_THIS_THREAD).ru_nivcsw


class SettledClock(RealClock):
    """Wall time once the GPU has done all that it was given."""

    def now_s(self) -> float:
        """Wall time."""
        finished("cuda")
        return super().now_s()


class ScriptedClock:
    """Readings from a script; CPU and host time stand where wall time stands, no core is taken.

    >>> clock = ScriptedClock([0.0, 1.0, 3.0])
    >>> laps = Laps(clock)
    >>> laps.lap().wall_s, laps.lap().wall_s
    (1.0, 2.0)
    """

    def __init__(self, readings_s: Iterable[float]) -> None:
        self._readings = iter(readings_s)
        self._last = 0.0
        self._ahead: float | None = None

    def host_s(self) -> float:
        """The reading that comes next, left for `now_s`."""
        if self._ahead is None:
            self._ahead = next(self._readings)
        return self._ahead

    def now_s(self) -> float:
        """The next reading."""
        self._last, self._ahead = self.host_s(), None
        return self._last

    def cpu_s(self) -> float:
        """The wall reading before."""
        return self._last

    def switches(self) -> int:
        """None."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """What passed since the lap before: wall, thread CPU and host seconds, cores taken away."""

    wall_s: float
    cpu_s: float
    host_s: float
    switches: int


class Laps:
    """Durations between successive readings: the end of one lap is the start of the next."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started_s = self._wall = clock.now_s()
        self._cpu, self._switches = clock.cpu_s(), clock.switches()

    def lap(self) -> Lap:
        """What passed since the lap before. Raises ValueError for a clock that stood.

        CPU time that rounds to nothing is a nanosecond, the resolution of the counter.
        """
        clock = self._clock
        host = clock.host_s()
        wall, cpu, switches = clock.now_s(), clock.cpu_s(), clock.switches()
        lap = Lap(
            wall_s=wall - self._wall,
            cpu_s=max(cpu - self._cpu, 1e-9),
            host_s=max(host - self._wall, 1e-9),
            switches=switches - self._switches,
        )
        self._wall, self._cpu, self._switches = wall, cpu, switches
        if not lap.wall_s > 0:
            raise ValueError(f"wanted a clock that moves on, got a lap of {lap.wall_s} s")
        return lap

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
