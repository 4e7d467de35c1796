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
from costmodel.software import (
    SOFTWARE_ROWS_LOG_SD,
    TODAY,
    TORCH_1,
    attention_of,
    covariate_of_software,
    others_of,
    software_of,
)
from costmodel.work import Array, Machine, Rates, Work, groups_of
from domain.architecture import Architecture
from domain.catalogue import PublishedRow, model_named
from domain.device import DeviceSpec
from domain.fit import Coefficient, Fit
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
# How a device of a class may differ from the class beside its offset: log spreads before the data.
DEVICE_LOG_SD = {
    "gemm_efficiency": 0.15,
    "attention_efficiency": 0.15,
    "activation_efficiency": 0.15,
    "elementwise_efficiency": 0.15,
    "call_s": 0.3,
}
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
# Layers, width and heads of bare encoders.
ENCODERS = {"bert_base_encoder": (12, 768, 12), "bert_large_encoder": (24, 1024, 16)}
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
        attention=attention_of(row, net.tokens),
        routing=RoutingDistribution.full(net.tokens, net.recursions),
    )


def _published_architecture(row: PublishedRow) -> Architecture:
    if row.seq_len is None:
        return model_named(row.as_model or row.model, row.image_size)
    layers, width, heads = ENCODERS[row.model]
    # A bare encoder is a network of one patch, whose other tokens are prefix tokens.
    return Architecture(
        name=row.model.replace("_", "-"),
        image_size=1,
        patch_size=1,
        channels=1,
        classes=0,
        width=width,
        heads=heads,
        mlp_width=4 * width,
        layers_before=0,
        shared_layers=layers,
        recursions=1,
        layers_after=0,
        prefix_tokens=row.seq_len - 1,
    )


def published_observations(
    rows: Sequence[PublishedRow],
    specs: Mapping[str, DeviceSpec],
    offsets: Sequence[str],
) -> Observations:
    """Whole batches of published rows; each device id in `offsets` has an offset of its own.

    So has every software but today's.
    """
    groups, machines, target, seconds, log_sd, design = [], [], [], [], [], []
    owners: list[PublishedRow] = []
    others = others_of({software_of(row) for row in rows})
    for number, row in enumerate(rows):
        machine = Machine.of(specs[row.device_id], row.precision)
        for group in groups_of(published_workload(row), host_runs_ahead=machine.host_runs_ahead):
            groups.append(group)
            machines.append(machine)
            target.append(number)
            owners.append(row)
        seconds.append((row.batch or 1) / row.throughput_img_per_s)
        log_sd.append(PUBLISHED_LOG_SD if row.batch else UNSTATED_BATCH_LOG_SD)
        design.append(
            [float(row.device_id == name) for name in offsets]
            + [float(software_of(row) == name) for name in others]
        )
    covariates = {
        covariate_of(name): np.array([float(row.device_id == name) for row in owners])
        for name in offsets
    }
    deviations = [
        Deviation(coefficient=coefficient, covariate=covariate, log_sd=spread)
        for covariate in covariates
        for coefficient, spread in DEVICE_LOG_SD.items()
    ]
    for name in others:
        covariate = covariate_of_software(name)
        covariates[covariate] = np.array([float(software_of(row) == name) for row in owners])
        deviations += [
            Deviation(coefficient=coefficient, covariate=covariate, log_sd=spread)
            for coefficient, spread in SOFTWARE_ROWS_LOG_SD.items()
        ]
    for precisions in groups_present(rows)[1:]:
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
    """Whether the software is another than what a buyer would install today."""
    return software_of(row) != TODAY


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
) -> tuple[Posterior, tuple[str, ...], float]:
    """Posterior of one class and runtime, the devices whose offsets it carries, and how devices differ.

    The last is the log spread that a device of the class which nobody timed carries: one more like the
    devices, or one more generation like theirs, whichever is more.
    """
    names = tuple(sorted({row.device_id for row in rows}))
    offsets = names if len(names) > 1 else ()
    assumed = ASSUMED_CPU_LOG_SD if device_class == "cpu" else ASSUMED_GPU_LOG_SD
    observations = published_observations(rows, specs, offsets)
    posterior = posterior_of(observations, prior(device_class), offset_log_sd=assumed)
    if len(names) < LEAST_DEVICES:
        return posterior, names, assumed
    apart = _apart(posterior, observations)
    by_device = [row.device_id for row in rows]
    by_family = [generation_of(specs[row.device_id]) for row in rows]
    between = max(
        spread_of_few([float(np.median(apart[np.array(kin) == each])) for each in sorted(set(kin))])
        for kin in (by_device, by_family)
    )
    return posterior, names, between


def generation_of(device: DeviceSpec) -> str:
    """The generation of a device: siblings share kernels."""
    return device.family.split()[0]


def _apart(posterior: Posterior, seen: Observations) -> Array:
    """How much longer than its class each observation's device takes, in log: offset and deviations."""
    of_device = [each.covariate.startswith(covariate_of("")) for each in posterior.deviations]
    without = np.where(of_device, 0.0, posterior.shifts)
    logs = dict(zip(posterior.names, posterior.log_values, strict=True))
    of_class = (
        np.log(seen.predicted_s(logs, without)) + seen.design[:, seen.devices :] @ posterior.stacks
    )
    return np.asarray(np.log(seen.seconds) - posterior.residuals - of_class)


# Of fewer the spread between devices stays as assumed.
LEAST_DEVICES = 3


