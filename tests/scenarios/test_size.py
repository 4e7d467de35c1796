"""The command on real files: what it prints and stores, and how it refuses what is wrong."""

import csv
import io
import json
import re
import subprocess
import sys
import tomllib
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from domain.defaults import NO_QUANTITY, PARTS, origins
from domain.demand import Shift, Stage
from domain.hosts import CLASSES, usual_hosts
from domain.scenario import Host, Ownership, Plan, Site
from domain.store import load
from scenarios.reading import LIBRARY, SKELETON, read_asked, read_scenario
from scenarios.size import main
from tests.scenarios.commands import run

ROOT = Path(__file__).resolve().parents[2]
LIBRARY_FILES = sorted(LIBRARY.glob("*.toml"))

# One device in USD, and a promise that it keeps.
SMALL = """
name = "small"
title = "A small shop"
model = "morvit-inspection"
precision = "fp16"
runtime = "engine"
executor = "packed"
batch = 1
survival = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
devices = ["orin-nano-super"]

[demand]
cameras = 2
period_s = 1.0
arrivals = "poisson"

[promise]
p99_latency_s = 1.0

[site]
country = "USA"
currency = "USD"
energy_price_per_kwh = 0.1
"""


def test_a_power_cap_costs_time_and_one_that_cannot_be_kept_is_said(small, results):
    def fleet(watts):
        line = f"power_cap_w = {watts}\n" if watts else ""
        return size(small("batch = 1\n", f"batch = 1\n{line}"), "--format", "json")

    whole, held = (json.loads(fleet(watts).stdout)["options"][0] for watts in (None, 10))
    assert held["p99_latency_ms"] > whole["p99_latency_ms"]
    assert held["peak_power_w"] <= whole["peak_power_w"]
    refused = fleet(3)
    assert refused.returncode == 7
    assert "power cap of 3 W" in refused.stderr


def size(*arguments):
    return run(main, *arguments)


