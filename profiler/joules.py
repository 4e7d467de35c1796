"""Joules of one pass from a trace of readings taken between passes: arithmetic, nothing is asked here.

    poll ─ passes ─ poll ─ passes ─ poll ─ …     time, counter and power
         └──── window ────┴──── window ──┘      edges where the counter has just ticked

The joules are counted; power readings, each held until the next, check them. A trace gives a positive
figure or the reason why not, whatever is in it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from domain.measurement import LARGEST_SAMPLE, LEAST_SAMPLE, Energy
from domain.record import Unknown
from domain.statistics import median
from profiler.clock import DeviceKind

# A counter without a tick for so many of its own ticks has stalled; common ones tick within 100 ms.
STALLED_TICKS, TICK_S = 3, 0.1
# A reading of power says nothing about what comes so long after it.
LONGEST_HOLD_S = 0.5
LARGEST_REJECTED = 0.2
NOTED_DISAGREEMENT, LARGEST_DISAGREEMENT = 0.05, 0.15
# Ticks of a window that is still better than none.
FEWEST_TICKS = 10
# What no device draws, no counter holds and no pass takes.
LARGEST_W, LARGEST_J, LARGEST_S = 1e6, 1e17, 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """What the meter said at a moment when `passes` passes were done."""

    at_s: float
    passes: int
    total_j: float | Unknown
    power_w: float | Unknown


@dataclass(frozen=True, kw_only=True)
class Demand:
    """How many windows are wanted, and what each must hold: seconds, and ticks of the counter."""

    window_s: float
    windows: int
    ticks: int


@dataclass(frozen=True, kw_only=True)
class EnergyPass:
    """Joules of one batch, the windows behind them, and what a reader should know beside.

    Where the counter and the power readings contradict each other the windows stay as evidence, but
    no one figure is given.
    """

    energy_j: float | Unknown
    energy: Energy | Unknown
    notes: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether there is a figure."""
        return isinstance(self.energy_j, float)


def energy_of(
    polls: Sequence[Poll], demand: Demand, kind: DeviceKind, idle_w: float | Unknown
) -> EnergyPass:
    """Energy of one pass from a trace of polls; Unknown, never 0, where the trace gives none."""
    refusal = refusal_of(polls)
    if refusal is not None:
        return _none(refusal)
    edges = edges_of(polls, demand)
    if len(edges) < 2:
        edges = edges_of(
            polls,
            Demand(window_s=demand.window_s, windows=1, ticks=min(demand.ticks, FEWEST_TICKS)),
        )
    windows = list(pairwise(edges))
    if not windows:
        span_s = polls[-1].at_s - polls[0].at_s
        return _none(
            Unknown(
                reason=f"no window of {demand.window_s:g} s between ticks of the counter in "
                f"{span_s:.3g} s"
            )
        )
    held = _per_pass(polls, windows, lambda begin, end: held_j(polls[begin : end + 1]))
    has_counter = not isinstance(polls[0].total_j, Unknown)
    counted = (
        _per_pass(polls, windows, lambda begin, end: _counted_j(polls[begin], polls[end]))
        if has_counter
        else held
    )
    if isinstance(counted, Unknown):
        return _none(counted)
    energy = _record(polls, windows, counted, held, has_counter, kind, idle_w)
    if isinstance(energy, Unknown):
        return _none(energy)
    notes = [] if len(windows) >= demand.windows else [_few(len(windows), demand)]
    energy_j: float | Unknown = median(energy.windows_j)
    apart = energy.disagreement
    if isinstance(apart, float) and apart > NOTED_DISAGREEMENT:
        said = f"energy: summed power readings lie {apart:.0%} from the counter"
        notes.append(said)
        if apart > LARGEST_DISAGREEMENT:
            energy_j = Unknown(reason=said)
    return EnergyPass(energy_j=energy_j, energy=energy, notes=tuple(notes))


