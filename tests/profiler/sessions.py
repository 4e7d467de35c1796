"""Sessions of records made from numbers: what each run took, and what the kernel took beside it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from domain.measurement import DepthRecord, Measurement
from domain.record import Unknown
from domain.routing import RoutingDistribution
from domain.workload import Workload
from tests.profiler.networks import ENVIRONMENT, RATES, network

KERNEL_S = 2e-3


def record(point: str = "a", run: int = 1, log_s: float = 0.0, **changed: Any) -> Measurement:
    """A run of 20 samples around exp(log_s) times 10 ms, the kernel beside them."""
    random = np.random.default_rng(run)
    kernel_s = changed.pop("kernel_s", KERNEL_S)
    tokens = int.from_bytes(point.encode()) % 15 + 1
    fields: dict[str, Any] = {
        "point": point,
        "run": run,
        "session": "s1",
        "taken_at": "2026-01-01T00:00:00Z",
        "workload": Workload(
            architecture=network(),
            batch=2,
            routing=RoutingDistribution(tokens=17, counts=((17, tokens, 1), (17, tokens, 0))),
        ),
        "weights": "random",
        "routing_source": "forced-distribution",
        "environment": ENVIRONMENT,
        "rates": RATES,
        "status": "ok",
        "samples_s": tuple(0.01 * np.exp(log_s + random.normal(0.0, 0.01, 20))),
        "calibration_s": tuple(kernel_s * np.exp(random.normal(0.0, 0.01, 20))),
        "precision_met": True,
    }
    return Measurement(**{**fields, **changed})


def session(
    values: dict[str, Sequence[float]], id: str = "s1", **changed: Any
) -> tuple[Measurement, ...]:
    """One record for each run of each point: log seconds over 10 ms."""
    return tuple(
        record(point, run, log_s, session=id, **changed)
        for point, logs in values.items()
        for run, log_s in enumerate(logs, 1)
    )


def noisy(
    seed: int, sd: float, points: str = "abcdefgh", runs: int = 5, shift: float = 0.0
) -> dict[str, Sequence[float]]:
    """Run values with a spread of `sd` in log."""
    random = np.random.default_rng(seed)
    return {point: random.normal(shift, sd, runs).tolist() for point in points}


def staged(run: int = 1, **changed: Any) -> Measurement:
    """A record that was split into three stages: 1, 6 and 2 ms of a split pass of 10 ms."""
    unknown = Unknown(reason="not looked at")
    stages = (("prologue", 0.001, 1e6), ("recursion-1", 0.006, 4e6), ("epilogue", 0.002, 1e6))
    depths = tuple(
        DepthRecord(
            stage=stage,
            counts=(17, 9),
            samples_s=(seconds, seconds),
            routed_flop=flop,
            executed_flop=2 * flop if stage == "recursion-1" else flop,
            peak_bytes=1000,
            energy_j=unknown,
        )
        for stage, seconds, flop in stages
    )
    fields = {"samples_s": (0.008,) * 20, "cpu_samples_s": (0.004,) * 20}
    return record(run=run, depths=depths, instrumented_s=(0.010, 0.010), **{**fields, **changed})
