import contextlib
import subprocess
import sys
import time
import tomllib
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import catalogue
from domain.catalogue import (
    check_executor,
    check_precision,
    check_runtime,
    cloud_prices,
    commitment_discounts,
    device_reported_as,
    devices,
    energy,
    model_named,
    plain_vit_rows,
    plain_vits,
    presets,
    published,
    refused_vits,
    resolve_device,
)
from domain.complaint import Complaint, CorruptFile
from domain.device import DeviceSpec
from domain.record import Figure, Unknown

ALIASES = tomllib.loads((catalogue.FOLDER / "aliases.toml").read_text())


def figures_of(device: DeviceSpec) -> dict[str, Figure | Unknown]:
    single = {
        name: value
        for name in type(device).model_fields
        if isinstance(value := getattr(device, name), Figure | Unknown)
    }
    return {**single, **{f"peak {name}": each for name, each in device.peak_flop_per_s.items()}}


def test_forty_one_devices_of_five_classes_are_known():
    assert len(devices()) == 41
    assert {device.device_class for device in devices().values()} == {
        "dc_gpu",
        "consumer_gpu",
        "pro_gpu",
        "edge",
        "cpu",
    }


@pytest.mark.parametrize("id", devices())
def test_every_figure_is_positive_with_source_and_date_or_says_why_it_is_missing(id):
    for name, figure in figures_of(devices()[id]).items():
        if isinstance(figure, Unknown):
            assert figure.reason, name
        else:
            assert figure.value > 0, name
            assert figure.source, name
            assert figure.read_on >= "2026-01-01", name


@pytest.mark.parametrize("id", devices())
def test_idle_power_is_below_the_limit_and_never_sold_as_checked(id):
    device = devices()[id]
    if isinstance(device.idle_w, Figure) and isinstance(device.power_limit_w, Figure):
        assert device.idle_w.value < device.power_limit_w.value
        assert device.idle_w.confidence == "C"


# Half-precision FLOP per clock of one multiprocessor, by family.
PER_CLOCK = {
    "Volta": 1024,
    "Turing": 1024,
    "Ampere GA102": 1024,
    "Ampere GA104": 1024,
    "Ada": 1024,
    "Blackwell GB202": 1024,
    "Ampere GA100": 2048,
    "Ampere GA10B": 2048,
    "Hopper": 4096,
}
# GeForce halves its rate when it accumulates in fp32; an A10G is half an A10.
HALVED = {"rtx3090", "rtx4090", "rtx5090", "a10g"}
# Hopper's tensor peak is quoted at a clock of its own.
TENSOR_HZ = {
    "h100-sxm-80": 1.83e9,
    "h200-sxm-141": 1.83e9,
    "h100-pcie-80": 1.62e9,
    "h100-nvl-94": 1.62e9,
}
# Thor's clock is not settled: its sources disagree.
UNSETTLED = {"jetson-thor-t5000"}


@pytest.mark.parametrize(
    "id",
    [
        id
        for id, device in devices().items()
        if device.device_class != "cpu" and id not in UNSETTLED
    ],
)
def test_the_dense_half_precision_peak_is_units_times_rate_times_clock(id):
    device = devices()[id]
    rate = next(each for family, each in PER_CLOCK.items() if device.family.startswith(family))
    assert device.boost_hz is not None
    assert device.parallel_units is not None
    clock_hz = TENSOR_HZ.get(id, device.boost_hz.value)
    wanted = device.parallel_units * rate * clock_hz / (2 if id in HALVED else 1)
    assert device.peak_for("fp16").value == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("id", devices())
def test_a_narrower_precision_is_never_slower(id):
    peaks = devices()[id].peak_flop_per_s
    known = [peaks[each].value for each in ("fp32", "tf32", "fp16", "int8") if each in peaks]
    if id not in ("v100-pcie-16", "v100-sxm2-32"):  # no int8 tensor units
        assert known == sorted(known)


def test_a_precision_without_a_peak_is_refused_with_the_list():
    with pytest.raises(ValueError, match="no dense peak for bf16 on NVIDIA T4; the catalogue has"):
        devices()["t4"].peak_for("bf16")
    assert devices()["t4"].peak_for("amp_fp16") == devices()["t4"].peak_for("fp16")


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_points_to_devices_or_says_why_not(alias):
    assert alias not in devices()
    if "device" not in ALIASES[alias]:
        with pytest.raises(Complaint, match="does not say which device"):
            resolve_device(alias)
        return
    resolved = resolve_device(alias)
    assert resolved.device.id == ALIASES[alias]["device"]
    assert set(resolved.others) <= set(devices()) - {resolved.device.id}
    assert bool(resolved.note) == bool(resolved.others)


@pytest.mark.parametrize("id", devices())
def test_every_id_resolves_to_itself_however_it_is_typed(id):
    for typed in (id, id.upper(), id.replace("-", "_"), f"  {id} "):
        assert resolve_device(typed).device is devices()[id]


