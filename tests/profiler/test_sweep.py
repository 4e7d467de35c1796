"""The built-in plans: laws of contrasts and budgets, and what a design tells."""

import re
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.complaint import Complaint
from domain.record import Precision
from morvit.executors import EXECUTORS, RECTANGULAR
from profiler.commands import options
from profiler.contrasts import forced, plain
from profiler.design import (
    ASSUMED_RATES,
    COMMON,
    COSTS,
    PRIOR_LOG_SD,
    expected_s,
    log_det,
    log_sds,
    most_s,
    pass_s,
    work_of,
)
from profiler.protocol import SETTINGS
from profiler.routings import presumed_routing, rotation_of
from profiler.subjects import HALF, Subject
from profiler.sweep import (
    LEAST_CONTRASTS,
    built_in_plan,
    contrasts_of,
    expected_plan_s,
    most_plan_s,
    points_of,
    reference_contrasts,
    reference_plan,
    within_budget,
)
from tests.profiler.networks import network

SHIPPED = network(name="shipped")
CONTRASTS = tuple(contrasts_of(SHIPPED))
REFERENCE = tuple(reference_contrasts(SHIPPED))
MODES = ("quick", "brief", "default", "rigorous")
# A budget, as a multiple of what the smallest design of the mode needs.
TIMES = st.floats(min_value=1.0, max_value=12.0)


def ids(points):
    return [point.id for point in points]


def rows_of(point):
    routing = presumed_routing(point, seed=0)
    return point.batch * sum(routing.survival) * routing.tokens


def budget_s(mode, times):
    return times * expected_plan_s(points_of(CONTRASTS[:LEAST_CONTRASTS]), SETTINGS[mode])


def chosen(mode, times):
    return within_budget(CONTRASTS, SETTINGS[mode], budget_s(mode, times))


@settings(max_examples=100)
@given(st.sampled_from(MODES), TIMES, TIMES)
def test_more_budget_never_drops_what_a_smaller_one_had(mode, one, other):
    fewer, more = chosen(mode, min(one, other)), chosen(mode, max(one, other))
    assert more[: len(fewer)] == fewer


@settings(max_examples=100)
@given(st.sampled_from(MODES), TIMES)
def test_what_a_budget_chooses_is_expected_to_fit_in_it(mode, times):
    plan = built_in_plan(mode, SHIPPED, budget_s(mode, times))
    assert expected_plan_s(plan.points, SETTINGS[mode]) <= budget_s(mode, times)


@settings(max_examples=100)
@given(st.sampled_from(MODES), TIMES)
def test_a_plan_has_every_side_of_a_contrast_or_it_is_none_of_the_plan(mode, times):
    planned = set(ids(built_in_plan(mode, SHIPPED, budget_s(mode, times)).points))
    taken = chosen(mode, times)
    assert planned == {id for contrast in taken for id in ids(contrast.points)}
    assert all(len(set(ids(contrast.points))) > 1 for contrast in taken)


def test_a_budget_takes_the_next_contrast_at_the_second_where_it_fits():
    settings = SETTINGS["quick"]
    needed = expected_plan_s(points_of(CONTRASTS[:9]), settings)
    assert len(within_budget(CONTRASTS, settings, needed)) == 9
    assert len(within_budget(CONTRASTS, settings, needed * 0.999)) == 8


def test_a_budget_for_less_than_the_smallest_design_is_refused_with_the_minutes():
    least_s = expected_plan_s(points_of(CONTRASTS[:LEAST_CONTRASTS]), SETTINGS["quick"])
    assert len(within_budget(CONTRASTS, SETTINGS["quick"], least_s)) == LEAST_CONTRASTS
    with pytest.raises(Complaint, match=r"0\.5 min are too few .* takes 2 min at --quick"):
        built_in_plan("quick", SHIPPED, 30.0)


