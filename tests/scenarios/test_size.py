"""The command on real files: what it prints and stores, and how it refuses what is wrong."""

import csv
import io
import json
import subprocess
import sys
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pytest

from domain.scenario import Ownership, Plan
from domain.store import load, reference_root
from scenarios.reading import LIBRARY, SKELETON, read_scenario
from scenarios.size import main

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


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder of its own that has the committed reference."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "reference").symlink_to(reference_root())
    monkeypatch.setenv("MORSIZER_RESULTS", str(folder))
    return folder


@dataclass(frozen=True)
class Run:
    returncode: int
    stdout: str
    stderr: str


def size(*arguments):
    """The command in this process: what it wrote where, and how it ended."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["size", *map(str, arguments)]),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Run(ended.value.code or 0, stdout.getvalue(), stderr.getvalue())


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
    rows = json.loads(run.stdout)
    assert {row["device_id"] for row in rows} == set(read_scenario(file).devices)
    plan = load(results / "plans" / f"{file.stem}.json", Plan)
    chosen = plan.chosen
    assert chosen is not None
    assert isinstance(chosen.ownership, Ownership)
    assert rows[0]["device_id"] == chosen.device_id
    assert Decimal(str(rows[0]["cost"])) == chosen.ownership.total
    # The closed form bounds what the simulation saw, and is near it.
    assert 0.5 < rows[0]["simulated_p99_latency_ms"] / rows[0]["p99_latency_ms"] < 1.05
    costs = [row["cost"] for row in rows if row["cost"] is not None]
    assert costs == sorted(costs)


@pytest.mark.parametrize("file", LIBRARY_FILES, ids=lambda path: path.stem)
def test_every_field_of_the_library_is_there_and_explained(file):
    fields = tomllib.loads(file.read_text())
    scenario = read_scenario(file)
    rate = {"currency_per_usd", "currency_date"} if scenario.site.currency == "USD" else set()
    for part in ("demand", "promise", "site", "finance"):
        assert set(type(getattr(scenario, part)).model_fields) - set(fields[part]) <= rate
    lines = file.read_text().splitlines()
    for before, line in pairwise(lines):
        if " = " in line and not line.startswith("#"):
            assert "#" in line or before.startswith("#"), line


def test_yen_prices_are_exact_and_the_rate_is_dated():
    site = read_scenario(LIBRARY / "inspection-line.toml").site
    assert site.energy_price_per_kwh == Decimal("21.1") + Decimal("4.18")
    assert "not a quote" in site.currency_date


def test_people_get_a_table_with_its_assumptions(results, small):
    run = size(small())
    assert run.returncode == 0, run.stderr
    for words in ("orin-nano-super", "utilisation", "full depth", "PUE 1.6 (default)", "simulated"):
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
    rows = json.loads(size(small(), "--format", "json", "--price-usd", "orin-nano-super=1").stdout)
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
        ("[demand]", "[demand", 6, "no TOML"),
        ("[demand]", "a = " + "[" * 5000 + "\n[demand]", 6, "no TOML"),
        ("[promise]", "[demand]", 6, "no TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_file_and_field(old, new, code, words, small, results):
    path = small(old, new)
    run = size(path)
    assert run.returncode == code, run.stderr
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
