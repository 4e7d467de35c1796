"""From a machine's own journal to its fit. Pure: records in, records out."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from costmodel.latency import (
    COEFFICIENTS,
    Machine,
    Rates,
    Work,
    group_s,
    groups_of,
    measured_machine,
    prior,
)
from costmodel.regression import Observations, Posterior, posterior_of, spread_of
from costmodel.transfer import features_of
from domain.complaint import AllFailed
from domain.fit import Coefficient, Fit
from domain.measurement import Measurement
from domain.record import Precision, Unknown
from domain.statistics import median, stage_medians
from domain.workload import Workload

# How far one stage's median is believed beside the whole pass: stages are shorter, and their clock
# marks sit inside the pass.
STAGE_LOG_SD, WHOLE_LOG_SD = 0.08, 0.03
# Spread between CPUs that one measured machine cannot tell: assumed.
ASSUMED_CPU_LOG_SD = 0.35


class TooFewPoints(AllFailed):
    """Nothing can be fitted from so little."""


def by_precision(measurements: Iterable[Measurement]) -> dict[Precision, list[Measurement]]:
    """Usable runs of whole networks, apart by precision, fp32 first: each has a fit of its own.

    Raises TooFewPoints where nothing is usable.
    """
    apart: dict[Precision, list[Measurement]] = defaultdict(list)
    for each in sorted(_usable(measurements), key=lambda each: each.workload.precision != "fp32"):
        apart[each.workload.precision].append(each)
    return dict(apart)


def _usable(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Usable runs in their order; a recursion measured alone is no pass of a network."""
    usable = [each for each in measurements if each.is_usable and each.subject == "network"]
    if not usable:
        raise TooFewPoints(
            "no measurement with status ok or unstable; run `python -m profiler run`"
        )
    return usable


