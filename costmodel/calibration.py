"""From measurements, our own and published ones, to fits. Pure: records in, records out."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.stats import t as student

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
from costmodel.transfer import class_of, features_of
from domain.architecture import Architecture
from domain.catalogue import PublishedRow, model_named
from domain.complaint import Complaint
from domain.device import DeviceSpec
from domain.fit import Coefficient, Fit
from domain.measurement import Measurement
from domain.record import Runtime
from domain.routing import RoutingDistribution
from domain.statistics import median
from domain.workload import Workload

# How far one stage's median is believed beside the whole pass: stages are shorter, and their clock
# marks sit inside the pass.
STAGE_LOG_SD, WHOLE_LOG_SD = 0.08, 0.03
# A published row differs from its repetition by up to 12 % for identical graphs.
PUBLISHED_LOG_SD = 0.08
# A row that does not state its batch is believed little.
UNSTATED_BATCH_LOG_SD = 0.3
# Spread between CPUs that one measured machine cannot tell: assumed.
ASSUMED_CPU_LOG_SD = 0.35
FOLDS = 5


class TooFewPoints(Complaint):
    """Nothing can be fitted from so little."""

    exit_code = 5


def usable_points(measurements: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    """Usable runs of each point of the newest environment; environments are never merged."""
    usable = [measurement for measurement in measurements if measurement.is_usable]
    if not usable:
        raise TooFewPoints(
            "no measurement with status ok or unstable; run `python -m profiler run`"
        )
    environment = usable[-1].environment.key()
    points: dict[str, list[Measurement]] = defaultdict(list)
    for measurement in usable:
        if measurement.environment.key() == environment:
            points[measurement.point].append(measurement)
    return dict(points)


def whole_s(runs: Sequence[Measurement]) -> float:
    """Median over runs of the median wall seconds of a batch."""
    return median([median(run.samples_s) for run in runs])


def stage_s(runs: Sequence[Measurement], stage: str) -> float:
    """Median over runs of a stage's share, scaled to the clean pass.

    The instrumented pass is a little slower; its shares are what it is asked for.
    """
    shares = []
    for run in runs:
        stages = {depth.stage: median(depth.samples_s) for depth in run.depths}
        shares.append(stages[stage] / math.fsum(stages.values()) * median(run.samples_s))
    return median(shares)


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
    """The rates of the machine that a measurement was taken on."""
    rates = measurement.rates
    return measured_machine(
        rates.gemm_flop_per_s, rates.copy_bytes_per_s, measurement.environment.threads
    )


def fit_machine(measurements: Iterable[Measurement], made_by: str) -> Fit:
    """Coefficients of one machine from its own journal."""
    points = usable_points(measurements)
    if len(points) < 4:
        raise TooFewPoints(f"wanted four measured points at least, got {len(points)}")
    first = next(iter(points.values()))[0]
    beliefs = prior("cpu")
    posterior = posterior_of(machine_observations(points), beliefs)
    whole = whole_residuals(points, posterior.values)
    held_out = [pair[1] for pair in held_out_log_ratios(points)]
    residual = spread_of(whole)
    return Fit(
        name=f"machine-{first.environment.device_id}-{first.workload.runtime}",
        device_id=first.environment.device_id,
        scope="machine",
        device_class="cpu" if first.environment.kind == "cpu" else "gpu",
        families=(),
        runtime=first.workload.runtime,
        precisions=tuple(sorted({runs[0].workload.precision for runs in points.values()})),
        environment=first.environment,
        rates=first.rates,
        coefficients=_coefficients(posterior, beliefs),
        covariance=_covariance(posterior),
        residual_log_sd=residual,
        # Held-out points say how far the interval that the fit believes in must be stretched.
        interval_scale=max(1.0, spread_of(held_out) / residual),
        noise_log_sd=noise_log_sd(points),
        points=len(points),
        measurements=tuple(sorted(points)),
        provenance=f"{sum(map(len, points.values()))} runs of {len(points)} points, "
        f"taken {first.taken_at[:10]} on {first.environment.device_name}",
        taken_on=first.taken_at[:10],
        made_by=made_by,
        domain=_domain(runs[0].workload for runs in points.values()),
    )


def whole_residuals(
    points: Mapping[str, Sequence[Measurement]], coefficients: Mapping[str, float]
) -> list[float]:
    """log(seen / predicted) of each point's whole pass."""
    return [
        math.log(whole_s(runs) / whole_predicted_s(runs[0], coefficients))
        for runs in points.values()
    ]


