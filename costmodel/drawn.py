"""Watts that a device draws at rest, busy, and over a year."""

from dataclasses import dataclass

from domain.device import DeviceSpec
from domain.record import Estimate, Unknown

# Idle watts of confidence C are estimates that nobody measured: half as much again either way.
UNMEASURED_IDLE_BAND = 0.5


def average_power_w(idle_w: float, busy_w: float, busy_share: float) -> float:
    """Mean power of a device that is busy a share of the time: `P_idle + u · (P_busy − P_idle)`.

    >>> average_power_w(10.0, 110.0, 0.5)
    60.0
    """
    return idle_w + busy_share * (busy_w - idle_w)


@dataclass(frozen=True, kw_only=True)
class Power:
    """What one device draws at rest and busy, in watts, and what had to be assumed for it."""

    idle_w: Estimate
    busy_w: Estimate
    said: tuple[str, ...]

    @property
    def peak_w(self) -> Estimate:
        """The most it draws."""
        ends = (
            max(getattr(self.idle_w, end), getattr(self.busy_w, end))
            for end in ("value", "low", "high")
        )
        value, low, high = ends
        return Estimate(value=value, low=low, high=high)

    def mean_w(self, busy_share: Estimate) -> Estimate:
        """The mean over all hours, busy in a share of them."""
        shares = (busy_share.value, max(0.0, busy_share.low), min(1.0, busy_share.high))
        value, low, high = (
            average_power_w(
                getattr(self.idle_w, end),
                max(getattr(self.idle_w, end), getattr(self.busy_w, end)),
                share,
            )
            for end, share in zip(("value", "low", "high"), shares, strict=True)
        )
        return Estimate(value=value, low=low, high=high)


def power_of(device: DeviceSpec, busy_w: Estimate | Unknown) -> Power | Unknown:
    """Idle and busy power of one device, or why nobody can say."""
    said: list[str] = []
    idle, limit = device.idle_w, device.most_w
    if isinstance(busy_w, Unknown):
        if isinstance(limit, Unknown):
            return Unknown(
                reason=f"no energy cost for {device.name}: its busy power is unknown "
                f"({busy_w.reason.rstrip('.')}), and so is its power limit"
            )
        least = 0.0 if isinstance(idle, Unknown) else min(idle.value, limit)
        busy_w = Estimate(value=(least + limit) / 2, low=least, high=limit)
        said.append(f"busy power is unknown: taken between {least:g} W and {limit:g} W")
    if isinstance(idle, Unknown):
        idle_w = Estimate(value=busy_w.value / 2, low=0.0, high=busy_w.high)
        said.append("idle power is unknown: taken between 0 W and busy power")
    else:
        band = UNMEASURED_IDLE_BAND if idle.confidence == "C" else 0.0
        idle_w = Estimate(
            value=idle.value, low=idle.value * (1 - band), high=idle.value * (1 + band)
        )
        said += [f"idle power is an estimate: {idle.value:g} W ±{band:.0%}"] if band else []
    return Power(idle_w=idle_w, busy_w=busy_w, said=tuple(said))
