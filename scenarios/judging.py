"""Whether a delivered machine is as promised, point by point; and the fleet that follows."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from domain.acceptance import (
    AcceptanceTerms,
    AcceptanceVerdict,
    PointVerdict,
    PromisedPoint,
    Verdict,
)
from domain.measurement import Measurement, Status
from domain.record import Estimate, Unknown
from domain.scenario import Plan, Scenario
from domain.statistics import median_of_runs
from domain.units import shown
from scenarios.fleet import Queue, fleet_of, queue_of
from scenarios.pricing import demands_of
from scenarios.sensitivity import log_sd
from scenarios.service import Service

# One clean failure decides; else what could not be judged does.
WORST_FIRST: tuple[Verdict, ...] = ("fail", "disturbed", "invalid")
# Statuses of runs that the machine, not the point, spoilt.
SPOILED: tuple[Status, ...] = ("contended", "throttled")
# Of one core: what the profiler notes of other processes and of the host (its conditions).
NOTED_CPU, NOTED_STEAL = 0.03, 0.02


def judged(
    terms: AcceptanceTerms, plan: Plan, measured: Sequence[Measurement]
) -> AcceptanceVerdict:
    """What the delivered machine showed, held against the terms of its kit.

    A machine fails only by what was measured undisturbed; what was quick enough in spite of a
    disturbance passes.
    """
    by_point: dict[str, list[Measurement]] = {}
    for each in measured:
        by_point.setdefault(each.point, []).append(each)
    verdicts = tuple(
        _judged_point(promise, terms, by_point.get(promise.point, ())) for promise in terms.points
    )
    kinds = {each.verdict for each in verdicts}
    verdict: Verdict = next((each for each in WORST_FIRST if each in kinds), "pass")
    environment = measured[0].environment if measured else None
    machine = (
        f"{environment.device_name}, {environment.threads} threads, torch {environment.torch}"
        if environment
        else "no machine"
    )
    if environment and terms.device_id not in (environment.device_id, environment.machine_id):
        machine += f" ({environment.machine_id}; the promise was of {terms.device_id})"
    return AcceptanceVerdict(
        terms=terms,
        points=verdicts,
        verdict=verdict,
        fleet=_fleet_said(plan.scenario, terms, verdicts),
        machine=machine,
    )


def _judged_point(
    promise: PromisedPoint, terms: AcceptanceTerms, runs: Sequence[Measurement]
) -> PointVerdict:
    usable = [each for each in runs if each.is_usable and _is_of(each, promise, terms)]
    if not usable:
        why = runs[0].reason or "of another workload" if runs else "it was not measured"
        return PointVerdict(
            point=promise.point,
            verdict="disturbed" if any(each.status in SPOILED for each in runs) else "invalid",
            promised_s=promise.promised_s,
            measured_s=None,
            why=f"{promise.point}: {why}",
        )
    value, low, high = median_of_runs([each.samples_s for each in usable])
    is_kept = value <= promise.limit_s
    quicker = value < promise.promised_s.low
    said = "quicker than promised" if quicker else "as promised" if is_kept else "slower"
    causes = "; ".join(dict.fromkeys(cause for each in usable for cause in disturbances(each)))
    verdict: Verdict = "pass" if is_kept else "disturbed" if causes else "fail"
    if verdict == "disturbed":
        said = f"slower, and {causes}: measure again when the machine is free"
    return PointVerdict(
        point=promise.point,
        verdict=verdict,
        promised_s=promise.promised_s,
        measured_s=Estimate(value=value, low=low, high=high),
        why=f"{said}: {shown(value, 's')}, the limit is {shown(promise.limit_s, 's')}, "
        f"{len(usable)} runs",
    )


def disturbances(measurement: Measurement) -> Iterator[str]:
    """What else the machine did while a run was measured, where it may have slowed it."""
    if measurement.status == "unstable":
        yield f"the run was unstable ({measurement.reason[:200]})"
    seen = measurement.conditions
    if isinstance(seen, Unknown):
        return
    taken = (
        ("other processes", seen.others_cpu_s, NOTED_CPU),
        ("the host", seen.steal_s, NOTED_STEAL),
    )
    for who, seconds, limit in taken:
        if not isinstance(seconds, Unknown) and seconds / seen.wall_s >= limit:
            yield f"{who} used {seconds / seen.wall_s:.2f} of a core"


def _is_of(measurement: Measurement, promise: PromisedPoint, terms: AcceptanceTerms) -> bool:
    work = measurement.workload
    return (work.architecture, work.batch, work.precision, work.executor, work.runtime) == (
        terms.model, promise.batch, terms.precision, terms.executor, terms.measured_runtime,
    )  # fmt: skip


def _fleet_said(
    scenario: Scenario, terms: AcceptanceTerms, verdicts: Sequence[PointVerdict]
) -> str:
    """How many devices the measured times need, against what was planned."""
    at_full = scenario.routing.is_promised_at_full_depth
    seen = {
        promise.batch: verdict.measured_s.value
        for promise, verdict in zip(terms.points, verdicts, strict=True)
        if promise.is_full_depth == at_full and verdict.measured_s is not None
    }
    if terms.batch not in seen:
        return "the plan's batch was not measured, so nothing follows for the fleet"
    if scenario.demand.arrivals == "trace":
        return "the recorded trace is not in the kit: size again with the new fit"
    found = fleet_of(queue_for(scenario, seen, terms.batch))
    needs = found if isinstance(found, str) else f"{found.servers} a site are needed"
    note = ""
    if terms.planned_runtime != terms.measured_runtime:
        note = f" ({terms.measured_runtime} was measured, the plan is for {terms.planned_runtime})"
    return f"planned: {terms.servers} a site; by what was measured {needs}{note}"


def queue_for(scenario: Scenario, seconds: Mapping[int, float], batch: int) -> Queue:
    """The queue of the busiest year with times as measured; a size between takes the next one's."""
    sizes = sorted(seconds)
    curve = [seconds[next(each for each in sizes if each >= size)] for size in range(1, batch + 1)]
    service = Service(
        seconds=tuple(accumulate(curve, max)),
        log_sd=log_sd(scenario.uncertainty.measured_band),
        variation=0.0,
    )
    demand = max(demands_of(scenario), key=lambda each: each.peak_img_per_s)
    return queue_of(demand, scenario.promise, service)
