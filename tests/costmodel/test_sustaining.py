"""Laws of what a power limit leaves of the boost clock."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from costmodel.sustaining import (
    ENERGY_OF,
    OVER_HALF,
    PICO,
    REST_SHARE,
    energy_of,
    sustained_share,
)
from costmodel.work import Machine
from domain.catalogue import devices
from domain.record import Figure, Unknown
from domain.units import GIGA

ANY = ("fp16", "amp_fp16", "int8", "tf32", "fp32")
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


def has_peak(device, precision):
    try:
        device.peak_for(precision)
    except ValueError:
        return False
    return True


@given(gpus, st.sampled_from(ANY), st.floats(5, 2000), st.floats(1, 4))
def test_more_power_never_slows_and_never_goes_beyond_the_boost_clock(
    device, precision, watts, more
):
    assume(has_peak(device, precision))
    less = sustained_share(with_limit(device, watts), precision)
    assert 0 < less <= sustained_share(with_limit(device, watts * more), precision) <= 1


@given(gpus, st.sampled_from(ANY), st.floats(5, 2000))
def test_at_the_clock_that_is_left_the_limit_is_kept(device, precision, watts):
    assume(device.boost_hz is not None and has_peak(device, precision))
    share = sustained_share(with_limit(device, watts), precision)
    energy = energy_of(device.family)
    of_half = energy.half * OVER_HALF.get(precision, 1.0)
    at_1_ghz = PICO * (energy.single if precision == "fp32" else of_half)
    clock_ghz = share * device.boost_hz.value / GIGA
    rate = share * device.peak_for(precision).value
    assert REST_SHARE * watts + at_1_ghz * clock_ghz**2 * rate <= watts * (1 + 1e-9)


@pytest.mark.parametrize("device", GPUS, ids=lambda device: device.id)
def test_every_gpu_is_of_a_family_whose_energy_is_known(device):
    assert any(family in device.family for family in ENERGY_OF)


@given(gpus)
def test_units_that_do_half_precision_draw_as_much_at_other_precisions(device):
    half = sustained_share(device, "fp16")
    for precision, times in OVER_HALF.items():
        if has_peak(device, precision):
            ratio = device.peak_for(precision).value * times / device.peak_for("fp16").value
            if ratio == pytest.approx(1, rel=0.02):
                assert sustained_share(device, precision) == pytest.approx(half, rel=0.02)


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
    assert sustained_share(l4, "fp16") < 0.75
    unknown = l4.model_copy(update={"power_limit_w": Unknown(reason="a test")})
    assert sustained_share(unknown, "fp16") == 1.0
    assert sustained_share(l4.model_copy(update={"boost_hz": None}), "fp16") == 1.0
    # A limit is kept whatever the family is called, and a CPU's is inside its efficiencies.
    lower = l4.model_copy(update={"family": "nvidia ada ad104"})
    assert sustained_share(lower, "fp16") == sustained_share(l4, "fp16")
    assert sustained_share(l4.model_copy(update={"family": "of nobody"}), "fp16") < 0.7
    as_cpu = l4.model_copy(update={"family": "Ampere Altra", "device_class": "cpu"})
    assert sustained_share(as_cpu, "fp32") == 1.0
    assert sustained_share(devices()["xeon-8480"], "bf16") == 1.0


@pytest.mark.parametrize("name", ["a100-sxm-80", "a30", "rtx3090"])
def test_a_card_far_from_its_limit_keeps_its_clock(name):
    assert sustained_share(devices()[name], "fp16") > 0.98
