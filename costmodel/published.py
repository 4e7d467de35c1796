"""From measurements that others published to fits of devices and classes. Pure."""

import functools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from costmodel.calibration import coefficients_of, range_of, tuple_of
from costmodel.hierarchy import ASSUMED_CPU_LOG_SD
from costmodel.latency import prior
from costmodel.reach import class_of
from costmodel.regression import (
    STACK_LOG_SD,
    Deviation,
    Observations,
    Posterior,
    posterior_of,
    spread_of,
)
from costmodel.work import Array, Machine, Rates, Work, groups_of
from domain.architecture import Architecture
from domain.catalogue import PublishedRow, model_named
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.record import Precision, Runtime
from domain.routing import RoutingDistribution
from domain.workload import Workload, timm_states

# A published row differs from its repetition by up to 12 % for identical graphs.
PUBLISHED_LOG_SD = 0.08
# A row that does not state its batch is believed little.
UNSTATED_BATCH_LOG_SD = 0.3
# A device that was timed with old software only is anchored by it if the gap, in log, is small.
LARGEST_STACK_GAP = 0.4
# With fewer rows than this a device's own spread is not believed to be below its class's.
FEW_ROWS = 10
# How a device of a class may differ from the class beside its offset, and software of another age
# from today's: log spreads before the data.
DEVICE_LOG_SD = {
    "gemm_efficiency": 0.15,
    "attention_efficiency": 0.15,
    "activation_efficiency": 0.15,
    "elementwise_efficiency": 0.15,
    "call_s": 0.3,
}
OLD_STACK_LOG_SD = {
    "gemm_efficiency": 0.3,
    "attention_efficiency": 0.7,
    "activation_efficiency": 0.5,
    "elementwise_efficiency": 0.5,
    "call_s": 0.7,
}
OLD_STACK = "old-stack"
# Precision is part of what runs: other units, other kernels. The first group is what the others
# deviate from.
PRECISION_LOG_SD = {
    "gemm_efficiency": 0.3,
    "inner_step_s": 1.0,
    "attention_efficiency": 0.5,
    "activation_efficiency": 0.3,
    "elementwise_efficiency": 0.3,
    "call_s": 0.5,
}
PRECISION_GROUPS: tuple[tuple[Precision, ...], ...] = (
    ("fp16", "bf16", "amp_fp16", "amp_bf16"),
    ("fp32", "tf32"),
    ("int8",),
)
# Spread between GPUs before it is estimated from their offsets.
ASSUMED_GPU_LOG_SD = 0.2


@functools.lru_cache(maxsize=8192)
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
        states="by-token" if row.seq_len else timm_states(net, row.layout),
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
    owners: list[PublishedRow] = []
    has_both = len({is_old_stack(row) for row in rows}) > 1
    for number, row in enumerate(rows):
        machine = Machine.of(specs[row.device_id], row.precision)
        for group in groups_of(published_workload(row), host_runs_ahead=machine.host_runs_ahead):
            groups.append(group)
            machines.append(machine)
            target.append(number)
            owners.append(row)
        seconds.append((row.batch or 1) / row.throughput_img_per_s)
        log_sd.append(PUBLISHED_LOG_SD if row.batch else UNSTATED_BATCH_LOG_SD)
        stack = [float(is_old_stack(row))] if has_both else []
        design.append([float(row.device_id == name) for name in offsets] + stack)
    covariates = {
        covariate_of(name): np.array([float(row.device_id == name) for row in owners])
        for name in offsets
    }
    deviations = [
        Deviation(coefficient=coefficient, covariate=covariate, log_sd=spread)
        for covariate in covariates
        for coefficient, spread in DEVICE_LOG_SD.items()
    ]
    if has_both:
        covariates[OLD_STACK] = np.array([float(is_old_stack(row)) for row in owners])
        deviations += [
            Deviation(coefficient=coefficient, covariate=OLD_STACK, log_sd=spread)
            for coefficient, spread in OLD_STACK_LOG_SD.items()
        ]
    _, *others = groups_present(rows)
    for precisions in others:
        covariate = precision_covariate(precisions)
        covariates[covariate] = np.array([float(row.precision in precisions) for row in owners])
        deviations += [
            Deviation(coefficient=coefficient, covariate=covariate, log_sd=spread)
            for coefficient, spread in PRECISION_LOG_SD.items()
        ]
    return Observations(
        work=Work.of(groups),
        rates=Rates.of(machines),
        target=np.array(target),
        seconds=np.array(seconds),
        log_sd=np.array(log_sd),
        design=np.array(design),
        devices=len(offsets),
        covariates=covariates,
        deviations=tuple(deviations),
    )


def groups_present(rows: Sequence[PublishedRow]) -> tuple[tuple[Precision, ...], ...]:
    """Groups of precisions that rows were timed at, in the order of `PRECISION_GROUPS`."""
    there = {row.precision for row in rows}
    return tuple(group for group in PRECISION_GROUPS if there & set(group))


