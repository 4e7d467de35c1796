"""What each recursion of a batch is given: images, tokens, squared tokens, calls. Pure.

Of a routing distribution the expectation over batches drawn from it; of batches whose images are
known the very numbers, many batches at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from costmodel.columns import Column, Numbers, Places, levelled
from domain.architecture import Architecture
from domain.record import Executor
from domain.routing import RoutingDistribution
from domain.workload import Workload

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one stage is given: images alive, tokens, sum of squared tokens, attention calls."""

    images: float
    tokens: float
    squares: float
    attention_calls: float


@dataclass(frozen=True, kw_only=True)
class Loads:
    """What a batch gives to every stage.

    `moved` are the tokens that each recursion moves, of all images: what the next router scores.
    `remembered` is Σ over images of queries × keys where a recursion looks at the keys of the first.
    Each number may be an array, one a batch: the formulas of the operators don't tell.
    """

    batch: float
    recursions: tuple[Load, ...]
    moved: tuple[float, ...]
    remembered: tuple[float, ...]

    def everything(self, tokens: int) -> Load:
        """All tokens of all images: what layers outside the recursions are given."""
        whole = self.batch * tokens
        return Load(images=self.batch, tokens=whole, squares=whole * tokens, attention_calls=1.0)


def loads_of_workload(workload: Workload) -> Loads:
    """Expected loads of a batch drawn from the workload's routing."""
    net, recursions = workload.architecture, range(workload.architecture.recursions)
    return Loads(
        batch=workload.batch,
        recursions=loads_of(workload.routing, workload.batch, workload.executor, net),
        moved=moved_tokens(workload),
        remembered=tuple(remembered_keys(workload, number) for number in recursions)
        if looks_back(net)
        else (),
    )


def loads_of_batches(
    counts: NDArray[np.int64], batch: NDArray[np.int64], executor: Executor, net: Architecture
) -> Loads:
    """Loads of many batches at once, each of images that are known.

    `counts` are tokens by batch, image and recursion, one image where all images of a batch are
    alike; `batch` says how many images each has. Raises ValueError where `capacity` is asked to run
    images that differ.
    """
    # Batches last: a sum over images then adds whole rows, which is several times as fast.
    of_recursion = np.array(np.moveaxis(counts, 0, 2).swapaxes(0, 1), dtype=float, order="C")
    size = np.asarray(batch, dtype=float)
    alike = size / counts.shape[1]
    is_even = bool((of_recursion == of_recursion[:, :1]).all())
    if executor == "capacity" and not is_even:
        raise ValueError("capacity wants as many tokens of every image; use packed or padded")
    loads, moved, remembered = [], [], []
    for now in of_recursion:
        alive, summed = (now > 0).sum(axis=0) * alike, now.sum(axis=0) * alike
        if executor == "masked" or not net.is_routed:
            alive, tokens, squares = size, size * net.tokens, size * net.tokens**2
            calls: Array | float = 1.0
        elif executor == "padded":
            longest = now.max(axis=0)
            tokens, squares, calls = alive * longest, alive * longest**2, 1.0
        else:
            tokens, squares = summed, (now**2).sum(axis=0) * alike
            calls = 1.0 if is_even else _distinct(now)
        load = Load(
            images=_number(alive), tokens=_number(tokens), squares=_number(squares),
            attention_calls=_number(calls),
        )  # fmt: skip
        loads.append(load)
        moved.append(_number(size * net.tokens if executor == "masked" else summed))
        if looks_back(net):
            remembered.append(_number(_keys_of(of_recursion[0], now, size, alike, executor, net)))
    return Loads(
        batch=_number(size),
        recursions=tuple(loads),
        moved=tuple(moved),
        remembered=tuple(remembered),
    )


def _keys_of(
    first: Array, now: Array, size: Array, alike: Array, executor: Executor, net: Architecture
) -> Array:
    """Σ over images of queries × keys; `first` and `now` are tokens by image and batch."""
    if executor == "masked":
        return np.asarray(size * net.tokens**2)
    if executor == "padded":
        return np.asarray(size * (first.max(axis=0) * now.max(axis=0)))
    return np.asarray((first * now).sum(axis=0) * alike)


