"""The verdict under recorded noise: 200 pairs of sessions made from the reference journal."""

import numpy as np
import pytest

from domain.complaint import Complaint
from domain.store import read_journal, reference_journal
from profiler.trials import Noise, false_alarms, found, replayed
from tests.profiler.sessions import noisy, record, session

RECORDS = read_journal(reference_journal())


@pytest.mark.slow
def test_the_same_thing_twice_is_called_different_in_5_percent_at_most():
    trial = false_alarms(RECORDS, pairs=200)
    assert trial.runs == 5
    assert trial.rate <= 0.05


@pytest.mark.slow
def test_more_runs_find_more_of_the_slowdowns_that_recorded_noise_hides():
    """Five runs as noisy as the recorded ones are not enough (see results/reference/selftest.json)."""
    few, many = (found(RECORDS, runs=runs, pairs=60) for runs in (5, 30))
    assert few.rate < many.rate


@pytest.mark.parametrize("slowdown", [0.0, 0.05])
def test_quiet_noise_meets_both_bars_with_five_runs(slowdown):
    quiet = session(noisy(11, 0.01, points="abcdefghijkl", runs=3))
    trial = found(quiet, slowdown=slowdown, pairs=60) if slowdown else false_alarms(quiet, pairs=60)
    assert trial.rate >= 0.9 if slowdown else trial.rate <= 0.05


def test_a_replay_keeps_the_series_and_its_distance_from_the_level():
    noise = Noise(samples=(1.1, 1.2, 1.3), kernels=(1.0, 0.9, 1.1))
    seen = replayed(record(), noise, level_s=0.01, kernel_s=0.002, run=4)
    assert seen.run == 4
    assert seen.samples_s[:4] == pytest.approx((0.011, 0.012, 0.013, 0.011))
    assert seen.calibration_s[:4] == pytest.approx((0.002, 0.0018, 0.0022, 0.002))
    twice = replayed(record(), noise, level_s=0.02, kernel_s=0.002, run=4)
    assert np.divide(twice.samples_s[:3], seen.samples_s[:3]) == pytest.approx(2.0)


def test_a_trial_is_the_same_again_for_the_same_seed():
    quiet = session(noisy(11, 0.01, points="abcdefghijkl", runs=3))
    assert false_alarms(quiet, pairs=12, seed=3) == false_alarms(quiet, pairs=12, seed=3)
    assert sum(count for _, count in false_alarms(quiet, pairs=13).counts) == 13


def test_too_few_runs_to_draw_from_are_refused():
    with pytest.raises(Complaint, match="wanted 15 usable runs"):
        false_alarms(session({"a": [0.0] * 5}))
