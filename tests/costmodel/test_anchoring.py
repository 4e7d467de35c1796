"""A few timings narrow a device; what users say of it is read strictly."""

import csv
import io
import math
import subprocess
import sys

import numpy as np
import pytest

from costmodel.anchoring import belief_after, belief_before, fit_with_timings
from costmodel.own import (
    SKELETON,
    Timing,
    checked_torch,
    device_from,
    fits_with,
    timing_from,
    timings_from,
    write_skeleton,
)
from costmodel.published import published_observations
from costmodel.reach import UNSEEN_ROUTING_LOG_SD, routing_log_sd
from costmodel.transfer import forecast
from domain.catalogue import devices, published
from domain.complaint import Complaint, CorruptFile
from domain.prediction import Prediction
from domain.store import stored_fits

FITS = stored_fits()
L4 = devices()["l4"]
ASKED = timing_from("vit_base_patch16_224:bs32:fp16:eager=500").workload


def predicted(workload=ASKED, fits=FITS, device=L4):
    answer = forecast(workload, device, fits)
    assert isinstance(answer, Prediction)
    return answer


def width_of(answer):
    return answer.latency_s.high / answer.latency_s.low


def test_timings_narrow_the_interval_and_raise_the_tier():
    before = predicted()
    took = before.latency_s.value * 1.2
    after = predicted(fits=fits_with([Timing(workload=ASKED, seconds=took)], L4, FITS))
    assert (before.tier, after.tier) == ("spec-only", "calibrated")
    assert width_of(after) < width_of(before)
    assert after.latency_s.value == pytest.approx(took, rel=0.05)


def test_timings_that_the_class_expects_change_nothing_but_the_spread():
    before = predicted()
    after = predicted(
        fits=fits_with([Timing(workload=ASKED, seconds=before.latency_s.value)], L4, FITS)
    )
    assert after.latency_s.value == pytest.approx(before.latency_s.value, rel=0.01)


def test_a_timing_speaks_for_its_device_and_runtime_alone():
    seconds = predicted().latency_s.value * 1.3
    fits = fits_with([Timing(workload=ASKED, seconds=seconds)], L4, FITS)
    other = devices()["t4"]
    assert forecast(ASKED, other, fits) == forecast(ASKED, other, FITS)
    engine = timing_from("vit_base_patch16_224:bs32:fp16:engine=900").workload
    assert forecast(engine, L4, fits) == forecast(engine, L4, FITS)


def test_four_rows_bring_published_rows_of_another_gpu_closer():
    fit = next(fit for fit in FITS if fit.name == "class-gpu-eager")
    rows = [row for row in published() if row.file == "timm_rtx3090.csv"][:60]
    seen = published_observations(rows, devices(), ())
    shifted = type(seen)(**{**vars(seen), "seconds": seen.seconds * 1.3})
    before = belief_before(fit)

    def misses(belief):
        logs = dict(zip(belief.names, belief.log_values, strict=True))
        return np.abs(np.log(shifted.seconds / shifted.predicted_s(logs, np.zeros(0))))

    after, _ = belief_after(before, shifted.only(np.array([0, 20, 40, 59])))
    assert np.median(misses(after)) < np.median(misses(before)) / 2
    assert np.trace(after.covariance) < np.trace(before.covariance)


def test_a_timing_in_another_unit_is_refused_with_what_was_expected():
    with pytest.raises(Complaint, match="were expected: check its unit"):
        fits_with([Timing(workload=ASKED, seconds=predicted().latency_s.value / 1000)], L4, FITS)


def test_a_precision_without_units_cannot_be_anchored():
    half = timing_from("vit_base_patch16_224:bs1:bf16:eager=100")
    with pytest.raises(Complaint, match="bf16"):
        fits_with([half], devices()["t4"], FITS)


def test_the_anchor_s_form_gives_rate_or_milliseconds():
    rate = timing_from("vit_base_patch16_224:bs32:fp16:engine=559")
    assert rate.seconds == pytest.approx(32 / 559)
    assert timing_from("vit_base_patch16_224:bs32:fp16:engine=57.25ms").seconds == 0.05725
    larger = timing_from("vit_base_patch16_224:bs1:img384:fp16:eager=100")
    assert larger.workload.architecture.tokens == 577


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "vit_base_patch16_224:bs0:fp16:eager=5", "vit_base_patch16_224:bs8:fp16=5",
        "vit_base_patch16_224:bs8:fp16:eager=0", "vit_base_patch16_224:bs8:fp16:eager=nan",
        "nobody:bs8:fp16:eager=5", "vit_base_patch16_224:bs8:fp99:eager=5",
        "vit_base_patch16_224:bs8:fp16:eager=" + "9" * 50,
    ],
)  # fmt: skip
def test_another_form_is_refused_in_a_sentence(text):
    with pytest.raises(Complaint):
        timing_from(text)


