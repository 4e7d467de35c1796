"""How sure a fit is: surer where it was measured, never surer by knowing less."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.accuracy import scores_of
from costmodel.calibration import (
    fit_machine,
    held_out_predictions,
    predictions_without,
)
from costmodel.certainty import STAGE_LOG_SD, WHOLE_LOG_SD, Stages, stages_of
from costmodel.hierarchy import class_of_machines
from costmodel.points import configuration_of, machine_of, setting_of, usable_points
from costmodel.reach import device_of
from costmodel.regression import scale_of
from costmodel.transfer import EXTRAPOLATION_LOG_SD, JUDGED_UP_TO, NORMAL_90, forecast
from costmodel.work import groups_of
from domain.fit import Fit
from domain.measurement import DepthRecord, Measurement
from tests.costmodel.machines import journal_of, workload


@pytest.fixture(scope="module")
def points():
    return usable_points(journal_of(noise=0.03, runs=2))


@pytest.fixture(scope="module")
def fit():
    return fit_machine(journal_of(noise=0.03, runs=2), "test")


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
    assert fit.scale == pytest.approx(scale_of(missed))
    assert class_of_machines([fit]).scale is None


def test_a_fold_that_is_most_points_is_predicted_by_the_rest_alone():
    """What is asked may have taken any time: neither the fit nor where it begins has seen it."""
    points = usable_points(journal_of(noise=0.02))
    folds = {name: "far" if runs[0].workload.batch > 1 else "near" for name, runs in points.items()}

    def slowed(run):
        return Measurement(
            **{
                **dict(run),
                "samples_s": tuple(5 * each for each in run.samples_s),
                "depths": tuple(
                    DepthRecord(**{**dict(each), "samples_s": tuple(3 * x for x in each.samples_s)})
                    for each in run.depths
                ),
            }
        )

    other = {
        name: [slowed(run) for run in runs] if folds[name] == "far" else runs
        for name, runs in points.items()
    }
    one, two = (predictions_without(each, ["far"], folds) for each in (points, other))
    assert one.keys() == two.keys() == {name for name, fold in folds.items() if fold == "far"}
    for name, stages in one.items():
        assert two[name].whole_s == pytest.approx(stages.whole_s, rel=1e-9)
