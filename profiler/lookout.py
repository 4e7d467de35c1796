"""What is looked at beside timed passes, the verdict on it, and another attempt where it was spoiled.

    look ─ warm up ─ begin ─ timed passes ─ verdict ─┐
      └──── pause, at most `retries` times ◄── contended or throttled

The verdict rests on what was seen beside the samples, never on the samples: to measure again until
they please would be a choice among them.
"""

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeVar

from domain.measurement import Conditions, Status
from domain.statistics import relative_spread
from profiler.clock import Clock, DeviceKind
from profiler.conditions import Watch, judged, spare_cores
from profiler.protocol import Settings
from profiler.telemetry import Meter
from profiler.throttling import ClockWatch

# The calibration kernel's spread, IQR over median.
LARGEST_UNREST = 0.25

# Back-offs of a point, and what all of its attempts may take: of the worker's timeout, and at all.
SPOILED: tuple[Status, ...] = ("contended", "throttled")
PAUSES_S = (1.0, 4.0, 10.0)
LARGEST_SHARE_OF_TIMEOUT, MOST_ATTEMPTS_S = 0.5, 120.0


Came = TypeVar("Came", bound="Attempt")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What came of an attempt: the verdict on it, and under which conditions.

    `cause` is what took the machine; `reason` that, and whatever else is worth saying.
    """

    status: Status
    reason: str
    cause: str
    conditions: Conditions


class Lookout:
    """Cores, clocks and garbage while something is timed. Use it in a `with` block."""

    def __init__(self, meter: Meter, clock: Clock, kind: DeviceKind, threads: int) -> None:
        self._clocks = ClockWatch(meter, clock, kind)
        self._spare = spare_cores(kind, threads)

    def __enter__(self) -> Self:
        self._clocks.look()
        gc.disable()
        self.begin()
        return self

    def begin(self) -> None:
        """From here on it counts what others took of the machine: after the warm-up."""
        self._watch = Watch()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        gc.enable()
        if error is None:
            self._seen = self._watch.seen()
            self._clocks.look()

    def attempt(self, calibration_s: Sequence[float], notes: Sequence[str]) -> Attempt:
        """The verdict, when all is over."""
        slow = self._clocks.slowdown()
        judgement = judged(self._seen, len(self._watch.cores), self._spare)
        slowed = [f"the device slowed down: {', '.join(slow.causes)}"] if slow.causes else []
        status, reason = verdict(
            slowed=slowed,
            causes=judgement.causes,
            calibration_s=calibration_s,
            notes=(*judgement.notes, *slow.notes, *notes),
        )
        return Attempt(
            status=status,
            reason=reason,
            cause="; ".join([*slowed, *judgement.causes]),
            conditions=self._seen,
        )


def verdict(
    slowed: Sequence[str],
    causes: Sequence[str],
    calibration_s: Sequence[float],
    notes: Sequence[str],
) -> tuple[Status, str]:
    """Status and reason: the first that applies decides, all is said. Beside `ok` it is a note."""
    unrest = relative_spread(calibration_s)
    restless = (
        [f"the calibration kernel spread by {unrest:.0%} (IQR over median): a restless machine"]
        if unrest > LARGEST_UNREST
        else []
    )
    status: Status = (
        "throttled" if slowed else "contended" if causes else "unstable" if restless else "ok"
    )
    return status, "; ".join([*slowed, *causes, *restless, *notes])


def persistent(
    attempt: Callable[[], Came],
    settings: Settings,
    now_s: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Came:
    """What an attempt gives, made again where something else took the machine.

    At most `settings.retries` times, and only where a further one as long as the last still ends in
    time. The last attempt is what counts; the reason tells what spoiled those before.
    """
    began_s = now_s()
    most_s = min(MOST_ATTEMPTS_S, LARGEST_SHARE_OF_TIMEOUT * settings.timeout_s)
    earlier: list[str] = []
    while True:
        attempt_s = now_s()
        came = attempt()
        ended_s = now_s()
        pause_s = PAUSES_S[len(earlier)] if len(earlier) < settings.retries else math.inf
        would_end_s = ended_s + pause_s + (ended_s - attempt_s)
        if came.status not in SPOILED or would_end_s - began_s > most_s:
            break
        earlier.append(f"attempt {len(earlier) + 1}: {came.cause}")
        pause(pause_s)
    if not earlier:
        return came
    last = f"attempt {len(earlier) + 1}: {came.reason or 'undisturbed'}"
    return replace(came, reason="; ".join([*earlier, last]))
