"""Who goes on: expert choice (a router per recursion) and token choice (one decision per token)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from domain.architecture import Architecture
from domain.routing import default_capacities

Selection = Literal["top-k", "threshold"]

THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What the router says of every patch at one recursion. Only patches are ever voted on.

    A patch's gate is both its rank for going on and the weight of the block's increment.
    """

    logits: Float[Tensor, "batch patches"]
    gates: Float[Tensor, "batch patches"]
    goes_on: Bool[Tensor, "batch patches"]


# From the recursion (0 is the first), its input and the patches that are still in.
Ballot = Callable[
    [int, Float[Tensor, "batch patches width"], Bool[Tensor, "batch patches"]],
    Vote,
]


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


class ExpertChoice(nn.Module):
    """A linear router per recursion scores the patches still in; the best, or the wanted, go on.

    Hierarchical: only patches kept at one recursion are scored for the next. `top-k` keeps
    max(1, ⌊c_r P⌋) of an image's P patches (static counts), `threshold` those whose sigmoid is
    over one half (counts differ by image). Gate: sigmoid(logit). MoR, arXiv 2507.10524, section 2.
    """

    def __init__(
        self,
        architecture: Architecture,
        capacities: Sequence[float] | None = None,
        selection: Selection = "top-k",
    ) -> None:
        super().__init__()
        shares = tuple(capacities or default_capacities(architecture.recursions))
        if len(shares) != architecture.recursions:
            raise ValueError(f"wanted {architecture.recursions} capacities, got {shares}")
        if not all(0 < later <= earlier for earlier, later in zip((1, *shares), shares)):  # noqa: B905 - one is longer
            raise ValueError(f"wanted capacities from 1 downwards that never rise, got {shares}")
        self.capacities = shares
        self.selection = selection
        self.kept = tuple(max(1, math.floor(share * architecture.patches)) for share in shares)
        self.scores = nn.ModuleList(
            nn.Linear(architecture.width, 1) for _ in range(architecture.recursions)
        )

    def ballot(self, patches: Float[Tensor, "batch patches width"]) -> Ballot:
        """Votes, each on the input of its own recursion."""
        return self.vote

    def vote(
        self,
        recursion: int,
        patches: Float[Tensor, "batch patches width"],
        staying: Bool[Tensor, "batch patches"],
    ) -> Vote:
        """The vote on who of those staying enters `recursion`."""
        logits = self.scores[recursion](patches).squeeze(-1)
        gates = logits.sigmoid()
        if self.selection == "threshold" and not self.training:
            goes_on = staying & (gates > THRESHOLD)
        else:
            wanted = torch.full(logits.shape[:1], self.kept[recursion], device=logits.device)
            goes_on = highest(gates.detach(), staying, wanted)
        return Vote(logits=logits, gates=gates, goes_on=goes_on)


class TokenChoice(nn.Module):
    """One linear router gives every patch its depth, once, before the shared block.

    Depth is the arg max of a softmax over 1 … R. Gate of recursion r: the probability of a depth of
    r or more, so the first gate is one and the router learns from every recursion a patch entered
    (MoR, arXiv 2507.10524, eq. 2.2 gates with the probability of the chosen depth alone).
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.scores = nn.Linear(architecture.width, architecture.recursions)

    def ballot(self, patches: Float[Tensor, "batch patches width"]) -> Ballot:
        """Votes, all decided by the state before the first recursion."""
        logits = self.scores(patches)
        gates = depth_at_least(logits)
        depth = logits.argmax(dim=-1)

        def vote(
            recursion: int,
            patches: Float[Tensor, "batch patches width"],
            staying: Bool[Tensor, "batch patches"],
        ) -> Vote:
            return Vote(
                logits=logits[..., recursion],
                gates=gates[..., recursion],
                goes_on=depth >= recursion,
            )

        return vote


def depth_at_least(
    logits: Float[Tensor, "*rows recursions"],
) -> Float[Tensor, "*rows recursions"]:
    """P(depth ≥ r) for r = 1 … R, from the logits of the depths.

    >>> depth_at_least(torch.zeros(4)).tolist()
    [1.0, 0.75, 0.5, 0.25]
    """
    return functional.softmax(logits, dim=-1).flip(-1).cumsum(-1).flip(-1)


def router_for(
    architecture: Architecture,
    capacities: Sequence[float] | None = None,
    selection: Selection = "top-k",
) -> ExpertChoice | TokenChoice:
    """The router that the architecture names; capacities and selection are for expert choice."""
    if architecture.router == "token-choice":
        return TokenChoice(architecture)
    return ExpertChoice(architecture, capacities, selection)
