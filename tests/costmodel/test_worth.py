"""Timings that are worth taking narrow the interval, the most telling first."""

import json
import subprocess
import sys
from itertools import pairwise

from costmodel.worth import plan_of, worth_of_timings
from domain.catalogue import devices, model_named
from domain.measurement import MeasuringPlan
from domain.prediction import Refusal
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