def spread_of_few(differences: Sequence[float]) -> float:
    """Log spread of one more like these around 0: theirs, by Student's factor for so few; 0 of one alone.

    >>> round(spread_of_few([0.2, -0.2, 0.2]), 3)
    0.355
    """
    if len(differences) < 2:
        return 0.0
    mean_square = math.fsum(each**2 for each in differences) / len(differences)
    return math.sqrt(mean_square) * float(student.ppf(0.95, len(differences) - 1)) / 1.645


def _fits_of_set(
    device_class: str,
    runtime: Runtime,
    rows: Sequence[PublishedRow],
    specs: Mapping[str, DeviceSpec],
    made_by: str,
) -> list[Fit]:
    """Fits of one class and runtime: for each group of precisions one, and one a device."""
    posterior, names, between = class_posterior(rows, specs, device_class)
    fits: list[Fit] = []
    for number, precisions in enumerate(groups_present(rows)):
        own = np.array([row.precision in precisions for row in rows])
        at = {precision_covariate(precisions): 1.0} if number else {}
        suffix = f"-{precisions[0]}" if number else ""
        fits += _fits_at(
            device_class, runtime, rows, specs, made_by, posterior, names, between, own, at, suffix
        )
        older = own & np.array([software_of(row) == TORCH_1 for row in rows])
        if runtime == "eager" and older.any() and not older[own].all():
            now = {**at, covariate_of_software(TORCH_1): 1.0}
            fits += _fits_at(
                device_class, runtime, rows, specs, made_by, posterior, names, between, older, now,
                f"{suffix}-{TORCH_1}",
            )  # fmt: skip
    return fits


def _fits_at(
    device_class: str,
    runtime: Runtime,
    rows: Sequence[PublishedRow],
    specs: Mapping[str, DeviceSpec],
    made_by: str,
    posterior: Posterior,
    names: tuple[str, ...],
    between: float,
    at_precision: NDArray[np.bool_],
    at: Mapping[str, float],
    suffix: str,
) -> list[Fit]:
    beliefs = prior(device_class)
    softwares = [software_of(row) for row in rows]
    others = others_of(set(softwares))
    gaps = dict(zip(others, np.abs(posterior.stacks).tolist(), strict=True))
    software = next((name for name in others if covariate_of_software(name) in at), "")
    is_old = np.array([name not in (TODAY, software) for name in softwares])
    here = [row for row, mine in zip(rows, at_precision, strict=True) if mine]
    today = at_precision & (~is_old | is_old[at_precision].all())
    stack = None if not software else others.index(software)
    coefficients, covariance = _at(posterior, beliefs, at, None, stack)
    whole_class = Fit(
        name=f"class-{device_class}-{runtime}{suffix}",
        device_id="",
        scope="class",
        device_class=device_class,
        families=tuple(sorted({specs[name].family for name in names})),
        runtime=runtime,
        software=software,
        precisions=tuple(sorted({row.precision for row in here})),
        coefficients=coefficients,
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
        gap = min(
            0.0 if ran == software else gaps.get(ran, 0.0)
            for ran, mine in zip(softwares, own, strict=True)
            if mine
        )
        if gap > LARGEST_STACK_GAP:
            continue
        if (own & ~is_old).any():
            own &= ~is_old
        spread = spread_of(posterior.residuals[own])
        if own.sum() < FEW_ROWS:
            spread = max(spread, whole_class.residual_log_sd)
        offset = number if len(names) > 1 else None
        coefficients, covariance = _at(
            posterior, beliefs, {**at, covariate_of(name): 1.0}, offset, stack
        )
        changes = {
            "name": f"device-{name}-{runtime}{suffix}",
            "device_id": name,
            "scope": "device",
            "families": (specs[name].family,),
            "precisions": tuple(
                sorted({row.precision for row, mine in zip(rows, own, strict=True) if mine})
            ),
            "coefficients": coefficients,
            "residual_log_sd": math.hypot(spread, gap),
            "covariance": tuple_of(covariance),
            "device_log_sd": 0.0,
            "points": int(own.sum()),
            "measurements": (name,),
            "provenance": f"{own.sum()} published measurements of {name}",
        }
        fits.append(Fit(**{**dict(whole_class), **changes}))
    return fits


# What a GPU's host does: how fast it launches tells nothing of how fast kernels are, nor they of it.
HOST = ("call_s", "stage_s")
# A share of another efficiency does not answer to the device's offset itself.
RELATIVE = ("convolution_efficiency",)


def sign_of(name: str) -> float:
    """How a coefficient answers to a device's log offset: efficiencies fall as times rise."""
    if name.endswith("_s"):
        return 1.0
    return -1.0 if name.endswith("_efficiency") and name not in RELATIVE else 0.0


def _at(
    posterior: Posterior,
    beliefs: Mapping[str, tuple[float, float]],
    at: Mapping[str, float],
    device: int | None,
    stack: int | None,
) -> tuple[tuple[Coefficient, ...], Array]:
    """The coefficients of one device, or of the class, with one software, and their covariance.

    By the matrix from all logarithms to those: coefficients, deviations and offsets are known better
    together than each alone.
    """
    jacobian = posterior.map_at(at)
    signs = np.array([sign_of(each) for each in posterior.names])
    first = len(posterior.names) + len(posterior.shifts)
    if device is not None:
        jacobian[:, first + device] = signs
    if stack is not None:
        of_kernels = np.where([each in HOST for each in posterior.names], 0.0, signs)
        jacobian[:, first + len(posterior.offsets) + stack] = of_kernels
    logs, covariance = jacobian @ posterior.point, jacobian @ posterior.covariance @ jacobian.T
    values = dict(zip(posterior.names, map(float, np.exp(logs)), strict=True))
    return coefficients_of(values, covariance, beliefs), covariance