def precision_covariate(precisions: tuple[Precision, ...]) -> str:
    """The covariate that is 1 at these precisions and 0 at others."""
    return f"precision:{precisions[0]}"


def covariate_of(device_id: str) -> str:
    """The covariate that is 1 on a device and 0 elsewhere."""
    return f"device:{device_id}"


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
    """Fits of one class and runtime: for each group of precisions one, and one a device."""
    posterior, names = class_posterior(rows, specs, device_class)
    fits: list[Fit] = []
    for number, precisions in enumerate(groups_present(rows)):
        own = np.array([row.precision in precisions for row in rows])
        at = {precision_covariate(precisions): 1.0} if number else {}
        suffix = f"-{precisions[0]}" if number else ""
        fits += _fits_at(
            device_class, runtime, rows, specs, made_by, posterior, names, own, at, suffix
        )
    return fits


def _fits_at(
    device_class: str,
    runtime: Runtime,
    rows: Sequence[PublishedRow],
    specs: Mapping[str, DeviceSpec],
    made_by: str,
    posterior: Posterior,
    names: tuple[str, ...],
    at_precision: NDArray[np.bool_],
    at: Mapping[str, float],
    suffix: str,
) -> list[Fit]:
    beliefs = prior(device_class)
    is_old = np.array([is_old_stack(row) for row in rows])
    between = between_devices_log_sd(posterior, len(names))
    covariance = posterior.covariance_at(at)
    here = [row for row, mine in zip(rows, at_precision, strict=True) if mine]
    today = at_precision & (~is_old | is_old[at_precision].all())
    whole_class = Fit(
        name=f"class-{device_class}-{runtime}{suffix}",
        device_id="",
        scope="class",
        device_class=device_class,
        families=tuple(sorted({specs[name].family for name in names})),
        runtime=runtime,
        precisions=tuple(sorted({row.precision for row in here})),
        coefficients=coefficients_of(posterior.values_at(at), covariance, beliefs),
        covariance=tuple_of(covariance),
        # Today's software is what a buyer runs; older rows say how launches and devices differ.
        residual_log_sd=spread_of(posterior.residuals[today]),
        # A stack that no row ran is as unknown as it was before.
        device_log_sd=math.hypot(between, STACK_LOG_SD) if is_old.all() else between,
        points=len(here),
        measurements=tuple(sorted({row.device_id for row in here})),
        provenance=f"{len(here)} published measurements of "
        + ", ".join(sorted({row.device_id for row in here})),
        made_by=made_by,
        domain=range_of(published_workload(row) for row in here),
    )
    fits = [whole_class]
    if is_old.all():
        return fits
    for number, name in enumerate(names):
        own = at_precision & np.array([row.device_id == name for row in rows])
        if not own.any():
            continue
        stack = abs(float(posterior.stacks[0])) if is_old[own].all() else 0.0
        if stack > LARGEST_STACK_GAP:
            continue
        spread = spread_of(posterior.residuals[own])
        if own.sum() < FEW_ROWS:
            spread = max(spread, whole_class.residual_log_sd)
        offset = number if len(names) > 1 else None
        jacobian = _map_to_device(posterior, offset, {**at, covariate_of(name): 1.0})
        logs, covariance = jacobian @ posterior.point, jacobian @ posterior.covariance @ jacobian.T
        values = dict(zip(posterior.names, map(float, np.exp(logs)), strict=True))
        changes = {
            "name": f"device-{name}-{runtime}{suffix}",
            "device_id": name,
            "scope": "device",
            "families": (specs[name].family,),
            "precisions": tuple(
                sorted({row.precision for row, mine in zip(rows, own, strict=True) if mine})
            ),
            "coefficients": coefficients_of(values, covariance, beliefs),
            "residual_log_sd": math.hypot(spread, stack),
            "covariance": tuple_of(covariance),
            "device_log_sd": 0.0,
            "points": int(own.sum()),
            "measurements": (name,),
            "provenance": f"{own.sum()} published measurements of {name}",
        }
        fits.append(Fit(**{**dict(whole_class), **changes}))
    return fits


# A share of another efficiency does not answer to the device's offset itself.
RELATIVE = ("convolution_efficiency",)


def sign_of(name: str) -> float:
    """How a coefficient answers to a device's log offset: efficiencies fall as times rise."""
    if name.endswith("_s"):
        return 1.0
    return -1.0 if name.endswith("_efficiency") and name not in RELATIVE else 0.0


def _map_to_device(posterior: Posterior, number: int | None, at: Mapping[str, float]) -> Array:
    """The matrix from all logarithms to those of a device's own coefficients.

    Coefficients, deviations and offset are known better together than each alone.
    """
    jacobian = posterior.map_at(at)
    if number is not None:
        offset = len(posterior.names) + len(posterior.shifts) + number
        jacobian[:, offset] = [sign_of(each) for each in posterior.names]
    return jacobian