def test_timings_come_from_a_table_too(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "model,batch_size,precision_id,runtime_id,throughput_img_per_s,img_size,kept\n"
        "vit_base_patch16_224,8,fp16,eager,400,\nvit_base_patch16_224,1,fp16,eager,90,384,\n"
        "morvit-small,8,fp16,eager,500,,1/0.6/0.3\n"
    )
    one, other, routed = timings_from(path)
    assert one.seconds == pytest.approx(8 / 400)
    assert other.workload.architecture.image_size == 384
    assert routed == timing_from("morvit-small:bs8:kept1/0.6/0.3:fp16:eager=500")
    for content in ("", "model\nx\n", "\x00", "a,b\n1,2\n"):
        path.write_text(content)
        with pytest.raises(CorruptFile, match=r"mine\.csv"):
            timings_from(path)


def test_a_timing_is_of_the_torch_that_it_names(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "model,batch_size,precision_id,runtime_id,throughput_img_per_s,torch_version\n"
        "vit_base_patch16_224,8,fp16,eager,400,1.13.1\nvit_base_patch16_224,8,fp16,eager,400,\n"
        "vit_base_patch16_224,8,fp16,eager,400,2.4.0\nvit_base_patch16_224,8,fp16,engine,400,1.13.1\n"
    )
    kinds = [each.workload.attention for each in timings_from(path)]
    assert kinds == ["unfused", "fused", "fused", "fused"]
    assert [each.workload.attention for each in timings_from(path, "1.9")][:2] == ["unfused"] * 2
    form = "vit_base_patch16_224:bs8:fp16:eager=400"
    assert timing_from(form, "1.9").workload == timings_from(path)[0].workload
    assert [checked_torch(each) for each in (None, " 1.13.1 ", "2.9.1+cu130")] == [
        "", "1.13.1", "2.9.1+cu130",
    ]  # fmt: skip
    for text in ("banana", "1" * 500, "=1", "1,13", "v1.13"):
        with pytest.raises(Complaint, match=r"1\.13\.1"):
            checked_torch(text)
        path.write_text(
            "model,batch_size,precision_id,runtime_id,throughput_img_per_s,torch_version\n"
            f'vit_base_patch16_224,8,fp16,eager,400,"{text}"\n'
        )
        with pytest.raises(Complaint, match=r"1\.13\.1"):
            timings_from(path)


def test_timings_of_two_torches_are_not_mixed_and_what_is_left_aside_is_said():
    form, device = "vit_base_patch16_224:bs32:fp16:eager", devices()["rtx3090"]
    asked = timing_from(f"{form}=1000").workload
    older = timing_from(f"{form}=900", "1.13")
    newer = timing_from(f"{form}=1400")
    for order in ([older, newer], [newer, older]):
        fits = fits_with(order, device, FITS)
        assert {fit.software: fit.points for fit in fits[:2]} == {"": 1, "torch-1": 1}
        for timing in order:
            answer = forecast(timing.workload, device, fits)
            assert answer.tier == "calibrated"
            assert answer.latency_s.value == pytest.approx(timing.seconds, rel=0.15)
    alone = forecast(asked, device, fits_with([older], device, FITS))
    assert alone.tier == "anchored"
    assert any("--torch-version" in line for line in alone.assumptions)