def looks_back(net: Architecture) -> bool:
    """Whether later recursions look at the keys of the first."""
    return net.is_routed and net.keys_and_values == "recursive-sharing"


def columns_of_batches(
    counts: NDArray[np.int64], batch: NDArray[np.int64], executor: Executor, net: Architecture
) -> Loads:
    """The same as columns of what differs; of all recursions after the first their batches, in turn.

    Those have the same operators and differ in their loads only, so that one load stands for them:
    its rows are the batches of the second recursion, then those of the third, and so on.
    """
    sizes, which = levelled(batch)
    size = _number(Column(sizes.astype(float), which))
    if counts.shape[1] > 1 or looks_back(net):
        return _columns_of(loads_of_batches(counts, batch, executor, net), size)
    # Of images that are alike a load is a formula of two whole numbers, or of one.
    if executor == "masked" or not net.is_routed:
        images, tokens = sizes, np.full_like(sizes, net.tokens)
        first, later = which, np.tile(which, counts.shape[2] - 1)
        before = later
    else:
        wide = int(counts.max()) + 1
        pairs, at = levelled(batch * wide + counts[:, 0].T)
        images, tokens = np.divmod(pairs, wide)
        first, later, before = at[0], at[1:].ravel(), at[:-1].ravel()
    known = loads_of_batches(tokens[:, None, None], images, executor, net)

    def column(values: float, at: Places) -> float:
        return _number(values if np.ndim(values) == 0 else Column(np.asarray(values), at))

    return Loads(
        batch=size,
        recursions=tuple(
            Load(**{name: column(each, at) for name, each in vars(known.recursions[0]).items()})
            for at in (first, later)
            if at.size
        ),
        moved=(column(known.moved[0], before),),
        remembered=(),
    )


def _columns_of(loads: Loads, size: float) -> Loads:
    """Loads of known images: tokens are whole numbers that recur, squares are not."""
    first, *later = loads.recursions
    tokens, at = _levelled([load.tokens for load in loads.recursions])
    # The last recursion's are no router's.
    moved, before = _levelled(loads.moved[:-1] or loads.moved)
    return Loads(
        batch=size,
        recursions=tuple(
            Load(
                images=_in_turn([load.images for load in some]),
                tokens=_number(Column(tokens, own.ravel())),
                squares=_in_turn([load.squares for load in some]),
                attention_calls=_in_turn([load.attention_calls for load in some]),
            )
            for own, some in ((at[:1], [first]), (at[1:], later))
            if some
        ),
        moved=(_number(Column(moved, before.ravel())),),
        remembered=(loads.remembered[0], _in_turn(loads.remembered[1:]))
        if loads.remembered
        else (),
    )


def _levelled(values: Sequence[float]) -> tuple[Array, Places]:
    """Levels of arrays that stand where numbers do, and where they are, one row an array."""
    return levelled(np.stack(cast(Sequence[Array], values)))


def _in_turn(values: Sequence[float]) -> float:
    """The numbers of one recursion after those of another; one number where that is all of each."""
    if all(np.ndim(each) == 0 for each in values):
        return next(iter(values), 0.0)
    return _number(np.concatenate(cast(Sequence[Array], values)))


def _number(values: Numbers) -> float:
    """A column or array where a number stands: computed with, it gives what each batch takes."""
    return cast(float, values)


# Up to so many images they are compared in pairs: sorting takes longer.
COMPARED_IN_PAIRS = 24


def _distinct(values: Array) -> Array:
    """How many different positive values each column has."""
    if len(values) > COMPARED_IN_PAIRS:
        ordered = np.sort(values, axis=0)
        is_new = np.diff(ordered, axis=0, prepend=0.0) > 0
        return np.asarray(is_new.sum(axis=0), dtype=float)
    found = np.zeros(values.shape[1])
    for number, value in enumerate(values):
        is_new = value > 0
        for earlier in values[:number]:
            is_new &= value != earlier
        found += is_new
    return found


