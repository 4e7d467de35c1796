"""Work, in closed form: every operator of the network, its FLOPs, its bytes and its calls.

The only place where work is counted. A multiply-add is two FLOP, as in vendors' peaks. FLOP are
those of matrix products, the same that torch's FlopCounterMode counts; element-wise operators are
traffic. Everything is per batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from costmodel.loads import Load, Loads, loads_of_workload
from domain.architecture import ROUTER_HIDDEN, Architecture, Mlp
from domain.device import BYTES_OF, WEIGHT_BYTES_OF
from domain.record import Executor, Precision, Runtime
from domain.workload import Attention, States, Workload

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


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a runtime goes about element-wise operators: several in one kernel, and on what order of numbers."""

    fuses: bool
    states: States
    attention: Attention = "fused"

    @classmethod
    def of(cls, runtime: Runtime, states: States, attention: Attention) -> "Way":
        """Whatever is not eager fuses."""
        return cls(fuses=runtime != "eager", states=states, attention=attention)


# Reads and writes of an activation's elements, and its kernels: each operator alone, or all in one.
ACTIVATION: dict[bool, dict[Mlp, tuple[float, int]]] = {
    False: {"gelu": (2.0, 1), "quickgelu": (7.0, 3), "swiglu": (5.0, 1)},
    True: {"gelu": (2.0, 1), "quickgelu": (2.0, 1), "swiglu": (5.0, 1)},
}
# States by channel: each norm copies its input first (2 passes), and a sum of operands in two orders
# takes longer than its 3 passes: together some 4, by timm's networks on an RTX 3090, which takes 9 % longer
# for a ViT-B nchw than nhwc and 6 % for a ViT-H (10 and 7 with this).
BY_CHANNEL_PASSES = 4.0


@dataclass(frozen=True, kw_only=True)
class Unfused:
    """What attention takes beside its arithmetic where two products leave their scores in memory.

    Reads and writes of scores and kernels: the second product, scaling, softmax; where autocast casts,
    softmax gives fp32, which is cast for the second product. Copies of heads: queries, keys, values, the
    result.
    """

    passes: float
    kernels: int
    copies: int


UNFUSED: dict[bool, Unfused] = {
    False: Unfused(passes=6.0, kernels=3, copies=4),
    True: Unfused(passes=4.0, kernels=2, copies=2),
}

# How often the rows that go on are read and written: taken out, of the filled ones, put back.
COMPACTION: dict[Executor, dict[str, float]] = {
    "packed": {"gather": 1, "scatter": 1},
    "capacity": {"gather": 1, "scatter": 1},
    "padded": {"gather": 3, "scatter": 1},
}
# Kernels to find and take rows, as many to put them back, and more of each where images lie by their
# lengths: assumed, from reading the executors; what they cost is fitted.
PLACING_CALLS, SORTING_CALLS = 4.0, 4.0
# Expected tokens are sums of shares: this much less than all is rounding.
WHOLE = 1e-9


def operators_of(workload: Workload) -> tuple[Operator, ...]:
    """Every operator that `workload` executes, stage by stage."""
    return operators_for(
        workload.architecture,
        loads_of_workload(workload),
        precision=workload.precision,
        executor=workload.executor,
        runtime=workload.runtime,
        states=workload.states,
        attention=workload.attention,
    )


def operators_for(
    net: Architecture,
    loads: Loads,
    *,
    precision: Precision,
    executor: Executor,
    runtime: Runtime = "eager",
    states: States = "by-token",
    attention: Attention = "fused",
) -> tuple[Operator, ...]:
    """Every operator that `net` executes for these loads; of many batches, many numbers in each."""
    way = Way.of(runtime, states, attention)
    return tuple(_operators(net, loads, Bytes.of(precision), executor, way))


def _operators(
    net: Architecture, loads: Loads, size: Bytes, executor: Executor, way: Way
) -> Iterator[Operator]:
    everything = loads.everything(net.tokens)
    yield from _embedding(net, everything, size)
    yield from _layers(net, everything, size, way, "prologue", net.layers_before)
    if net.is_routed and net.router == "token-choice":
        yield from _router(net, everything.tokens, size, "prologue", outputs=net.recursions)
    for index, load in enumerate(loads.recursions):
        stage = f"recursion-{index + 1}"
        if net.is_routed:
            if net.router == "expert-choice":
                before = loads.moved[index - 1] if index else everything.tokens
                yield from _router(net, before, size, stage, outputs=1)
            yield from _compaction(net, load, executor, size, stage)
            if net.depth_parameters == "embeddings":
                yield _elementwise(
                    stage,
                    "depth-embedding",
                    elements=load.tokens * net.width,
                    passes=2,
                    element=size.element,
                )
        is_shared = net.is_routed and net.keys_and_values == "recursive-sharing" and index > 0
        remembered = loads.remembered[index] if is_shared else None
        yield from _layers(net, load, size, way, stage, net.shared_layers, remembered)
    yield from _layers(net, everything, size, way, "epilogue", net.layers_after)
    yield from _head(net, everything, size)


