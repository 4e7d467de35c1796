"""Time: what a wall clock says, what a thread used, and when each stage of a pass ended."""

import math
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from domain.units import MICRO, MILLI

if TYPE_CHECKING:
    import torch

DeviceKind = Literal["cpu", "cuda"]
# Digits after the point of a second that the clocks know: they count nanoseconds.
DIGITS = 9
# Marks of a pass with a dozen recursions; what a CUDA event can tell apart.
USUAL_MARKS, EVENT_RESOLUTION_S = 16, 0.5 * MICRO
_THIS_THREAD = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)


class Clock(Protocol):
    """Running readings, in seconds from an arbitrary start."""

    def start_s(self) -> float:
        """Wall time at the start of something, when the device has nothing left to do."""
        ...

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

    def start_s(self) -> float:
        """Wall time."""
        return self.host_s()

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

    def start_s(self) -> float:
        """The reading before: in a script no time passes between the laps."""
        return self._last

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
    """Durations between successive readings: the end of one lap is the start of the next.

    What is done between two laps belongs to the second, unless that is started anew: reading the
    counters alone takes up to 70 microseconds where a large kernel has emptied the caches. A lap
    that is started reads the wall last, and one that ends reads it first.

    They are rounded to a nanosecond, for the clocks know no more and a journal holds many.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started_s = self._wall = clock.now_s()
        self._cpu, self._switches = clock.cpu_s(), clock.switches()

    def start(self) -> None:
        """Begin the lap now; what passed since the one before is in none."""
        clock = self._clock
        self._cpu, self._switches = clock.cpu_s(), clock.switches()
        self._wall = clock.start_s()

    def lap(self) -> Lap:
        """What passed since the lap before. Raises ValueError for a clock that stood.

        CPU time that rounds to nothing is a nanosecond, the resolution of the counter.
        """
        clock = self._clock
        host, wall = clock.host_s(), clock.now_s()
        cpu, switches = clock.cpu_s(), clock.switches()
        lap = Lap(
            wall_s=round(wall - self._wall, DIGITS),
            cpu_s=max(round(cpu - self._cpu, DIGITS), 1e-9),
            host_s=max(round(host - self._wall, DIGITS), 1e-9),
            switches=switches - self._switches,
        )
        self._wall, self._cpu, self._switches = wall, cpu, switches
        if not 0 < lap.wall_s < math.inf:
            raise ValueError(f"wanted a clock that moves on, got a lap of {lap.wall_s} s")
        return lap

    @property
    def elapsed_s(self) -> float:
        """Seconds from the first start to the last reading."""
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
            stage: round(end - begin, DIGITS)
            for (_, begin), (stage, end) in zip(self._marks, self._marks[1:], strict=False)
        }


class CudaStages:
    """Stages on a GPU: events on the compute stream, one wait at the end.

    The events are made once, before anything is timed, and used again in every pass. torch makes the
    driver's event at the first `record`, so each is recorded once here.
    """

    def __init__(self, clock: Clock) -> None:
        self._events = [self._made() for _ in range(USUAL_MARKS)]
        self._stages: list[str] = []
        self._events[-1].synchronize()

    def start(self) -> None:
        """Begin the first stage."""
        self._stages = []
        self.mark("")

    def mark(self, stage: str) -> None:
        """`stage` has ended, once the stream gets there."""
        place = len(self._stages)
        if place == len(self._events):
            self._events.append(self._made())
        self._events[place].record()
        self._stages.append(stage)

    def read(self) -> dict[str, float]:
        """Seconds by stage, in order; waits for the last of them.

        A stage within the resolution of the events (half a microsecond) is given that.
        """
        self._events[len(self._stages) - 1].synchronize()
        pairs = zip(self._events, self._events[1:], strict=False)
        return {
            stage: max(round(begin.elapsed_time(end) * MILLI, DIGITS), EVENT_RESOLUTION_S)
            for stage, (begin, end) in zip(self._stages[1:], pairs, strict=False)
        }

    @staticmethod
    def _made() -> "torch.cuda.Event":
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


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
