"""Generators of networks, routings and workloads small enough to run for real."""

from hypothesis import strategies as st

from costmodel.work import Machine
from domain.architecture import Architecture
from domain.routing import RoutingDistribution
from domain.workload import Workload


@st.composite
def architectures(draw, *, routed=None):
    heads = draw(st.sampled_from([1, 2, 4]))
    width = heads * draw(st.sampled_from([4, 8]))
    recursions = draw(st.integers(1, 3)) if routed is None else draw(st.integers(2, 3))
    patch = draw(st.sampled_from([2, 4]))
    return Architecture(
        name="toy",
        image_size=patch * draw(st.integers(1, 4)),
        patch_size=patch,
        channels=draw(st.sampled_from([1, 3])),
        classes=draw(st.sampled_from([2, 10])),
        width=width,
        heads=heads,
        mlp_width=width * draw(st.sampled_from([2, 4])),
        mlp=draw(st.sampled_from(["gelu", "quickgelu", "swiglu"])),
        layers_before=draw(st.integers(0, 2)),
        shared_layers=draw(st.integers(1, 2)),
        recursions=recursions,
        layers_after=draw(st.integers(0, 2)),
        router=draw(st.sampled_from(["expert-choice", "token-choice", "random"])),
        router_shape=draw(st.sampled_from(["linear", "mlp", "wide-mlp"])),
        router_reads=draw(st.sampled_from(["token", "token-and-context"])),
        keys_and_values=draw(st.sampled_from(["recursion-wise", "recursive-sharing"])),
        depth_parameters=draw(st.sampled_from(["none", "embeddings", "norms"])),
        prefix_tokens=draw(st.integers(1, 2)),
        layer_scale=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        inner_norms=draw(st.booleans()),
    )


@st.composite
def routings(draw, net, images=None):
    count = images or draw(st.integers(1, 4))
    rows = []
    for _ in range(count):
        left, row = net.tokens, []
        for _ in range(net.recursions):
            left = draw(st.integers(net.prefix_tokens, left)) if net.is_routed else left
            row.append(left)
        rows.append(tuple(row))
    return RoutingDistribution(tokens=net.tokens, counts=tuple(rows))


@st.composite
def workloads(draw, *, executors=("packed", "masked", "padded", "capacity"), precisions=("fp32",)):
    net = draw(architectures())
    return Workload(
        architecture=net,
        batch=draw(st.integers(1, 8)),
        precision=draw(st.sampled_from(precisions)),
        executor=draw(st.sampled_from(executors)),
        routing=draw(routings(net)),
    )


def machines(**more):
    """CPUs and GPUs of any rates; `more` are strategies of what else a machine has."""
    return st.builds(
        Machine,
        peak_flop_per_s=st.floats(1e9, 1e15),
        memory_bytes_per_s=st.floats(1e9, 1e13),
        units=st.floats(1, 200),
        host_runs_ahead=st.booleans(),
        in_tiles=st.booleans(),
        **more,
    )
