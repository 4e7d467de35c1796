"""How much of its boost clock a GPU's own power limit leaves to matrix products. Pure.

    P(f) = 0.3·L + k·n·f³        n FLOP a tick, f the clock, L the limit
    f    = (0.7·L / (k·n))^⅓     where that is below the boost clock

What switching draws goes with the cube of the clock (see `capping`), so `k` is energy per FLOP over
the square of the clock. An L40S reaches 54 to 60 % of its dense peak in long bf16 products, an H100 77 %
(the table that `published/kernels` is a part of): 0.4 pJ/GHz² for a graphics die and 0.15 for a compute
die are near both, and of three tried on published rows (0.35 and 0.4 sharp, 0.45 soft) 0.4 lay between in
most splits. A card whose products run at half rate, as GeForce cards accumulating in fp32, hardly meets its limit; one
at full rate does: of an RTX PRO 6000 Max-Q the law leaves 0.61, of an L4 0.63. What `k` is wrong by, the
cube root makes a third of in log.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from domain.device import DeviceSpec
from domain.record import Precision, Unknown
from domain.units import GIGA


# pJ a FLOP at 1 GHz by what a device's family begins with: products in half precision (int8 needs half of
# it) and in fp32.
@dataclass(frozen=True)
class _Energy:
    half: float
    single: float


ENERGY_PJ: Mapping[str, _Energy] = {
    "Volta": _Energy(1.5, 11.0),
    "Turing": _Energy(2.5, 11.0),
    "Ampere GA100": _Energy(0.15, 11.0),
    "Ampere": _Energy(0.8, 11.0),
    "Ada": _Energy(0.4, 3.0),
    "Hopper": _Energy(0.15, 3.0),
    "Blackwell GB100": _Energy(0.15, 3.0),
    "Blackwell": _Energy(0.4, 3.0),
}
INT8_SHARE = 0.5
# Share of the limit drawn at rest: published weights of GenZ (0.3; 0.4 for compute, 0.2 for memory).
REST_SHARE = 0.3
# How sharply the limit sets in: 1/x^18 = 1 + 1/x_power^18.
SHARPNESS = 18.0
PICO = 1e-12


def sustained_share(device: DeviceSpec, precision: Precision) -> float:
    """Share of the boost clock, at most 1, that the power limit leaves to products in full use.

    1 where limit or clock are not known, on a CPU, and in precisions that nothing is known of.
    """
    limit, boost = device.power_limit_w, device.boost_hz
    energy = next((e for family, e in ENERGY_PJ.items() if device.family.startswith(family)), None)
    if isinstance(limit, Unknown) or boost is None or energy is None:
        return 1.0
    at_1_ghz = energy.single if precision in ("fp32",) else energy.half
    if precision == "int8":
        at_1_ghz *= INT8_SHARE
    if precision == "tf32":
        at_1_ghz *= 2
    joules_per_flop = PICO * at_1_ghz * (boost.value / GIGA) ** 2
    drawn_w = joules_per_flop * device.peak_for(precision).value
    left_w = (1 - REST_SHARE) * limit.value
    return float((1 + (drawn_w / left_w) ** (SHARPNESS / 3)) ** (-1 / SHARPNESS))