def test_the_smallest_design_tells_arithmetic_attention_weights_and_calls_apart():
    told = log_sds(points_of(CONTRASTS[:LEAST_CONTRASTS]))
    for cost in ("arithmetic", "attention", "weights", "calls"):
        assert told[cost] <= PRIOR_LOG_SD / 2
    fewer = log_sds(points_of(CONTRASTS[: LEAST_CONTRASTS - 2]))
    assert fewer["calls"] > PRIOR_LOG_SD / 2


@pytest.mark.parametrize("number", range(len(CONTRASTS)))
def test_a_point_more_never_tells_less(number):
    points = points_of(CONTRASTS)
    assert log_det(points[: number + 1]) >= log_det(points[:number]) - 1e-9


def test_without_points_nothing_is_known_but_the_prior():
    assert list(log_sds(()).values()) == pytest.approx([PRIOR_LOG_SD] * len(COSTS))


def test_without_tokens_at_the_same_rows_attention_is_not_told_from_products():
    one = forced(192, 50, 4, "mild")
    more = [forced(192, 50, batch, "mild") for batch in (8, 16)]
    contrast = [forced(192, 197, 1, "mild"), forced(192, 197, 4, "mild")]
    assert log_sds([one, *contrast])["attention"] < 0.5 * log_sds([one, *more])["attention"]


@pytest.mark.parametrize("contrast", [*CONTRASTS, *REFERENCE], ids=lambda each: each.separates[:30])
def test_a_contrast_holds_one_thing_the_same(contrast):
    points = contrast.points
    assert contrast.separates
    if contrast.separates.startswith("attention from matrix products"):
        assert rows_of(points[0]) == pytest.approx(rows_of(points[1]), rel=0.03)
    if contrast.separates.startswith("attention's squares"):
        assert rows_of(points[0]) == pytest.approx(rows_of(points[1]), rel=0.01)
        columns = [COMMON.index(name) for name in ("arithmetic", "attention")]
        (even, squares), (uneven, more) = (
            work_of(point)[:, columns].sum(axis=0) for point in points
        )
        assert uneven == pytest.approx(even, rel=0.01)
        assert more > 1.05 * squares
    if contrast.separates.startswith("gather, scatter"):
        is_even = all(point.spread == 0 for point in points)
        assert {point.executor for point in points} == set(EXECUTORS) - (
            set() if is_even else RECTANGULAR
        )
        assert len({presumed_routing(point, 0) for point in points}) == 1
    if contrast.separates.startswith("routing from a plain ViT"):
        assert len({point.architecture.effective_depth for point in points}) == 1
    if contrast.separates.startswith("whole tiles"):
        assert [presumed_routing(point, 0).counts[0][0] for point in points] == [127, 128, 129]


def test_built_in_plans_grow_and_say_what_each_point_is_for():
    plans = {mode: built_in_plan(mode, SHIPPED) for mode in MODES}
    quick, brief, default, rigorous = (ids(plan.points) for plan in plans.values())
    assert brief == default
    assert default[: len(quick)] == quick
    assert rigorous[: len(default)] == default
    for plan in plans.values():
        assert all(point.separates for point in plan.points)
        assert {point.executor for point in plan.points} >= set(EXECUTORS) - RECTANGULAR
        assert {point.architecture.recursions for point in plan.points} == {1, 3}
    assert {point.executor for point in plans["default"].points} == set(EXECUTORS)
    assert {point.precision for point in plans["quick"].points} == {"fp32"}
    assert {point.precision for point in plans["default"].points} == {"fp32", "bf16"}
    assert sum(point.subject != "network" for point in plans["default"].points) == 1
    assert most_plan_s(plans["quick"].points, SETTINGS["quick"]) <= 180


