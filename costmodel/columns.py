"""Columns of many numbers of which few differ: formulas are worked out once for each that differs.

A formula of one number takes as many values as the number does. A column therefore keeps its levels
and, for every row, which of them stands there; whatever is computed from columns of the same rows'
levels and from plain numbers is such a column too. Nothing is rounded or interpolated.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

Array = NDArray[np.float64]
Places = NDArray[np.intp]

# Rows that are reckoned together: 128 KB an array, which stays in the cache.
STRETCH = 16_384
# A table of whole numbers may have this many entries a row before sorting is the better way.
ENTRIES_A_ROW = 4


class Column(NDArrayOperatorsMixin):
    """`levels[at[row]]` in every row; arithmetic and numpy's functions work on the levels.

    With a column of other places, or with an array of a number a row, they give such an array.

    >>> column = Column(np.array([2.0, 3.0]), np.array([0, 1, 1]))
    >>> type(1 + 2 * column).__name__, np.asarray(1 + 2 * column).tolist()
    ('Column', [5.0, 7.0, 7.0])
    >>> (column * np.array([1.0, 1.0, 2.0])).tolist()
    [2.0, 3.0, 6.0]
    """

    def __init__(self, levels: Array, at: Places) -> None:
        """Levels, and the number of the level in every row."""
        self.levels, self.at = levels, at

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """A number a row."""
        return np.asarray(self.levels[self.at], dtype=dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """The function of the levels where all inputs have the same; else of every row."""
        if method != "__call__" or options:
            return NotImplemented
        values, at = aligned(*inputs)
        return column_of(ufunc(*values), at)


Numbers: TypeAlias = float | Array | Column


def column_of(values: Any, at: Places | None) -> Any:
    """A column of levels `values`; the values themselves where `at` is None."""
    return values if at is None else Column(values, at)


def aligned(*columns: Any) -> tuple[list[Any], Places | None]:
    """What a formula of all `columns` is to be worked out for, and where each result belongs.

    Levels, and which stands in every row, where all that are columns have the same places and the
    rest are plain numbers; else a number a row, and None.
    """
    places = {id(each.at): each.at for each in columns if isinstance(each, Column)}
    if len(places) == 1 and all(isinstance(each, Column) or np.ndim(each) == 0 for each in columns):
        levels = [each.levels if isinstance(each, Column) else each for each in columns]
        return levels, next(iter(places.values()))
    return [np.asarray(each) if isinstance(each, Column) else each for each in columns], None


def levelled(values: NDArray[Any]) -> tuple[NDArray[Any], Places]:
    """The distinct numbers of `values` upwards, and which of them each is, in the same shape.

    Whole numbers from 0 that are few are looked up in a table; others are sorted.

    >>> [part.tolist() for part in levelled(np.array([7.0, 3.0, 7.0]))]
    [[3.0, 7.0], [1, 0, 1]]
    """
    if values.size and values.min() >= 0 and values.max() < ENTRIES_A_ROW * values.size:
        whole = values.astype(np.intp)
        if (whole == values).all():
            occurs = np.zeros(int(whole.max()) + 1, dtype=bool)
            occurs[whole] = True
            levels = np.flatnonzero(occurs).astype(values.dtype)
            return levels, (np.cumsum(occurs) - 1)[whole]
    levels, at = np.unique(values, return_inverse=True)
    return levels, at.reshape(values.shape)


def by_stretches(formula: Callable[..., Array], *columns: Any) -> Any:
    """`formula` of columns, numbers and arrays, worked out for every level or row; as a column.

    `formula` takes and gives arrays, row by row. Of plain numbers alone it gives one.
    """
    values, at = aligned(*columns)
    rows = max((np.size(each) for each in values), default=1)
    found = np.empty(rows)
    for start in range(0, rows, STRETCH):
        some = slice(start, start + STRETCH)
        found[some] = formula(*(each[some] if np.size(each) > 1 else each for each in values))
    return float(found[0]) if at is None and rows == 1 else column_of(found, at)
