"""Columns of levels give what arrays give; distinct numbers put together are the numbers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from costmodel.columns import STRETCH, Column, by_stretches, levelled

NUMBERS = st.one_of(
    st.lists(st.integers(0, 9).map(float), min_size=1),
    st.lists(st.integers(-5, 10**9), min_size=1),
    st.lists(st.floats(-1e6, 1e6), min_size=1),
)


@given(NUMBERS)
def test_levels_are_the_distinct_numbers_and_each_finds_its_own(numbers):
    values = np.array(numbers)
    levels, at = levelled(values)
    assert (levels[at] == values).all()
    assert (np.diff(levels) > 0).all()
    assert len(levels) == len(set(numbers))
    assert levels.dtype == values.dtype


def test_numbers_in_a_table_keep_its_shape():
    values = np.array([[3, 1], [1, 0]])
    levels, at = levelled(values)
    assert (levels[at] == values).all()


@given(st.integers(0, 99), st.integers(1, 50))
def test_formulas_of_columns_are_those_of_every_row(seed, rows):
    random = np.random.default_rng(seed)
    at = random.integers(0, 3, size=rows)
    one, other = (Column(random.uniform(1, 2, 3), at) for _ in range(2))
    elsewhere = Column(random.uniform(1, 2, 3), random.integers(0, 3, size=rows))
    dense = random.uniform(1, 2, rows)

    def formula(a, b):
        return np.maximum(3 - 2 * a / b, np.log(b)) + a

    alike = formula(one, other)
    assert isinstance(alike, Column)
    assert len(alike.levels) == 3
    for a, b in ((one, other), (one, elsewhere), (one, dense), (dense, one), (one, 1.5)):
        plain = formula(np.asarray(a), np.asarray(b))
        np.testing.assert_array_equal(np.asarray(formula(a, b)), plain)
        np.testing.assert_array_equal(np.asarray(by_stretches(formula, a, b)), plain)


def test_rows_beyond_a_stretch_and_plain_numbers_are_worked_out_too():
    rows = np.arange(2.0 * STRETCH + 3)
    np.testing.assert_array_equal(by_stretches(lambda a, b: a + b, rows, 1.0), rows + 1)
    assert by_stretches(lambda a, b: a + b, 2.0, 1.0) == 3.0
