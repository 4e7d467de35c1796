"""How far tokens travel: the joint counts per image, of which survival is only a view."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from domain.architecture import Architecture
from domain.record import Count, Identifier, PositiveCount, Record, Sentence


class RoutingDistribution(Record):
    """`counts[image][r]` tokens of an image enter recursion `r`; `tokens` are all it has.

    >>> RoutingDistribution(tokens=4, counts=((4, 2, 1), (4, 4, 3))).survival
    (1.0, 0.75, 0.5)
    """

    tokens: PositiveCount
    counts: tuple[tuple[int, ...], ...]

    @model_validator(mode="after")
    def _never_more_than_before(self) -> Self:
        if not self.counts or not self.counts[0]:
            raise ValueError("wanted the counts of one image and one recursion at least, got none")
        recursions = len(self.counts[0])
        for row in self.counts:
            if len(row) != recursions:
                raise ValueError(f"wanted {recursions} counts for every image, got {row}")
            if any(later > earlier for earlier, later in pairwise((self.tokens, *row))):
                raise ValueError(
                    f"tokens may only leave on the way down, got {row} of {self.tokens}"
                )
            if row[-1] < 0:
                raise ValueError(f"wanted counts of zero or more, got {row}")
        return self

    @property
    def images(self) -> int:
        """Images recorded."""
        return len(self.counts)

    @property
    def recursions(self) -> int:
        """Recursions of the network."""
        return len(self.counts[0])

    @property
    def survival(self) -> tuple[float, ...]:
        """Share of tokens that enter each recursion, over all images."""
        everywhere = self.tokens * self.images
        return tuple(sum(column) / everywhere for column in zip(*self.counts, strict=True))

    @property
    def mean_depth(self) -> float:
        """Mean share of the full depth that a token travels, 0 to 1."""
        return sum(self.survival) / self.recursions

    @classmethod
    def full(cls, tokens: int, recursions: int) -> Self:
        """Every token goes everywhere: a plain ViT, or the guard's fallback."""
        return cls(tokens=tokens, counts=((tokens,) * recursions,))

    @classmethod
    def from_survival(
        cls, survival: Sequence[float], tokens: int, always: int = 1, images: int = 32
    ) -> Self:
        """Images alike, whose mean survival is `survival` to within half a token of the whole set.

        `always` tokens (CLS) are never routed away, even where survival says less. Raises ValueError where survival leaves [0, 1],
        is not a number, or rises.

        >>> RoutingDistribution.from_survival((1, 0.5), tokens=5, images=2).counts
        ((5, 2), (5, 3))
        """
        for share in survival:
            if not 0 <= share <= 1:
                raise ValueError(f"wanted survival between 0 and 1, got {share}")
        if any(later > earlier for earlier, later in pairwise(survival)):
            raise ValueError(
                f"wanted survival that never rises on the way down, got {tuple(survival)}"
            )
        totals = [round(share * tokens * images) for share in survival]
        # Image i takes the i-th share of the remainder; the same i for every recursion, so that
        # an image with more tokens early also has more late.
        rows = (
            tuple(max(always, (total + image) // images) for total in totals)
            for image in range(images)
        )
        return cls(tokens=tokens, counts=tuple(rows))

    def resized(self, tokens: int, always: int = 1) -> "RoutingDistribution":
        """The same shares on images of another number of tokens, image by image.

        >>> RoutingDistribution(tokens=5, counts=((5, 2),)).resized(11).counts
        ((11, 4),)
        """
        if tokens == self.tokens:
            return self
        return RoutingDistribution(
            tokens=tokens,
            counts=tuple(
                tuple(max(always, round(count * tokens / self.tokens)) for count in row)
                for row in self.counts
            ),
        )


class DecidedImage(Record):
    """One image with the depth that the router gave each of its patches.

    `pixels` are grey levels 0-255, row by row; `depths` the recursions that each patch of the grid
    entered, row by row.
    """

    label: Sentence
    predicted: Sentence
    pixels: tuple[tuple[Annotated[int, Field(ge=0, le=255)], ...], ...]
    depths: tuple[tuple[Count, ...], ...]


class RouterDecisions(Record):
    """What the router decided on a few real images, for a person to look at."""

    format: Literal[1] = 1
    model: Identifier
    weights: Sentence
    recursions: PositiveCount
    images: tuple[DecidedImage, ...]


def capacities_of_budget(budget: float, recursions: int) -> tuple[float, ...]:
    """Capacities whose mean is `budget`: everything once as far as that goes, then ever fewer.

    1, q, q² …, with q by bisection. Below one recursion in all only a share enters the first. What
    every patch does needs no choice, so the routed pass and the uniform one are alike so far.

    >>> capacities_of_budget(1 / 6, 3)
    (0.5, 0.0, 0.0)
    >>> [round(share, 3) for share in capacities_of_budget(0.5, 3)]
    [1.0, 0.366, 0.134]
    """
    if not 0 <= budget <= 1:
        raise ValueError(f"wanted a budget between 0 and 1, got {budget}")
    wanted = budget * recursions
    if wanted <= 1:
        return (wanted,) + (0.0,) * (recursions - 1)
    if budget == 1:  # bisection ends a rounding below it, which would cost a patch
        return (1.0,) * recursions
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        reached = sum(middle**r for r in range(recursions))
        low, high = (middle, high) if reached < wanted else (low, middle)
    return tuple(high**r for r in range(recursions))


def kept_of(shares: Sequence[float], patches: int) -> tuple[int, ...]:
    """Patches of an image that capacities keep: max(1, ⌊c_r P⌋) (MoR, arXiv 2507.10524, section 2).

    >>> kept_of((1.0, 0.5, 0.01), 16)
    (16, 8, 1)
    """
    return tuple(max(1, math.floor(share * patches)) for share in shares)


def routing_at(capacities: Sequence[float], net: Architecture) -> RoutingDistribution:
    """As many patches of every image as capacities keep, and what is never routed away."""
    kept = tuple(net.prefix_tokens + each for each in kept_of(capacities, net.patches))
    return RoutingDistribution(tokens=net.tokens, counts=(kept,))


def routing_of_budget(budget: float, net: Architecture) -> RoutingDistribution:
    """What `net` does when it is told to serve at a mean depth of `budget`: a view of its capacities.

    The one family that networks are trained, tested and served with. Whole patches, one at the least,
    and tokens that are never routed away put the mean depth near the budget, not on it. Without a
    router every token goes everywhere.
    """
    if not net.is_routed:
        return RoutingDistribution.full(net.tokens, net.recursions)
    return routing_at(capacities_of_budget(budget, net.recursions), net)


def default_capacities(recursions: int) -> tuple[float, ...]:
    """Shares that balanced token-choice would use, (R − r + 1)/R (MoR, arXiv 2507.10524).

    >>> default_capacities(2)
    (1.0, 0.5)
    """
    return tuple((recursions - r) / recursions for r in range(recursions))
