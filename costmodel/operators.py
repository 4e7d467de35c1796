"""Work, in closed form: every operator of the network, its FLOPs, its bytes and its calls.

The only place where work is counted. A multiply-add is two FLOP, as in vendors' peaks. FLOP are
those of matrix products, the same that torch's FlopCounterMode counts; element-wise operators are
traffic. Everything is per batch, with the expectation taken over the routing distribution.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from domain.architecture import ROUTER_HIDDEN, Architecture
from domain.device import BYTES_OF, WEIGHT_BYTES_OF
from domain.record import Executor, Precision
from domain.routing import RoutingDistribution
from domain.workload import Workload

Family = Literal["gemm", "attention", "elementwise", "gather"]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator of one stage, summed over the `calls` that the stage makes of it.

    `rows`, `inner` and `columns` are the shape of one call as a matrix product
    (rows × inner)·(inner × columns); `weight_bytes` and `moved_bytes` are totals over all calls.
    """

    stage: str
    name: str
    family: Family
    flop: float = 0.0
    weight_bytes: float = 0.0
    moved_bytes: float = 0.0
    calls: float = 1.0
    rows: float = 0.0
    inner: float = 0.0
    columns: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one stage is given: images alive, tokens, sum of squared tokens, attention calls."""

    images: float
    tokens: float
    squares: float
    attention_calls: float


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Bytes per element of weights, of matrix operands, and of norms and residuals."""

    weight: int
    operand: int
    element: int

    @classmethod
    def of(cls, precision: Precision) -> "Bytes":
        """Autocast keeps weights, norms and residuals in fp32."""
        operand, weight = BYTES_OF[precision], WEIGHT_BYTES_OF[precision]
        is_autocast = precision.startswith("amp")
        # int8 networks keep norms, softmax and residuals in half precision.
        element = 4 if is_autocast else max(operand, 2)
        return cls(weight=weight, operand=operand, element=element)

    @property
    def casts(self) -> bool:
        """Whether every product first casts its weights and its input, as autocast does."""
        return self.weight > self.operand


def operators_of(workload: Workload) -> tuple[Operator, ...]:
    """Every operator that `workload` executes, stage by stage."""
    return tuple(_operators(workload))


def _operators(workload: Workload) -> Iterator[Operator]:
    net = workload.architecture
    size = Bytes.of(workload.precision)
    loads = loads_of(workload.routing, workload.batch, workload.executor, net)
    everything = Load(
        images=workload.batch,
        tokens=workload.batch * net.tokens,
        squares=workload.batch * net.tokens**2,
        attention_calls=1.0,
    )
    yield from _embedding(net, everything, size)
    yield from _layers(net, everything, size, "prologue", net.layers_before)
    moved = moved_tokens(workload)
    if net.is_routed and net.router == "token-choice":
        yield from _router(net, everything.tokens, size, "prologue", outputs=net.recursions)
    for index, load in enumerate(loads):
        stage = f"recursion-{index + 1}"
        if net.is_routed:
            if net.router == "expert-choice":
                before = moved[index - 1] if index else everything.tokens
                yield from _router(net, before, size, stage, outputs=1)
            yield from _compaction(net, load, workload.executor, size, stage)
            if net.depth_parameters == "embeddings":
                yield _elementwise(
                    stage,
                    "depth-embedding",
                    elements=load.tokens * net.width,
                    passes=2,
                    element=size.element,
                )
        is_shared = net.is_routed and net.keys_and_values == "recursive-sharing" and index > 0
        remembered = remembered_keys(workload, index) if is_shared else None
        yield from _layers(net, load, size, stage, net.shared_layers, remembered)
    yield from _layers(net, everything, size, "epilogue", net.layers_after)
    yield from _head(net, everything, size)


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


def _gemm(
    stage: str, name: str, size: Bytes, *, rows: float, inner: int, columns: int, calls: float = 1.0
) -> Operator:
    """(rows × inner)·(inner × columns): 2·rows·inner·columns FLOP, operands read, result written."""
    return Operator(
        stage=stage,
        name=name,
        family="gemm",
        flop=2.0 * rows * inner * columns * calls,
        weight_bytes=float(size.weight * inner * columns) * calls,
        moved_bytes=size.operand * rows * (inner + columns) * calls,
        calls=calls,
        rows=rows,
        inner=inner,
        columns=columns,
    )


def _elementwise(
    stage: str, name: str, *, elements: float, passes: float, element: int, calls: float = 1.0
) -> Operator:
    """`passes` reads or writes of `elements` numbers."""
    moved = element * elements * passes * calls
    return Operator(stage=stage, name=name, family="elementwise", moved_bytes=moved, calls=calls)


