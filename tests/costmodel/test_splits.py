"""Splits hold out what they say; draws are the same every time."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.accuracy import scores_of
from costmodel.baselines import (
    BASELINES,
    flop_bytes_and_count,
    gradient_boosting,
    log_log_interpolation,
)
from costmodel.blame import biases, operator_rows
from costmodel.calibration import held_out_predictions, predictions_without
from costmodel.draws import Draw, factor_of, promised_by_others, summary_of_draws
from costmodel.kernelsplits import GEMM_DEVICES, blocks_of, kernel_rows, unseen_family
from costmodel.learning import learning_rows
from costmodel.memory import allocated_bytes
from costmodel.points import TooFewPoints, configuration_of, usable_points
from costmodel.published import ASSUMED_GPU_LOG_SD
from costmodel.splits import cpu_pairs, false_fits, routing_kind
from domain.catalogue import devices
from domain.kernels import SITES, gemm_rows
from domain.measurement import Measurement
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
    splits = cpu_pairs(points, held_out_predictions(points))
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


def test_trees_learn_what_they_saw():
    pytest.importorskip("sklearn")
    random = np.random.default_rng(0)
    known = random.uniform(1, 2, size=(60, 10))
    seconds = np.exp(known[:, 0] + known[:, 3])
    guess = gradient_boosting(known, seconds, known)
    assert np.median(np.abs(guess / seconds - 1)) < 0.02


@given(st.integers(0, 1000))
def test_blame_falls_on_the_operator_that_is_wrong(seed):
    random = np.random.default_rng(seed)
    shares = random.dirichlet([1.0, 1.0, 1.0], size=60)
    truth = np.array([0.08, 0.0, -0.05])
    bias, log_sd = biases(shares, shares @ truth, np.full(60, 0.01))
    assert bias == pytest.approx(truth, abs=0.01)
    assert (np.abs(bias - truth) <= 4 * log_sd).all()


def test_every_operator_that_takes_time_is_judged(points):
    found = held_out_predictions(points)
    rows = operator_rows(points, scores_of(points, found))
    named = {row.quantity: row for row in rows}
    assert {"operator.gemm", "operator.attention", "operator.gather"} <= set(named)
    for row in rows:
        assert row.median_abs_error <= row.p90_abs_error
        assert abs(row.signed_error) < 0.1


def test_memory_that_is_said_to_suffice_is_held_against_what_was_seen(points):
    def with_peak(over):
        return {
            name: [
                Measurement(
                    **{**dict(runs[0]), "peak_bytes": int(over * allocated_bytes(runs[0].workload))}
                )
            ]
            for name, runs in points.items()
        }

    assert false_fits(with_peak(1.0)).median_abs_error == 0
    row = false_fits(with_peak(2.0))
    assert row.median_abs_error == 1
    assert row.n == len(points)


def test_a_target_s_own_misses_do_not_set_its_interval():
    small, large = (Draw(misses=np.full(20, each), log_sd=0.1) for each in (0.1, 1.0))
    scaled = promised_by_others({"small": [small], "large": [large]})
    assert scaled["small"][0].log_sd == pytest.approx(1.0 / 1.645, rel=1e-5)
    # The other one missed less than was promised, and one target vouches for nothing narrower.
    assert scaled["large"][0].log_sd == 0.1
    row = summary_of_draws("toy", "calibrated", scaled["large"])
    assert row.coverage_90 == 0.0


@given(st.lists(st.lists(st.floats(-3, 3), min_size=1, max_size=30), min_size=1, max_size=8))
def test_a_factor_covers_every_target_that_set_it_and_never_narrows(misses):
    targets = [[Draw(misses=np.array(each), log_sd=0.5)] for each in misses]
    factor = factor_of(targets)
    assert factor >= 1
    for (draw,) in targets:
        assert np.mean(draw.scaled(factor).scores <= 1.645 * (1 + 1e-9)) >= 0.9
    # However many rows a target has, it is one.
    assert factor_of([each * 40 for each in targets]) <= factor * (1 + 1e-9)


def test_of_many_targets_one_in_ten_may_miss():
    targets = [[Draw(misses=np.full(9, each), log_sd=1.0)] for each in (*[0.1] * 18, 99.0)]
    assert factor_of(targets) == 1.0


def test_published_products_are_judged_with_their_family_left_out():
    rows = gemm_rows()
    assert len(rows) == 222
    assert all(len(row.seconds) == len(SITES) for row in rows)
    judged = kernel_rows(rows, devices(), draws=2)
    assert kernel_rows(rows, devices(), draws=2) == judged
    by_name = {row.split: row for row in judged}
    of_width, few, none = (
        [by_name[f"gemm-{name}{suffix}"] for name in GEMM_DEVICES]
        for suffix in ("-8-of-width", "-8", "")
    )
    assert all(one.half_width < other.half_width for one, other in zip(few, none, strict=True))
    # Of 74 row counts of one width eight are timed; of 296 blocks of all widths as many.
    assert [{row.n for row in rows} for rows in (of_width, few, none)] == [{66}, {288}, {296}]
    # Two draws are few for one family, not for three together.
    assert sum(row.median_abs_error for row in few) < sum(row.median_abs_error for row in none)


def test_an_unseen_family_carries_what_families_may_differ_by():
    rows, specs = gemm_rows(), devices()
    blocks = [
        blocks_of([row for row in rows if row.device_id == name], specs[name])
        for name in GEMM_DEVICES
    ]
    draw = unseen_family(blocks[:2], blocks[2])
    assert np.min(draw.log_sd) >= ASSUMED_GPU_LOG_SD
    # What the judged family took sets nothing of its interval.
    slower = replace(
        blocks[2],
        observations=replace(blocks[2].observations, seconds=3 * blocks[2].observations.seconds),
    )
    assert unseen_family(blocks[:2], slower).log_sd == pytest.approx(draw.log_sd)
