"""Splits hold out what they say; draws are the same every time."""

import numpy as np
import pytest

from costmodel.baselines import BASELINES, flop_bytes_and_count, log_log_interpolation
from costmodel.calibration import predictions_without
from costmodel.points import TooFewPoints, configuration_of, usable_points
from costmodel.splits import (
    Draw,
    cpu_pairs,
    kernel_rows,
    learning_rows,
    promised_by_others,
    routing_kind,
    summary_of_draws,
)
from domain.catalogue import devices
from domain.kernels import SITES, gemm_rows
from tests.costmodel.machines import journal_of, measured, workload


@pytest.fixture(scope="module")
def points():
    deep = [measured(workload(width, survival=(1.0, 0.9, 0.8))) for width in (96, 192)]
    deep += [
        measured(workload(width, survival=(1.0, 0.9, 0.8), precision="bf16")) for width in (96, 192)
    ]
    half = journal_of(noise=0.02, runs=1, precision="bf16")
    return usable_points([*half, *deep, *journal_of(noise=0.02, runs=1)])


def test_what_was_run_alike_at_another_precision_is_left_out_with_it(points):
    kin = [configuration_of(runs[0]) for runs in points.values()]
    assert len(set(kin)) == len(kin) / 2


def test_each_split_holds_its_members_and_every_pair_an_interval(points):
    splits = cpu_pairs(points)
    assert {"cpu-configuration", "cpu-hard-bf16", "cpu-unseen-routing"} <= set(splits)
    assert len([p for p in splits["cpu-configuration"] if p.quantity == "latency"]) == len(points)
    assert all("bf16" in pair.point for pair in splits["cpu-hard-bf16"])
    for pairs in splits.values():
        assert all(pair.predicted.low < pair.predicted.value for pair in pairs)


def test_a_fold_that_is_everything_is_refused(points):
    with pytest.raises(TooFewPoints, match="wanted points"):
        predictions_without(points, ["all"], dict.fromkeys(points, "all"))


def test_routings_of_one_survival_and_spread_are_one_kind():
    one, other = (measured(workload(width)) for width in (64, 128))
    assert routing_kind(one) == routing_kind(other)
    assert routing_kind(one) != routing_kind(measured(workload(survival=(1.0, 0.3, 0.1))))


def test_the_model_learns_more_from_few_points_than_a_line(points):
    rows = {
        (row.split, row.quantity): row.median_abs_error
        for row in learning_rows(points, sizes=(10,), draws=2)
    }
    assert rows["cpu-learning-10", "latency"] < rows["cpu-learning-10", "latency.linear-in-flop"]


def test_baselines_give_a_line_back():
    random = np.random.default_rng(0)
    known = random.uniform(1, 2, size=(30, 3))
    seconds = 0.5 + known @ np.array([1.0, 2.0, 0.0])
    assert flop_bytes_and_count(known, seconds, known) == pytest.approx(seconds)
    power = known[:, 0] ** 1.5
    assert log_log_interpolation(known, power, known) == pytest.approx(power)
    assert set(BASELINES) == {"linear-in-flop", "flop-bytes-count", "log-log"}


def test_a_target_s_own_misses_do_not_set_its_interval():
    small, large = (Draw(misses=np.full(20, each), log_sd=0.1) for each in (0.1, 1.0))
    scaled = promised_by_others({"small": [small], "large": [large]})
    assert scaled["small"][0].log_sd == pytest.approx(1.0 / 1.645)
    assert scaled["large"][0].log_sd == pytest.approx(0.1 / 1.645)
    row = summary_of_draws("toy", "calibrated", scaled["large"])
    assert row.coverage_90 == 0.0


def test_published_products_are_judged_with_their_family_left_out():
    rows = gemm_rows()
    assert len(rows) == 222
    assert all(len(row.seconds) == len(SITES) for row in rows)
    judged = kernel_rows(rows, devices(), draws=2)
    assert kernel_rows(rows, devices(), draws=2) == judged
    by_name = {row.split: row for row in judged}
    for name in ("a100-sxm-80", "l40s", "h100-sxm-80"):
        few, none = by_name[f"gemm-{name}-8"], by_name[f"gemm-{name}"]
        assert few.median_abs_error < none.median_abs_error
