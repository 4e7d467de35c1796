"""From measurements that others published to fits of devices and classes. Pure."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t as student

from costmodel.calibration import ASSUMED_CPU_LOG_SD, coefficients_of, covariance_of, range_of
from costmodel.latency import Machine, Rates, Work, groups_of, prior
from costmodel.regression import (
    STACK_LOG_SD,
    Observations,
    Posterior,
    posterior_of,
    spread_of,
)
from costmodel.transfer import class_of
from domain.architecture import Architecture
from domain.catalogue import PublishedRow, model_named
from domain.device import DeviceSpec
from domain.fit import Coefficient, Fit
from domain.record import Runtime
from domain.routing import RoutingDistribution
from domain.workload import Workload

# A published row differs from its repetition by up to 12 % for identical graphs.
PUBLISHED_LOG_SD = 0.08
# A row that does not state its batch is believed little.
UNSTATED_BATCH_LOG_SD = 0.3
# A device that was timed with old software only is anchored by it if the gap, in log, is small.
LARGEST_STACK_GAP = 0.4
# With fewer rows than this a device's own spread is not believed to be below its class's.
FEW_ROWS = 10
# Spread between GPUs before it is estimated from their offsets.
ASSUMED_GPU_LOG_SD = 0.3


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
    """Whether the software is of another age than what a buyer would install today.

    For frameworks: older than torch 2, whose attention is fused. For engines: FasterTransformer,
    which ended in 2022.
    """
    if row.runtime == "engine":
        return "FasterTransformer" in row.note
    return row.runtime == "eager" or row.runtime == "compiled" if not _is_torch_2(row) else False


def _is_torch_2(row: PublishedRow) -> bool:
    return row.torch_version.startswith("2")


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
    assumed = ASSUMED_CPU_LOG_SD if device_class == "cpu" else ASSUMED_GPU_LOG_SD
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
    is_old = np.array([is_old_stack(row) for row in rows])
    between = between_devices_log_sd(posterior, len(names))
    whole_class = Fit(
        name=f"class-{device_class}-{runtime}",
        device_id="",
        scope="class",
        device_class=device_class,
        families=tuple(sorted({specs[name].family for name in names})),
        runtime=runtime,
        precisions=tuple(sorted({row.precision for row in rows})),
        coefficients=coefficients_of(posterior, beliefs),
        covariance=covariance_of(posterior),
        # Today's software is what a buyer runs; older rows say how launches and devices differ.
        residual_log_sd=spread_of(posterior.residuals[~is_old | is_old.all()]),
        # A stack that no row ran is as unknown as it was before.
        device_log_sd=math.hypot(between, STACK_LOG_SD) if is_old.all() else between,
        points=len(rows),
        measurements=names,
        provenance=f"{len(rows)} published measurements of {', '.join(names)}",
        made_by=made_by,
        domain=range_of(published_workload(row) for row in rows),
    )
    if is_old.all():
        return [whole_class]
    fits = [whole_class]
    for number, name in enumerate(names):
        own = np.array([row.device_id == name for row in rows])
        stack = abs(float(posterior.stacks[0])) if is_old[own].all() else 0.0
        if stack > LARGEST_STACK_GAP:
            continue
        shift = float(posterior.offsets[number]) if len(names) > 1 else 0.0
        spread = spread_of(posterior.residuals[own])
        if own.sum() < FEW_ROWS:
            spread = max(spread, whole_class.residual_log_sd)
        changes = {
            "name": f"device-{name}-{runtime}",
            "device_id": name,
            "scope": "device",
            "families": (specs[name].family,),
            "precisions": tuple(
                sorted({row.precision for row, mine in zip(rows, own, strict=True) if mine})
            ),
            "coefficients": tuple(_slower(each, shift) for each in whole_class.coefficients),
            "residual_log_sd": math.hypot(spread, stack),
            "covariance": _covariance_of_device(posterior, number if len(names) > 1 else None),
            "device_log_sd": 0.0,
            "points": int(own.sum()),
            "measurements": (name,),
            "provenance": f"{own.sum()} published measurements of {name}",
        }
        fits.append(Fit(**{**dict(whole_class), **changes}))
    return fits


def _slower(coefficient: Coefficient, log_shift: float) -> Coefficient:
    """The coefficient of a device that takes e^shift times as long."""
    factor = math.exp(_sign_of(coefficient.name) * log_shift)
    return Coefficient(**{**coefficient.model_dump(), "value": coefficient.value * factor})


def _sign_of(name: str) -> float:
    """How a coefficient answers to a device's log offset: efficiencies fall as times rise."""
    return {"call_s": 1.0, "gemm_half": 0.0}.get(name, -1.0)


def _covariance_of_device(
    posterior: Posterior, number: int | None
) -> tuple[tuple[float, ...], ...]:
    """Covariance of a device's own coefficients: J Σ Jᵀ with J = [1 | sign].

    Coefficients and offset are known better together than each alone.
    """
    if number is None:
        return covariance_of(posterior)
    size = len(posterior.names)
    kept = [*range(size), size + number]
    signs = np.array([[_sign_of(name)] for name in posterior.names])
    jacobian = np.hstack([np.eye(size), signs])
    own = jacobian @ posterior.covariance[np.ix_(kept, kept)] @ jacobian.T
    return tuple(tuple(float(x) for x in row) for row in own)
