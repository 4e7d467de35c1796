"""Power and energy from utilisation; modelled, and called so, until a meter says otherwise."""

from domain.device import DeviceSpec
from domain.record import Estimate, Unknown

# Share of the power limit at rest, and for compute and memory in full use: the published weights
# of GenZ (0.3, 0.4, 0.2; its 0.1 for the network is none of ours). They are shares of the limit,
# not of one device's measured power: hence the wide interval.
REST_SHARE, COMPUTE_SHARE, MEMORY_SHARE = 0.3, 0.4, 0.2
LOW_FACTOR, HIGH_FACTOR = 0.6, 1.6


def power_w(device: DeviceSpec, compute_use: float, memory_use: float) -> Estimate | Unknown:
    """Board power while busy, in watts: limit·(0.3 + 0.4·u_compute + 0.2·u_memory).

    Uses are shares of dense peak and bandwidth, 0 to 1. Bounded by idle power and the limit.
    """
    if isinstance(device.power_limit_w, Unknown):
        return Unknown(reason=f"no power limit known: {device.power_limit_w.reason}")
    limit = device.power_limit_w.value
    idle = 0.0 if isinstance(device.idle_w, Unknown) else device.idle_w.value
    share = REST_SHARE + COMPUTE_SHARE * compute_use + MEMORY_SHARE * memory_use
    value = min(max(limit * share, idle), limit)
    return Estimate(
        value=value,
        low=max(min(idle, value), value * LOW_FACTOR),
        high=min(limit, value * HIGH_FACTOR),
    )


def energy_j_per_image(power: Estimate, latency_s: Estimate, batch: int) -> Estimate:
    """Joules a image: power times time over batch, ends taken together (no credit for chance)."""
    return Estimate(
        value=power.value * latency_s.value / batch,
        low=power.low * latency_s.low / batch,
        high=power.high * latency_s.high / batch,
    )
