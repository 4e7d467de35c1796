"""The whole network in one reading: embed, unshared layers, a shared block that tokens leave, head.

        images ─► patches + CLS + positions ─► layers_before ─┐
                                                              │  prologue
        ┌─────────────────────────────────────────────────────┘
        │   router ─► who goes on ─► shared layers on them ─► gated update      recursion-1 … -R
        └─► layers_after ─► norm ─► head on CLS                                 epilogue

Mixture-of-Recursions, arXiv 2507.10524; the vision transformer, arXiv 2010.11929.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from domain.architecture import Architecture
from domain.record import Executor
from morvit.executors import Attend, executor_named, together
from morvit.router import Ballot, Selection, highest, router_for

TOKEN_DEVIATION = 0.02
LAYER_SCALE_START = 0.1


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a pass gives; all of it stays on the device.

    `counts` are the tokens of each image that entered each recursion, `depths` the recursions that
    each token entered, prefix tokens included in both. `router_logits` are of patches only; expert
    choice scores a patch at recursion r if it entered the one before. No router, no columns.
    """

    logits: Float[Tensor, "batch classes"]
    counts: Int[Tensor, "batch recursions"]
    depths: Int[Tensor, "batch tokens"]
    router_logits: Float[Tensor, "batch patches votes"]


@dataclass(frozen=True, kw_only=True)
class Route:
    """What was decided on the way to a recursion, beside the tokens themselves.

    `active` are the tokens that are still in, `depths` the recursions that each entered so far;
    `counts` and `votes` have one entry for each recursion done. Without a router, no ballot.
    """

    ballot: Ballot | None
    active: Bool[Tensor, "batch tokens"]
    depths: Int[Tensor, "batch tokens"]
    counts: tuple[Int[Tensor, " batch"], ...] = ()
    votes: tuple[Float[Tensor, "batch patches"], ...] = ()


