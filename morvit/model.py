"""The whole network in one reading: embed, unshared layers, a shared block that tokens leave, head.

        images ─► patches + CLS + positions ─► layers_before ─┐
                                                              │  prologue
        ┌─────────────────────────────────────────────────────┘
        │   router ─► who goes on ─► shared layers on them ─► gated update      recursion-1 … -R
        └─► layers_after ─► norm ─► head on CLS                                 epilogue

Mixture-of-Recursions, arXiv 2507.10524; the vision transformer, arXiv 2010.11929.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from domain.architecture import Architecture
from domain.record import Executor
from morvit.attention import Attend, Memory, Together
from morvit.executors import Going, executor_named
from morvit.layer import layers, norm_if
from morvit.router import Selection, patch_statistics, router_for
from morvit.votes import Ballot, Orders, Seen, Vote, overruled

# Of CLS and positions before training (arXiv 2010.11929). Patches deviate by about one: where training
# is short, so small a position is first seen after it has grown for hundreds of steps.
TOKEN_DEVIATION = 0.02
OWN_CHOICE = Orders()


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
    `counts` and `votes` have one entry for each recursion done, `memories` one for each shared layer
    where keys and values are shared. `moved` are the tokens that the last recursion moved, at `rows`
    of the flattened state (None: all of them). Without a router, no ballot.
    """

    ballot: Ballot | None
    statistics: Float[Tensor, "batch patches 2"] | None
    active: Bool[Tensor, "batch tokens"]
    depths: Int[Tensor, "batch tokens"]
    moved: Float[Tensor, "rows width"]
    rows: Int[Tensor, " rows"] | None = None
    counts: tuple[Int[Tensor, " batch"], ...] = ()
    votes: tuple[Float[Tensor, "batch patches"], ...] = ()
    memories: tuple[Memory, ...] = ()


