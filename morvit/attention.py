"""Attention within each image, for every arrangement of tokens that an executor makes.

An arrangement knows whose tokens are whose. It attends among the tokens at hand, or from them to keys
and values remembered from the first recursion (recursive sharing; MoR, arXiv 2507.10524, section 2.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

Heads = Float[Tensor, "*rows heads head_width"]
# (images, tokens of each), in the order in which they lie in a packed matrix.
Groups = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Keys and values of the tokens that entered the first recursion, image by image.

    `lengths` say how many of each image are real, where they differ and the host knows.
    """

    keys: Float[Tensor, "batch seen heads head_width"]
    values: Float[Tensor, "batch seen heads head_width"]
    visible: Bool[Tensor, "batch 1 1 seen"] | None
    lengths: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Together:
    """Tokens as a rectangle of images; attention to the `visible` ones of each."""

    visible: Bool[Tensor, "batch 1 1 tokens"] | None = None

    def __call__(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Each token to the visible ones of its image."""
        return mixed(queries, keys, values, self.visible)

    def remembered(self, keys: Heads, values: Heads) -> Memory:
        """As they are."""
        return Memory(keys=keys, values=values, visible=self.visible)

    def across(self, queries: Heads, memory: Memory) -> Heads:
        """Each token to those of its image that are remembered; no work on what only fills."""
        if memory.lengths is None:
            return mixed(queries, memory.keys, memory.values, memory.visible)
        parts = [
            mixed(
                queries[image : image + 1],
                memory.keys[image : image + 1, :length],
                memory.values[image : image + 1, :length],
            )
            for image, length in enumerate(memory.lengths)
        ]
        return torch.cat(parts)


@dataclass(frozen=True)
class Packed:
    """Tokens of all images in one matrix, image after image, those of equal length beside each other.

    `order` says which image of the batch lies at each place, `None` where they lie in their order.
    The last rows, `filling`, are of no image.
    """

    groups: Groups
    order: tuple[int, ...] | None
    batch: int
    filling: int = 0

    def __call__(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Each token to those of its image: a call for each length, or one ragged call on a GPU."""
        if has_ragged_kernel(queries):
            return self._ragged(queries, keys, values)
        parts = zip(*(self._parts(each) for each in (queries, keys, values)), strict=True)
        return _joined([mixed(*heads) for heads in parts], self.filling)

    def remembered(self, keys: Heads, values: Heads) -> Memory:
        """Image by image, filled up to the longest where they differ."""
        if len(self.groups) == 1 and self.order is None:
            [whole_keys], [whole_values] = self._parts(keys), self._parts(values)
            return Memory(keys=whole_keys, values=whole_values, visible=None)
        lengths = dict.fromkeys(range(self.batch), 0) | dict(self._images_and_lengths())
        longest = max(lengths.values())
        visible = torch.zeros(self.batch, longest, dtype=torch.bool, device=keys.device)
        filled = keys.new_zeros(2, self.batch, longest, *keys.shape[1:])
        first = 0
        for image, length in self._images_and_lengths():
            visible[image, :length] = True
            for kind, rows in enumerate((keys, values)):
                filled[kind, image, :length] = rows[first : first + length]
            first += length
        return Memory(
            keys=filled[0],
            values=filled[1],
            visible=visible[:, None, None, :],
            lengths=tuple(lengths.values()),
        )

    def across(self, queries: Heads, memory: Memory) -> Heads:
        """Each token to those of its image that are remembered: a call for each image that differs."""
        if memory.lengths is None and len(self.groups) == 1 and self.order is None:
            [whole] = self._parts(queries)
            attended = mixed(whole, memory.keys, memory.values, memory.visible)
            return _joined([attended], self.filling)
        outputs, first = [], 0
        for image, length in self._images_and_lengths():
            seen = None if memory.lengths is None else memory.lengths[image]
            keys, values = (each[image : image + 1, :seen] for each in (memory.keys, memory.values))
            outputs.append(mixed(queries[None, first : first + length], keys, values))
            first += length
        return _joined(outputs, self.filling)

    def _images_and_lengths(self) -> list[tuple[int, int]]:
        lengths = [length for count, length in self.groups for _ in range(count)]
        return list(zip(self.order or range(len(lengths)), lengths, strict=True))

    def _parts(self, matrix: Heads) -> Sequence[Tensor]:
        # One rectangle for each group: (images, tokens of each, heads, head_width).
        rows = [count * length for count, length in self.groups]
        parts = torch.split(matrix[: sum(rows)], rows)
        return [
            part.view(*group, *matrix.shape[1:])
            for part, group in zip(parts, self.groups, strict=True)
        ]

    def _ragged(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """One call for images of any length, which torch has for half precision on GPUs."""
        from torch.nn.attention.varlen import varlen_attn

        ends, longest = self._ends(queries.device)
        output = varlen_attn(queries, keys, values, ends, ends, longest, longest)
        assert isinstance(output, Tensor)  # a pair only where the log-sums are asked for
        return output

    def _ends(self, device: torch.device) -> tuple[Int[Tensor, " places"], int]:
        lengths = [length for count, length in self.groups for _ in range(count)]
        ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return ends.to(device, non_blocking=True), max(lengths)


Attend = Together | Packed


def has_ragged_kernel(queries: Heads) -> bool:
    """Whether torch has one attention call for images of any length: half precision, from Ampere on."""
    return (
        queries.is_cuda
        and queries.dtype in (torch.float16, torch.bfloat16)
        and queries.shape[-1] % 8 == 0
        and torch.cuda.get_device_capability(queries.device) >= (8, 0)
    )


def mixed(
    queries: Float[Tensor, "batch tokens heads head_width"],
    keys: Float[Tensor, "batch seen heads head_width"],
    values: Float[Tensor, "batch seen heads head_width"],
    visible: Bool[Tensor, "batch 1 1 seen"] | None = None,
) -> Float[Tensor, "batch tokens heads head_width"]:
    """softmax(QKᵀ/√d)V within each image."""
    result = functional.scaled_dot_product_attention(
        queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=visible
    )
    return result.transpose(1, 2)


def _joined(parts: Sequence[Tensor], filling: int = 0) -> Heads:
    rows = [part.flatten(0, 1) for part in parts]
    if filling:
        rows.append(rows[0].new_zeros(filling, *rows[0].shape[1:]))
    return torch.cat(rows) if len(rows) > 1 else rows[0]
