import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.record import Estimate, Figure, Unknown

bounds = st.lists(st.floats(min_value=1e-9, max_value=1e9), min_size=3, max_size=3).map(sorted)


def estimate_of(three: list[float]) -> Estimate:
    low, value, high = three
    return Estimate(value=value, low=low, high=high)


@given(bounds, st.floats(min_value=1e-9, max_value=1e9))
def test_scaling_keeps_the_value_inside_its_interval(three, factor):
    scaled = estimate_of(three).scaled(factor)
    assert scaled.low <= scaled.value <= scaled.high
    assert scaled.value == pytest.approx(three[1] * factor)


@given(bounds, st.floats(min_value=1e-3, max_value=1e3))
def test_the_inverse_of_the_inverse_is_the_estimate(three, numerator):
    there = estimate_of(three).inverse_of(numerator)
    assert there.low <= there.value <= there.high
    back = there.inverse_of(numerator)
    assert (back.low, back.value, back.high) == pytest.approx(tuple(three))


@given(st.floats(allow_nan=True), st.floats(allow_nan=True), st.floats(allow_nan=True))
def test_an_estimate_is_refused_unless_its_value_lies_between_finite_bounds(low, value, high):
    finite = all(abs(each) < float("inf") for each in (low, value, high))
    assume(not (finite and low <= value <= high))
    with pytest.raises(ValidationError):
        Estimate(value=value, low=low, high=high)


def test_a_figure_needs_a_source_and_a_date():
    figure = {"value": 1.0, "source": "s", "read_on": "2026-11-23", "confidence": "A"}
    Figure.model_validate(figure)
    for wrong in (
        {"value": 0.0},
        {"value": float("inf")},
        {"source": ""},
        {"read_on": "yesterday"},
        {"confidence": "D"},
        {"unheard_of": 1},
    ):
        with pytest.raises(ValidationError):
            Figure.model_validate({**figure, **wrong})


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_records_have_the_same_key_exactly_when_they_are_equal(one, other):
    same_key = Unknown(reason=one).key() == Unknown(reason=other).key()
    assert same_key == (one == other)
    assert Unknown(reason=one).key() == Unknown(reason=one).key()


def test_a_record_can_not_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Unknown(reason="why").reason = "because"
