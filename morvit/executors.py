"""How a recursion is run on its active tokens: one table from an executor's name to a function.

Routed work is not executed work: `masked` computes every token and throws the rest away, `packed`
computes the active ones only. Both give the same state for the same routing.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from domain.record import Executor

Heads = Float[Tensor, "*rows heads head_width"]
Attend = Callable[[Heads, Heads, Heads], Heads]
Block = Callable[[Float[Tensor, "*rows width"], Attend], Float[Tensor, "*rows width"]]
Run = Callable[
    [
        Block,
        Float[Tensor, "batch tokens width"],
        Bool[Tensor, "batch tokens"],
        Float[Tensor, "batch tokens"],
    ],
    Float[Tensor, "batch tokens width"],
]


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


def together(
    queries: Float[Tensor, "batch tokens heads head_width"],
    keys: Float[Tensor, "batch tokens heads head_width"],
    values: Float[Tensor, "batch tokens heads head_width"],
    visible: Bool[Tensor, "batch 1 1 tokens"] | None = None,
) -> Float[Tensor, "batch tokens heads head_width"]:
    """Attention within each image, to the `visible` tokens of it."""
    mixed = functional.scaled_dot_product_attention(
        queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=visible
    )
    return mixed.transpose(1, 2)


def within_groups(
    queries: Float[Tensor, "rows heads head_width"],
    keys: Float[Tensor, "rows heads head_width"],
    values: Float[Tensor, "rows heads head_width"],
    groups: Sequence[tuple[int, int]],
) -> Float[Tensor, "rows heads head_width"]:
    """Attention within each image of a packed matrix; `groups` are (images, tokens of each)."""
    rows = [images * tokens for images, tokens in groups]
    parts = zip(
        *(torch.split(matrix, rows) for matrix in (queries, keys, values)), groups, strict=True
    )
    mixed = [
        together(*(part.view(*group, *part.shape[1:]) for part in heads)).flatten(0, 1)
        for *heads, group in parts
    ]
    return torch.cat(mixed) if len(mixed) > 1 else mixed[0]


def masked(
    block: Block,
    state: Float[Tensor, "batch tokens width"],
    active: Bool[Tensor, "batch tokens"],
    gate: Float[Tensor, "batch tokens"],
) -> Float[Tensor, "batch tokens width"]:
    """Compute every token, hide the inactive ones from attention, keep the active results."""
    moved = block(state, partial(together, visible=active[:, None, None, :]))
    return torch.where(active.unsqueeze(-1), gated(state, moved, gate), state)


def packed(
    block: Block,
    state: Float[Tensor, "batch tokens width"],
    active: Bool[Tensor, "batch tokens"],
    gate: Float[Tensor, "batch tokens"],
) -> Float[Tensor, "batch tokens width"]:
    """Gather the active tokens of all images into one matrix, run the block on it, scatter back.

    Images lie in the matrix by their number of tokens, so that those alike share one attention
    call without a copy. An image without active tokens is not in it.
    """
    batch, tokens = active.shape
    lengths: list[int] = active.sum(dim=1).tolist()  # shapes depend on data: the host waits here
    order = sorted(range(batch), key=lengths.__getitem__)
    groups = [
        (len(list(alike)), length)
        for length, alike in groupby(lengths[image] for image in order)
        if length
    ]
    if not groups:
        return state
    images = torch.tensor(order, device=active.device)
    rank, token = active[images].nonzero(as_tuple=True)
    rows = images[rank] * tokens + token

    flat = state.flatten(0, 1)
    gathered = flat.index_select(0, rows)
    moved = block(gathered, partial(within_groups, groups=groups))
    gates = gate.flatten().index_select(0, rows)
    return flat.index_copy(0, rows, gated(gathered, moved, gates)).view(batch, tokens, -1)


EXECUTORS: dict[Executor, Run] = {"masked": masked, "packed": packed}


def executor_named(name: str) -> Run:
    """The executor of that name.

    >>> executor_named("padded")
    Traceback (most recent call last):
    ValueError: no executor padded; there are masked (the reference) and packed
    """
    for known, run in EXECUTORS.items():
        if known == name:
            return run
    raise ValueError(f"no executor {name}; there are masked (the reference) and packed")
