"""Who goes on: expert choice, token choice and, as control, chance."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from domain.architecture import ROUTER_HIDDEN, Architecture
from domain.routing import default_capacities, kept_of
from morvit.executors import rows_computed
from morvit.votes import Ballot, Seen, Vote, best, keeping

Selection = Literal["top-k", "threshold"]

THRESHOLD = 0.5
# Of patches that are alike but for rounding.
TINY_DISTANCE = 1e-6


class Scores(nn.Linear):
    """What a router sees of a token, scored: a linear layer, with a hidden one (GELU) before it or not."""

    def __init__(self, architecture: Architecture, outputs: int) -> None:
        inputs = architecture.router_inputs
        hidden = architecture.width * ROUTER_HIDDEN[architecture.router_shape]
        super().__init__(hidden or inputs, outputs)
        self.has_context = architecture.router_reads == "token-and-context"
        self.hidden = nn.Linear(inputs, hidden) if hidden else None

    def of(self, seen: Seen) -> Float[Tensor, "batch patches outputs"]:
        """Scores of all patches, zero for those that the last recursion did not move."""
        batch, tokens, _ = seen.state.shape
        features = self._features(seen)
        rows = len(features)
        if seen.rows is not None and (filling := rows_computed(rows, features) - rows):
            features = functional.pad(features, (0, 0, 0, filling))
        if self.hidden is not None:
            features = functional.gelu(self.hidden(features))
        scores = self(features)[:rows]
        if seen.rows is not None:
            everywhere = scores.new_zeros(batch * tokens, scores.shape[-1])
            scores = everywhere.index_copy(0, seen.rows, scores)
        return scores.view(batch, tokens, -1)[:, seen.prefix :]

    def _features(self, seen: Seen) -> Float[Tensor, "rows inputs"]:
        if not self.has_context:
            return seen.moved
        assert seen.statistics is not None
        batch, tokens, width = seen.state.shape
        context = torch.cat(
            [
                seen.state[:, :1].expand(batch, tokens, width),
                functional.pad(seen.statistics, (0, 0, seen.prefix, 0)).to(seen.state.dtype),
            ],
            dim=-1,
        ).flatten(0, 1)
        if seen.rows is not None:
            context = context.index_select(0, seen.rows)
        return torch.cat([seen.moved, context], dim=-1)


class ExpertChoice(nn.Module):
    """A router per recursion scores the patches still in; the best, or the wanted, go on.

    Hierarchical: only patches kept at one recursion are scored for the next. `top-k` keeps
    max(1, ⌊c_r P⌋) of an image's P patches (static counts), `threshold` those whose sigmoid is
    over one half (counts differ by image), but all where capacity is one. Gate: sigmoid(logit).
    MoR, arXiv 2507.10524, section 2.

    Where capacity is one the router never learns to choose. Told to let fewer in, it lets those in that
    are least like the rest of their image, with a gate of one: at a mean depth of 0.2 91 % of inspection
    images are right (by chance 89, by its untaught scores 61) and 85 % of Fashion-MNIST (85, 78). Below that
    it depends on the task: at 0.1 88 % (77, 52), and 47 % (67, 47).
    """

    def __init__(
        self,
        architecture: Architecture,
        capacities: Sequence[float] | None = None,
        selection: Selection = "top-k",
    ) -> None:
        super().__init__()
        self.kept = _checked_kept(architecture, capacities)
        self.selection = selection
        # What chooses where the router was never taught to; the controls put others in its place.
        self.untaught: Callable[[Seen], Float[Tensor, "batch patches"]] = unlikeness
        self.scores = nn.ModuleList(Scores(architecture, 1) for _ in range(architecture.recursions))

    def ballot(self, seen: Seen) -> Ballot:
        """Votes, each on the input of its own recursion."""
        return self.vote

    def vote(
        self,
        recursion: int,
        seen: Seen,
        staying: Bool[Tensor, "batch patches"],
        chooses: bool = True,
    ) -> Vote:
        """The vote on who of those staying enters `recursion`."""
        scores = self.scores[recursion]
        assert isinstance(scores, Scores)
        logits = scores.of(seen).squeeze(-1)
        kept = self.kept[recursion]
        if kept == staying.shape[1]:
            # What training sends everywhere, with a gate of one, no threshold may hold back or weigh.
            return Vote(
                logits=logits,
                gates=torch.ones_like(logits),
                ranks=logits.detach().sigmoid(),
                goes_on=staying,
                each=kept if chooses else None,
                untaught=partial(self.untaught, seen),
            )
        gates = logits.sigmoid()
        vote = Vote(logits=logits, gates=gates, ranks=gates.detach(), goes_on=staying)
        if not chooses:
            return vote
        if self.selection == "threshold" and not self.training:
            return replace(vote, goes_on=staying & (gates > THRESHOLD))
        return keeping(vote, staying, kept)


class TokenChoice(nn.Module):
    """One router gives every patch its depth, once, before the shared block.

    Depth is the arg max over 1 … R, after a bias that only the choice sees. Gate of recursion r: the
    probability of a depth of r or more, so the first gate is one and the router learns from every
    recursion a patch entered (MoR, arXiv 2507.10524, eq. 2.2 gates with the probability of the chosen
    depth alone). With sigmoids it is the largest of those of r or more.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.gate = architecture.router_gate
        self.scores = Scores(architecture, architecture.recursions)
        self.bias: Tensor | None
        bias = torch.zeros(architecture.recursions) if architecture.router_bias else None
        self.register_buffer("bias", bias)

    def ballot(self, seen: Seen) -> Ballot:
        """Votes, all decided by the state before the first recursion."""
        logits = self.scores.of(seen)
        gates = GATES[self.gate](logits)
        ranks = GATES[self.gate](self._biased(logits.detach()))
        depth = self.depths(logits)

        return partial(_of_ballot, logits, gates, ranks, depth)

    def depths(
        self, logits: Float[Tensor, "batch patches recursions"]
    ) -> Int[Tensor, "batch patches"]:
        """The last recursion (0 is the first) that each patch chooses."""
        return self._biased(logits).argmax(dim=-1)

    def _biased(
        self, logits: Float[Tensor, "batch patches recursions"]
    ) -> Float[Tensor, "batch patches recursions"]:
        return logits if self.bias is None else logits + self.bias

    @torch.no_grad()
    def rebalance(
        self, load: Float[Tensor, " recursions"], aims: Sequence[float], step: float
    ) -> None:
        """Each bias moves by u · sign(aim − load): no loss, no gradient (arXiv 2408.15664, alg. 1)."""
        assert self.bias is not None
        self.bias += step * (load.new_tensor(aims) - load).sign()