def test_the_skeleton_is_a_device_and_is_never_written_over(tmp_path):
    path = tmp_path / "mine.toml"
    write_skeleton(path)
    device = device_from(path)
    assert device.peak_for("fp16").value == 362e12
    assert device.memory_bytes_per_s.value == 864e9
    assert predicted(device=device).tier == "spec-only"
    with pytest.raises(Complaint, match="already"):
        write_skeleton(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('name = "My device"', "id"),
        (SKELETON.replace("fp32 = 91.6", "fp32 = -1"), "peak_tflops"),
        (SKELETON.replace("fp32 = 91.6\n", ""), "fp32"),
        (SKELETON.replace("memory_gb = 48", "memory_gib = 48"), "memory_gib"),
        (SKELETON.replace('"my-device"', '"l4"'), "catalogue already"),
        (SKELETON.replace("864", "nan"), "memory_gb_per_s"),
        ("= =", "TOML"),
    ],
)
def test_a_data_sheet_that_is_wrong_says_where(line, said, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(line)
    with pytest.raises(CorruptFile, match=said):
        device_from(path)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "costmodel.predict", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_takes_a_device_and_timings_of_one_s_own(tmp_path):
    path = tmp_path / "mine.toml"
    assert command("--write-device-skeleton", str(path)).returncode == 0
    asked = ("--device-file", str(path), "--model", "vit_base_patch16_224", "--batch", "32")
    rate = math.floor(predicted(device=device_from(path)).throughput_img_per_s.value)
    said = f"vit_base_patch16_224:bs32:fp16:eager={rate}"
    done = command(*asked, "--anchor", said)
    assert done.returncode == 0, done.stderr
    assert "calibrated: 1 timings of your own on My device" in done.stdout
    clash = command(*asked, "--device", "l4")
    assert (clash.returncode, clash.stdout) == (2, "")
    many = command("--device", "all", "--anchor", said)
    assert "one device" in many.stderr


def test_a_fit_with_timings_holds_together():
    fit = next(fit for fit in FITS if fit.name == "class-gpu-eager")
    made = fit_with_timings(fit, L4, [Timing(workload=ASKED, seconds=0.02)])
    assert made.scope == "timed"
    assert type(made).model_validate_json(made.model_dump_json()) == made


def test_only_timings_of_networks_that_route_tell_what_routing_adds():
    def left(*models):
        timings = [
            Timing(workload=each, seconds=predicted(each).latency_s.value)
            for each in (timing_from(f"{model}:fp16:eager=500").workload for model in models)
        ]
        return routing_log_sd(fits_with(timings, L4, FITS)[0])

    routed, plain = "morvit-small:bs8:kept1/0.6/0.3", "vit_small_patch16_224:bs8"
    # Where nothing leaves, nothing is told of what leaving costs.
    assert left("morvit-small:bs8") == pytest.approx(UNSEEN_ROUTING_LOG_SD)
    assert left(plain) == pytest.approx(UNSEEN_ROUTING_LOG_SD)
    assert left(plain, plain) == left(plain)
    assert left(routed, plain) == pytest.approx(left(routed))
    assert left(routed, routed) < left(routed) < 0.1


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ("1/0.6", "3 recursions"),
        ("1/0.6/0.9", "never rises"),
        ("1/0.6/1.5", "between 0 and 1"),
        ("1//0.3", "could not convert"),
        ("/".join(["1"] * 40), "got 40"),
    ],
)
def test_shares_that_a_network_cannot_have_kept_are_a_sentence(kept, said):
    with pytest.raises(Complaint, match=said):
        timing_from(f"morvit-small:bs8:kept{kept}:fp16:eager=500")


@pytest.mark.parametrize("kept", ["nan/1/1", "1/1e999/1", "-1/0/0", "1/" * 200_000, "one/0/0"])
def test_what_a_table_says_was_kept_is_hostile_input(tmp_path, kept):
    path = tmp_path / "mine.csv"
    path.write_text(
        "model,batch_size,precision_id,runtime_id,throughput_img_per_s,kept\n"
        f"morvit-small,8,fp16,eager,500,{kept}\n"
    )
    with pytest.raises((Complaint, CorruptFile)):
        timings_from(path)


OWN_ROWS = """model,device_id,precision_id,runtime_id,batch_size,img_size,layout
vit_base_patch16_siglip_gap_224,my-device,fp16,eager,64,224,
vit_base_patch16_siglip_gap_224,my-device,fp16,eager,64,224,nhwc
vit_base_patch16_siglip_gap_224,my-device,fp16,compiled,64,224,nhwc
vit_base_patch16_siglip_gap_224,my-device,fp16,compiled,64,224,nchw
vit_base_patch16_224,my-device,fp16,eager,64,224,sideways
vit_base_patch16_224,l4,fp16,eager,64,224,
"""


def test_a_table_takes_a_device_layouts_and_timings_of_one_s_own(tmp_path):
    sheet, table = tmp_path / "mine.toml", tmp_path / "rows.csv"
    write_skeleton(sheet)
    table.write_text(OWN_ROWS)

    def answers(*more):
        done = command("--from-csv", str(table), *more)
        assert done.returncode == 0, done.stderr
        return list(csv.DictReader(io.StringIO(done.stdout)))

    unknown = answers()
    assert [row["tier"] for row in unknown[:5]] == ["refused"] * 5
    rows = answers("--device-file", str(sheet))
    assert [row["tier"] for row in rows] == [*["spec-only"] * 4, "refused", "spec-only"]
    assert "sideways" in rows[4]["reason"]
    ms = [float(row["predicted_latency_ms"] or 0) for row in rows]
    assert ms[0] > ms[1] * 1.02
    assert ms[2] == ms[3]
    said = f"vit_base_patch16_siglip_gap_224:bs64:fp16:eager={64_000 / ms[0] / 1.2:.1f}"
    timed = answers("--device-file", str(sheet), "--anchor", said)
    assert [row["tier"] for row in timed[:2]] == ["calibrated"] * 2
    assert float(timed[0]["predicted_latency_ms"]) == pytest.approx(1.2 * ms[0], rel=0.05)
    # The timings say nothing of another device.
    assert timed[5] == rows[5]
    older = answers("--device-file", str(sheet), "--torch-version", "1.13")
    slower = [float(row["predicted_latency_ms"] or 0) for row in older]
    assert slower[1] > 1.1 * ms[1]
    assert command("--device", "l4", "--torch-version", "banana").returncode == 2