def whole_predicted_s(measurement: Measurement, coefficients: Mapping[str, float]) -> float:
    """Seconds of the batch that `measurement` timed, by `coefficients`."""
    groups = groups_of(measurement.workload, host_runs_ahead=False)
    rates = Rates.of([machine_of(measurement)] * len(groups))
    return float(group_s(Work.of(groups), rates, coefficients).sum())


def held_out_log_ratios(
    points: Mapping[str, Sequence[Measurement]],
) -> list[tuple[str, float]]:
    """log(seen / predicted) of each point by a fit that has not seen it: leave one out."""
    ratios = []
    for name, runs in points.items():
        rest = {other: seen for other, seen in points.items() if other != name}
        values = posterior_of(machine_observations(rest), prior("cpu")).values
        ratios.append((name, math.log(whole_s(runs) / whole_predicted_s(runs[0], values))))
    return ratios


def published_workload(row: PublishedRow) -> Workload:
    """The plain network that a published row timed. Raises Complaint for a model unknown here.

    Where the source does not state the batch it is taken for one.
    """
    net = _published_architecture(row)
    return Workload(
        architecture=net,
        batch=row.batch or 1,
        precision=row.precision,
        runtime=row.runtime,
        executor="masked",
        routing=RoutingDistribution.full(net.tokens, net.recursions),
    )


def _published_architecture(row: PublishedRow) -> Architecture:
    if row.seq_len is None:
        return model_named(row.as_model or row.model, row.image_size)
    # A bare encoder is a network of one patch, whose other tokens are prefix tokens.
    return Architecture(
        name="bert-base-encoder",
        image_size=1,
        patch_size=1,
        channels=1,
        classes=0,
        width=768,
        heads=12,
        mlp_width=3072,
        layers_before=0,
        shared_layers=12,
        recursions=1,
        layers_after=0,
        prefix_tokens=row.seq_len - 1,
    )


def published_observations(
    rows: Sequence[PublishedRow], specs: Mapping[str, DeviceSpec], offsets: Sequence[str]
) -> Observations:
    """Whole batches of published rows; each device id in `offsets` has an offset of its own.

    So has the software of before fused attention, where a set has rows of both kinds.
    """
    groups, machines, target, seconds, log_sd, design = [], [], [], [], [], []
    has_both = len({is_old_stack(row) for row in rows}) > 1
    for number, row in enumerate(rows):
        machine = Machine.of(specs[row.device_id], row.precision)
        for group in groups_of(published_workload(row), host_runs_ahead=machine.host_runs_ahead):
            groups.append(group)
            machines.append(machine)
            target.append(number)
        seconds.append((row.batch or 1) / row.throughput_img_per_s)
        log_sd.append(PUBLISHED_LOG_SD if row.batch else UNSTATED_BATCH_LOG_SD)
        stack = [float(is_old_stack(row))] if has_both else []
        design.append([float(row.device_id == name) for name in offsets] + stack)
    return Observations(
        work=Work.of(groups),
        rates=Rates.of(machines),
        target=np.array(target),
        seconds=np.array(seconds),
        log_sd=np.array(log_sd),
        design=np.array(design),
        devices=len(offsets),
    )


def is_old_stack(row: PublishedRow) -> bool:
    """Whether the framework was older than torch 2, whose attention is fused."""
    return row.runtime in ("eager", "compiled") and not row.torch_version.startswith("2")


def fits_of_published(
    rows: Sequence[PublishedRow], specs: Mapping[str, DeviceSpec], made_by: str
) -> tuple[Fit, ...]:
    """One fit a class and runtime, and one a published device, from third-party measurements."""
    sets: dict[tuple[str, Runtime], list[PublishedRow]] = defaultdict(list)
    for row in rows:
        sets[(class_of(specs[row.device_id].device_class), row.runtime)].append(row)
    fits: list[Fit] = []
    for (device_class, runtime), members in sorted(sets.items()):
        fits += _fits_of_set(device_class, runtime, members, specs, made_by)
    return tuple(fits)


