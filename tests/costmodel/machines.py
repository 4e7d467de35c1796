"""A machine with a known law: journals whose right answer is known."""

import numpy as np

from costmodel.latency import group_s
from costmodel.work import Rates as MachineRates
from costmodel.work import Work, groups_of, measured_machine
from domain.architecture import Architecture
from domain.fit import Coefficient, Fit
from domain.measurement import DepthRecord, Environment, Measurement, Rates
from domain.record import Unknown
from domain.routing import RoutingDistribution
from domain.workload import Workload

LAW = {
    "gemm_efficiency": 0.8,
    "inner_step_s": 2e-10,
    "rows_half": 8.0,
    "inner_half": 6.0,
    "columns_half": 15.0,
    "convolution_efficiency": 0.6,
    "attention_efficiency": 0.35,
    "attention_half": 15.0,
    "traffic_efficiency": 0.7,
    "norm_efficiency": 0.9,
    "activation_efficiency": 0.7,
    "elementwise_efficiency": 1.2,
    "gather_efficiency": 0.4,
    "cache_reach": 1.0,
    "call_s": 8e-6,
    "attention_calls": 1.5,
    "gather_calls": 1.875,
    "convolution_calls": 10,
    "stage_s": 2.5e-5,
}
RATES = Rates(gemm_flop_per_s=1e11, copy_bytes_per_s=2e10, gemm_bf16_flop_per_s=3e11)
ENVIRONMENT = Environment(
    device_id="cpu-toy-2c",
    device_name="Toy CPU",
    kind="cpu",
    threads=2,
    cores=2,
    memory_bytes=2**34,
    operating_system="toy",
    python="3.11",
    torch="2.14",
)
NONE = Unknown(reason="a toy has no meter")


def workload(
    width=64,
    image_size=28,
    batch=4,
    executor="packed",
    survival=(1.0, 0.6, 0.3),
    precision="fp32",
):
    net = Architecture(
        name=f"toy-w{width}", image_size=image_size, patch_size=4, channels=1, classes=10,
        width=width, heads=4, mlp_width=4 * width, layers_before=1, shared_layers=2,
        recursions=len(survival), layers_after=1,
    )  # fmt: skip
    routing = RoutingDistribution.from_survival(survival, net.tokens)
    return Workload(
        architecture=net, batch=batch, precision=precision, executor=executor, routing=routing
    )


def measured(
    work, run=1, noise=0.0, status="ok", environment=ENVIRONMENT, subject="network", rates=RATES
):
    """What the toy machine takes for `work`, with log-normal noise from its own seed."""
    peak = RATES.peak_flop_per_s(work.precision)
    machine = measured_machine(peak, RATES.copy_bytes_per_s, environment.threads)
    groups = groups_of(work, host_runs_ahead=False)
    law = group_s(Work.of(groups), MachineRates.of([machine] * len(groups)), LAW)
    random = np.random.default_rng([run, work.batch, work.architecture.width])
    drift = np.exp(noise * random.standard_normal())
    samples = [float(law.sum() * drift * np.exp(noise * x)) for x in random.standard_normal(9)]
    is_usable = status in ("ok", "unstable")
    return Measurement(
        point=f"p-{work.architecture.name}-{work.architecture.image_size}-b{work.batch}"
        f"-{work.executor}-{work.precision}",
        run=run,
        session="toy",
        taken_at="2026-11-23T12:00:00Z",
        workload=work,
        subject=subject,
        weights="random, seed 0",
        routing_source="forced-distribution",
        environment=environment,
        rates=rates,
        status=status,
        reason="" if status == "ok" else "a toy reason",
        samples_s=tuple(samples) if is_usable else (),
        depths=tuple(
            DepthRecord(
                stage=group[0].stage,
                counts=(1,),
                samples_s=(float(seconds * drift),),
                routed_flop=1.0,
                executed_flop=1.0,
                peak_bytes=NONE,
                energy_j=NONE,
            )
            for group, seconds in zip(groups, law, strict=True)
        )
        if is_usable
        else (),
    )


def journal_of(noise=0.0, runs=3, precision="fp32", rates=RATES):
    return [
        measured(
            workload(width, image_size, batch, executor, precision=precision),
            run,
            noise,
            rates=rates,
        )
        for run in range(1, runs + 1)
        for width in (64, 128, 256)
        for image_size, batch in ((28, 1), (28, 16), (56, 4))
        for executor in ("packed", "masked")
        if not (executor == "masked" and width == 64)
    ]


def with_values(fit: Fit, logs: np.ndarray) -> Fit:
    """The fit with other coefficients, by their logarithms."""
    return Fit(
        **{
            **dict(fit),
            "coefficients": tuple(
                Coefficient(**{**dict(each), "value": float(np.exp(log))})
                for each, log in zip(fit.coefficients, logs, strict=True)
            ),
        }
    )


def logs_of(fit: Fit) -> np.ndarray:
    """The logarithms of its coefficients."""
    return np.log([each.value for each in fit.coefficients])