def refusal_of(polls: Sequence[Poll]) -> Unknown | None:
    """Why a trace gives no energy: no meter, a clock that stood, a counter gone mad; else None."""
    if not polls:
        return Unknown(reason="the energy pass read nothing")
    first = polls[0]
    if isinstance(first.total_j, Unknown):
        # A board without a counter goes by its power; without either, the counter says why.
        return first.total_j if isinstance(first.power_w, Unknown) else _refused_times(polls)
    for poll in polls:
        if isinstance(poll.total_j, Unknown):
            return poll.total_j
        if not 0 <= poll.total_j <= LARGEST_J:
            return Unknown(reason=f"the energy counter gave {poll.total_j} J")
    return _refused_times(polls) or _refused_steps(polls)


def edges_of(polls: Sequence[Poll], demand: Demand) -> list[int]:
    """Places where windows meet, each right after a tick; windows hold the seconds and ticks asked.

    Where there is no counter every poll is a tick. Between two polls in a row that both saw one there
    were as many as common counters have in that time.
    """
    edges: list[int] = []
    ticked, before = 0, 0
    for place in ticks_of(polls):
        gap_s = polls[place].at_s - polls[before].at_s
        ticked += max(1, int(gap_s / TICK_S)) if place == before + 1 else 1
        before = place
        is_long = not edges or polls[place].at_s - polls[edges[-1]].at_s >= demand.window_s
        if is_long and (not edges or ticked >= demand.ticks):
            edges.append(place)
            ticked = 0
    return edges


def ticks_of(polls: Sequence[Poll]) -> list[int]:
    """Places of the polls before which the counter had moved; all, where there is no counter."""
    return [
        place
        for place, (before, now) in enumerate(pairwise(polls), start=1)
        if isinstance(now.total_j, Unknown) or now.total_j != before.total_j
    ]


def held_j(polls: Sequence[Poll]) -> float | Unknown:
    """Energy from the first to the last poll, each power reading held until the next.

    A reading that is no power is left out, and the one before held on; the first that counts reaches
    back to the edge.
    """
    good = list(_powers(polls))
    if len(polls) - len(good) > LARGEST_REJECTED * len(polls):
        return _why_refused(polls)
    times = [polls[0].at_s, *(at_s for at_s, _ in good[1:]), polls[-1].at_s]
    longest_s = max(after - before for before, after in pairwise(times))
    if longest_s > LONGEST_HOLD_S:
        return Unknown(
            reason=f"power was read {longest_s:.2g} s apart, between passes: too seldom to sum"
        )
    return sum(
        watts * (after - before)
        for (_, watts), (before, after) in zip(good, pairwise(times), strict=True)
    )


def _powers(polls: Sequence[Poll]) -> Iterator[tuple[float, float]]:
    """Time and value of the power readings that can be meant."""
    for poll in polls:
        if not isinstance(poll.power_w, Unknown) and 0 < poll.power_w <= LARGEST_W:
            yield poll.at_s, poll.power_w


def _why_refused(polls: Sequence[Poll]) -> Unknown:
    """The first reason why a power reading was refused."""
    for poll in polls:
        if isinstance(poll.power_w, Unknown):
            return poll.power_w
        if not 0 < poll.power_w <= LARGEST_W:
            return Unknown(reason=f"power read as {poll.power_w} W")
    return Unknown(reason="no power was read")


def _refused_times(polls: Sequence[Poll]) -> Unknown | None:
    for before, now in pairwise(polls):
        if not 0 < now.at_s - before.at_s <= LARGEST_S:
            return Unknown(reason=f"the clock went from {before.at_s} s to {now.at_s} s")
        if now.passes < before.passes:
            return Unknown(reason=f"passes were {before.passes}, then {now.passes}")
    return None


