"""Power and energy from utilisation; modelled, and called so, until a meter says otherwise."""

import math
from collections.abc import Iterable

from costmodel.operators import Operator
from costmodel.sustaining import REST_SHARE
from costmodel.work import Machine
from domain.device import DeviceSpec
from domain.record import Estimate, Unknown

# Share of the power limit at rest, and for compute and memory in full use: the published weights
# of GenZ (0.3, 0.4, 0.2; its 0.1 for the network is none of ours). They are shares of the limit,
# not of one device's measured power: hence the wide interval.
COMPUTE_SHARE, MEMORY_SHARE = 0.4, 0.2
LOW_FACTOR, HIGH_FACTOR = 0.6, 1.6


def share_drawn(
    work: Iterable[Operator], machine: Machine, seconds: float, clock: float = 1.0
) -> float:
    """Share of the power limit while `work` takes `seconds`: 0.3 + 0.4·u_compute·x² + 0.2·u_memory.

    Uses are what is done over what the peak of `machine` (of a GPU what its limit sustains of the dense
    one, see `sustaining`) and its bandwidth would do at its full clock, at most 1; x is the share of that
    clock, and with it of the voltage (see `capping`).
    """
    done = tuple(work)
    flop = math.fsum(each.flop for each in done)
    moved = math.fsum(each.weight_bytes + each.moved_bytes for each in done)
    compute = min(flop / seconds / machine.peak_flop_per_s, 1.0)
    memory = min(moved / seconds / machine.memory_bytes_per_s, 1.0)
    return REST_SHARE + COMPUTE_SHARE * compute * clock**2 + MEMORY_SHARE * memory


def power_w(device: DeviceSpec, share: float) -> Estimate | Unknown:
    """Board power while busy, in watts, where `share` of the limit is drawn.

    Bounded by idle power below, and by the limit and the cap above.
    """
    if isinstance(device.power_limit_w, Unknown):
        return Unknown(reason=f"no power limit known: {device.power_limit_w.reason}")
    limit = device.power_limit_w.value
    most = limit if device.power_cap_w is None else min(limit, device.power_cap_w)
    idle = 0.0 if isinstance(device.idle_w, Unknown) else device.idle_w.value
    value = min(max(limit * share, idle), most)
    return Estimate(
        value=value,
        low=max(min(idle, value), value * LOW_FACTOR),
        high=min(most, value * HIGH_FACTOR),
    )


def energy_j_per_image(power: Estimate, latency_s: Estimate, batch: int) -> Estimate:
    """Joules a image: power times time over batch, ends taken together (no credit for chance)."""
    return Estimate(
        value=power.value * latency_s.value / batch,
        low=power.low * latency_s.low / batch,
        high=power.high * latency_s.high / batch,
    )
