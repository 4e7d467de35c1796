"""What goes to a delivered machine: the points to measure there, their limits, a script, a readme."""

import math
from collections.abc import Sequence

from costmodel.asking import devices_named
from costmodel.transfer import forecast
from domain.acceptance import AcceptanceTerms, PromisedPoint
from domain.catalogue import devices, model_named
from domain.complaint import Complaint
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.measurement import MeasuringPlan, PlannedPoint
from domain.prediction import Prediction, Refusal
from domain.record import Runtime
from domain.routing import RoutingDistribution
from domain.scenario import FleetOption, Plan, Scenario
from domain.units import shown
from domain.workload import Workload
from scenarios.reading import routings_of
from scenarios.service import NORMAL_90, Service

MEASURING, MEASURED = "plan.json", "measured"
# The profiler measures networks in this runtime.
RUNTIME: Runtime = "eager"


def kit_of(
    plan: Plan, option: FleetOption, fits: Sequence[Fit], *, has_weights: bool = False
) -> tuple[AcceptanceTerms, MeasuringPlan]:
    """The terms of one fleet's machine, and the points to measure on it.

    With weights of one's own, real images are measured too: for the fit, not for the verdict, as
    their routing is their own.
    """
    scenario = plan.scenario
    ((uncapped, _),) = devices_named(option.device_id, fits, None)
    device = uncapped.held_to(scenario.power_cap_w)
    net, routed, full = routings_of(scenario)
    points: list[PlannedPoint] = []
    promised: list[PromisedPoint] = []
    for batch in _batches(option.batch):
        for routing, is_full in ((routed, False), (full, True)):
            name = f"b{batch}-{'full' if is_full else 'routed'}"
            found = _forecast(scenario, device, fits, batch, routing)
            if isinstance(found, Refusal):
                raise Complaint(f"no promise for {device.name}, batch {batch}: {found.reason}")
            latency = found.latency_s
            spread = math.log(latency.high / latency.value) / NORMAL_90
            sure = Service(seconds=(latency.value,), log_sd=spread, variation=0.0).factor(
                scenario.promise.confidence
            )
            points.append(
                PlannedPoint(
                    id=name,
                    architecture=net,
                    weights="random",
                    batch=batch,
                    precision=scenario.precision,
                    runtime=RUNTIME,
                    executor=scenario.executor,
                    routing_source="forced-distribution",
                    survival=tuple(min(1.0, share) for share in routing.survival),
                    separates="acceptance",
                )
            )
            promised.append(
                PromisedPoint(
                    point=name,
                    batch=batch,
                    is_full_depth=is_full,
                    promised_s=latency,
                    limit_s=latency.value * sure,
                )
            )
    if has_weights:
        points.append(
            PlannedPoint(
                id=f"b{option.batch}-real",
                architecture=net,
                weights="shipped",
                batch=option.batch,
                precision=scenario.precision,
                runtime=RUNTIME,
                executor=scenario.executor,
                routing_source="real-images",
                separates="acceptance, real images",
            )
        )
    terms = AcceptanceTerms(
        plan=scenario.name,
        device_id=device.id,
        device_name=device.name,
        model=net,
        precision=scenario.precision,
        executor=scenario.executor,
        measured_runtime=RUNTIME,
        planned_runtime=scenario.runtime,
        servers=option.servers,
        batch=option.batch,
        power_cap_w=scenario.power_cap_w,
        points=tuple(promised),
        promised=f"{option.servers} a site answer 99 of 100 images within "
        f"{shown(scenario.promise.p99_latency_s, 's')}",
        made_by="python -m scenarios.accept",
    )
    measuring = MeasuringPlan(name=f"accept-{scenario.name}", runs=3, points=tuple(points))
    return terms, measuring


def _batches(batch: int) -> tuple[int, ...]:
    """The plan's batch and one image; with full depth beside it, the four points of a fit."""
    return (1, batch) if batch > 1 else (1, 4)


def _forecast(
    scenario: Scenario,
    device: DeviceSpec,
    fits: Sequence[Fit],
    batch: int,
    routing: RoutingDistribution,
) -> Prediction | Refusal:
    workload = Workload(
        architecture=model_named(scenario.model),
        batch=batch,
        precision=scenario.precision,
        runtime=RUNTIME,
        executor=scenario.executor,
        routing=routing,
    )
    return forecast(workload, device, fits)


def script_of(terms: AcceptanceTerms, checkpoint: str) -> str:
    """The kit's script: measure, judge, fit. Run from a checkout of this suite."""
    device = "auto" if terms.device_id not in devices() else terms.device_id
    weights = f' --checkpoint "$kit/{checkpoint}"' if checkpoint else ""
    return f"""#!/bin/sh
# Accept a delivered machine: {terms.device_name}.
# Run from a checkout of the suite that is set up there: sh KIT/run.sh [device]
set -eu
kit=$(cd "$(dirname "$0")" && pwd)
python=${{PYTHON:-.venv/bin/python}}
"$python" -m profiler run --device "${{1:-{device}}}" --brief --plan "$kit/{MEASURING}" \\
  --out "$kit/{MEASURED}"{weights}
"$python" -m costmodel.fit --journal "$kit/{MEASURED}" || echo "no fit: see above" >&2
"$python" -m scenarios.accept "$kit" --judge
"""


def readme_of(terms: AcceptanceTerms) -> str:
    """What the people at the machine read first."""
    rows = "".join(
        f"  {each.point}: at most {shown(each.limit_s, 's')} a batch\n" for each in terms.points
    )
    held = (
        ""
        if terms.power_cap_w is None
        else f"Hold the device to {terms.power_cap_w:g} W first (nvidia-smi -pl, nvpmodel and such).\n"
    )
    return (
        f"Acceptance of {terms.device_name} for the plan {terms.plan}\n\n"
        f"Promised: {terms.promised}, in batches of up to {terms.batch}.\n"
        f"On this machine, {terms.precision} {terms.measured_runtime}, {terms.executor}:\n{rows}\n"
        f"{held}Copy this folder to the machine, set the suite up there (make setup), and run\n"
        "  sh run.sh\n"
        "It measures these points, says pass or fail, and fits the timings, so that\n"
        "`python -m scenarios.size` knows this machine from then on.\n"
        + (
            f"The plan is for {terms.planned_runtime}; the profiler measures "
            f"{terms.measured_runtime}, so the intervals are of that.\n"
            if terms.planned_runtime != terms.measured_runtime
            else ""
        )
    )