def _refused_steps(polls: Sequence[Poll]) -> Unknown | None:
    """Whether totals that are numbers went backwards or stood still."""
    totals = [math.nan if isinstance(poll.total_j, Unknown) else poll.total_j for poll in polls]
    for before, now in pairwise(totals):
        if now < before:
            return Unknown(
                reason=f"the energy counter went backwards, from {before:g} J to {now:g} J"
            )
    places = [0, *ticks_of(polls), len(polls) - 1]
    gaps = [(polls[after].at_s - polls[before].at_s) for before, after in pairwise(places)]
    usual_s = max(TICK_S, median(gaps[1:-1]) if len(gaps) > 2 else TICK_S)
    for gap_s, (before_place, after_place) in zip(gaps, pairwise(places), strict=True):
        # Three polls without a tick as well: passes that outlast ticks would hide it otherwise.
        if gap_s > STALLED_TICKS * usual_s and after_place - before_place > STALLED_TICKS:
            return Unknown(
                reason=f"counter stalled at {totals[before_place]:g} J for {gap_s:.2g} s"
            )
    return None


def _counted_j(begin: Poll, end: Poll) -> float | Unknown:
    if isinstance(begin.total_j, Unknown):
        return begin.total_j
    return end.total_j if isinstance(end.total_j, Unknown) else end.total_j - begin.total_j


def _per_pass(
    polls: Sequence[Poll],
    windows: Sequence[tuple[int, int]],
    joules_of: Callable[[int, int], float | Unknown],
) -> list[float] | Unknown:
    """Joules of one pass in each window; the first reason where one of them has none."""
    answers: list[float] = []
    for begin, end in windows:
        joules, passes = joules_of(begin, end), polls[end].passes - polls[begin].passes
        if isinstance(joules, Unknown):
            return joules
        each_j = joules / passes if passes else 0.0
        if not LEAST_SAMPLE <= each_j <= LARGEST_SAMPLE:
            return Unknown(reason=f"a window of {passes} passes gave {joules:g} J")
        answers.append(each_j)
    return answers


def _record(
    polls: Sequence[Poll],
    windows: Sequence[tuple[int, int]],
    counted: Sequence[float],
    held: Sequence[float] | Unknown,
    has_counter: bool,
    kind: DeviceKind,
    idle_w: float | Unknown,
) -> Energy | Unknown:
    inside = polls[windows[0][0] : windows[-1][1] + 1]
    spent_j = sum(
        each_j * (polls[end].passes - polls[begin].passes)
        for each_j, (begin, end) in zip(counted, windows, strict=True)
    )
    mean_w = spent_j / (inside[-1].at_s - inside[0].at_s)
    integrated, apart = _compared(counted, held, has_counter)
    if not 0 < mean_w <= LARGEST_W:
        return Unknown(reason=f"the counter says {mean_w:g} W, which no device draws")
    return Energy(
        windows_j=tuple(counted),
        window_s=median([polls[end].at_s - polls[begin].at_s for begin, end in windows]),
        idle_w=idle_w,
        mean_w=mean_w,
        peak_w=max((watts for _, watts in _powers(inside)), default=_why_refused(inside)),
        integrated_j=integrated,
        disagreement=apart,
        sensor="rapl" if kind == "cpu" else "nvml.energy" if has_counter else "nvml.power",
        scope="package" if kind == "cpu" else "gpu-board",
    )


def _compared(
    counted: Sequence[float], held: Sequence[float] | Unknown, has_counter: bool
) -> tuple[float | Unknown, float | Unknown]:
    """Joules from summed power, and how far they lie from the counter."""
    if not has_counter:
        reason = Unknown(reason="no counter: the windows are summed power readings themselves")
        return reason, reason
    if isinstance(held, Unknown):
        return held, held
    integrated = median(held)
    apart = abs(integrated / median(counted) - 1.0)
    if not math.isfinite(apart):
        return integrated, Unknown(reason="the counter's joules are too few to compare with")
    return integrated, apart


def _few(count: int, demand: Demand) -> str:
    return f"energy: {count} of {demand.windows} windows of {demand.window_s:g} s"


def _none(reason: Unknown) -> EnergyPass:
    return EnergyPass(energy_j=reason, energy=reason)
