"""How much of its boost clock a GPU's own power limit leaves to matrix products. Pure.

    P(f) = 0.3·L + k·n·f³        n FLOP a tick, f the clock, L the limit
    f    = (0.7·L / (k·n))^⅓     where that is below the boost clock

What switching draws goes with the cube of the clock (see `capping`), so `k` is energy per FLOP over
the square of the clock; what it is wrong by, the cube root makes a third of in log. A card whose products run
at half rate, as GeForce cards accumulating in fp32, hardly meets its limit; one at full rate does. What is
known of `k`, in pJ/GHz²:

    12 nm   V100: 83 TFLOP/s of a stated peak of 125 in fp16 products (abstract of arXiv 1803.04014; which
            board was not read) is 1.5 to 1.8 at nine tenths of the rate. T4: 24 of 65 on 70 W
            (forums.developer.nvidia.com, topic 264462) would be 4; networks pause between products, and
            2.5 is near what published encoders show.
    8 nm    between the two: an A10's encoders.
    4N      L40S: 54 to 60 % of its peak in long bf16 products (the table that `published/kernels` is a part
            of), L4 and RTX PRO 6000 Max-Q: 0.3 to 0.4. H100: 77 % in the same table, 0.15; GA100 hardly
            meets its limit at all.
    fp32    11 by a T4, a V100 and an A10, whose encoders reach 0.54, 0.79 and 0.34 of their peak; 5 of
            GA100 by an A100, which hardly meets its limit (0.81); of 4N nothing is known, it is taken to
            have gained as half precision has.

All were chosen with the published rows of these devices in view.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from domain.device import DeviceSpec
from domain.record import Precision, Unknown
from domain.units import GIGA


@dataclass(frozen=True)
class Energy:
    """pJ a FLOP at 1 GHz: of products in half precision, and in fp32."""

    half: float
    single: float


# By what a device's family holds; the first that fits.
ENERGY_OF: Mapping[str, Energy] = {
    "Volta": Energy(1.5, 11.0),
    "Turing": Energy(2.5, 11.0),
    "Ampere GA100": Energy(0.15, 5.0),
    "Ampere": Energy(0.8, 11.0),
    "Ada": Energy(0.3, 3.0),
    "Hopper": Energy(0.15, 3.0),
    "Blackwell GB100": Energy(0.15, 3.0),
    "Blackwell": Energy(0.4, 3.0),
}
# Of a GPU whose family is none of them: a graphics die of today.
OTHER = Energy(0.4, 3.0)
# Energy of a product in other precisions over that in half: they run on the same units, at twice or half the
# rate and the same power.
OVER_HALF: Mapping[Precision, float] = {"int8": 0.5, "tf32": 2.0}
# Share of the limit drawn at rest: published weights of GenZ (0.3; 0.4 for compute, 0.2 for memory).
REST_SHARE = 0.3
# How sharply the limit sets in: 1/x^18 = 1 + 1/x_power^18.
SHARPNESS = 18.0
PICO = 1e-12


def sustained_share(device: DeviceSpec, precision: Precision) -> float:
    """Share of the boost clock, at most 1, that the power limit leaves to products in full use.

    1 where limit or clock are not known, and on a CPU.
    """
    limit, boost = device.power_limit_w, device.boost_hz
    if device.device_class == "cpu" or isinstance(limit, Unknown) or boost is None:
        return 1.0
    energy = energy_of(device.family)
    at_1_ghz = energy.single if precision == "fp32" else energy.half * OVER_HALF.get(precision, 1.0)
    joules_per_flop = PICO * at_1_ghz * (boost.value / GIGA) ** 2
    drawn_w = joules_per_flop * device.peak_for(precision).value
    left_w = (1 - REST_SHARE) * limit.value
    return float((1 + (drawn_w / left_w) ** (SHARPNESS / 3)) ** (-1 / SHARPNESS))


def energy_of(family: str) -> Energy:
    """What a product takes on a GPU of that family.

    >>> energy_of("NVIDIA ada AD104").half, energy_of("of nobody") == OTHER
    (0.3, True)
    """
    said = family.casefold()
    return next((of for name, of in ENERGY_OF.items() if name.casefold() in said), OTHER)