def class_posterior(
    rows: Sequence[PublishedRow], specs: Mapping[str, DeviceSpec], device_class: str
) -> tuple[Posterior, tuple[str, ...]]:
    """Posterior of one class and runtime, with the devices whose offsets it carries."""
    names = tuple(sorted({row.device_id for row in rows}))
    offsets = names if len(names) > 1 else ()
    assumed = ASSUMED_CPU_LOG_SD if device_class == "cpu" else 0.3
    observations = published_observations(rows, specs, offsets)
    return posterior_of(observations, prior(device_class), offset_log_sd=assumed), names


def between_devices_log_sd(posterior: Posterior, devices: int) -> float:
    """Spread that an unseen device carries: Student's factor for so few devices included."""
    if devices < 3:
        return posterior.offset_log_sd
    return posterior.offset_log_sd * float(student.ppf(0.95, devices - 1)) / 1.645


def _fits_of_set(
    device_class: str,
    runtime: Runtime,
    rows: Sequence[PublishedRow],
    specs: Mapping[str, DeviceSpec],
    made_by: str,
) -> list[Fit]:
    beliefs = prior(device_class)
    posterior, names = class_posterior(rows, specs, device_class)
    size = len(posterior.names)
    variances = np.diag(posterior.covariance)[size : size + len(posterior.offsets)]
    shifts = posterior.offsets if len(names) > 1 else np.zeros(1)
    variances = variances if len(names) > 1 else np.zeros(1)
    whole_class = Fit(
        name=f"class-{device_class}-{runtime}",
        device_id="",
        scope="class",
        device_class=device_class,
        families=tuple(sorted({specs[name].family for name in names})),
        runtime=runtime,
        precisions=tuple(sorted({row.precision for row in rows})),
        coefficients=_coefficients(posterior, beliefs),
        covariance=_covariance(posterior),
        residual_log_sd=spread_of(posterior.residuals),
        device_log_sd=between_devices_log_sd(posterior, len(names)),
        points=len(rows),
        measurements=names,
        provenance=f"{len(rows)} published measurements of {', '.join(names)}",
        made_by=made_by,
        domain=_domain(published_workload(row) for row in rows),
    )
    fits = [whole_class]
    for name, shift, variance in zip(names, shifts, variances, strict=True):
        own = [number for number, row in enumerate(rows) if row.device_id == name]
        fields = {key: getattr(whole_class, key) for key in Fit.model_fields}
        fits.append(
            Fit(
                **{
                    **fields,
                    "name": f"device-{name}-{runtime}",
                    "device_id": name,
                    "scope": "device",
                    "families": (specs[name].family,),
                    "precisions": tuple(sorted({rows[number].precision for number in own})),
                    "coefficients": tuple(
                        _slower(each, float(shift)) for each in whole_class.coefficients
                    ),
                    "residual_log_sd": spread_of(posterior.residuals[own]),
                    "device_log_sd": math.sqrt(float(variance)),
                    "points": len(own),
                    "measurements": (name,),
                    "provenance": f"{len(own)} published measurements of {name}",
                }
            )
        )
    return fits


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


def _slower(coefficient: Coefficient, log_shift: float) -> Coefficient:
    """The coefficient of a device that takes e^shift times as long."""
    sign = {"call_s": 1.0, "gemm_half": 0.0}.get(coefficient.name, -1.0)
    return Coefficient(
        **{**coefficient.model_dump(), "value": coefficient.value * math.exp(sign * log_shift)}
    )


def _coefficients(
    posterior: Posterior, beliefs: Mapping[str, tuple[float, float]]
) -> tuple[Coefficient, ...]:
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


def _covariance(posterior: Posterior) -> tuple[tuple[float, ...], ...]:
    size = len(posterior.names)
    return tuple(tuple(float(x) for x in row[:size]) for row in posterior.covariance[:size])


def _domain(workloads: Iterable[Workload]) -> tuple[tuple[str, float, float], ...]:
    features = [features_of(workload) for workload in workloads]
    return tuple(
        (name, min(each[name] for each in features), max(each[name] for each in features))
        for name in features[0]
    )
