"""How a recursion is run on its active tokens: one table from an executor's name to a function.

Routed work is not executed work: `masked` computes every token and throws the rest away, `padded`
computes as many tokens of each image as the longest has, `packed` and `capacity` the active ones
only. All give the same state for the same routing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from domain.record import Executor
from morvit.attention import Attend, Packed, Together

Block = Callable[[Float[Tensor, "*rows width"], Attend], Float[Tensor, "*rows width"]]


@dataclass(frozen=True, kw_only=True)
class Going:
    """Who enters a recursion, how strongly it moves them, and what the host knows of the counts.

    `each` is the number of tokens that every image has, where that is known without looking at the
    device; then shapes do not depend on data and nothing waits. `into` is where the moved tokens are
    written, which may be the state that they come from; without it all tokens are copied.
    """

    active: Bool[Tensor, "batch tokens"]
    gate: Float[Tensor, "batch tokens"]
    each: int | None = None
    into: Float[Tensor, "batch tokens width"] | None = None


@dataclass(frozen=True, kw_only=True)
class Ran:
    """All tokens after a recursion, and those that it moved once more beside each other.

    `rows` are the places of `moved` in the flattened state: image · tokens + token. Where all tokens
    were computed there are none, and `moved` is the flattened state itself.
    """

    state: Float[Tensor, "batch tokens width"]
    moved: Float[Tensor, "rows width"]
    rows: Int[Tensor, " rows"] | None


Run = Callable[[Block, Float[Tensor, "batch tokens width"], Going], Ran]


def rows_computed(rows: int, like: Tensor) -> int:
    """So many rows at least, of few different numbers where each number costs a kernel of its own.

    A CPU's products in half precision are built for one number of rows (oneDNN primitives): a new one
    takes half a millisecond, as long as the product itself at width 384 and 100 rows, and 1,024 are
    kept. Thirty-two numbers to every doubling: from 128 rows on at most one in 32 is computed in vain.

    >>> like = torch.zeros(1, dtype=torch.bfloat16)
    >>> [rows_computed(rows, like) for rows in (0, 1, 120, 121, 197, 6304)]
    [0, 4, 120, 124, 200, 6400]
    >>> rows_computed(121, like.float())
    121
    """
    is_half = like.dtype in (torch.float16, torch.bfloat16)
    if like.device.type != "cpu" or not (is_half or torch.is_autocast_enabled("cpu")):
        return rows
    step = max(4, 2 ** ((rows - 1).bit_length() - 6))
    return -(-rows // step) * step


def gated(
    before: Float[Tensor, "*rows width"],
    after: Float[Tensor, "*rows width"],
    gate: Float[Tensor, "*rows"],
) -> Float[Tensor, "*rows width"]:
    """The update rule: h + g (block(h) − h), so that a gate of one is the block itself.

    MoR's h + g f(h) (arXiv 2507.10524, eq. 2.1) with f the block's increment, without the residual
    that a block's output already carries.
    """
    return torch.lerp(before, after.to(before.dtype), gate.to(before.dtype).unsqueeze(-1))


def masked(block: Block, state: Float[Tensor, "batch tokens width"], going: Going) -> Ran:
    """Compute every token, hide the inactive ones from attention, keep the active results."""
    visible = going.active[:, None, None, :]
    moved = block(state, Together(visible=visible))
    kept = torch.where(going.active.unsqueeze(-1), gated(state, moved, going.gate), state)
    return Ran(state=kept, moved=kept.flatten(0, 1), rows=None)


def packed(block: Block, state: Float[Tensor, "batch tokens width"], going: Going) -> Ran:
    """One gather of the active tokens of all images into one matrix, the block, one scatter.

    Images lie in the matrix by their number of tokens, so that those alike share one attention
    call without a copy. An image without active tokens is not in it. Where the host knows that all
    have as many, the matrix is a rectangle. The block is given `rows_computed` of its rows. Where no
    token stays behind, nothing is moved.
    """
    batch, tokens, _ = state.shape
    each = going.each
    if each is None:
        lengths: list[int] = going.active.sum(dim=1).tolist()  # shapes depend on data: a wait
        if min(lengths, default=0) == tokens:
            return _rectangle(block, state, going, tokens)
        rows, attend = _by_length(going.active, lengths)
    elif each == tokens or rows_computed(batch * each, state) == batch * each:
        return _rectangle(block, state, going, each)
    else:
        rows, attend = _places(going.active, batch * each), Packed(((batch, each),), None, batch)
    if not attend.groups:
        return _unmoved(state, rows)
    filling = rows_computed(len(rows), state) - len(rows)
    return _on_rows(block, state, going, rows, replace(attend, filling=filling), filling)


def capacity(block: Block, state: Float[Tensor, "batch tokens width"], going: Going) -> Ran:
    """As many tokens of every image: one rectangle, shapes that data does not change.

    Raises ValueError where the counts differ from image to image.
    """
    each = going.each
    if each is None:
        lengths = set(going.active.sum(dim=1).tolist())
        if len(lengths) != 1:
            raise ValueError(
                f"capacity wants as many tokens of every image, got {sorted(lengths)}; route by "
                "top-k, or use packed"
            )
        [each] = lengths
    return _rectangle(block, state, going, each)


def padded(block: Block, state: Float[Tensor, "batch tokens width"], going: Going) -> Ran:
    """Every image filled up to the longest of the batch; what fills is computed and thrown away."""
    batch, tokens, _ = state.shape
    lengths = going.active.sum(dim=1)
    shortest, longest = (
        torch.stack(lengths.aminmax()).tolist() if going.each is None else (going.each,) * 2
    )
    if shortest == tokens:
        return _rectangle(block, state, going, tokens)
    longest = min(rows_computed(longest, state), tokens)
    # Active tokens first, in their order; what comes after them only fills.
    order = going.active.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
    places = order + tokens * torch.arange(batch, device=state.device).unsqueeze(1)
    is_real = torch.arange(longest, device=state.device) < lengths.unsqueeze(1)
    rows = places[is_real]
    if not longest:
        return _unmoved(state, rows)
    flat = state.flatten(0, 1)
    gathered = flat.index_select(0, places.flatten()).view(batch, longest, -1)
    # An image that has nothing left looks at one of its own tokens, or its softmax has no sum.
    visible = is_real | (lengths == 0).unsqueeze(1)
    moved = block(gathered, Together(visible=visible[:, None, None, :]))
    gates = going.gate.flatten().index_select(0, rows)
    updated = gated(gathered[is_real], moved[is_real], gates)
    return Ran(state=_written(state, rows, updated, going.into), moved=updated, rows=rows)


def _rectangle(
    block: Block, state: Float[Tensor, "batch tokens width"], going: Going, each: int
) -> Ran:
    batch, tokens, _ = state.shape
    if each == tokens:  # nothing stays behind: nothing to gather or to write back
        moved = gated(state, block(state, Together()), going.gate)
        return Ran(state=moved, moved=moved.flatten(0, 1), rows=None)
    rows = _places(going.active, batch * each)
    if not each:
        return _unmoved(state, rows)

    return _on_rows(partial(_of_rectangle, block, batch), state, going, rows, Together())


# Not within the function that uses it: annotations would be worked out anew at every recursion.
def _of_rectangle(
    block: Block, batch: int, gathered: Float[Tensor, "rows width"], attend: Attend
) -> Float[Tensor, "rows width"]:
    each = len(gathered) // batch
    return block(gathered.view(batch, each, -1), attend).flatten(0, 1)


def _unmoved(state: Float[Tensor, "batch tokens width"], rows: Int[Tensor, " rows"]) -> Ran:
    return Ran(state=state, moved=state.flatten(0, 1)[:0], rows=rows)


def _on_rows(
    block: Block,
    state: Float[Tensor, "batch tokens width"],
    going: Going,
    rows: Int[Tensor, " rows"],
    attend: Attend,
    filling: int = 0,
) -> Ran:
    flat = state.flatten(0, 1)
    filled = functional.pad(rows, (0, filling)) if filling else rows
    gathered = flat.index_select(0, filled)
    gates = going.gate.flatten().index_select(0, rows)
    updated = gated(gathered[: len(rows)], block(gathered, attend)[: len(rows)], gates)
    return Ran(state=_written(state, rows, updated, going.into), moved=updated, rows=rows)


def _written(
    state: Float[Tensor, "batch tokens width"],
    rows: Int[Tensor, " rows"],
    updated: Float[Tensor, "rows width"],
    into: Float[Tensor, "batch tokens width"] | None,
) -> Float[Tensor, "batch tokens width"]:
    if into is None:
        return state.flatten(0, 1).index_copy(0, rows, updated).view_as(state)
    into.view(-1, into.shape[-1]).index_copy_(0, rows, updated)
    return into


def _places(active: Bool[Tensor, "batch tokens"], count: int) -> Int[Tensor, " rows"]:
    """The flat places of so many active tokens; a known count spares a GPU's host the wait."""
    return torch.nonzero_static(active.flatten(), size=count).squeeze(1)


