"""Small networks, points and sessions to measure in tests."""

from domain.architecture import Architecture
from domain.measurement import Environment, MeasuringPlan, PlannedPoint, Rates
from domain.record import Executor
from profiler.messages import Preparation
from profiler.session import Session

RATES = Rates(gemm_flop_per_s=1e11, copy_bytes_per_s=2e10)
SIDE_OF_TOKENS = {5: 8, 17: 16, 197: 56}

ENVIRONMENT = Environment(
    device_id="cpu-toy-2c",
    device_name="Toy",
    kind="cpu",
    threads=1,
    cores=2,
    memory_bytes=10**9,
    operating_system="Linux",
    python="3.11",
    torch="2.14",
    flags=(("governor", "performance"),),
)


def network(tokens: int = 17, width: int = 32, name: str = "toy") -> Architecture:
    return Architecture(
        name=name,
        image_size=SIDE_OF_TOKENS[tokens],
        patch_size=4,
        channels=1,
        classes=10,
        width=width,
        heads=2,
        mlp_width=2 * width,
        layers_before=1,
        shared_layers=1,
        recursions=3,
        layers_after=1,
    )


def forced(
    id: str = "forced",
    survival: tuple[float, ...] = (1.0, 0.6, 0.3),
    spread: float = 0.5,
    batch: int = 8,
    tokens: int = 17,
    executor: Executor = "packed",
) -> PlannedPoint:
    return PlannedPoint(
        id=id,
        architecture=network(tokens),
        weights="random",
        batch=batch,
        executor=executor,
        routing_source="forced-distribution",
        survival=survival,
        spread=spread,
    )


def session(*ids: str, runs: int = 2, seed: int = 3) -> Session:
    return Session(
        id="s1",
        started_at="2026-01-01T00:00:00Z",
        mode="quick",
        seed=seed,
        plan=MeasuringPlan(name="toy", runs=runs, points=tuple(forced(id) for id in ids)),
        preparation=Preparation(kind="cpu", threads=1, wants_rates=True),
        environment=ENVIRONMENT,
        rates=RATES,
    )
