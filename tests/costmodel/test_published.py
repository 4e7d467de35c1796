"""What published rows tell of devices, and what of their software."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel import accuracy
from costmodel.published import class_posterior, published_workload, spread_of_few
from costmodel.publishedfits import fits_of_published
from costmodel.reach import reach_of
from costmodel.software import OF_NOTES, TODAY, TORCH_1, attention_of, software_of
from costmodel.transfer import forecast
from domain.catalogue import devices, model_named, published
from domain.routing import RoutingDistribution
from domain.store import stored_fits
from domain.workload import Workload

ROWS = [row for row in published() if row.file.startswith("timm_rtx3090")]
FITS = fits_of_published(ROWS, devices(), "a test")
TORCH_2 = [row for row in ROWS if row.torch_version.startswith("2")]
OLDER = [row for row in ROWS if row.torch_version.startswith("1")]


def test_every_software_but_todays_is_named_by_its_rows():
    assert {software_of(row) for row in published()} == {TODAY, TORCH_1, *OF_NOTES.values()}
    today = Counter(row.file for row in published() if software_of(row) == TODAY)
    assert {name.partition("_")[0].partition(".")[0] for name in today} == {
        "timm", "tensorrt", "aitemplate", "jetson",
    }  # fmt: skip
    assert all(row.runtime == "engine" for row in published() if row.file == "tensorrt_bert.csv")


def test_attention_is_fused_where_its_software_fuses_it():
    assert {published_workload(row).attention for row in TORCH_2} == {"fused"}
    assert {published_workload(row).attention for row in OLDER} == {"unfused"}
    old = [row for row in published() if software_of(row) == "fastertransformer"]
    half = [row for row in old if row.precision in ("fp16", "int8")]
    assert half
    assert {attention_of(row, 384) for row in half} == {"fused"}
    assert {attention_of(row, 385) for row in old} == {"unfused"}
    assert {attention_of(row, 50) for row in old if row.precision == "fp32"} == {"unfused"}


@pytest.mark.parametrize("row", [*TORCH_2[::60], *OLDER[::60]], ids=lambda row: row.model)
def test_a_torch_that_is_named_is_predicted_by_the_rows_of_its_like(row):
    device = devices()["rtx3090"]
    reach = reach_of(published_workload(row), device, FITS)
    assert reach.fit.software == ("" if row in TORCH_2 else TORCH_1)
    seen = row.batch / row.throughput_img_per_s
    answer = forecast(published_workload(row), device, FITS)
    assert abs(math.log(answer.latency_s.value / seen)) < 0.3


def test_a_torch_that_nobody_timed_at_that_precision_is_said_to_be_taken_for_todays():
    device, work = devices()["rtx3090"], published_workload(OLDER[0])
    known = forecast(work, device, FITS)
    assert "torch before 2: attention is not fused" in known.assumptions
    single = work.model_copy(update={"precision": "fp32"})
    reach = reach_of(single, device, FITS)
    assert reach.fit.software == ""
    assert any("today's software" in line for line in reach.assumptions)
    now = forecast(published_workload(TORCH_2[0]), device, FITS)
    assert not any("torch" in line for line in now.assumptions)


def test_a_host_that_nobody_timed_is_less_known_than_one_that_was():
    one = Workload(
        architecture=model_named("vit_tiny_patch16_224", None),
        batch=1,
        precision="amp_fp16",
        routing=RoutingDistribution.full(197, 1),
    )
    known, unknown = (forecast(one, devices()[name], FITS) for name in ("rtx3090", "rtx4090"))
    assert known.bound == unknown.bound == "host"
    width, wider = (each.latency_s.high / each.latency_s.low for each in (known, unknown))
    assert wider > width


def test_a_device_that_only_other_software_timed_says_so():
    net = model_named("vit_base_patch16_224", None)
    routing = RoutingDistribution.full(net.tokens, 1)
    work = Workload(architecture=net, batch=8, precision="fp16", routing=routing)
    fits = stored_fits()
    older = forecast(work, devices()["a100-sxm-40"], fits)
    assert older.tier == "anchored"
    assert "other software" in older.tier_reason
    assert TORCH_1 in older.tier_reason
    named = work.model_copy(update={"attention": "unfused"})
    assert "other software" not in forecast(named, devices()["a100-sxm-40"], fits).tier_reason
    timm = work.model_copy(update={"precision": "amp_fp16"})
    assert "other software" not in forecast(timm, devices()["rtx4090"], fits).tier_reason


def test_a_fit_with_its_software_says_of_its_own_rows_what_was_left_over():
    """Of launches too: batches of one and two of an A100 with torch 1.12 wait for their host."""
    rows = [*ROWS, *(row for row in published() if row.file == "aitemplate.csv")]
    rows = [row for row in rows if row.runtime == "eager"]
    posterior, _, _ = class_posterior(rows, devices(), "gpu")
    fits = fits_of_published(rows, devices(), "a test")
    for row, left_over in list(zip(rows, posterior.residuals, strict=True))[::9]:
        answer = forecast(published_workload(row), devices()[row.device_id], fits)
        seen = row.batch / row.throughput_img_per_s
        assert math.log(seen / answer.latency_s.value) == pytest.approx(left_over, abs=1e-6)


@pytest.mark.parametrize("fit", stored_fits(), ids=lambda fit: fit.name)
def test_coefficients_are_as_sure_as_their_covariance_says(fit):
    for number, each in enumerate(fit.coefficients):
        assert each.log_sd**2 == pytest.approx(fit.covariance[number][number], rel=1e-6, abs=1e-12)


def test_rows_alike_but_for_their_software_are_left_out_together(monkeypatch):
    def key(row):
        alike = {"states": "by-token", "attention": "fused"}
        return published_workload(row).model_copy(update=alike).key()

    def judged(split, rest, held, specs):
        assert not {key(row) for row in rest} & {key(row) for row in held}
        counted.append(len(held))
        return []

    counted = []
    monkeypatch.setattr(accuracy, "_judged", judged)
    accuracy.row_pairs(ROWS, devices())
    assert sum(counted) == len(ROWS)


def test_older_software_is_slower_beside_its_attention_too():
    device = devices()["rtx4090"]
    for row in OLDER[::40]:
        work = published_workload(row)
        one, other = (
            forecast(work, device, [fit for fit in FITS if fit.software == software])
            for software in ("", TORCH_1)
        )
        assert other.latency_s.value > 1.05 * one.latency_s.value


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=9), st.floats(0.1, 10))
def test_the_spread_of_few_scales_with_them_and_fewer_are_wider(differences, times):
    spread = spread_of_few(differences)
    assert spread_of_few([times * each for each in differences]) == pytest.approx(times * spread)
    assert spread_of_few([*differences, *differences]) <= spread * (1 + 1e-12)
    assert spread >= math.sqrt(sum(each**2 for each in differences) / len(differences)) * 0.99
    assert spread_of_few(differences[:1]) == 0.0