def _gemm(
    stage: str, name: str, size: Bytes, *, rows: float, inner: int, columns: int, calls: float = 1.0
) -> Operator:
    """(rows × inner)·(inner × columns): 2·rows·inner·columns FLOP, operands read, result written."""
    return Operator(
        stage=stage,
        name=name,
        family="gemm",
        flop=2.0 * inner * columns * calls * rows,
        weight_bytes=float(size.weight * inner * columns) * calls,
        moved_bytes=size.operand * (inner + columns) * calls * rows,
        calls=calls,
        rows=rows,
        inner=inner,
        columns=columns,
    )


def _elementwise(
    stage: str, name: str, *, elements: float, passes: float, element: int, calls: float = 1.0
) -> Operator:
    """`passes` reads or writes of `elements` numbers."""
    moved = element * passes * calls * elements
    return Operator(
        stage=stage, name=name, family="elementwise", moved_bytes=moved, calls=calls, rows=elements
    )


def _attention(
    net: Architecture, load: Load, size: Bytes, stage: str, calls: float, remembered: float | None
) -> Operator:
    """QKᵀ and the weighted sum of V: 4·d·Σ(queries × keys) FLOP; q, k, v read, the result written once."""
    products = load.squares if remembered is None else remembered
    per_image = products / np.maximum(load.tokens, 1e-9)
    return Operator(
        stage=stage,
        name="attention",
        family="attention",
        flop=4.0 * net.width * calls * products,
        moved_bytes=4.0 * size.operand * net.width * calls * load.tokens,
        calls=load.attention_calls * calls,
        rows=load.tokens * net.heads,
        inner=net.head_width,
        columns=per_image,
    )


def _layers(
    net: Architecture,
    load: Load,
    size: Bytes,
    way: Way,
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
    if way.attention == "unfused":
        scores = net.heads * (load.squares if remembered is None else remembered)
        yield from _unfused(size, stage, layers, way, scores=scores, wide=wide)
    several = _several(load)
    if np.ndim(several) or several:
        yield _elementwise(
            stage, "joining", elements=wide, passes=2, element=size.element, calls=several * layers
        )
    if net.inner_norms:
        # Before the projection, and before the last product of the MLP.
        yield from _inner_norms(size, stage, layers, (wide, tokens * hidden))
    yield gemm("projection", width, width)
    yield gemm("mlp-in", width, hidden * (2 if net.mlp == "swiglu" else 1))
    passes, kernels = ACTIVATION[way.fuses][net.mlp]
    yield elementwise("activation", tokens * hidden, passes / kernels, size.operand, times=kernels)
    yield gemm("mlp-out", hidden, width)
    yield elementwise("residual", wide, 3, size.element, times=2)
    if way.states == "by-channel" and not way.fuses:
        yield elementwise("reordering", wide, BY_CHANNEL_PASSES, size.element, times=2)
    if net.layer_scale:
        yield elementwise("layer-scale", wide, 2, size.element, times=2)


def _unfused(
    size: Bytes, stage: str, layers: int, way: Way, *, scores: float, wide: float
) -> Iterator[Operator]:
    """Scores written and read between the products of attention, and heads laid out for them."""
    own = UNFUSED[way.fuses]
    casts = size.casts and not way.fuses
    # Autocast lets softmax write fp32 (its `fp32_set_opt_dtype` policy); one more kernel reads that.
    cast = (2 * size.element) if casts else 0
    moved = size.operand * own.passes + cast
    kernels = own.kernels + casts
    yield Operator(
        stage=stage,
        name="scores",
        family="elementwise",
        moved_bytes=moved * scores * layers,
        calls=float(kernels * layers),
        rows=scores,
    )
    yield _elementwise(
        stage, "heads", elements=wide, passes=2, element=size.operand, calls=own.copies * layers
    )


def _inner_norms(
    size: Bytes, stage: str, layers: int, elements: tuple[float, ...]
) -> Iterator[Operator]:
    """Norms between products: under autocast what they take and what they give is cast."""
    for each in elements:
        yield _elementwise(
            stage, "inner-norm", elements=each, passes=2, element=size.element, calls=layers
        )
        if size.casts:
            cast = size.weight + size.operand
            yield _elementwise(
                stage, "cast", elements=each, passes=1, element=cast, calls=2 * layers
            )


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
    """Those that go on taken out, moved as far as their gate says, and put back.

    Rows are read and written once each way, 2·e·d·N bytes, with their places; the gate reads two states
    and writes one. `padded` takes the real rows out of what it filled up, before and after the block.
    Where all tokens of all images go on, only the gate is left.
    """
    moved = load.tokens * net.width
    if executor == "masked":
        yield _elementwise(stage, "gate", elements=moved, passes=3, element=size.element, calls=2.0)
        return
    yield _elementwise(stage, "gate", elements=moved, passes=3, element=size.element)
    # One or nothing; a number, so that it may be a column.
    is_taken = (load.tokens < load.images * net.tokens * (1 - WHOLE)) * 1.0
    for name, passes in COMPACTION[executor].items():
        yield Operator(
            stage=stage,
            name=name,
            family="gather",
            moved_bytes=is_taken * (2.0 * passes * size.element * moved + 8.0 * load.tokens),
            calls=is_taken * (PLACING_CALLS + SORTING_CALLS * _several(load)),
            rows=moved,
        )


def _several(load: Load) -> float:
    """How much of the batches have images of several lengths: one attention call each, put together."""
    # Of an image without tokens there is no call: expected calls may be fewer than one.
    return np.maximum(np.minimum(load.attention_calls - 1, 1.0), 0.0)  # type: ignore[no-any-return]
