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

from domain.device import DeviceSpec
from domain.record import Precision, Unknown
from domain.units import GIGA

# pJ a FLOP in half precision at 1 GHz; int8 needs half of it. Products in fp32 draw what is known of
# none: they are left alone.
GRAPHICS_DIE_PJ, COMPUTE_DIE_PJ = 0.4, 0.15
COMPUTE_DIES = ("GV100", "GA100", "GH100", "GB100")
ENERGY_OF: dict[Precision, float] = {
    "fp16": 1.0, "bf16": 1.0, "amp_fp16": 1.0, "amp_bf16": 1.0, "int8": 0.5,
}  # fmt: skip
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
    relative = ENERGY_OF.get(precision)
    if device.device_class == "cpu" or isinstance(limit, Unknown) or boost is None:
        return 1.0
    if relative is None:
        return 1.0
    is_compute_die = any(die in device.family for die in COMPUTE_DIES)
    at_1_ghz = relative * (COMPUTE_DIE_PJ if is_compute_die else GRAPHICS_DIE_PJ)
    joules_per_flop = PICO * at_1_ghz * (boost.value / GIGA) ** 2
    drawn_w = joules_per_flop * device.peak_for(precision).value
    left_w = (1 - REST_SHARE) * limit.value
    return float((1 + (drawn_w / left_w) ** (SHARPNESS / 3)) ** (-1 / SHARPNESS))