def usable_points(measurements: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    """Usable runs of each point of the newest environment, runtime and precision, split by stage.

    Records of different environments are never merged. Samples are brought to the machine's
    typical speed, see `at_typical_speed`.
    """
    usable = _usable(measurements)
    newest = usable[-1]
    environment, work = newest.environment.key(), newest.workload
    alike = [
        each
        for each in usable
        if each.environment.key() == environment
        and (each.workload.runtime, each.workload.precision) == (work.runtime, work.precision)
        and each.depths
    ]
    points: dict[str, list[Measurement]] = defaultdict(list)
    for measurement in at_typical_speed(alike):
        points[measurement.point].append(measurement)
    return dict(points)


def at_typical_speed(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Each sample over the calibration kernel that ran beside it, times the kernel's median.

    A shared machine drifts by tens of per cent in minutes, and the kernel drifts with it: the ratio
    repeats better than the seconds. Records without a kernel beside every sample stay as they are.
    """
    kernels = [seconds for each in measurements for seconds in each.calibration_s]
    typical_s = median(kernels) if kernels else 0.0
    return [
        Measurement(
            **{
                **dict(each),
                "samples_s": tuple(
                    sample * typical_s / kernel
                    for sample, kernel in zip(each.samples_s, each.calibration_s, strict=True)
                ),
            }
        )
        if len(each.calibration_s) == len(each.samples_s)
        else each
        for each in measurements
    ]


def whole_s(runs: Sequence[Measurement]) -> float:
    """Median over runs of the median wall seconds of a batch."""
    return median([median(run.samples_s) for run in runs])


def stage_s(runs: Sequence[Measurement], stage: str) -> float:
    """Median over runs of a stage's seconds, scaled to the clean pass."""
    return median(
        [
            stage_medians({each.stage: each.samples_s for each in run.depths}, run.samples_s)[stage]
            for run in runs
        ]
    )


def noise_log_sd(points: Mapping[str, Sequence[Measurement]]) -> float:
    """Run-to-run log spread of the medians, pooled over points; 0 with one run a point."""
    deviations = []
    for runs in points.values():
        logs = np.log([median(run.samples_s) for run in runs])
        if len(logs) > 1:
            deviations.append(float(np.var(logs, ddof=1)))
    return math.sqrt(float(np.median(deviations))) if deviations else 0.0


def machine_observations(points: Mapping[str, Sequence[Measurement]]) -> Observations:
    """Every stage and every whole pass of measured points, one machine."""
    groups, machines, target, log_sd = [], [], [], []
    seconds: list[float] = []
    for runs in points.values():
        first = runs[0]
        machine = machine_of(first)
        stages = groups_of(first.workload, host_runs_ahead=False)
        names = {depth.stage for depth in first.depths}
        whole = len(seconds)
        seconds.append(whole_s(runs))
        log_sd.append(WHOLE_LOG_SD)
        for group in stages:
            groups.append(group)
            machines.append(machine)
            target.append(whole)
            if group[0].stage in names:
                groups.append(group)
                machines.append(machine)
                target.append(len(seconds))
                seconds.append(stage_s(runs, group[0].stage))
                log_sd.append(STAGE_LOG_SD)
    return Observations(
        work=Work.of(groups),
        rates=Rates.of(machines),
        target=np.array(target),
        seconds=np.array(seconds),
        log_sd=np.array(log_sd),
        design=np.zeros((len(seconds), 0)),
        devices=0,
    )


def machine_of(measurement: Measurement) -> Machine:
    """The rates of the machine that a measurement was taken on, at its precision.

    Raises TooFewPoints where none was measured at it: a share of another precision's peak would be
    no efficiency.
    """
    precision = measurement.workload.precision
    peak = measurement.rates.peak_flop_per_s(precision)
    if isinstance(peak, Unknown):
        raise TooFewPoints(
            f"{precision} points were measured without the {precision} peak of the machine: "
            f"{peak.reason}; measure them anew with `python -m profiler run`"
        )
    return measured_machine(
        peak,
        measurement.rates.copy_bytes_per_s,
        measurement.environment.threads,
        host_runs_ahead=measurement.environment.kind == "cuda",
    )


def fit_machines(
    measurements: Iterable[Measurement], made_by: str
) -> tuple[tuple[Fit, ...], tuple[str, ...]]:
    """A fit for each precision of a journal, fp32 first; and what could not be fitted, in words.

    Raises TooFewPoints where no precision could.
    """
    fits: list[Fit] = []
    left_out: list[str] = []
    for precision, alike in by_precision(measurements).items():
        try:
            fits.append(fit_machine(alike, made_by))
        except TooFewPoints as complaint:
            left_out.append(f"{precision} was not fitted: {complaint}")
    if not fits:
        raise TooFewPoints("; ".join(left_out))
    return tuple(fits), tuple(left_out)


def fit_machine(measurements: Iterable[Measurement], made_by: str) -> Fit:
    """Coefficients of one machine at one precision, the newest, from its own journal."""
    points = usable_points(measurements)
    if len(points) < 4:
        raise TooFewPoints(f"wanted four measured points at least, got {len(points)}")
    first = next(iter(points.values()))[0]
    precision = first.workload.precision
    beliefs = prior_of(points)
    posterior = posterior_of(machine_observations(points), beliefs)
    held_out = list(held_out_log_ratios(points).values())
    return Fit(
        name=f"machine-{first.environment.device_id}-{first.workload.runtime}{suffix_of(precision)}",
        device_id=first.environment.device_id,
        scope="machine",
        device_class="cpu" if first.environment.kind == "cpu" else "gpu",
        families=(),
        runtime=first.workload.runtime,
        precisions=(precision,),
        environment=first.environment,
        rates=first.rates,
        coefficients=coefficients_of(posterior, beliefs),
        covariance=covariance_of(posterior),
        # What held-out points showed, not what the fit believes of itself.
        residual_log_sd=spread_of(held_out),
        noise_log_sd=noise_log_sd(points),
        points=len(points),
        measurements=tuple(sorted(points)),
        provenance=f"{sum(map(len, points.values()))} runs of {len(points)} points, "
        f"taken {first.taken_at[:10]} on {first.environment.device_name}",
        taken_on=first.taken_at[:10],
        made_by=made_by,
        domain=range_of(runs[0].workload for runs in points.values()),
    )


def suffix_of(precision: Precision) -> str:
    """What names bear to tell a precision; nothing for fp32.

    >>> suffix_of("fp32"), suffix_of("bf16")
    ('', '-bf16')
    """
    return "" if precision == "fp32" else f"-{precision}"


def whole_predicted_s(measurement: Measurement, coefficients: Mapping[str, float]) -> float:
    """Seconds of the batch that `measurement` timed, by `coefficients`."""
    groups = groups_of(measurement.workload, host_runs_ahead=False)
    rates = Rates.of([machine_of(measurement)] * len(groups))
    return float(group_s(Work.of(groups), rates, coefficients).sum())


def held_out_values(points: Mapping[str, Sequence[Measurement]], name: str) -> dict[str, float]:
    """Coefficients of a fit that has not seen the point `name`."""
    rest = {other: runs for other, runs in points.items() if other != name}
    if not rest:
        raise TooFewPoints(f"wanted two points to leave one out, got {name} alone; measure more")
    return posterior_of(machine_observations(rest), prior_of(rest)).values


def held_out_log_ratios(points: Mapping[str, Sequence[Measurement]]) -> dict[str, float]:
    """log(seen / predicted) of each point by a fit that has not seen it: leave one out."""
    return {
        name: math.log(whole_s(runs) / whole_predicted_s(runs[0], held_out_values(points, name)))
        for name, runs in points.items()
    }


def prior_of(points: Mapping[str, Sequence[Measurement]]) -> dict[str, tuple[float, float]]:
    """Beliefs about the machine before its points are seen."""
    kind = next(iter(points.values()))[0].environment.kind
    return prior("cpu" if kind == "cpu" else "gpu")


def class_of_machine(machine: Fit) -> Fit:
    """What one measured CPU says of others: its shares of peak, with an assumed spread."""
    fields = {key: getattr(machine, key) for key in Fit.model_fields}
    return Fit(
        **{
            **fields,
            "name": f"class-{machine.device_class}-{machine.runtime}",
            "device_id": "",
            "scope": "class",
            "families": (machine.families or ("one measured CPU",)),
            "environment": None,
            "rates": None,
            "device_log_sd": ASSUMED_CPU_LOG_SD,
            "provenance": f"{machine.provenance}; the spread between CPUs is assumed, "
            f"{ASSUMED_CPU_LOG_SD} in log",
        }
    )


def coefficients_of(
    posterior: Posterior, beliefs: Mapping[str, tuple[float, float]]
) -> tuple[Coefficient, ...]:
    """Coefficients with their spread, and whether the data moved them off the prior."""
    deviations = np.sqrt(np.diag(posterior.covariance))
    return tuple(
        Coefficient(
            name=name,
            value=value,
            unit=COEFFICIENTS[name][0],
            log_sd=float(deviation),
            is_identified=bool(deviation <= beliefs[name][1] / 2),
        )
        for (name, value), deviation in zip(posterior.values.items(), deviations, strict=False)
    )


def covariance_of(posterior: Posterior) -> tuple[tuple[float, ...], ...]:
    """Covariance of the coefficients' logarithms, without the offsets."""
    size = len(posterior.names)
    return tuple(tuple(float(x) for x in row[:size]) for row in posterior.covariance[:size])


def range_of(workloads: Iterable[Workload]) -> tuple[tuple[str, float, float], ...]:
    """Name, least and most of each feature over `workloads`."""
    features = [features_of(workload) for workload in workloads]
    return tuple(
        (name, min(each[name] for each in features), max(each[name] for each in features))
        for name in features[0]
    )