class MoRViT(nn.Module):
    """A vision transformer whose patches leave the repeated middle block when the router says so.

    With one recursion it is a plain ViT and has no router. `capacities` and `selection` are for
    expert choice alone; CLS and positions begin by chance, with `token_deviation`. Raises
    ValueError for what an Architecture can say and this cannot build.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        capacities: Sequence[float] | None = None,
        selection: Selection = "top-k",
        token_deviation: float = TOKEN_DEVIATION,
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
        self.norm_before = norm_if(architecture.pre_norm, width)
        self.layers_before = layers(architecture, architecture.layers_before)
        self.router = (
            router_for(architecture, capacities, selection) if architecture.is_routed else None
        )
        has_own = architecture.is_routed and architecture.depth_parameters == "norms"
        self.shared_layers = layers(
            architecture, architecture.shared_layers, architecture.recursions if has_own else 1
        )
        if architecture.is_routed and architecture.depth_parameters == "embeddings":
            self.depth_embeddings = nn.Parameter(torch.zeros(architecture.recursions, width))
        self.layers_after = layers(architecture, architecture.layers_after)
        self.norm_after = norm_if(architecture.final_norm, width)
        self.head = nn.Linear(width, architecture.classes) if architecture.classes else None
        if architecture.untouched_parameters:
            self.untouched = nn.Parameter(torch.zeros(architecture.untouched_parameters))
        self.apply(_started)
        nn.init.trunc_normal_(self.prefix, std=token_deviation)
        nn.init.trunc_normal_(self.positions, std=token_deviation)

    def forward(
        self,
        images: Float[Tensor, "batch channels rows columns"],
        *,
        executor: Executor = "packed",
        orders: Orders = OWN_CHOICE,
        mark: Callable[[str], None] | None = None,
    ) -> Output:
        """Class logits, and what the router did.

        `orders` overrule its choice: uniform depth (the guard's fallback, as if there were no router,
        though it is still asked), imposed counts, thresholds or a budget. `mark` hears the end of
        every stage: prologue, recursion-1 … recursion-R, epilogue.
        """
        ended = mark or _unheard
        if orders.imposed is not None:
            self._check_imposed(orders.imposed, len(images))
            orders = replace(orders, imposed=orders.imposed.to(images.device))

        state, route = self.begun(images)
        ended("prologue")

        for recursion in range(self.architecture.recursions):
            state, route = self.recurred(
                recursion,
                state,
                route,
                executor=executor,
                orders=orders,
                into=None if torch.is_grad_enabled() else state,
            )
            ended(f"recursion-{recursion + 1}")

        for layer in self.layers_after:
            state = layer(state, Together())
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
            state = layer(state, Together())
        route = Route(
            ballot=None,
            statistics=(
                patch_statistics(images, self.architecture.patch_size)
                if self.router is not None and self._looks_at_pixels
                else None
            ),
            active=torch.ones(state.shape[:2], dtype=torch.bool, device=state.device),
            depths=torch.zeros(state.shape[:2], dtype=torch.int64, device=state.device),
            moved=state.flatten(0, 1),
        )
        if self.router is None:
            return state, route
        return state, replace(route, ballot=self.router.ballot(self._seen(state, route)))

    def recurred(
        self,
        recursion: int,
        state: Float[Tensor, "batch tokens width"],
        route: Route,
        *,
        executor: Executor = "packed",
        orders: Orders = OWN_CHOICE,
        into: Float[Tensor, "batch tokens width"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens width"], Route]:
        """The tokens after one recursion (0 is the first), and the route so far.

        Vote, executor and block: all that a recursion is. The moved tokens are written `into` a
        tensor that holds the others already, which may be `state`; without it all are copied.
        """
        run = executor_named(executor)
        prefix = self.architecture.prefix_tokens
        kept: list[Memory] = []
        block = partial(self._block, recursion, route.memories, kept.append)
        active, votes, vote = route.active, route.votes, None
        if route.ballot is not None:
            own, staying = self.voted(recursion, state, route, chooses=not orders.overrule)
            vote = overruled(own, staying, orders, recursion, prefix)
            active = functional.pad(vote.goes_on, (prefix, 0), value=True)
            votes = (*votes, vote.logits)
        if vote is None or orders.uniform:
            state = block(state, Together())
            moved, rows = state.flatten(0, 1), None
            counts = active.new_full((len(state),), state.shape[1], dtype=torch.int64)
        else:
            gate = functional.pad(vote.gates, (prefix, 0), value=1.0)
            each = None if vote.each is None else vote.each + prefix
            counts = (
                active.sum(dim=1)
                if each is None
                else active.new_full((len(state),), each, dtype=torch.int64)
            )
            ran = run(block, state, Going(active=active, gate=gate, each=each, into=into))
            state, moved, rows = ran.state, ran.moved, ran.rows
        return state, replace(
            route,
            active=active,
            depths=route.depths + active,
            moved=moved,
            rows=rows,
            counts=(*route.counts, counts),
            votes=votes,
            memories=route.memories or tuple(kept),
        )

    def voted(
        self,
        recursion: int,
        state: Float[Tensor, "batch tokens width"],
        route: Route,
        *,
        chooses: bool = True,
    ) -> tuple[Vote, Bool[Tensor, "batch patches"]]:
        """The router's own vote on who enters a recursion, and the patches that are still in."""
        assert route.ballot is not None
        staying = route.active[:, self.architecture.prefix_tokens :]
        return route.ballot(recursion, self._seen(state, route), staying, chooses), staying

    def _seen(self, state: Float[Tensor, "batch tokens width"], route: Route) -> Seen:
        return Seen(
            state=state,
            moved=route.moved,
            rows=route.rows,
            statistics=route.statistics,
            prefix=self.architecture.prefix_tokens,
        )

    @property
    def _looks_at_pixels(self) -> bool:
        architecture = self.architecture
        return architecture.router == "random" or architecture.router_reads != "token"

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
        self,
        recursion: int,
        memories: Sequence[Memory],
        keep: Callable[[Memory], None],
        tokens: Float[Tensor, "*rows width"],
        attend: Attend,
    ) -> Float[Tensor, "*rows width"]:
        is_shared = self.architecture.keys_and_values == "recursive-sharing"
        if self.architecture.is_routed and self.architecture.depth_parameters == "embeddings":
            tokens = tokens + self.depth_embeddings[recursion]
        for step, layer in enumerate(layers_of_recursion(self.architecture, recursion)):
            tokens = self.shared_layers[layer](
                tokens,
                attend,
                depth=recursion,
                memory=memories[step] if memories else None,
                keep=keep if is_shared and not memories else None,
            )
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
    if not architecture.prefix_tokens:
        raise ValueError("wanted one prefix token at least: the head reads CLS, got 0")
    positions = architecture.position_tokens
    if positions is not None and not architecture.patches <= positions <= architecture.tokens:
        raise ValueError(
            f"wanted position_tokens from {architecture.patches} (patches alone) to "
            f"{architecture.tokens} (all tokens), got {positions}; resized positions are not built"
        )
