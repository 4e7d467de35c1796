"""From measurements that others published to what they tell of a class of devices. Pure."""

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t as student

from costmodel.hierarchy import ASSUMED_CPU_LOG_SD
from costmodel.latency import prior
from costmodel.regression import (
    Deviation,
    Observations,
    Posterior,
    posterior_of,
)
from costmodel.software import (
    SOFTWARE_ROWS_LOG_SD,
    TODAY,
    attention_of,
    covariate_of_software,
    others_of,
    software_of,
)
from costmodel.work import Array, Machine, Rates, Work, groups_of
from domain.architecture import Architecture
from domain.catalogue import PublishedRow, model_named
from domain.device import DeviceSpec
from domain.record import Precision
from domain.routing import RoutingDistribution
from domain.workload import Workload, timm_states

# A published row differs from its repetition by up to 12 % for identical graphs.
PUBLISHED_LOG_SD = 0.08
# A row that does not state its batch is believed little.
UNSTATED_BATCH_LOG_SD = 0.3
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


# What a GPU's host does: how fast it launches tells nothing of how fast kernels are, nor they of it.
HOST = ("call_s", "stage_s")
# A share of another efficiency does not answer to the device's offset itself.
RELATIVE = ("convolution_efficiency",)


def sign_of(name: str) -> float:
    """How a coefficient answers to a device's log offset: efficiencies fall as times rise."""
    if name.endswith("_s"):
        return 1.0
    return -1.0 if name.endswith("_efficiency") and name not in RELATIVE else 0.0