def _attention(
    net: Architecture, load: Load, size: Bytes, stage: str, calls: float, remembered: float | None
) -> Operator:
    """QKᵀ and the weighted sum of V: 4·d·Σ(queries × keys) FLOP; q, k, v read, the result written once."""
    products = load.squares if remembered is None else remembered
    per_image = products / max(load.tokens, 1e-9)
    return Operator(
        stage=stage,
        name="attention",
        family="attention",
        flop=4.0 * net.width * products * calls,
        moved_bytes=4.0 * size.operand * load.tokens * net.width * calls,
        calls=load.attention_calls * calls,
        rows=load.tokens * net.heads,
        inner=net.head_width,
        columns=per_image,
    )


def _layers(
    net: Architecture,
    load: Load,
    size: Bytes,
    stage: str,
    layers: int,
    remembered: float | None = None,
) -> Iterator[Operator]:
    if layers == 0:
        return
    width, hidden, tokens = net.width, net.mlp_width, load.tokens
    wide = tokens * width

    def elementwise(
        name: str, elements: float, passes: float, element: int, times: int
    ) -> Operator:
        return _elementwise(
            stage, name, elements=elements, passes=passes, element=element, calls=times * layers
        )

    def gemm(name: str, inner: int, columns: int) -> Operator:
        return _gemm(stage, name, size, rows=tokens, inner=inner, columns=columns, calls=layers)

    yield elementwise("norm", wide, 2, size.element, times=2)
    if size.casts:
        # Norms give what products do not take; weights and biases are cast in every pass.
        matrices = width * (4 * width + hidden * (3 if net.mlp == "swiglu" else 2))
        cast = size.weight + size.operand
        yield elementwise("cast", wide, 1, cast, times=2)
        yield elementwise("weight-cast", matrices / 8, 1, cast, times=8)
    if remembered is None:
        yield gemm("qkv", width, 3 * width)
    else:
        yield gemm("queries", width, width)
    if net.qk_norm:
        yield elementwise("qk-norm", wide, 2, size.element, times=2)
    yield _attention(net, load, size, stage, layers, remembered)
    yield gemm("projection", width, width)
    yield gemm("mlp-in", width, hidden * (2 if net.mlp == "swiglu" else 1))
    if net.mlp == "swiglu":
        yield elementwise("activation", tokens * hidden, 5, size.operand, times=1)
    else:
        yield elementwise("activation", tokens * hidden, 2, size.operand, times=1)
    yield gemm("mlp-out", hidden, width)
    yield elementwise("residual", wide, 3, size.element, times=2)
    if net.layer_scale:
        yield elementwise("layer-scale", wide, 2, size.element, times=2)


def _embedding(net: Architecture, load: Load, size: Bytes) -> Iterator[Operator]:
    yield _gemm(
        "prologue",
        "patch-embedding",
        size,
        rows=load.images * net.patches,
        inner=net.channels * net.patch_size**2,
        columns=net.width,
    )
    yield _elementwise(
        "prologue", "positions", elements=load.tokens * net.width, passes=2, element=size.element,
        calls=2.0,
    )  # fmt: skip


def _head(net: Architecture, load: Load, size: Bytes) -> Iterator[Operator]:
    yield _elementwise(
        "epilogue", "norm", elements=load.tokens * net.width, passes=2, element=size.element
    )
    if net.classes:
        yield _gemm(
            "epilogue", "head", size, rows=load.images, inner=net.width, columns=net.classes
        )


def _router(
    net: Architecture, tokens: float, size: Bytes, stage: str, outputs: int
) -> Iterator[Operator]:
    """A score for every token that is still in; its sort and masks are counted as compaction."""
    inputs, hidden = net.router_inputs, net.width * ROUTER_HIDDEN[net.router_shape]
    if inputs > net.width:
        yield _elementwise(
            stage, "router-context", elements=tokens * inputs, passes=2, element=size.element
        )
    if hidden:
        yield _gemm(stage, "router-hidden", size, rows=tokens, inner=inputs, columns=hidden)
        yield _elementwise(
            stage, "router-activation", elements=tokens * hidden, passes=2, element=size.operand
        )
    yield _gemm(stage, "router", size, rows=tokens, inner=hidden or inputs, columns=outputs)


def _compaction(
    net: Architecture, load: Load, executor: Executor, size: Bytes, stage: str
) -> Iterator[Operator]:
    """Gather of those that go on, gated scatter back: 2·e·d·N bytes each, plus indices."""
    moved = load.tokens * net.width
    if executor == "masked":
        yield _elementwise(stage, "gate", elements=moved, passes=4, element=size.element, calls=3.0)
        return
    for name, passes in (("gather", 2.0), ("scatter", 4.0)):
        yield Operator(
            stage=stage,
            name=name,
            family="gather",
            moved_bytes=passes * size.element * moved + 8.0 * load.tokens,
            calls=4.0,
        )