def test_the_command_starts_as_a_module_and_needs_no_torch(small, results):
    alone = "import sys, scenarios.size; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", alone], cwd=ROOT).returncode == 0
    run = subprocess.run(
        [sys.executable, "-m", "scenarios.size", str(small("p99_latency_s = 1.0", "p99 = 1"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"

    def written(old="", new=""):
        assert old in SMALL
        path.write_text(SMALL.replace(old, new) if old else SMALL + new)
        return path

    return written


@pytest.mark.parametrize("file", LIBRARY_FILES, ids=lambda path: path.stem)
def test_the_library_flows_to_a_purchase(file, results):
    run = size(file, "--format", "json")
    assert run.returncode == 0, run.stderr
    assert not run.stderr
    said = json.loads(run.stdout)
    rows = said["options"]
    assert said["inputs"] == len(said["assumptions"]) > said["defaults_used"] > 0
    assert {row["device_id"] for row in rows} == set(read_scenario(file).devices)
    plan = load(results / "plans" / f"{file.stem}.json", Plan)
    chosen = plan.chosen
    assert chosen is not None
    assert isinstance(chosen.ownership, Ownership)
    assert rows[0]["device_id"] == chosen.device_id
    assert Decimal(str(rows[0]["cost"])) == chosen.ownership.total
    if plan.scenario.demand.arrivals != "offline":
        # Two methods, one queue; the closed form is near them.
        seen_ms = rows[0]["simulated_p99_latency_ms"]
        assert seen_ms == pytest.approx(rows[0]["replayed_p99_latency_ms"], rel=0.15)
        assert 0.3 < seen_ms / rows[0]["p99_latency_ms"] < 1.05
        assert rows[0]["promise_probability"] >= plan.scenario.promise.confidence - 0.01
    costs = [row["cost"] for row in rows if row["cost"] is not None]
    assert costs == sorted(costs)


def test_every_field_is_in_the_skeleton_and_what_it_only_shows_is_the_default(tmp_path):
    bare = tmp_path / "bare.toml"
    bare.write_text(
        re.sub(r"(?m)^# (\w+ = )", r"\1", SKELETON.read_text()).replace('trace = ""', "")
    )
    fields, scenario = tomllib.loads(bare.read_text()), read_scenario(bare)
    # Shown as a comment (no value is the default of the last); made from the trace; only with one.
    elsewhere = {"shifts", "recording", "trace", "pue_workstation"}
    for part in PARTS:
        assert set(type(getattr(scenario, part)).model_fields) - set(fields[part]) <= elsewhere
    shown_only = {"[[demand.shifts]]": Shift, "[[stages]]": Stage}
    for table, noun in shown_only.items():
        _, _, below = SKELETON.read_text().partition(f"#   {table}\n")
        shown, _, _ = below.partition("\n#   [")
        assert all(f"#   {name} = " in shown for name in noun.model_fields)
    assert all(f" {name} = " in SKELETON.read_text() for name in Host.model_fields)
    assert scenario == read_scenario(SKELETON)


@pytest.mark.parametrize("file", LIBRARY_FILES, ids=lambda path: path.stem)
def test_every_line_of_the_library_is_explained(file):
    for before, line in pairwise(file.read_text().splitlines()):
        if " = " in line and not line.startswith("#"):
            assert "#" in line or before.startswith("#"), line


def test_every_default_has_a_unit_and_a_source():
    scenario = read_scenario(SKELETON)
    asked = {
        f"{part}.{name}"
        for part in PARTS
        for name, field in type(getattr(scenario, part)).model_fields.items()
        if not field.is_required() and f"{part}.{name}" not in NO_QUANTITY
    }
    hosts = {f"host.{name}" for name in Host.model_fields}
    assert asked | hosts | {"site.energy_price_per_kwh"} == set(origins())
    for name in CLASSES:
        for figure in usual_hosts()[name].values():
            assert figure.source
            assert figure.as_of


def test_each_class_of_devices_has_its_own_host_and_a_file_may_say_otherwise(small):
    usual = read_scenario(small()).hosts
    assert usual.dc_gpu.devices_per_host == 4
    assert usual.edge.price_usd == 0
    asked = read_asked(
        small("", "\n[host]\nprice_usd = 1\n[hosts.dc_gpu]\nprice_usd = 2\nunits = 3\n")
    )
    hosts = asked.scenario.hosts
    assert [hosts.of(name).price_usd for name in CLASSES] == [2, 1, 1, 0, 1]
    assert hosts.dc_gpu.power_w == usual.dc_gpu.power_w
    said = {each.field: each for each in asked.assumptions}
    assert said["hosts.edge.price_usd"].is_default
    assert "hosts.dc_gpu.price_usd" not in said, "no device of that class is asked about"


def test_yen_prices_are_exact_and_the_rate_is_dated():
    site = read_scenario(LIBRARY / "inspection-line.toml").site
    assert site.energy_price_per_kwh + site.energy_levy_per_kwh == Decimal("25.28")
    assert "not a quote" in site.currency_date


def test_the_country_gives_its_energy_price_levy_and_carbon():
    site = read_scenario(LIBRARY / "hospital-archive.toml").site
    assert (site.energy_price_per_kwh, site.energy_levy_per_kwh) == (
        Decimal("21.1"),
        Decimal("4.18"),
    )
    assert site.carbon_g_per_kwh == pytest.approx(485.392)
    assert site.pue_of("edge") == 1.1
    assert site.pue_of("dc_gpu") == site.pue_of("pro_gpu") == 1.6
    hall = Site(**{**dict(site), "pue_workstation": 1.0})
    assert [hall.pue_of(name) for name in ("edge", "pro_gpu", "dc_gpu")] == [1.1, 1.0, 1.6]


def test_what_was_left_out_is_listed_and_what_was_given_is_not(small):
    asked = read_asked(small("cameras = 2", "cameras = 2\nsites = 3"))
    said = {each.field: each for each in asked.assumptions}
    assert not said["demand.sites"].is_default
    assert (said["demand.sites"].value, said["demand.sites"].source) == ("3", "given")
    peak = said["demand.peak_factor"]
    assert (peak.value, peak.is_default) == ("2", True)
    assert peak.source
    assert peak.as_of


TRACE = "arrived_s,images\n0,1\n0.5,2\n1.5,1\n"


def test_a_recorded_trace_gives_its_own_rate(small, results, tmp_path):
    (tmp_path / "arrivals.csv").write_text(TRACE)
    path = small(
        'period_s = 1.0\narrivals = "poisson"', 'arrivals = "trace"\ntrace = "arrivals.csv"'
    )
    asked = read_asked(path)
    demand = asked.scenario.demand
    # Three bursts in 1.5 s and a mean gap after the last: four images in 2.25 s.
    assert demand.peak_img_per_s == pytest.approx(4 / 2.25)
    assert (demand.recording.largest_burst, demand.recording.images) == (2, 4)
    assert asked.recorded_s.tolist() == [0, 0.5, 0.5, 1.5]
    assert size(path).returncode == 0


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("", 6, "wanted the columns"),
        ("arrived_s\n", 6, "two instants"),
        ("arrived_s\n1\n1\n", 6, "two instants"),
        ("arrived_s\n2\n1\n", 6, "line 3"),
        ("arrived_s\n-1\n", 6, "line 2"),
        ("arrived_s\nnan\n", 6, "line 2"),
        ("arrived_s\n=1+1\n", 6, "no trace"),
        ("arrived_s,images\n1,0\n", 6, "count of images"),
        ("arrived_s,images\n1,9999999\n", 6, "count of images"),
        ("arrived_s,images\n1\n", 6, "2 cells"),
        (None, 6, "cannot read"),
    ],
)
def test_a_wrong_trace_is_one_sentence(content, code, words, small, results, tmp_path):
    if content is not None:
        (tmp_path / "arrivals.csv").write_text(content)
    run = size(
        small('period_s = 1.0\narrivals = "poisson"', 'arrivals = "trace"\ntrace = "arrivals.csv"')
    )
    assert run.returncode == code, run.stderr
    assert words in run.stderr
    assert run.stderr.count("\n") == 1


def test_people_get_a_table_with_its_assumptions(results, small):
    run = size(small())
    assert run.returncode == 0, run.stderr
    for words in (
        "orin-nano-super",
        "utilisation",
        "full depth",
        "inputs are defaults",
        "PUE 1.1",
        "simulated",
    ):
        assert words in run.stdout


def test_csv_goes_to_a_file_whole(results, small, tmp_path):
    output = tmp_path / "out.csv"
    run = size(small(), "--format", "csv", "--output", output)
    assert run.returncode == 0, run.stderr
    assert not run.stdout
    rows = list(csv.DictReader(io.StringIO(output.read_text())))
    assert [row["device_id"] for row in rows] == ["orin-nano-super"]
    assert float(rows[0]["cost_low"]) < float(rows[0]["cost"]) < float(rows[0]["cost_high"])


def test_a_price_of_ones_own_is_used(results, small):
    run = size(small(), "--format", "json", "--price-usd", "orin-nano-super=1")
    rows = json.loads(run.stdout)["options"]
    plan = load(results / "plans" / "small.json", Plan)
    assert plan.options[0].ownership.lines[0].amount == rows[0]["devices"]


def test_a_promise_that_nothing_keeps_is_exit_7_and_the_reasons_are_shown(results, small):
    run = size(small("p99_latency_s = 1.0", "p99_latency_s = 1e-6"))
    assert run.returncode == 7
    assert "orin-nano-super" in run.stdout
    assert run.stderr.count("\n") == 1
    assert "no device keeps the promise" in run.stderr
    assert load(results / "plans" / "small.json", Plan).chosen is None


def test_a_device_without_a_price_keeps_its_promise_and_says_what_is_missing(results, small):
    run = size(small('["orin-nano-super"]', '["a100-sxm-40"]'))
    assert run.returncode == 0, run.stderr
    assert "no price known" in run.stdout
    assert "--price-usd" in run.stdout


def test_the_skeleton_is_printed_or_written_once_and_runs(results, tmp_path):
    assert size("--init").stdout == SKELETON.read_text()
    mine = tmp_path / "mine.toml"
    assert size(mine, "--init").returncode == 0
    assert read_scenario(mine).name == "inspection-line"
    mine.write_text("mine")
    again = size(mine, "--init")
    assert again.returncode == 2
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("", "\nwatts = 3\n", 2, "site.watts"),
        ("cameras = 2", "cameras = 2\nspeed = 1", 2, "demand.speed"),
        ("period_s = 1.0", "period_s = nan", 2, "demand.period_s"),
        ("period_s = 1.0", "period_s = inf", 2, "demand.period_s"),
        ("period_s = 1.0", "period_s = -1.0", 2, "demand.period_s"),
        ("period_s = 1.0", 'period_s = "1"', 2, "demand.period_s"),
        ("period_s = 1.0", "period_s = 2026-11-23", 2, "demand.period_s"),
        ("cameras = 2", "cameras = 2.5", 2, "demand.cameras"),
        ("cameras = 2", "cameras = true", 2, "demand.cameras"),
        ("cameras = 2", "cameras = 99999999999999999999", 2, "demand.cameras"),
        ("cameras = 2", f"cameras = {'9' * 5000}", 6, "no TOML"),
        ("cameras = 2\n", "", 2, "demand.cameras"),
        ("batch = 1", "batch = 10000000", 2, "batch"),
        ("per_kwh = 0.1", "per_kwh = -0.1", 2, "site.energy_price_per_kwh"),
        ("per_kwh = 0.1", "per_kwh = nan", 2, "site.energy_price_per_kwh"),
        ("per_kwh = 0.1", "per_kwh = 0.1\npue = 0.9", 2, "site.pue"),
        ('"USD"', '"JPY"', 2, "currency_date"),
        ('"USD"', '"USD"\ncurrency_per_usd = 2', 2, "currency_per_usd"),
        ('name = "small"', 'name = "../small"', 2, "name"),
        ('"morvit-inspection"', '"resnet50"', 2, "unknown model"),
        ('"orin-nano-super"', '"quantum-9000"', 2, "unknown device"),
        ('["orin-nano-super"]', "[]", 2, "devices"),
        ('["orin-nano-super"]', '["l4", "l4"]', 2, "devices"),
        ("survival = [1.0, 0.9,", "survival = [0.9,", 2, "10 recursions"),
        ("0.9, 0.8, 0.7", "0.7, 0.8, 0.9", 2, "never rises"),
        ("cameras = 2", "cameras = 2\nspeed = 1", 2, "small.toml:14: "),
        ("p99_latency_s = 1.0", "p99_latency_s = 0.0", 2, "small.toml:18: "),
        ('"poisson"', '"trace"', 2, "trace"),
        ('"poisson"', '"trace"\ntrace = "../secret.csv"', 2, "beside the scenario"),
        ('"poisson"', '"trace"\ntrace = "/etc/passwd"', 2, "beside the scenario"),
        ('"poisson"', '"takt"\npeak_factor = 2.0', 2, "peak_factor"),
        ('"poisson"', '"poisson"\nclosed_days_per_year = 5', 2, "closed_days_per_year"),
        ('"poisson"', '"poisson"\ngrowth_per_year = -1', 2, "growth_per_year"),
        ("period_s = 1.0", "period_s = 1e-300", 2, "1e15 images"),
        ('country = "USA"', 'country = "XXX"', 2, "site.country"),
        ("energy_price_per_kwh = 0.1", "", 0, ""),
        ('country = "USA"\n', 'country = "AFG"\n', 0, ""),
        ("per_kwh = 0.1", "per_kwh = 0.1\nrack_units = 0", 2, "rack_units"),
        ("", "\n[finance]\ntax_rate = 0.2\ndepreciation = 'macrs'\nlife_years = 4\n", 2, "MACRS"),
        ("", "\n[[stages]]\nname = 'a'\nfrom_year = 2\ncameras = 1\n", 2, "from_year"),
        ("", "\n[[stages]]\nname = 'a'\nfrom_year = 1\ncameras = 1\n", 0, ""),
        ("", "\n[routing]\ncorruption = 2\n", 2, "routing.corruption"),
        ("", "\na." + "b." * 40 + "c = 1\n", 6, "nested deeper"),
        ("", "\n[host]\nwatts = 3\n", 2, "host.watts"),
        ("", "\n[hosts.gpu]\npower_w = 3\n", 2, "hosts.gpu"),
        ("", "\n[hosts]\ncpu = 3\n", 2, "hosts.cpu"),
        ("batch = 1", "batch = 1\nhost = 3", 2, "[host]"),
        ("[demand]", "[demand", 6, "no TOML"),
        ("[demand]", "a = " + "[" * 5000 + "\n[demand]", 6, "no TOML"),
        ("[promise]", "[demand]", 6, "no TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_file_line_and_field(
    old, new, code, words, small, results
):
    path = small(old, new)
    run = size(path)
    assert run.returncode == code, run.stderr
    if code == 0:
        return
    assert words in run.stderr
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
    assert len(run.stderr) < 600
    assert not run.stdout
    assert not (results / "plans").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"#" * 2 * 2**20, "larger than"), (b"\xff\xfe", "UTF-8"), (None, "cannot read")],
)
def test_a_file_that_is_no_text_of_ours_is_exit_6(content, words, tmp_path, results):
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_bytes(content)
    run = size(path)
    assert run.returncode == 6
    assert words in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "wanted a scenario file"),
        (("--format", "xml"), "unknown format"),
        (("--price-usd", "l4=1"), "no device of the scenario"),
        (("--price-usd", "orin-nano-super"), "DEVICE=AMOUNT"),
        (("--price-usd", "orin-nano-super=nan"), "positive amount"),
    ],
)
def test_wrong_arguments_leave_an_old_output_alone(arguments, words, small, results, tmp_path):
    output = tmp_path / "old.txt"
    output.write_text("old")
    file = (small(),) if arguments else ()
    run = size(*file, *arguments, "--output", output)
    assert run.returncode == 2
    assert words in run.stderr
    assert output.read_text() == "old"
