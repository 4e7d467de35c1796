"""Which fit speaks, how sure it is, and when nobody speaks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.transfer import extrapolation, forecast
from domain.catalogue import devices, model_named, plain_vits
from domain.prediction import Prediction, Refusal
from domain.routing import RoutingDistribution
from domain.store import reference_root, stored_fits
from domain.workload import Workload

FITS = stored_fits()


def plain(model="vit_base_patch16_224", **changes):
    net = model_named(model)
    fields = {"batch": 8, "precision": "fp16", "runtime": "eager"} | changes
    routing = RoutingDistribution.full(net.tokens, net.recursions)
    return Workload(architecture=net, routing=routing, executor="packed", **fields)


def test_the_reference_fits_are_committed():
    assert any((reference_root() / "fits").glob("class-gpu-eager.json"))


@pytest.mark.parametrize(
    ("device", "runtime", "tier"),
    [("a100-sxm-40", "engine", "anchored"), ("l4", "eager", "spec-only")],
)
def test_the_tier_says_where_the_number_comes_from(device, runtime, tier):
    assert forecast(plain(runtime=runtime), devices()[device], FITS).tier == tier


def test_an_anchored_device_is_known_better_than_one_from_its_data_sheet():
    known = forecast(plain(precision="amp_fp16"), devices()["rtx4090"], FITS)
    unknown = forecast(plain(precision="amp_fp16"), devices()["l40s"], FITS)
    assert width_of(known) < width_of(unknown)


def test_a_runtime_nobody_measured_is_taken_for_the_nearest_with_more_spread():
    near = forecast(plain(runtime="compiled"), devices()["l4"], FITS)
    far = forecast(plain(runtime="onnxruntime"), devices()["l4"], FITS)
    assert width_of(far) > width_of(near)
    assert any("onnxruntime" in line for line in far.assumptions)


def test_a_precision_without_units_is_refused_with_what_there_is():
    refusal = forecast(plain(precision="bf16"), devices()["t4"], FITS)
    assert isinstance(refusal, Refusal)
    assert "bf16" in refusal.reason
    assert "fp16" in refusal.reason


def test_without_fits_everything_is_refused():
    assert isinstance(forecast(plain(), devices()["l4"], ()), Refusal)


@given(
    st.sampled_from(sorted(devices())),
    st.sampled_from(sorted(plain_vits())),
    st.sampled_from(["fp32", "fp16", "amp_fp16", "int8"]),
    st.integers(1, 256),
)
def test_every_answer_is_whole_and_inside_its_interval(device, model, precision, batch):
    answer = forecast(plain(model, precision=precision, batch=batch), devices()[device], FITS)
    if isinstance(answer, Refusal):
        assert answer.reason
        return
    parts = math.fsum(answer.stages_s.values())
    assert parts == pytest.approx(answer.latency_s.value)
    assert 0 < answer.latency_s.low < answer.latency_s.value < answer.latency_s.high
    rate = answer.throughput_img_per_s.value
    assert rate == pytest.approx(batch / answer.latency_s.value)


@given(st.integers(1, 64))
def test_a_larger_batch_never_takes_less_time(batch):
    one, other = (
        forecast(plain(batch=size), devices()["a100-sxm-80"], FITS) for size in (batch, batch + 1)
    )
    assert other.latency_s.value >= one.latency_s.value


def test_fewer_surviving_tokens_never_take_longer():
    net = model_named("morvit-small")
    seconds = []
    # A recursion that all tokens enter gathers nothing: where launches are what takes time, it is faster
    # than one that nearly all enter.
    for survival in [(0.95, 0.9, 0.8), (0.9, 0.6, 0.3), (0.5, 0.2, 0.1), (0, 0, 0)]:
        # Images of equal length: different lengths need attention calls of their own.
        counts = tuple(max(1, round(share * net.tokens)) for share in survival)
        routing = RoutingDistribution(tokens=net.tokens, counts=(counts,))
        workload = Workload(architecture=net, batch=8, precision="fp16", routing=routing)
        seconds.append(forecast(workload, devices()["l4"], FITS).latency_s.value)
    assert seconds == sorted(seconds, reverse=True)


def test_leaving_the_fitted_range_is_said_and_widens():
    fit = next(fit for fit in FITS if fit.name == "class-gpu-eager")
    inside, outside = plain(batch=256), plain(batch=100_000)
    assert not extrapolation(inside, fit)
    assert "batch" in extrapolation(outside, fit)


def width_of(prediction):
    assert isinstance(prediction, Prediction)
    return prediction.latency_s.high / prediction.latency_s.low
