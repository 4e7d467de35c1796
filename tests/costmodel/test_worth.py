"""Timings that are worth taking narrow the interval, the most telling first."""

import json
import subprocess
import sys
from itertools import pairwise

import pytest

from costmodel.own import Timing, fits_with
from costmodel.reach import device_of, reach_of
from costmodel.transfer import forecast
from costmodel.worth import plan_of, worth_of_timings
from domain.catalogue import devices, model_named
from domain.measurement import MeasuringPlan
from domain.prediction import Prediction, Refusal
from domain.routing import RoutingDistribution
from domain.store import load, stored_fits
from domain.workload import Workload

FITS = stored_fits()
NET = model_named("morvit-small")
ASKED = Workload(
    architecture=NET,
    batch=32,
    precision="fp16",
    routing=RoutingDistribution.from_survival((1, 0.6, 0.3), NET.tokens),
)


def test_each_timing_narrows_and_none_is_taken_twice():
    worth = worth_of_timings(ASKED, devices()["l4"], FITS, 4)
    assert len(worth.timings) == 4
    assert len({work.key() for work in worth.timings}) == 4
    assert ASKED not in worth.timings
    assert all(later <= earlier * 1.001 for earlier, later in pairwise(worth.half_widths))
    assert worth.half_widths[-1] < worth.half_widths[0] / 2


def test_what_cannot_be_predicted_is_worth_no_timing():
    half = Workload(**{**dict(ASKED), "precision": "bf16"})
    assert isinstance(worth_of_timings(half, devices()["t4"], FITS, 2), Refusal)


def test_the_plan_asks_for_what_was_chosen(tmp_path):
    path = tmp_path / "plan.json"
    done = subprocess.run(
        [
            sys.executable, "-m", "costmodel.predict", "--device", "l4", "--worth", "3",
            "--plan", str(path), "--batch", "32", "--routing", "1,0.6,0.3", "--format", "json",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    plan = load(path, MeasuringPlan)
    assert [point.batch for point in plan.points] == [row["batch"] for row in rows[1:]]
    worth = worth_of_timings(ASKED, devices()["l4"], FITS, 3)
    assert plan == plan_of(worth)


@pytest.mark.parametrize(
    ("device", "changed"),
    [
        ("l4", {}),
        ("a100-sxm-80", {"batch": 8}),
        ("orin-nano-super", {"batch": 1}),
        ("rtx4090", {"precision": "fp32"}),
    ],
)
def test_a_timing_is_worth_what_the_prediction_then_says(device, changed):
    asked, spec = Workload(**{**dict(ASKED), **changed}), devices()[device]
    worth = worth_of_timings(asked, spec, FITS, 3)
    assert worth.half_widths[0] == pytest.approx(half_width(asked, spec, FITS))
    # What was told of any of them before holds once they are taken, whatever else they show.
    for taken in range(1, len(worth.timings) + 1):
        timings = [
            Timing(workload=each, seconds=expected_s(each, spec)) for each in worth.timings[:taken]
        ]
        after = half_width(asked, spec, fits_with(timings, spec, FITS))
        assert after == pytest.approx(worth.half_widths[taken], rel=0.02)


@pytest.mark.parametrize(
    "fit", [each for each in FITS if each.scope == "machine"], ids=lambda fit: fit.name
)
def test_a_measured_machine_is_asked_where_it_was_not_measured(fit):
    spec, net = device_of(fit), model_named("morvit-small")
    far = Workload(
        architecture=net,
        batch=128,
        precision="fp32",
        routing=RoutingDistribution.from_survival((1, 0.6, 0.3), net.tokens),
    )
    worth = worth_of_timings(far, spec, FITS, 2)
    assert worth.half_widths[0] == pytest.approx(half_width(far, spec, FITS))
    # Nothing assumed is left of a width for batches that nobody had measured: a quarter of it at least.
    assert worth.timings[0].batch > 32
    assert worth.half_widths[1] < 0.75 * worth.half_widths[0]


def test_only_what_fits_in_memory_is_worth_a_timing():
    spec = devices()["l4"]
    small = spec.model_copy(
        update={"memory_bytes": spec.memory_bytes.model_copy(update={"value": 0.5e9})}
    )
    asked = Workload(**{**dict(ASKED), "batch": 1})
    everywhere, worth = (worth_of_timings(asked, each, FITS, 30) for each in (spec, small))
    assert max(each.batch for each in worth.timings) < 32
    assert max(each.batch for each in everywhere.timings) >= 32
    assert all(isinstance(forecast(each, small, FITS), Prediction) for each in worth.timings)


def half_width(workload, device, fits):
    latency = forecast(workload, device, fits).latency_s
    return (latency.high - latency.low) / (2 * latency.value)


def expected_s(workload, device):
    """What the equations alone say: what neighbours share does not narrow coefficients."""
    reach = reach_of(workload, device, FITS)
    bare = reach.fit.model_copy(update={"discrepancy": None})
    return forecast(workload, device, [bare]).latency_s.value
