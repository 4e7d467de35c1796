"""A vote on who goes on, and the orders that may overrule it. Pure."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from domain.routing import capacities_of_budget, kept_of


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a router may look at: the tokens that the last recursion moved, and their surroundings.

    `rows` are the places of `moved` among all tokens of the batch (image · tokens + token), None
    where it holds them all. `statistics` are mean and deviation of each patch's pixels.
    """

    state: Float[Tensor, "batch tokens width"]
    moved: Float[Tensor, "rows width"]
    rows: Int[Tensor, " rows"] | None
    statistics: Float[Tensor, "batch patches 2"] | None
    prefix: int


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What the router says of every patch at one recursion. Only patches are ever voted on.

    `ranks` say who goes on before whom, from 0 to 1. Where the router was never taught to choose, budgets
    and thresholds go by what `untaught` gives instead; imposed counts, which are for timing, do not.
    `gates` say how strongly the block moves a patch. `each` is the number of patches of every image
    that go on, where that is no matter of data. Where it was settled beforehand that all patches of
    an image go on, there was nothing to choose, and their gate is one.
    """

    logits: Float[Tensor, "batch patches"]
    gates: Float[Tensor, "batch patches"]
    ranks: Float[Tensor, "batch patches"]
    goes_on: Bool[Tensor, "batch patches"]
    each: int | None = None
    untaught: Callable[[], Float[Tensor, "batch patches"]] | None = None

    def chosen_by(self) -> Float[Tensor, "batch patches"]:
        """What budgets and thresholds choose by; worked out where somebody must stay behind."""
        return self.ranks if self.untaught is None else self.untaught()


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What overrules the router's own choice; the first that is there.

    `uniform`: everything goes everywhere with a gate of one. `imposed`: exactly these counts of an
    image, prefix included, by the router's ranking. `thresholds`: whoever ranks above that of the
    recursion. `capacities`: this share of the patches of every image (`at_budget` gives them).
    """

    uniform: bool = False
    imposed: Int[Tensor, "batch recursions"] | None = None
    thresholds: tuple[float, ...] | None = None
    capacities: tuple[float, ...] | None = None

    @property
    def overrule(self) -> bool:
        """Whether the router's own choice is of no account."""
        others = (self.imposed, self.thresholds, self.capacities)
        return self.uniform or any(each is not None for each in others)

    @classmethod
    def at_budget(cls, budget: float, recursions: int) -> "Orders":
        """A mean depth of `budget` times the full one; at 1 everything goes everywhere.

        >>> Orders.at_budget(1.0, 3).uniform
        True
        """
        if budget == 1:
            return cls(uniform=True)
        return cls(capacities=capacities_of_budget(budget, recursions))


# From the recursion (0 is the first), what is seen there, the patches that are still in, and whether
# the router itself is to choose among them; where it is overruled, its choice is not worked out.
Ballot = Callable[[int, Seen, Bool[Tensor, "batch patches"], bool], Vote]


def highest(
    scores: Float[Tensor, "batch patches"],
    eligible: Bool[Tensor, "batch patches"],
    wanted: Int[Tensor, " batch"],
) -> Bool[Tensor, "batch patches"]:
    """The `wanted` best-scored eligible patches of each image; equal scores go in patch order."""
    ordered = scores.masked_fill(~eligible, -math.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(scores.shape[1], device=scores.device)
    is_taken = places < wanted.unsqueeze(1)
    return torch.zeros_like(eligible).scatter(1, ordered, is_taken) & eligible


def best(
    scores: Float[Tensor, "batch patches"], eligible: Bool[Tensor, "batch patches"], wanted: int
) -> Bool[Tensor, "batch patches"]:
    """The `wanted` best-scored patches of each image, of which that many are eligible."""
    if wanted == scores.shape[1]:
        return eligible
    places = scores.masked_fill(~eligible, -math.inf).topk(wanted, dim=1, sorted=False).indices
    return torch.zeros_like(eligible).scatter(1, places, True)


def overruled(
    vote: Vote, staying: Bool[Tensor, "batch patches"], orders: Orders, recursion: int, prefix: int
) -> Vote:
    """The vote with who goes on, and how strongly, as `orders` want it."""
    patches = staying.shape[1]
    if orders.uniform:
        everywhere = torch.ones_like(vote.gates)
        return replace(vote, gates=everywhere, goes_on=staying, each=patches)
    if orders.imposed is not None:
        wanted = orders.imposed[:, recursion] - prefix
        each = _alike(wanted)
        if each is None or each == patches:
            vote = replace(vote, gates=vote.gates.masked_fill((wanted == patches)[:, None], 1.0))
        if each is not None:
            return replace(vote, goes_on=best(vote.ranks, staying, each), each=each)
        return replace(vote, goes_on=highest(vote.ranks, staying, wanted), each=None)
    if orders.thresholds is not None:
        threshold = orders.thresholds[recursion]
        if not threshold:
            return replace(vote, gates=torch.ones_like(vote.gates), goes_on=staying, each=None)
        return replace(vote, goes_on=staying & (vote.chosen_by() > threshold), each=None)
    if orders.capacities is not None:
        kept = kept_of(orders.capacities, patches)[recursion]
        return keeping(vote, staying, kept)
    return vote


def keeping(vote: Vote, staying: Bool[Tensor, "batch patches"], kept: int) -> Vote:
    """The vote with the `kept` patches of each image going on that it would choose first."""
    patches = staying.shape[1]
    gates = torch.ones_like(vote.gates) if kept == patches else vote.gates
    goes_on = staying if kept == patches else best(vote.chosen_by(), staying, kept)
    return replace(vote, gates=gates, goes_on=goes_on, each=kept)


def _alike(counts: Int[Tensor, " batch"]) -> int | None:
    """The count that all images have, if that can be seen without a wait."""
    if counts.device.type != "cpu":
        return None
    first = int(counts[0])
    return first if bool((counts == first).all()) else None
