"""The energy pass: what a device draws idle, and what one batch takes, asked between passes.

    idle baseline                        once per worker, before its first point
    poll ─ passes ─ poll ─ passes ─ …    until there are windows enough (`profiler.joules`)

Nothing is read while a pass runs, and never in the latency passes: a reading thread would take the
interpreter from them. So that the device hardly waits for questions, they take at most two hundredths
of the time. Energy is gross: what the device drew, idle draw included.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace

from domain.record import Unknown
from domain.statistics import median
from profiler.clock import Clock, DeviceKind
from profiler.joules import LARGEST_W, Demand, EnergyPass, Poll, edges_of, energy_of
from profiler.protocol import Settings
from profiler.telemetry import Meter
from profiler.throttling import ClockWatch

# Sensors are renewed every 20 to 100 ms; power is to be read twice as often.
POLL_S = 0.05
LARGEST_ASKING_SHARE = 0.02
WINDOWS, TICKS = 5, 100
RELAXED_WINDOWS, RELAXED_TICKS = 2, 10
# A pass ends after so many times the length of its windows, or so long without a tick.
LARGEST_STRETCH, LONGEST_STALL_S = 1.5, 2.0
SLICES = 10

NO_BASELINE = Unknown(reason="no idle baseline was taken")


def demand_of(settings: Settings) -> Demand:
    """The windows of a mode: each of `energy_s`; relaxed, fewer that share `energy_s`."""
    if settings.relaxed:
        return Demand(
            window_s=settings.energy_s / RELAXED_WINDOWS,
            windows=RELAXED_WINDOWS,
            ticks=RELAXED_TICKS,
        )
    return Demand(window_s=settings.energy_s, windows=WINDOWS, ticks=TICKS)


def energy_pass(
    run: Callable[[], object],
    pass_s: float,
    meter: Meter,
    clock: Clock,
    kind: DeviceKind,
    settings: Settings,
    idle_w: float | Unknown,
) -> EnergyPass:
    """Energy of one pass of `run`, which takes about `pass_s`.

    A device that was slowed down meanwhile is noted. An absent meter costs two questions and no pass.
    """
    demand = demand_of(settings)
    clocks = ClockWatch(meter, clock, kind)
    polls = polled(run, pass_s, meter, clock, demand, clocks.look_if_due)
    energy = energy_of(polls, demand, kind, idle_w)
    slow = clocks.slowdown().causes if energy.is_known else ()
    return replace(energy, notes=(*energy.notes, *(f"energy: {cause}" for cause in slow)))


def idle_draw_w(
    meter: Meter, seconds: float, clock: Clock, sleep: Callable[[float], None] = time.sleep
) -> float | Unknown:
    """Median power of a device that nobody asks anything, over `seconds`.

    Without power readings it is what the counter gained in each tenth of that time. On a GPU the
    context of this process may be there already, as between two requests.
    """
    total = meter.energy_j()
    has_power = isinstance(meter.power_w(), float)
    if isinstance(total, Unknown) and not has_power:
        return total
    powers: list[float] = []
    began_s = at_s = clock.host_s()
    while at_s < began_s + seconds:
        sleep(seconds / SLICES)
        before, before_s, at_s = total, at_s, clock.host_s()
        total = meter.energy_j()
        watts = meter.power_w() if has_power else _mean_w(before, total, at_s - before_s)
        if isinstance(watts, float) and 0 < watts <= LARGEST_W:
            powers.append(watts)
    return median(powers) if powers else Unknown(reason="no reading of the idle draw made sense")


def polled(
    run: Callable[[], object],
    pass_s: float,
    meter: Meter,
    clock: Clock,
    demand: Demand,
    beside: Callable[[], None] = lambda: None,
) -> list[Poll]:
    """Passes with readings between them, until there are enough for `demand` or time is up.

    `beside` is called between passes, too.
    """
    polls: list[Poll] = []
    passes, asking_s, ticked_s = 0, 0.0, 0.0
    while True:
        at_s = clock.now_s()
        poll = Poll(at_s=at_s, passes=passes, total_j=meter.energy_j(), power_w=meter.power_w())
        if not polls or isinstance(poll.total_j, Unknown) or poll.total_j != polls[-1].total_j:
            ticked_s = at_s
        polls.append(poll)
        if _is_over(polls, demand) or (at_s - ticked_s > LONGEST_STALL_S and len(polls) > 4):
            return polls
        beside()
        asking_s += clock.host_s() - at_s
        block_s = max(POLL_S, asking_s / len(polls) / LARGEST_ASKING_SHARE)
        for _ in range(max(1, math.ceil(block_s / pass_s))):
            run()
            passes += 1


def _is_over(polls: list[Poll], demand: Demand) -> bool:
    last, wanted_s = polls[-1], demand.windows * demand.window_s
    if isinstance(last.total_j, Unknown) and isinstance(last.power_w, Unknown):
        return True
    span_s = last.at_s - polls[0].at_s
    if span_s < wanted_s:
        return False
    is_late = span_s >= LARGEST_STRETCH * wanted_s + LONGEST_STALL_S
    return is_late or len(edges_of(polls, demand)) > demand.windows


def _mean_w(before: float | Unknown, after: float | Unknown, seconds: float) -> float | Unknown:
    if isinstance(before, Unknown):
        return before
    if isinstance(after, Unknown):
        return after
    return (after - before) / seconds if seconds > 0 else Unknown(reason="no time passed")
