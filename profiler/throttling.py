"""Whether a device was slowed down while it was measured, and by what.

Heat and faults make a record `throttled`. A power cap is in order on many boards and is only noted;
idling and a clock that a person chose are neither. Reasons and clocks are read before and after the
timed passes and during the energy pass, never inside timed ones; the driver's own totals of time
cover all of them. On a CPU the calibration kernel stands for what the kernel does not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from domain.record import Unknown
from domain.units import MEGA
from profiler.clock import Clock, DeviceKind
from profiler.telemetry import Limits, Meter

# Below this share of its usual clock a device is slowed, whatever it says.
LEAST_CLOCK_SHARE = 0.75
# Totals that grew by less than this share of the time are a change of clocks, not a limit.
LEAST_HELD_SHARE = 0.01
# Between two looks while passes run.
LOOK_S = 0.1
ALLOWED = ("power cap", "board limit")


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at what limits a device and at its clock."""

    limits: Limits | Unknown
    clock_hz: float | Unknown


@dataclass(frozen=True, kw_only=True)
class Slowdown:
    """What slowed a device against its will, and what a reader should know beside."""

    causes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class ClockWatch:
    """Looks at a device from its making until `slowdown`."""

    def __init__(self, meter: Meter, clock: Clock, kind: DeviceKind) -> None:
        self._meter, self._clock, self._kind = meter, clock, kind
        self._held_before = meter.held_back_s()
        self._began_s = self._looked_s = clock.host_s()
        self._looks: list[Look] = []

    def look(self) -> None:
        """Look now."""
        self._looked_s = self._clock.host_s()
        self._looks.append(Look(limits=self._meter.limits(), clock_hz=self._meter.clock_hz()))

    def look_if_due(self) -> None:
        """Look where the last one is a tenth of a second ago."""
        if self._clock.host_s() - self._looked_s >= LOOK_S:
            self.look()

    def slowdown(self) -> Slowdown:
        """What was seen since the start."""
        held = held_between(self._held_before, self._meter.held_back_s())
        wall_s = self._clock.host_s() - self._began_s
        seen = slowdown_of(self._looks, self._meter.usual_clock_hz(), held, wall_s)
        if self._kind == "cpu":
            return Slowdown(causes=seen.causes)
        return seen


def held_between(
    before: dict[str, float] | Unknown, after: dict[str, float] | Unknown
) -> dict[str, float] | Unknown:
    """Seconds that each total grew by; a total that shrank was reset and says nothing.

    >>> held_between({"heat": 1.0, "cap": 5.0}, {"heat": 3.0, "cap": 0.0})
    {'heat': 2.0}
    """
    if isinstance(before, Unknown):
        return before
    if isinstance(after, Unknown):
        return after
    return {
        name: after[name] - seconds
        for name, seconds in before.items()
        if name in after and after[name] >= seconds
    }


def slowdown_of(
    looks: Sequence[Look],
    usual_hz: float | Unknown,
    held_s: dict[str, float] | Unknown,
    wall_s: float,
) -> Slowdown:
    """The verdict on looks, a usual clock, and the seconds that each cause held the clock down."""
    known = [look.limits for look in looks if isinstance(look.limits, Limits)]
    causes = list(dict.fromkeys(name for limits in known for name in limits.slowed))
    notes = []
    if any(limits.is_power_capped for limits in known):
        notes.append("power-capped")
    for name, seconds in ({} if isinstance(held_s, Unknown) else held_s).items():
        if seconds > LEAST_HELD_SHARE * wall_s:
            said = notes if name in ALLOWED else causes
            said.append(f"{name} for {seconds:.2g} s")
    share = clock_share(looks, usual_hz)
    if share is not None and share < LEAST_CLOCK_SHARE:
        said = notes if not known or "power-capped" in notes else causes
        said.append(f"the clock at {share:.0%} of the usual {_megahertz(usual_hz)}")
    if not known and isinstance(held_s, Unknown):
        notes.append(f"throttle check unavailable: {_why(looks, held_s)}")
    return Slowdown(causes=tuple(causes), notes=tuple(notes))


def clock_share(looks: Sequence[Look], usual_hz: float | Unknown) -> float | None:
    """Mean clock over the usual one, of looks at a device neither idle nor set to a chosen clock."""
    clocks = [
        look.clock_hz
        for look in looks
        if isinstance(look.clock_hz, float)
        and not (isinstance(look.limits, Limits) and (look.limits.is_idle or look.limits.is_chosen))
    ]
    if isinstance(usual_hz, Unknown) or not clocks:
        return None
    return sum(clocks) / len(clocks) / usual_hz


def _megahertz(hertz: float | Unknown) -> str:
    return "clock" if isinstance(hertz, Unknown) else f"{hertz / MEGA:.0f} MHz"


def _why(looks: Sequence[Look], held_s: Unknown) -> str:
    reasons = [look.limits.reason for look in looks if isinstance(look.limits, Unknown)]
    return reasons[0] if reasons else held_s.reason