@pytest.mark.parametrize(
    ("typed", "id"),
    [
        ("jetson-orin", "agx-orin-64"),
        ("Ａ１００", "a100-sxm-80"),
        ("RTX 4090", "rtx4090"),
        ("Orin_Nano", "orin-nano-super"),
        ("epyc", "epyc-9654"),
    ],
)
def test_names_as_people_type_them(typed, id):
    assert resolve_device(typed).device.id == id


def test_an_unknown_device_is_refused_with_the_nearest_names():
    with pytest.raises(
        Complaint, match=r"unknown device 'jetson-oron'; nearest: jetson-orin"
    ) as it:
        resolve_device("jetson-oron")
    assert it.value.exit_code == 2
    assert "--list-devices" in str(it.value)
    with pytest.raises(Complaint, match="make profile DEVICE=cpu"):
        resolve_device("cpu")


@given(st.text(max_size=30))
def test_any_name_gives_a_device_or_a_complaint(name):
    for ask in (resolve_device, model_named, energy, check_precision):
        with contextlib.suppress(Complaint):
            ask(name)


@pytest.mark.parametrize(
    ("driver_name", "id"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A10G", "a10g"),
        ("Tesla T4", "t4"),
        ("NVIDIA H200", "h200-sxm-141"),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("Orin", None),
        ("", None),
    ],
)
def test_a_driver_name_means_one_device_or_none(driver_name, id):
    found = device_reported_as(driver_name)
    assert (found.id if found else None) == id


def test_no_driver_name_ends_like_another():
    names = [each.nvml_name for each in devices().values() if each.nvml_name]
    for one in names:
        assert [other for other in names if one.endswith(other)] == [one]


@pytest.mark.parametrize("name", plain_vits())
def test_a_plain_vit_has_the_parameters_that_timm_counts(name):
    row = plain_vit_rows()[name]
    assert row.architecture.name == name
    assert row.architecture.parameters == row.parameters
    assert row.architecture.is_routed is False
    assert row.has_exact_work == (not row.caveat)
    if row.pool == "map":
        assert not row.has_exact_work


def test_every_name_is_either_known_or_refused():
    assert len(plain_vits()) == 154
    assert len(refused_vits()) == 25
    assert not plain_vits().keys() & refused_vits().keys()


@pytest.mark.parametrize("name", refused_vits())
def test_a_refused_network_says_why(name):
    with pytest.raises(Complaint, match="can not be predicted: "):
        model_named(name)


@pytest.mark.parametrize(
    ("name", "depth", "width", "tokens"),
    [
        ("morvit-tiny", 11, 192, 197),
        ("morvit-small", 11, 384, 197),
        ("morvit-base", 11, 768, 197),
        ("morvit-small-r10", 12, 384, 197),
        ("morvit-small-r5", 12, 384, 197),
        ("morvit-fmnist", 8, 96, 50),
        ("morvit-inspection", 12, 128, 197),
    ],
)
def test_a_preset_has_its_shape(name, depth, width, tokens):
    preset = presets()[name]
    assert (preset.effective_depth, preset.width, preset.tokens) == (depth, width, tokens)
    assert preset.is_routed
    assert preset.mlp_width == 4 * preset.width


def test_a_model_is_named_as_people_write_it():
    plain = plain_vits()["vit_base_patch16_224"]
    for typed in ("vit_base_patch16_224.augreg_in21k", "ViT-Base-Patch16-224"):
        assert model_named(typed) == plain
    assert model_named("morvit_tiny") == presets()["morvit-tiny"]
    assert model_named("vit_base_patch16_224", image_size=384).tokens == 577
    assert len(presets()) == 7


@pytest.mark.parametrize("image_size", [250, 0, -16, 8])
def test_an_image_size_that_is_no_multiple_of_the_patch_is_refused(image_size):
    with pytest.raises(Complaint, match="multiples of 16"):
        model_named("vit_base_patch16_224", image_size=image_size)


def test_an_unknown_model_is_refused_with_the_nearest_names():
    with pytest.raises(Complaint, match="nearest: vit_base_patch16_224"):
        model_named("vit_bas_patch16_224")
    with pytest.raises(Complaint, match="nearest: morvit-small"):
        model_named("morvit-smal")


@pytest.mark.parametrize(
    ("check", "good", "typed"),
    [
        (check_precision, "amp_bf16", "AMP-BF16"),
        (check_runtime, "onnxruntime", "ONNXRuntime"),
        (check_executor, "packed", "packed"),
    ],
)
def test_choices_are_checked_with_the_list(check, good, typed):
    assert check(typed) == good
    with pytest.raises(Complaint, match=f"unknown .* 'nonsense'; one of .*{good}"):
        check("nonsense")


