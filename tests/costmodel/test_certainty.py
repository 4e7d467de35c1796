"""How sure a fit is: surer where it was measured, never surer by knowing less."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.accuracy import scores_of
from costmodel.calibration import (
    class_of_machine,
    fit_machine,
    held_out_predictions,
    predictions_without,
)
from costmodel.certainty import STAGE_LOG_SD, WHOLE_LOG_SD, Stages, stages_of
from costmodel.discrepancy import FEATURES, LOG_SD, covariance_of, discrepancy_of
from costmodel.points import configuration_of, machine_of, setting_of, usable_points
from costmodel.reach import device_of
from costmodel.regression import spread_of
from costmodel.transfer import EXTRAPOLATION_LOG_SD, JUDGED_UP_TO, NORMAL_90, forecast
from costmodel.work import groups_of
from domain.fit import Discrepancy, Fit
from tests.costmodel.machines import journal_of, workload

HERE = (0.0,) * len(FEATURES)
FAR = (9.0,) * len(FEATURES)


@pytest.fixture(scope="module")
def points():
    return usable_points(journal_of(noise=0.03, runs=2))


@pytest.fixture(scope="module")
def fit():
    return fit_machine(journal_of(noise=0.03, runs=2), "test")


@given(st.integers(0, 999), st.integers(1, 12), st.integers(1, 6))
def test_what_is_known_of_neighbours_makes_no_place_less_sure(seed, seen, asked):
    random = np.random.default_rng(seed)
    places = [tuple(row) for row in random.normal(0, 1, (asked, len(FEATURES)))]
    before = covariance_of(None, places)
    np.testing.assert_allclose(np.diag(before), LOG_SD**2)
    points = [tuple(row) for row in random.normal(0, 1, (seen, len(FEATURES)))]
    spreads = random.uniform(0.01, 0.2, seen)
    few = discrepancy_of(points[:-1], np.zeros(seen - 1), spreads[:-1])
    many = discrepancy_of(points, np.zeros(seen), spreads)
    for less, more in (
        (before, covariance_of(few, places)),
        (covariance_of(few, places), covariance_of(many, places)),
    ):
        # Positive semi-definite: no sum of stages is less sure either.
        assert np.linalg.eigvalsh(less - more).min() > -1e-9
    assert np.linalg.eigvalsh(covariance_of(many, places)).min() > -1e-9


def test_a_neighbour_says_much_a_stranger_nothing_and_a_place_that_is_none_has_none():
    known = discrepancy_of([HERE] * 20, np.zeros(20), np.full(20, 0.01))
    near, far = np.diag(covariance_of(known, [HERE, FAR]))
    assert near < 0.1 * LOG_SD**2
    assert far == pytest.approx(LOG_SD**2)
    assert not covariance_of(known, [None, HERE])[0].any()
    silent = Discrepancy(features=known.features, points=known.points, weights=known.weights)
    assert covariance_of(silent, [HERE])[0, 0] == pytest.approx(LOG_SD**2)


def test_spreads_of_another_number_than_points_are_refused():
    with pytest.raises(ValueError, match="one spread a point"):
        Discrepancy(features=FEATURES, points=(HERE,), weights=(0.0,), log_sd=(0.1, 0.1))


@given(st.lists(st.floats(1e-4, 10), min_size=1, max_size=6), st.floats(0.001, 0.3))
def test_a_batch_is_as_sure_as_its_stages_where_they_err_together_and_surer_where_not(parts, sd):
    seconds = np.array(parts)
    names = tuple(f"stage-{number}" for number in range(len(parts)))
    nothing = np.zeros((len(parts), len(parts)))
    together = Stages(
        names=names, seconds=seconds, from_coefficients=nothing + sd**2, from_neighbours=nothing
    )
    apart = Stages(
        names=names,
        seconds=seconds,
        from_coefficients=nothing,
        from_neighbours=np.eye(len(parts)) * sd**2,
    )
    assert together.whole_log_sd == pytest.approx(math.hypot(sd, WHOLE_LOG_SD))
    assert together.coefficients_log_sd == pytest.approx(sd)
    assert apart.coefficients_log_sd == 0
    assert apart.whole_log_sd <= together.whole_log_sd * (1 + 1e-12)
    assert together.whole_s == pytest.approx(sum(parts))
    assert apart.of("stage-0") == pytest.approx((parts[0], math.hypot(sd, STAGE_LOG_SD)))


def test_the_farther_from_what_was_measured_the_less_sure(points, fit):
    first = next(iter(points.values()))[0]
    coefficients = {each.name: each.value for each in fit.coefficients}
    setting = setting_of(first)

    def log_sd(batch):
        return stages_of(
            groups_of(workload(192, 28, batch), host_runs_ahead=False),
            machine_of(first),
            coefficients,
            fit.covariance,
            fit.discrepancy,
            setting,
        ).whole_log_sd

    seen = max(runs[0].workload.batch for runs in points.values())
    assert log_sd(seen) < log_sd(4 * seen) < log_sd(64 * seen)


def test_a_configuration_that_is_left_out_is_less_sure_than_one_that_was_seen(points, fit):
    configurations = {name: configuration_of(runs[0]) for name, runs in points.items()}
    name, out = next(iter(configurations.items()))
    first = points[name][0]
    seen = stages_of(
        groups_of(first.workload, host_runs_ahead=False),
        machine_of(first),
        {each.name: each.value for each in fit.coefficients},
        fit.covariance,
        fit.discrepancy,
        setting_of(first),
    )
    unseen = predictions_without(points, [out], configurations)[name]
    assert unseen.names == seen.names
    assert unseen.whole_log_sd > seen.whole_log_sd


def test_a_machine_promises_by_its_own_scale_and_by_distance_beyond_what_was_judged(fit):
    assert fit.scale is not None
    device = device_of(fit)
    sure = Fit(**{**dict(fit), "drift_log_sd": 0.0})
    less_sure = Fit(**{**dict(sure), "scale": 3 * fit.scale})
    certain = Fit(**{**dict(sure), "scale": 1e-9})

    def log_sd(of, batch, width=192):
        answer = forecast(workload(width, 28, batch), device, [of])
        return math.log(answer.latency_s.high / answer.latency_s.value) / NORMAL_90

    assert log_sd(less_sure, 2) == pytest.approx(3 * log_sd(sure, 2))
    seen = {name: (low, high) for name, low, high in fit.domain}
    judged = int(JUDGED_UP_TO["batch"])
    assert seen["batch"][1] < judged
    assert log_sd(certain, judged) == pytest.approx(0, abs=1e-6)
    assert log_sd(certain, 10 * judged) == pytest.approx(EXTRAPOLATION_LOG_SD * math.log(10))
    # Downwards, and in two features at once, it was not judged.
    narrow = int(seen["width"][0]) // 2
    assert log_sd(certain, 2, narrow) == pytest.approx(EXTRAPOLATION_LOG_SD * math.log(2))
    both = math.log(judged / seen["batch"][1]) + math.log(2)
    assert log_sd(certain, judged, narrow) == pytest.approx(EXTRAPOLATION_LOG_SD * both)


def test_the_scale_is_what_held_out_points_missed_of_what_was_promised(points, fit):
    scores = scores_of(points, held_out_predictions(points))
    missed = [
        s.log_ratio / s.log_sd for (_, quantity), s in scores.items() if quantity == "latency"
    ]
    assert fit.scale == pytest.approx(spread_of(missed))
    assert class_of_machine(fit).scale is None