# Not within `ballot`: annotations would be worked out anew for every batch.
def _of_ballot(
    logits: Float[Tensor, "batch patches recursions"],
    gates: Float[Tensor, "batch patches recursions"],
    ranks: Float[Tensor, "batch patches recursions"],
    depth: Int[Tensor, "batch patches"],
    recursion: int,
    seen: Seen,
    staying: Bool[Tensor, "batch patches"],
    chooses: bool = True,
) -> Vote:
    return Vote(
        logits=logits[..., recursion],
        gates=gates[..., recursion],
        # Every patch is as likely to go one deep or more: who goes first has to go further.
        ranks=ranks[..., max(recursion, 1)],
        goes_on=depth >= recursion,
    )


class Chance(nn.Module):
    """The control: as many patches as expert choice would keep, drawn by a hash of the picture.

    Without weights and with a gate of one. The same picture always gives the same draw.
    """

    def __init__(
        self, architecture: Architecture, capacities: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.kept = _checked_kept(architecture, capacities)

    def ballot(self, seen: Seen) -> Ballot:
        """Votes, each with a draw of its own."""
        return self.vote

    def vote(
        self,
        recursion: int,
        seen: Seen,
        staying: Bool[Tensor, "batch patches"],
        chooses: bool = True,
    ) -> Vote:
        """The vote on who of those staying enters `recursion`."""
        assert seen.statistics is not None
        patches = staying.shape[1]
        place = torch.arange(patches, device=staying.device, dtype=torch.float64)
        picture = seen.statistics.double().mean(dim=(1, 2))[:, None]
        mean, deviation = seen.statistics.double().unbind(-1)
        # Any sum that differs by place, picture and recursion; the sine scatters it.
        mixed = 12.9898 * place + 78.233 * recursion + 3571 * picture + 911 * mean + 127 * deviation
        ranks = (mixed.sin() * 43758.5453).frac().abs().float()
        kept = self.kept[recursion]
        return Vote(
            logits=torch.zeros_like(ranks),
            gates=torch.ones_like(ranks),
            ranks=ranks,
            goes_on=best(ranks, staying, kept),
            each=kept,
        )


def unlikeness(seen: Seen) -> Float[Tensor, "batch patches"]:
    """How far each patch's token is from the mean of its image's: (1 + d)/(2 + d), from a half to one.

    d is over its mean in the image, so that one threshold serves dull images and busy ones.
    """
    tokens = seen.state[:, seen.prefix :].detach().float()
    distance = (tokens - tokens.mean(dim=1, keepdim=True)).norm(dim=-1)
    distance = distance / distance.mean(dim=1, keepdim=True).clamp(min=TINY_DISTANCE)
    return (1 + distance) / (2 + distance)


def by_chance(seen: Seen) -> Float[Tensor, "batch patches"]:
    """Control of `unlikeness`: places drawn once from seed 0, the same in every batch of that size."""
    batch, tokens = seen.state.shape[0], seen.state.shape[1] - seen.prefix
    drawn = torch.rand(batch, tokens, generator=torch.Generator().manual_seed(0))
    return drawn.to(seen.state.device)


def depth_at_least(
    logits: Float[Tensor, "*rows recursions"],
) -> Float[Tensor, "*rows recursions"]:
    """P(depth ≥ r) for r = 1 … R, from the logits of the depths.

    >>> depth_at_least(torch.zeros(4)).tolist()
    [1.0, 0.75, 0.5, 0.25]
    """
    return functional.softmax(logits, dim=-1).flip(-1).cumsum(-1).flip(-1)


def largest_from(logits: Float[Tensor, "*rows recursions"]) -> Float[Tensor, "*rows recursions"]:
    """Max over d ≥ r of sigmoid(logit d), for r = 1 … R.

    >>> largest_from(torch.tensor([0.0, -9.0, 0.0])).tolist()
    [0.5, 0.5, 0.5]
    """
    return logits.sigmoid().flip(-1).cummax(-1).values.flip(-1)


GATES = {"softmax": depth_at_least, "sigmoid": largest_from}


def patch_statistics(
    images: Float[Tensor, "batch channels rows columns"], patch_size: int
) -> Float[Tensor, "batch patches 2"]:
    """Mean and standard deviation of the pixels of each patch, over all channels.

    >>> patch_statistics(torch.tensor([[[[1.0, 3.0]]]]).expand(1, 1, 2, 2), 2).tolist()
    [[[2.0, 1.0]]]
    """
    cells = functional.unfold(images.float(), patch_size, stride=patch_size).transpose(1, 2)
    return torch.stack([cells.mean(-1), cells.std(-1, correction=0)], dim=-1)


Router = ExpertChoice | TokenChoice | Chance


def router_for(
    architecture: Architecture,
    capacities: Sequence[float] | None = None,
    selection: Selection = "top-k",
) -> Router:
    """The router that the architecture names; capacities are not for token choice."""
    if architecture.router == "token-choice":
        return TokenChoice(architecture)
    if architecture.router == "random":
        return Chance(architecture, capacities)
    return ExpertChoice(architecture, capacities, selection)


def _checked_kept(
    architecture: Architecture, capacities: Sequence[float] | None
) -> tuple[int, ...]:
    shares = tuple(capacities or default_capacities(architecture.recursions))
    if len(shares) != architecture.recursions:
        raise ValueError(f"wanted {architecture.recursions} capacities, got {shares}")
    if not all(0 < later <= earlier for earlier, later in zip((1, *shares), shares)):  # noqa: B905 - one is longer
        raise ValueError(f"wanted capacities from 1 downwards that never rise, got {shares}")
    return kept_of(shares, architecture.patches)
