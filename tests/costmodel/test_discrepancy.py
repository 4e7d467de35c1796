"""What neighbours share: exact where seen, nothing far away."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.discrepancy import (
    FEATURES,
    LOG_SD,
    MOST_LOG,
    corrections_at,
    covariance_of,
    discrepancy_of,
    expected_at,
    features_of_group,
    log_corrections,
)
from costmodel.reach import check_coefficients
from costmodel.work import groups_of
from domain.complaint import CorruptFile
from domain.fit import Discrepancy, Fit
from domain.store import stored_fits
from tests.costmodel.machines import workload

HERE = (0.0,) * len(FEATURES)
FAR = (9.0,) * len(FEATURES)


def at(known, place):
    """What a group there takes beside the equations."""
    return float(corrections_at(known, [place])[0])


def test_a_place_that_was_seen_often_takes_what_was_seen_there_and_far_away_nothing():
    known = discrepancy_of([HERE] * 50, np.full(50, 0.05), np.full(50, 0.02))
    assert at(known, HERE) == pytest.approx(0.05, rel=0.05)
    assert at(known, FAR) == pytest.approx(0, abs=1e-9)


@given(st.integers(0, 999), st.integers(1, 40), st.integers(1, 30))
def test_many_places_take_what_the_sum_over_all_points_says(seed, places, points):
    random = np.random.default_rng(seed)
    # Numbers that recur, so that features are shared and points are alike in some.
    seen = random.integers(0, 3, size=(points, len(FEATURES))) * random.uniform(0.5, 3)
    where = random.uniform(0, 6, size=(places, len(FEATURES)))
    is_shared = random.random(len(FEATURES)) < 0.6
    where[:, is_shared] = where[0, is_shared]
    weights = random.normal(0, 60, points)
    known = Discrepancy(
        features=FEATURES, points=tuple(map(tuple, seen.tolist())), weights=tuple(weights.tolist())
    )
    parts = [
        [
            w * LOG_SD**2 * math.exp(-sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / 2)
            for w, y in zip(weights, seen, strict=True)
        ]
        for x in where
    ]
    plain = np.clip([math.fsum(each) for each in parts], -MOST_LOG, MOST_LOG)
    # Weights of both signs cancel: what is left is known to the digits of its largest part.
    largest = np.abs(parts).sum(axis=1)
    found = log_corrections(known, where)
    assert (np.abs(found - plain) <= 1e-10 * largest).all()
    np.testing.assert_allclose(np.exp(found), np.exp(plain), rtol=1e-10)


def test_one_wild_residual_is_believed_little():
    known = discrepancy_of([HERE], np.array([1.0]), np.array([0.3]))
    assert abs(at(known, HERE)) < 0.05


def test_weights_that_no_fit_gives_change_little_and_strange_features_are_refused():
    known = discrepancy_of([HERE], np.array([0.05]), np.array([0.02]))
    wild = Discrepancy(features=known.features, points=known.points, weights=(1e6,))
    assert 0 < at(wild, HERE) <= MOST_LOG
    fit = next(fit for fit in stored_fits() if fit.scope == "machine")
    strange = Discrepancy(features=("mood",), points=((1.0,),), weights=(1.0,))
    with pytest.raises(CorruptFile, match="mood"):
        check_coefficients(Fit(**{**dict(fit), "discrepancy": strange}))


def test_nothing_seen_is_no_correction():
    assert discrepancy_of([], np.zeros(0), np.zeros(0)) is None
    assert at(None, HERE) == 0.0
    known = discrepancy_of([HERE], np.array([0.05]), np.array([0.02]))
    apart = corrections_at(known, [None, HERE, None])
    assert apart[1] == at(known, HERE) != 0.0
    assert apart[0] == apart[2] == 0.0


def test_stages_with_layers_have_a_place_and_say_which_they_are():
    places = {
        group[0].stage: features_of_group(group, {"half": 1.0, "threads": 1.0})
        for group in groups_of(workload(), host_runs_ahead=False)
    }
    named = {
        stage: dict(zip(FEATURES, place, strict=True)) for stage, place in places.items() if place
    }
    assert set(named) == {"prologue", "recursion-1", "recursion-2", "recursion-3", "epilogue"}
    assert named["prologue"]["prologue"] == named["epilogue"]["epilogue"] == 1
    assert named["recursion-2"]["gathers"] == 1
    assert named["recursion-1"]["rows"] > named["recursion-3"]["rows"]


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


@given(st.integers(0, 999), st.integers(1, 12), st.integers(1, 5), st.booleans())
def test_seeing_what_was_expected_moves_nothing_and_makes_no_place_less_sure(
    seed, seen, added, is_believed
):
    random = np.random.default_rng(seed)
    points, places, asked = (
        random.uniform(0, 3, size=(count, len(FEATURES))) for count in (seen, added, 4)
    )
    known = discrepancy_of(
        list(map(tuple, points)), random.normal(0, 0.06, seen), np.full(seen, 0.04)
    )
    known = known if is_believed else known.model_copy(update={"log_sd": ()})
    after = expected_at(known, list(map(tuple, places)), 0.04)
    for place in map(tuple, [*asked, *places]):
        assert at(after, place) == pytest.approx(at(known, place), abs=1e-6)
    own = list(map(tuple, [*asked, *places]))
    before, now = (np.diag(covariance_of(each, own)) for each in (known, after))
    assert (now <= before + 1e-9).all()
    assert (now[len(asked) :] < LOG_SD**2).all()
