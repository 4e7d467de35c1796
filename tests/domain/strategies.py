"""Generators of the nouns."""

from hypothesis import strategies as st

from domain.architecture import Architecture
from domain.measurement import DepthRecord, Environment, Measurement, Rates
from domain.record import Unknown
from domain.routing import RoutingDistribution
from domain.workload import Workload

positive = st.floats(min_value=1e-9, max_value=1e15)
samples = st.lists(st.floats(min_value=1e-6, max_value=1e3), min_size=1, max_size=4).map(tuple)
sentences = st.text(min_size=1, max_size=20)
unknowns = st.builds(Unknown, reason=sentences)


@st.composite
def survivals(draw: st.DrawFn) -> tuple[float, ...]:
    """Shares that never rise."""
    shares = draw(st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=6))
    return tuple(sorted(shares, reverse=True))


@st.composite
def routings(
    draw: st.DrawFn, tokens: int | None = None, recursions: int | None = None
) -> RoutingDistribution:
    """Routings of a few images."""
    tokens = tokens or draw(st.integers(min_value=1, max_value=600))
    recursions = recursions or draw(st.integers(min_value=1, max_value=5))
    row = st.lists(
        st.integers(min_value=0, max_value=tokens), min_size=recursions, max_size=recursions
    ).map(lambda counts: tuple(sorted(counts, reverse=True)))
    rows = draw(st.lists(row, min_size=1, max_size=5))
    return RoutingDistribution(tokens=tokens, counts=tuple(rows))


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Small routed networks."""
    heads = draw(st.integers(min_value=1, max_value=4))
    patch = draw(st.integers(min_value=1, max_value=4))
    return Architecture(
        name=draw(st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True)),
        image_size=patch * draw(st.integers(min_value=1, max_value=6)),
        patch_size=patch,
        width=heads * draw(st.integers(min_value=1, max_value=16)),
        heads=heads,
        mlp_width=draw(st.integers(min_value=1, max_value=64)),
        mlp=draw(st.sampled_from(["gelu", "quickgelu", "swiglu"])),
        layers_before=draw(st.integers(min_value=0, max_value=2)),
        shared_layers=draw(st.integers(min_value=1, max_value=3)),
        recursions=draw(st.integers(min_value=1, max_value=4)),
        layers_after=draw(st.integers(min_value=0, max_value=2)),
        router=draw(st.sampled_from(["expert-choice", "token-choice"])),
        prefix_tokens=draw(st.integers(min_value=0, max_value=5)),
    )


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Small workloads, their routing of the same network."""
    architecture = draw(architectures())
    return Workload(
        architecture=architecture,
        batch=draw(st.integers(min_value=1, max_value=64)),
        precision=draw(st.sampled_from(["fp32", "amp_bf16", "int8"])),
        executor=draw(st.sampled_from(["masked", "padded", "packed", "capacity"])),
        routing=draw(routings(architecture.tokens, architecture.recursions)),
    )


depths = st.builds(
    DepthRecord,
    stage=st.sampled_from(["prologue", "recursion-1", "recursion-12", "epilogue"]),
    counts=st.lists(st.integers(min_value=0, max_value=600), max_size=3).map(tuple),
    samples_s=samples,
    routed_flop=positive,
    executed_flop=positive,
    peak_bytes=st.one_of(st.integers(min_value=1, max_value=10**12), unknowns),
    energy_j=st.one_of(positive, unknowns),
)

environments = st.builds(
    Environment,
    device_id=st.just("toy"),
    device_name=sentences,
    kind=st.sampled_from(["cpu", "cuda"]),
    threads=st.integers(min_value=1, max_value=64),
    cores=st.integers(min_value=1, max_value=64),
    memory_bytes=st.integers(min_value=1, max_value=2**40),
    operating_system=sentences,
    python=sentences,
    torch=sentences,
    flags=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=2).map(tuple),
)

measurements = st.builds(
    Measurement,
    point=st.just("point"),
    run=st.integers(min_value=1, max_value=99),
    session=st.just("session"),
    taken_at=st.just("2026-11-23T12:00:00Z"),
    workload=workloads(),
    weights=sentences,
    routing_source=st.sampled_from(["real-images", "none"]),
    environment=environments,
    rates=st.builds(Rates, gemm_flop_per_s=positive, copy_bytes_per_s=positive),
    status=st.sampled_from(["ok", "oom", "throttled"]),
    reason=sentences,
    samples_s=samples,
    depths=st.lists(depths, max_size=2).map(tuple),
    energy_j=st.one_of(positive, unknowns),
    seed=st.integers(min_value=0, max_value=2**31),
)


def toy_measurement(run: int = 1) -> Measurement:
    """One plain measurement, short enough to be damaged byte by byte."""
    architecture = Architecture.plain(
        name="toy", depth=1, width=8, heads=2, image_size=8, patch_size=4
    )
    return Measurement(
        point="toy",
        run=run,
        session="s",
        taken_at="2026-11-23T12:00:00Z",
        workload=Workload(
            architecture=architecture, batch=1, routing=RoutingDistribution.full(5, 1)
        ),
        weights="random",
        routing_source="none",
        environment=Environment(
            device_id="toy",
            device_name="Toy",
            kind="cpu",
            threads=1,
            cores=1,
            memory_bytes=1,
            operating_system="none",
            python="3",
            torch="2",
        ),
        rates=Rates(gemm_flop_per_s=1.0, copy_bytes_per_s=1.0),
        status="ok",
        samples_s=(0.5,),
    )
