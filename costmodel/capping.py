"""A device held to less power than it would draw: how far its clock falls, and what that costs. Pure.

    P(x) = limit·(0.3 + 0.4·u_compute·x² + 0.2·u_memory) <= cap       u_compute ∝ x: a cube

x is the share of the full clock that is left. Power of switching is A·C·V²·f with f ∝ V (Mudge, IEEE
Computer 34(4), 2001, doi:10.1109/2.917539), so what arithmetic draws falls with the cube of the clock,
while its rate falls with the clock alone. Memory keeps its clock, as an RTX 3090 under a cap was seen
to (github.com/ashalliants/ninfer-3090, pull request 72). A published sweep of a card that drew 313 W in
full (github.com/Tanguille/cluster, pull request 4137) ran 0.79 times as fast at 210 W on products; with a
rest of 90 W the cube says 0.81.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from costmodel.energy import HIGH_FACTOR, LOW_FACTOR, share_drawn
from costmodel.latency import group_s
from costmodel.operators import Operator
from costmodel.work import Array, Machine, Rates, Work, groups_of
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.record import Unknown
from domain.units import shown
from domain.workload import Workload

# No clock falls further: an A100 has 210 to 1,410 MHz.
LEAST_CLOCK = 0.15


@dataclass(frozen=True, kw_only=True)
class Held:
    """The share of the full clock that a cap leaves to one workload.

    `faster` and `slower` are how much less and more time it takes, as factors, where the device
    draws as little or as much as the model of power allows for.
    """

    clock: float
    faster: float
    slower: float


def cap_complaint(device: DeviceSpec) -> str:
    """Why `device` cannot be held to its cap at all, whatever runs; empty where it can."""
    cap_w, limit, least = device.power_cap_w, device.power_limit_w, device.least_power_cap_w
    if cap_w is None:
        return ""
    wanted = f"a power cap of {shown(cap_w, 'W')} on {device.name}"
    if isinstance(limit, Unknown):
        return f"{wanted} cannot be judged, its power limit is unknown: {limit.reason}"
    if not isinstance(device.idle_w, Unknown) and cap_w <= device.idle_w.value:
        return f"{wanted} is no more than it draws at rest, {shown(device.idle_w.value, 'W')}"
    if least is not None and cap_w < least.value:
        return (
            f"{wanted} is below what it can be set to, {shown(least.value, 'W')} ({least.source})"
        )
    return ""


def held_by(
    device: DeviceSpec, workload: Workload, machine: Machine, fit: Fit, factors: Array
) -> Held | str:
    """What the cap of `device` leaves of its clock for `workload`, or why it cannot be kept.

    `factors` are what the residuals of `fit` make of each group of the workload.
    """
    complaint = cap_complaint(device)
    if complaint or device.power_cap_w is None:
        return complaint or Held(clock=1.0, faster=1.0, slower=1.0)
    assert not isinstance(device.power_limit_w, Unknown), "a cap of no limit is complained of"
    groups = groups_of(workload, host_runs_ahead=machine.host_runs_ahead)
    cap_share = device.power_cap_w / device.power_limit_w.value
    seconds_at = _seconds_at(groups, machine, fit, factors)
    work = [each for group in groups for each in group]

    def share_at(clock: float) -> float:
        return share_drawn(work, machine, seconds_at(clock), clock)

    drawn = share_at(1.0)
    clock = highest_clock(share_at, cap_share)
    if clock is None:
        least_w = share_at(LEAST_CLOCK) * device.power_limit_w.value
        return (
            f"a power cap of {shown(device.power_cap_w, 'W')} on {device.name} cannot be kept: at its "
            f"slowest clock it draws {shown(least_w, 'W')} by the model"
        )
    low, high = (
        highest_clock(share_at, cap_share / factor) or LEAST_CLOCK
        for factor in (LOW_FACTOR, max(1.0, min(HIGH_FACTOR, 1 / drawn)))
    )
    here_s = seconds_at(clock)
    return Held(clock=clock, faster=here_s / seconds_at(low), slower=seconds_at(high) / here_s)


def slowed(machine: Machine, clock: float) -> Machine:
    """The machine at that share of its full clock: arithmetic and ticks, not memory."""
    return replace(
        machine,
        peak_flop_per_s=machine.peak_flop_per_s * clock,
        slowness=machine.slowness / clock,
    )


def highest_clock(share_at: Callable[[float], float], cap_share: float) -> float | None:
    """The highest clock that draws no more than `cap_share`, by bisection; None where even the lowest does.

    >>> round(highest_clock(lambda clock: 0.3 + 0.4 * clock**3, 0.35), 6)
    0.5
    """
    if share_at(1.0) <= cap_share:
        return 1.0
    if share_at(LEAST_CLOCK) > cap_share:
        return None
    low, high = LEAST_CLOCK, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if share_at(middle) <= cap_share else (low, middle)
    return low


def _seconds_at(
    groups: Sequence[Sequence[Operator]], machine: Machine, fit: Fit, factors: Array
) -> Callable[[float], float]:
    work = Work.of(groups)
    coefficients = {each.name: each.value for each in fit.coefficients}

    def seconds_at(clock: float) -> float:
        rates = Rates.of([slowed(machine, clock)] * len(groups))
        return float(group_s(work, rates, coefficients) @ factors)

    return seconds_at
