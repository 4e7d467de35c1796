"""Laws of a power cap: what it costs, what it saves, and when it cannot be kept."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from costmodel.capping import LEAST_CLOCK, highest_clock
from costmodel.transfer import forecast
from domain.catalogue import devices, model_named
from domain.device import DeviceSpec
from domain.prediction import Refusal
from domain.record import Figure, Unknown
from domain.routing import routing_of_budget
from domain.store import stored_fits
from domain.workload import Workload

FITS = stored_fits()
WITH_LIMIT = sorted(
    id
    for id, device in devices().items()
    if not isinstance(device.power_limit_w, Unknown) and device.device_class != "cpu"
)
devices_ = st.sampled_from(WITH_LIMIT).map(devices().__getitem__)
shares = st.floats(0.05, 1.5)


@st.composite
def asked(draw):
    net = model_named(draw(st.sampled_from(["morvit-small", "vit_base_patch16_224"])))
    return Workload(
        architecture=net,
        batch=draw(st.sampled_from([1, 8, 64])),
        precision=draw(st.sampled_from(["fp16", "fp32"])),
        runtime=draw(st.sampled_from(["eager", "engine"])),
        executor=draw(st.sampled_from(["packed", "masked"])),
        routing=routing_of_budget(draw(st.floats(0.2, 1)), net),
    )


def under(workload, device, share):
    return forecast(workload, device.held_to(share * device.power_limit_w.value), FITS)


@settings(max_examples=30)
@given(asked(), devices_)
def test_a_cap_that_no_draw_reaches_changes_nothing(workload, device):
    free = forecast(workload, device, FITS)
    assume(not isinstance(free, Refusal))
    held = forecast(workload, device.held_to(free.power_w.high), FITS)
    assert held.power_w == free.power_w
    alike = [(held.latency_s, free.latency_s)]
    if isinstance(free.energy_j_per_image, Unknown):
        assert held.energy_j_per_image == free.energy_j_per_image
    else:
        alike.append((held.energy_j_per_image, free.energy_j_per_image))
    for one, other in alike:
        for side in ("value", "low", "high"):
            assert getattr(one, side) == pytest.approx(getattr(other, side), rel=1e-9)


@settings(max_examples=60)
@given(asked(), devices_, shares, shares)
def test_a_lower_cap_is_never_faster_and_is_always_kept(workload, device, one, other):
    low, high = sorted((one, other))
    less, more = under(workload, device, low), under(workload, device, high)
    if isinstance(less, Refusal):
        assert less.reason
        return
    # What can be held to less can be held to more.
    assert not isinstance(more, Refusal)
    assert less.latency_s.value >= more.latency_s.value * (1 - 1e-9)
    assert less.power_w.high <= low * device.power_limit_w.value * (1 + 1e-9)
    assert less.power_w.value <= more.power_w.value * (1 + 1e-9)
    assert 0 < less.energy_j_per_image.low <= less.energy_j_per_image.value < math.inf
    parts = math.fsum(each.latency_s for each in less.operators)
    assert parts == pytest.approx(less.latency_s.value)


@given(st.floats(0.05, 0.9), st.floats(0.0, 0.5), st.floats(0.05, 0.5), st.floats(0, 0.3))
def test_the_clock_is_the_highest_that_keeps_the_cap(cap, rest, compute, memory):
    def share_at(clock):
        return rest + compute * clock**3 + memory * clock

    found = highest_clock(share_at, cap)
    if found is None:
        assert share_at(LEAST_CLOCK) > cap
        return
    assert share_at(found) <= cap
    assert found == 1.0 or share_at(found * (1 + 1e-9)) > cap * (1 - 1e-6)


def test_products_under_a_cap_run_as_fast_as_was_published():
    # 313 W in full, 0.79 times as fast at 210 W (see `capping`); 90 W at rest of a limit of 300 W.
    clock = highest_clock(lambda clock: (90 + (313 - 90) * clock**3) / 300, 210 / 300)
    assert clock == pytest.approx(1027.1 / 1301.3, rel=0.05)


@pytest.mark.parametrize(
    ("device", "cap_w", "said"),
    [("rtx3090", 20, "at rest"), ("rtx3090", 90, "can be set to"), ("l4", 22, "slowest clock")],
)
def test_a_cap_that_cannot_be_kept_is_refused_with_the_reason(device, cap_w, said):
    net = model_named("vit_base_patch16_224")
    workload = Workload(
        architecture=net, batch=8, precision="fp16", routing=routing_of_budget(1, net)
    )
    answer = forecast(workload, devices()[device].held_to(cap_w), FITS)
    assert isinstance(answer, Refusal)
    assert said in answer.reason


def test_a_cap_without_a_known_limit_is_refused():
    net = model_named("vit_base_patch16_224")
    workload = Workload(
        architecture=net, batch=8, precision="fp16", routing=routing_of_budget(1, net)
    )
    fields = {**dict(devices()["l4"]), "power_limit_w": Unknown(reason="no data sheet")}
    answer = forecast(workload, DeviceSpec(**fields).held_to(50), FITS)
    assert "no data sheet" in answer.reason


def test_the_least_caps_of_the_catalogue_lie_below_the_limits():
    known = [each for each in devices().values() if isinstance(each.least_power_cap_w, Figure)]
    assert known
    for each in known:
        assert each.least_power_cap_w.value < each.power_limit_w.value
