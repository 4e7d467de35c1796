"""Laws of what a power limit leaves of the boost clock."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from costmodel.sustaining import (
    COMPUTE_DIE_PJ,
    GRAPHICS_DIE_PJ,
    PICO,
    REST_SHARE,
    sustained_share,
)
from costmodel.work import Machine
from domain.catalogue import devices
from domain.record import Figure, Unknown
from domain.units import GIGA

HALF = ("fp16", "amp_fp16")
GPUS = [
    device
    for device in devices().values()
    if device.device_class != "cpu" and "fp16" in device.peak_flop_per_s
]
gpus = st.sampled_from(GPUS)


def figure(value):
    return Figure(value=value, source="a test", read_on="2026-12-01", confidence="C")


def with_limit(device, watts):
    return device.model_copy(update={"power_limit_w": figure(watts)})


@given(gpus, st.sampled_from(HALF), st.floats(5, 2000), st.floats(1, 4))
def test_more_power_never_slows_and_never_goes_beyond_the_boost_clock(
    device, precision, watts, more
):
    less = sustained_share(with_limit(device, watts), precision)
    assert 0 < less <= sustained_share(with_limit(device, watts * more), precision) <= 1


@given(gpus, st.floats(5, 2000))
def test_at_the_clock_that_is_left_the_limit_is_kept(device, watts):
    assume(device.boost_hz is not None)
    share = sustained_share(with_limit(device, watts), "fp16")
    is_compute_die = any(die in device.family for die in ("GV100", "GA100", "GH100"))
    at_1_ghz = PICO * (COMPUTE_DIE_PJ if is_compute_die else GRAPHICS_DIE_PJ)
    clock_ghz = share * device.boost_hz.value / GIGA
    rate = share * device.peak_for("fp16").value
    assert REST_SHARE * watts + at_1_ghz * clock_ghz**2 * rate <= watts * (1 + 1e-9)


@given(gpus, st.floats(1.1, 4))
def test_twice_the_units_at_the_same_power_do_not_bring_twice_the_rate(device, more):
    wider = device.model_copy(
        update={
            "peak_flop_per_s": {
                name: figure(peak.value * more) for name, peak in device.peak_flop_per_s.items()
            }
        }
    )
    one, other = (Machine.of(each, "fp16").peak_flop_per_s for each in (device, wider))
    assert one < other <= one * more * (1 + 1e-9)


def test_what_is_not_known_limits_nothing():
    l4 = devices()["l4"]
    assert sustained_share(l4, "fp16") < 0.7
    unknown = l4.model_copy(update={"power_limit_w": Unknown(reason="a test")})
    assert sustained_share(unknown, "fp16") == 1.0
    assert sustained_share(l4.model_copy(update={"boost_hz": None}), "fp16") == 1.0
    assert sustained_share(l4, "fp32") == 1.0
    assert sustained_share(devices()["xeon-8480"], "bf16") == 1.0


@pytest.mark.parametrize("name", ["a100-sxm-80", "v100-sxm2-32", "rtx3090"])
def test_a_card_far_from_its_limit_keeps_its_clock(name):
    assert sustained_share(devices()[name], "fp16") > 0.98
