"""The paired verdict under recorded noise, on pairs whose noise is known."""

import numpy as np
import pytest

from domain.complaint import Complaint
from domain.measurement import Measurement
from profiler.swaps import recorded_pairs, swapped
from tests.profiler.sessions import session

POINTS = "abcdefghijkl"


def pairs(common_sd: float, own_sd: float, runs: int = 5) -> tuple[Measurement, ...]:
    """Points measured twice in every run: a spread that a run's points share, and one of each."""
    random = np.random.default_rng(5)
    common = random.normal(0.0, common_sd, runs)
    values = {}
    for point in POINTS:
        for side in "ab":
            values[f"{point}-{side}"] = (common + random.normal(0.0, own_sd, runs)).tolist()
    return tuple(
        Measurement(**{**dict(each), "workload": alike(values, each)}) for each in session(values)
    )


def alike(values: dict[str, list[float]], each: Measurement) -> object:
    """Both sides run the same thing; points differ."""
    number = POINTS.index(each.point[0]) + 1
    work = each.workload
    routing = type(work.routing)(tokens=17, counts=((17, number, 1), (17, number, 0)))
    return type(work)(**{**dict(work), "routing": routing})


def test_what_a_run_does_to_all_of_its_points_hides_no_slowdown():
    recorded = pairs(common_sd=0.1, own_sd=0.01)
    assert swapped(recorded, pairs=60).rate <= 0.05
    assert swapped(recorded, pairs=60, slowdown=0.05).rate >= 0.9


def test_what_it_does_to_one_side_does_hide_it():
    assert swapped(pairs(common_sd=0.0, own_sd=0.06), pairs=60, slowdown=0.05).rate < 0.9


def test_a_side_that_was_slower_by_lot_is_no_slower_on_the_whole():
    verdicts = swapped(pairs(common_sd=0.02, own_sd=0.02), pairs=120)
    assert abs(verdicts.share("SLOWER") - verdicts.share("FASTER")) <= 0.05


def test_a_trial_is_the_same_again_for_the_same_seed_and_counts_every_pair():
    recorded = pairs(common_sd=0.05, own_sd=0.01)
    assert swapped(recorded, pairs=13, seed=2) == swapped(recorded, pairs=13, seed=2)
    assert sum(count for _, count in swapped(recorded, pairs=13).counts) == 13


def test_a_point_with_too_few_runs_on_both_sides_is_no_pair():
    assert len(recorded_pairs(pairs(0.0, 0.01, runs=3))) == len(POINTS)
    assert recorded_pairs(pairs(0.0, 0.01, runs=2)) == ()


def test_a_session_without_pairs_is_refused():
    with pytest.raises(Complaint, match="as <name>-a and <name>-b"):
        swapped(session({"a": [0.0] * 5}))