def loads_of(
    routing: RoutingDistribution, batch: int, executor: Executor, net: Architecture
) -> tuple[Load, ...]:
    """Expected load of each recursion for `batch` images drawn from `routing`.

    packed computes the tokens that are there; padded fills every image up to the longest of the
    batch; masked computes all tokens of all images; capacity gives every image the mean count.
    """
    counts = np.asarray(routing.counts, dtype=float)
    mean, mean_square = counts.mean(axis=0), (counts**2).mean(axis=0)
    alive = batch * (counts > 0).mean(axis=0)
    is_uniform = (counts == counts[0]).all(axis=0)
    if executor == "masked" or not net.is_routed:
        per_image = np.full_like(mean, net.tokens)
        tokens, squares = batch * per_image, batch * per_image**2
        calls = np.ones_like(mean)
        alive = np.full_like(mean, batch)
    elif executor == "padded":
        tokens = np.array([expected_padded(column, batch) for column in counts.T])
        squares = np.array([expected_padded(column**2, batch) for column in counts.T])
        calls = np.ones_like(mean)
    elif executor == "capacity":
        tokens, squares, calls = batch * mean, batch * mean**2, np.ones_like(mean)
    else:
        tokens, squares = batch * mean, batch * mean_square
        # Images of equal length share one attention call; others need one each.
        lengths = np.array([expected_distinct(column, batch) for column in counts.T])
        calls = np.where(is_uniform, 1.0, lengths)
    return tuple(
        Load(images=float(i), tokens=float(n), squares=float(q), attention_calls=float(c))
        for i, n, q, c in zip(alive, tokens, squares, calls, strict=True)
    )


def moved_tokens(workload: Workload) -> tuple[float, ...]:
    """Tokens that each recursion moves, of all images: what the next router scores.

    What padding adds is not among them; where all tokens are computed, all are scored.
    """
    net = workload.architecture
    if workload.executor == "masked":
        return (float(workload.batch * net.tokens),) * net.recursions
    return tuple(workload.batch * net.tokens * share for share in workload.routing.survival)


def remembered_keys(workload: Workload, recursion: int) -> float:
    """Σ over images of queries × keys where a recursion (0 is the first) looks at those of the first.

    As many queries of an image as the executor computes in this recursion, and as many keys as it
    kept of the first.
    """
    counts = np.asarray(workload.routing.counts, dtype=float)
    first, now = counts[:, 0], counts[:, recursion]
    batch, tokens = workload.batch, workload.architecture.tokens
    if workload.executor == "masked":
        return float(batch * tokens * tokens)
    if workload.executor == "capacity":
        return float(batch * first.mean() * now.mean())
    if workload.executor == "padded":
        # The image that is longest in one recursion is taken for the longest in the other.
        return batch * expected_maximum(first * now, batch)
    return float(batch * (first * now).mean())


def expected_maximum(values: np.ndarray, draws: int) -> float:
    """E[max] of `draws` values drawn with replacement: Σ v (F(v)^B − F(v−)^B).

    >>> expected_maximum(np.array([0.0, 1.0]), draws=2)
    0.75
    """
    levels, counts = np.unique(values, return_counts=True)
    reached = np.cumsum(counts) / counts.sum()
    below = np.concatenate([[0.0], reached[:-1]])
    return float(levels @ (reached**draws - below**draws))


def expected_padded(values: np.ndarray, draws: int) -> float:
    """E[images alive · max] of `draws` values: B (E[max of B] − P(0) E[max of B − 1]).

    An image with nothing to do is not padded; it is left out.

    >>> expected_padded(np.array([0.0, 6.0]), draws=1)
    3.0
    """
    empty = float((values == 0).mean())
    fewer = expected_maximum(values, draws - 1) if draws > 1 else 0.0
    return draws * (expected_maximum(values, draws) - empty * fewer)


def expected_distinct(values: np.ndarray, draws: int) -> float:
    """E[number of different positive values] among `draws`: Σ 1 − (1 − p)^B.

    >>> expected_distinct(np.array([3.0, 4.0]), draws=2)
    1.5
    """
    positive = values[values > 0]
    _, counts = np.unique(positive, return_counts=True)
    return float((1 - (1 - counts / values.size) ** draws).sum())