def _by_length(
    active: Bool[Tensor, "batch tokens"], lengths: Sequence[int]
) -> tuple[Int[Tensor, " rows"], Packed]:
    """Flat places of the active tokens, images by their length, and the arrangement that this is."""
    batch, tokens = active.shape
    order = sorted((image for image in range(batch) if lengths[image]), key=lengths.__getitem__)
    groups = tuple(
        (len(list(alike)), length) for length, alike in groupby(lengths[image] for image in order)
    )
    if order == list(range(batch)):
        return _places(active, sum(lengths)), Packed(groups, None, batch)
    images = torch.tensor(order, dtype=torch.int64, device=active.device)
    place = _places(active[images], sum(lengths))
    rows = images[place // tokens] * tokens + place % tokens
    return rows, Packed(groups, tuple(order), batch)


# Where every image must have as many tokens as the others.
RECTANGULAR: frozenset[Executor] = frozenset({"capacity"})
EXECUTORS: dict[Executor, Run] = {
    "masked": masked,
    "padded": padded,
    "packed": packed,
    "capacity": capacity,
}


def executor_named(name: str) -> Run:
    """The executor of that name.

    >>> executor_named("fast")
    Traceback (most recent call last):
    ValueError: no executor fast; there are masked, padded, packed, capacity
    """
    for known, run in EXECUTORS.items():
        if known == name:
            return run
    raise ValueError(f"no executor {name}; there are {', '.join(EXECUTORS)}")