class Layer(nn.Module):
    """A pre-norm transformer layer on rows of any arrangement; `attend` knows whose rows they are."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width, hidden = architecture.width, architecture.mlp_width
        self.heads = architecture.heads
        self.is_gated = architecture.mlp == "swiglu"
        self.norm_attention = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=architecture.qkv_bias)
        self.norm_queries = _norm_if(architecture.qk_norm, architecture.head_width)
        self.norm_keys = _norm_if(architecture.qk_norm, architecture.head_width)
        self.projection = nn.Linear(width, width)
        self.scale_attention = _scale_if(architecture.layer_scale, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, (1 + self.is_gated) * hidden)
        self.mlp_out = nn.Linear(hidden, width)
        self.scale_mlp = _scale_if(architecture.layer_scale, width)

    def forward(
        self, tokens: Float[Tensor, "*rows width"], attend: Attend
    ) -> Float[Tensor, "*rows width"]:
        """The tokens after attention and MLP."""
        tokens = tokens + self._attended(tokens, attend)
        return tokens + self.scale_mlp(self.mlp_out(self._hidden(self.norm_mlp(tokens))))

    def _attended(
        self, tokens: Float[Tensor, "*rows width"], attend: Attend
    ) -> Float[Tensor, "*rows width"]:
        # A method of its own: what it held is free before the MLP, the peak of a layer, begins.
        projected = self.queries_keys_values(self.norm_attention(tokens))
        queries, keys, values = projected.unflatten(-1, (3, self.heads, -1)).unbind(-3)
        mixed = attend(self.norm_queries(queries), self.norm_keys(keys), values)
        return self.scale_attention(self.projection(mixed.flatten(-2)))

    def _hidden(self, tokens: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows mlp_width"]:
        if self.is_gated:
            gate, value = self.mlp_in(tokens).chunk(2, dim=-1)
            return functional.silu(gate) * value
        return functional.gelu(self.mlp_in(tokens))


class MoRViT(nn.Module):
    """A vision transformer whose patches leave the repeated middle block when the router says so.

    With one recursion it is a plain ViT and has no router. `capacities` and `selection` are for
    expert choice alone. Raises ValueError for what an Architecture can say and this cannot build.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        capacities: Sequence[float] | None = None,
        selection: Selection = "top-k",
    ) -> None:
        super().__init__()
        _refuse_what_is_not_built(architecture)
        self.architecture = architecture
        width, prefix = architecture.width, architecture.prefix_tokens
        positions = architecture.position_tokens or architecture.tokens
        self.unplaced_tokens = architecture.tokens - positions
        self.patches = nn.Conv2d(
            architecture.channels,
            width,
            kernel_size=architecture.patch_size,
            stride=architecture.patch_size,
            bias=not architecture.pre_norm,
        )
        self.prefix = nn.Parameter(torch.zeros(prefix, width))
        self.positions = nn.Parameter(torch.zeros(positions, width))
        self.norm_before = _norm_if(architecture.pre_norm, width)
        self.layers_before = _layers(architecture, architecture.layers_before)
        self.router = (
            router_for(architecture, capacities, selection) if architecture.is_routed else None
        )
        self.shared_layers = _layers(architecture, architecture.shared_layers)
        self.layers_after = _layers(architecture, architecture.layers_after)
        self.norm_after = _norm_if(architecture.final_norm, width)
        self.head = nn.Linear(width, architecture.classes) if architecture.classes else None
        if architecture.untouched_parameters:
            self.untouched = nn.Parameter(torch.zeros(architecture.untouched_parameters))
        self.apply(_started)
        nn.init.trunc_normal_(self.prefix, std=TOKEN_DEVIATION)
        nn.init.trunc_normal_(self.positions, std=TOKEN_DEVIATION)

    def forward(
        self,
        images: Float[Tensor, "batch channels rows columns"],
        *,
        executor: Executor = "packed",
        imposed: Int[Tensor, "batch recursions"] | None = None,
        uniform: bool = False,
        mark: Callable[[str], None] | None = None,
    ) -> Output:
        """Class logits, and what the router did.

        `imposed` takes exactly these counts per image, prefix included, by the router's own
        ranking. `uniform` is the guard's fallback: every token goes everywhere with a gate of one,
        as if there were no router, though the router is still asked. `mark` hears the end of every
        stage: prologue, recursion-1 … recursion-R, epilogue.
        """
        ended = mark or _unheard
        if imposed is not None:
            self._check_imposed(imposed, len(images))
            imposed = imposed.to(images.device)

        state, route = self.begun(images)
        ended("prologue")

        for recursion in range(self.architecture.recursions):
            state, route = self.recurred(
                recursion, state, route, executor=executor, imposed=imposed, uniform=uniform
            )
            ended(f"recursion-{recursion + 1}")

        for layer in self.layers_after:
            state = layer(state, together)
        features = self.norm_after(state[:, 0])
        logits = features if self.head is None else self.head(features)
        ended("epilogue")
        return Output(
            logits=logits,
            counts=torch.stack(route.counts, dim=1),
            depths=route.depths,
            router_logits=(
                torch.stack(route.votes, dim=-1)
                if route.votes
                else state.new_zeros(len(images), self.architecture.patches, 0)
            ),
        )

    def begun(
        self, images: Float[Tensor, "batch channels rows columns"]
    ) -> tuple[Float[Tensor, "batch tokens width"], Route]:
        """The tokens that the first recursion is given, and the route on which all still are."""
        state = self._embedded(images)
        for layer in self.layers_before:
            state = layer(state, together)
        prefix = self.architecture.prefix_tokens
        return state, Route(
            ballot=self.router.ballot(state[:, prefix:]) if self.router is not None else None,
            active=torch.ones(state.shape[:2], dtype=torch.bool, device=state.device),
            depths=torch.zeros(state.shape[:2], dtype=torch.int64, device=state.device),
        )

    def recurred(
        self,
        recursion: int,
        state: Float[Tensor, "batch tokens width"],
        route: Route,
        *,
        executor: Executor = "packed",
        imposed: Int[Tensor, "batch recursions"] | None = None,
        uniform: bool = False,
    ) -> tuple[Float[Tensor, "batch tokens width"], Route]:
        """The tokens after one recursion (0 is the first), and the route so far.

        Vote, executor and block: all that a recursion is. The options are those of `forward`.
        """
        run = executor_named(executor)
        prefix = self.architecture.prefix_tokens
        block = partial(self._block, recursion)
        active, votes = route.active, route.votes
        if route.ballot is None:
            state = block(state, together)
        else:
            staying = active[:, prefix:]
            vote = route.ballot(recursion, state[:, prefix:], staying)
            if uniform:
                goes_on, gates = staying, torch.ones_like(vote.gates)
            elif imposed is not None:
                wanted = imposed[:, recursion] - prefix
                goes_on, gates = highest(vote.gates.detach(), staying, wanted), vote.gates
            else:
                goes_on, gates = vote.goes_on, vote.gates
            active = functional.pad(goes_on, (prefix, 0), value=True)
            state = run(block, state, active, functional.pad(gates, (prefix, 0), value=1.0))
            votes = (*votes, vote.logits)
        return state, Route(
            ballot=route.ballot,
            active=active,
            depths=route.depths + active,
            counts=(*route.counts, active.sum(dim=1)),
            votes=votes,
        )

    def _embedded(
        self, images: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch tokens width"]:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        prefix = self.prefix.expand(len(images), -1, -1)
        # Where there are fewer positions than tokens, the last prefix tokens (registers) lack one.
        placed = self.architecture.prefix_tokens - self.unplaced_tokens
        tokens = torch.cat(
            [
                prefix[:, :placed] + self.positions[:placed],
                prefix[:, placed:],
                patches + self.positions[placed:],
            ],
            dim=1,
        )
        return self.norm_before(tokens)

    def _block(
        self, recursion: int, tokens: Float[Tensor, "*rows width"], attend: Attend
    ) -> Float[Tensor, "*rows width"]:
        for layer in layers_of_recursion(self.architecture, recursion):
            tokens = self.shared_layers[layer](tokens, attend)
        return tokens

    def _check_imposed(self, imposed: Int[Tensor, "batch recursions"], images: int) -> None:
        shape = (images, self.architecture.recursions)
        if imposed.shape != shape:
            raise ValueError(f"wanted imposed counts of shape {shape}, got {tuple(imposed.shape)}")
        if imposed.device.type != "cpu":
            return  # looking would make the host wait
        full, least = self.architecture.tokens, self.architecture.prefix_tokens
        before = functional.pad(imposed, (1, 0), value=full)[:, :-1]
        if bool(((imposed > before) | (imposed < least)).any()):
            raise ValueError(
                f"wanted imposed counts from {full} tokens down to {least} that never rise, "
                f"got {imposed.tolist()}"
            )
        if self.router is None and bool((imposed != full).any()):
            raise ValueError(f"one recursion has no router: wanted counts of {full} everywhere")


def layers_of_recursion(architecture: Architecture, recursion: int) -> tuple[int, ...]:
    """Which shared layers a recursion (0 is the first) runs, in order.

    Cycle repeats the block, sequence repeats each layer in a row (MoR, arXiv 2507.10524, table 1).

    >>> def order(sharing: str) -> list[tuple[int, ...]]:
    ...     toy = Architecture.plain(
    ...         name="toy", depth=3, width=8, heads=2, image_size=8, patch_size=4
    ...     ).model_copy(update={"sharing": sharing, "recursions": 3})
    ...     return [layers_of_recursion(toy, recursion) for recursion in range(3)]
    >>> order("cycle")
    [(0, 1, 2), (0, 1, 2), (0, 1, 2)]
    >>> order("sequence")
    [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
    """
    layers = architecture.shared_layers
    if architecture.sharing in ("cycle", "middle-cycle"):
        return tuple(range(layers))
    first = recursion * layers
    return tuple(step // architecture.recursions for step in range(first, first + layers))


class Scale(nn.Module):
    """A learned factor for every channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((width,), LAYER_SCALE_START))

    def forward(self, tokens: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """The tokens, scaled."""
        return tokens * self.factor


def _layers(architecture: Architecture, count: int) -> nn.ModuleList:
    return nn.ModuleList(Layer(architecture) for _ in range(count))


def _norm_if(wanted: bool, width: int) -> nn.Module:
    return nn.LayerNorm(width) if wanted else nn.Identity()


def _scale_if(wanted: bool, width: int) -> nn.Module:
    return Scale(width) if wanted else nn.Identity()


def _started(module: nn.Module) -> None:
    # Glorot, as the first ViT (arXiv 2010.11929): a deviation of 0.02 is for wide networks, and
    # learned far slower at width 96.
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
    elif isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _unheard(stage: str) -> None:
    pass


def _refuse_what_is_not_built(architecture: Architecture) -> None:
    if architecture.keys_and_values != "recursion-wise":
        raise ValueError(
            f"keys_and_values {architecture.keys_and_values} is not built; use recursion-wise"
        )
    if not architecture.prefix_tokens:
        raise ValueError("wanted one prefix token at least: the head reads CLS, got 0")
    positions = architecture.position_tokens
    if positions is not None and not architecture.patches <= positions <= architecture.tokens:
        raise ValueError(
            f"wanted position_tokens from {architecture.patches} (patches alone) to "
            f"{architecture.tokens} (all tokens), got {positions}; resized positions are not built"
        )