@pytest.mark.parametrize("mode", MODES)
def test_the_help_says_how_many_points_and_runs_a_mode_has(mode):
    said = getattr(options, mode.capitalize()).__metadata__[0].help
    plan = built_in_plan(mode, SHIPPED)
    assert re.findall(r"\d+ points", said) == [f"{len(plan.points)} points"]
    assert re.findall(r"(\d+) (?:short )?runs", said) == [str(plan.runs)]


def test_the_reference_covers_what_the_cost_model_is_asked():
    plan = reference_plan(SHIPPED, "brief")
    points = plan.points
    assert 64 <= len(points) <= 76
    assert plan.runs == 5
    forced_points = [point for point in points if point.survival]
    assert {point.architecture.width for point in forced_points} == {128, 192, 256, 384}
    assert {point.precision for point in forced_points} == {"fp32", "bf16"}
    assert {point.executor for point in forced_points} == set(EXECUTORS)
    assert {point.batch for point in forced_points} >= {1, 2, 4, 8, 16, 32}
    assert {point.architecture.tokens for point in forced_points} == {50, 197}
    assert {point.spread for point in forced_points} >= {0.0, 0.25, 0.8, 0.9}
    real = [point for point in points if point.routing_source == "real-images"]
    asked = {(point.batch, point.executor) for point in real if point.precision == "fp32"}
    assert asked == {
        (batch, executor) for batch in (1, 8, 32) for executor in set(EXECUTORS) - RECTANGULAR
    }
    assert {point.routing_source for point in points} == {
        "real-images", "forced-distribution", "none",
    }  # fmt: skip
    assert sum(point.subject == "recursion-2" for point in points) == 1
    # Some twenty minutes, so that it can be taken on several occasions.
    assert 12 * 60 <= expected_plan_s(points, SETTINGS["brief"]) <= 21 * 60


def test_no_pass_of_the_reference_is_longer_than_150_ms_on_a_core_of_40_gflop_per_s():
    flop = [COMMON.index(name) for name in ("arithmetic", "attention")]
    for contrast in REFERENCE:
        for point in contrast.points:
            if point.weights == "random":
                assert work_of(point)[:, flop].sum() / 40e9 <= 0.150, point.id


@given(
    st.sampled_from(points_of((*CONTRASTS, *REFERENCE))), st.sampled_from(list(SETTINGS.values()))
)
def test_what_is_expected_is_never_more_than_the_most(point, settings):
    assert 0 < expected_s(point, settings) <= most_s(point, settings)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_each_batch_is_shown_and_expected_where_a_cpu_builds_kernels_by_size(precision):
    fp32 = forced(192, 50, 16, "mild")
    point = fp32.model_copy(update={"precision": precision})
    subject = Subject(
        point=point, model=None, weights="", batches=(torch.zeros(1),), imposed=(None,), counts=(),
        is_uniform=False,
    )  # fmt: skip
    brief = SETTINGS["brief"]
    longer = rotation_of(16) * pass_s(point)
    assert subject.builds_kernels == (precision in HALF)
    assert most_s(point, brief) == pytest.approx(
        most_s(fp32, brief)
        + 3 * (pass_s(point) - pass_s(fp32))
        + (longer if subject.builds_kernels else 0.0)
    )


def test_work_is_counted_as_torch_counts_it():
    """Closed forms beside FLOPs that torch counted for these points: 4.17, 6.53 and 4.44 G."""
    flop = [COMMON.index(name) for name in ("arithmetic", "attention")]
    for point, counted in (
        (forced(192, 50, 16, "mild"), 4.17e9),
        (forced(192, 197, 4, "strong", "masked"), 6.53e9),
        (plain(192, 50, 16), 4.44e9 * 8 / 6),  # counted at a depth of six
    ):
        assert work_of(point)[:, flop].sum() == pytest.approx(counted, rel=0.01)


def test_seconds_of_a_pass_are_its_work_over_assumed_rates():
    point = plain(96, 50, 1)
    rates = list(ASSUMED_RATES.values())
    assert pass_s(point) == pytest.approx((work_of(point) / rates).sum())