def test_japan_has_its_price_in_yen_and_its_carbon():
    japan = energy("JPN")
    assert japan == energy("japan")
    assert (japan.price_per_kwh, japan.currency) == (Decimal("21.1"), "JPY")
    assert japan.carbon_g_per_kwh == pytest.approx(485.392)
    assert isinstance(energy("ABW").price_per_kwh, Unknown)
    with pytest.raises(Complaint, match="unknown country 'Atlantis'"):
        energy("Atlantis")


def test_cloud_prices_are_dated_decimals_of_whole_devices():
    prices = cloud_prices()
    assert len(prices) == 65
    for price in prices:
        assert price.on_demand_usd_per_h > 0
        assert price.as_of.startswith("202")
        assert price.source
        if price.device_id is not None:
            device = devices()[price.device_id]
            assert price.gpu_count >= 1
            assert isinstance(device.memory_bytes, Figure)
            assert device.memory_bytes.value == price.gpu_memory_bytes


def test_commitment_discounts_are_shares():
    for row in commitment_discounts():
        assert isinstance(row.one_year_no_upfront, float)
        assert 0 < row.one_year_no_upfront < 1


def test_published_rows_are_of_known_networks_on_known_devices():
    assert len(published()) == 3238
    for row in published():
        assert row.device_id in devices()
        assert row.licence
        assert row.source_commit
        if row.seq_len is None:
            model = model_named(row.as_model or row.model, row.image_size)
            assert model.recursions == 1
        else:
            assert row.model in ("bert_base_encoder", "bert_large_encoder")


def test_published_latency_and_throughput_agree():
    for row in published():
        if row.latency_s is not None and row.batch is not None:
            came = row.batch / row.latency_s
            assert came == pytest.approx(row.throughput_img_per_s, rel=0.03)


# A damaged or hostile cell, and where the complaint must point.


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"name\nvit_x\n", ":1: wanted the columns"),
        (b"", ":1: wanted the columns"),
        (b"name,reason\nvit_x\n", ":2: wanted 2 cells, got 1"),
        (b"name,reason\nvit_x,a,b\n", ":2: wanted 2 cells, got 3"),
        (b"name,reason\nvit_x,a\nvit_y,\x1b[31m\n", ":3:reason: wanted printable text"),
        (b"name,reason\nvit_x, a\n", ":2:reason: wanted printable text"),
        (b'name,reason\nvit_x,"a\n', ":"),
        (b'name,reason\n"vit"x,a\n', ":2: "),
        (b"name,reason\nvit_x,\xff\n", "is no UTF-8 text"),
        (b"name,reason\nvit_x," + b"a" * 200_000 + b"\n", ":"),
    ],
)
def test_a_damaged_table_is_refused_with_its_place(tmp_path, monkeypatch, content, place):
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    (tmp_path / "plain_vits_refused.csv").write_bytes(content)
    with pytest.raises(CorruptFile) as caught:
        refused_vits.__wrapped__()
    assert place in str(caught.value)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("carbon_gco2_kwh", "nan", "wanted a decimal number, got 'nan'"),
        ("carbon_gco2_kwh", "1e999", "wanted a decimal number"),
        ("carbon_gco2_kwh", "-1", "carbon_g_per_kwh: "),
        ("carbon_year", "２０２３", "wanted a whole number"),
        ("carbon_year", "2_023", "wanted a whole number"),
        ("elec_price", "=1+1", "wanted an amount of zero or more"),
        ("elec_price", "Infinity", "wanted an amount of zero or more"),
        ("conf", "Z", "confidence: "),
    ],
)
def test_a_hostile_cell_is_refused_with_file_and_line(tmp_path, monkeypatch, column, cell, message):
    header, japan = [
        line
        for line in (catalogue.FOLDER / "energy.csv").read_text().splitlines()
        if line.startswith(("iso3", "FRA"))
    ]
    cells = dict(zip(header.split(","), japan.split(","), strict=True))
    cells[column] = cell
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    (tmp_path / "energy.csv").write_text(f"{header}\n{','.join(cells.values())}\n")
    with pytest.raises(CorruptFile) as caught:
        catalogue._energy.__wrapped__()
    assert "energy.csv:2:" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"[morvit\n",
        b"morvit = 1\n",
        b"[morvit]\nimage_size = '224'\n",
        b"[morvit]\nimage_size = 224\n",
        b"[morvit]\nimage_size = inf\n",
        b"[morvit]\nimage_size = 1\n[morvit]\n",
        b"[morvit]\nx = " + b"[" * 5000,
        b"\xff",
    ],
)
def test_a_damaged_block_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    (tmp_path / "presets.toml").write_bytes(content)
    with pytest.raises(CorruptFile, match=r"presets\.toml"):
        presets.__wrapped__()


def test_the_first_device_is_resolved_in_well_under_a_second():
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "from domain.catalogue import *; resolve_device('a100')"],
        check=True,
        cwd=Path(catalogue.__file__).parent.parent,
    )
    # Alone on a core it takes a quarter of a second; the bound leaves room for a busy machine.
    assert time.perf_counter() - began < 3
