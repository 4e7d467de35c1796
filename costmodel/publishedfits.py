"""Fits of devices and classes from what published measurements tell: one a class and runtime, one a device. Pure."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costmodel.calibration import coefficients_of, range_of, tuple_of
from costmodel.latency import prior
from costmodel.published import (
    DEVICE_LOG_SD,
    class_posterior,
    covariate_of,
    groups_present,
    precision_covariate,
    published_workload,
    sign_of,
)
from costmodel.reach import class_of
from costmodel.regression import STACK_LOG_SD, Posterior, spread_of
from costmodel.software import TODAY, TORCH_1, covariate_of_software, others_of, software_of
from costmodel.work import Array
from domain.catalogue import PublishedRow
from domain.device import DeviceSpec
from domain.fit import Coefficient, Fit
from domain.record import Runtime

# A device that was timed with old software only is anchored by it if the gap, in log, is small.
LARGEST_STACK_GAP = 0.4
# With fewer rows than this a device's own spread is not believed to be below its class's.
FEW_ROWS = 10


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


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What all rows of a class and runtime tell together."""

    device_class: str
    runtime: Runtime
    rows: Sequence[PublishedRow]
    specs: Mapping[str, DeviceSpec]
    made_by: str
    posterior: Posterior
    names: tuple[str, ...]
    between: float


def _fits_of_set(
    device_class: str,
    runtime: Runtime,
    rows: Sequence[PublishedRow],
    specs: Mapping[str, DeviceSpec],
    made_by: str,
) -> list[Fit]:
    """Fits of one class and runtime: for each group of precisions one, and one a device."""
    posterior, names, between = class_posterior(rows, specs, device_class)
    told = _Told(
        device_class=device_class, runtime=runtime, rows=rows, specs=specs, made_by=made_by,
        posterior=posterior, names=names, between=between,
    )  # fmt: skip
    has_torch_1 = TORCH_1 in others_of({software_of(row) for row in rows})
    fits: list[Fit] = []
    for number, precisions in enumerate(groups_present(rows)):
        own = np.array([row.precision in precisions for row in rows])
        at = {precision_covariate(precisions): 1.0} if number else {}
        suffix = f"-{precisions[0]}" if number else ""
        fits += _fits_at(told, own, at, suffix)
        older = own & np.array([software_of(row) == TORCH_1 for row in rows])
        if runtime == "eager" and has_torch_1 and older.any():
            now = {**at, covariate_of_software(TORCH_1): 1.0}
            fits += _fits_at(told, older, now, f"{suffix}-{TORCH_1}")
    return fits


def _fits_at(
    told: _Told, at_precision: NDArray[np.bool_], at: Mapping[str, float], suffix: str
) -> list[Fit]:
    device_class, rows, specs = told.device_class, told.rows, told.specs
    posterior, between = told.posterior, told.between
    softwares = [software_of(row) for row in rows]
    others = others_of(set(softwares))
    gaps = dict(zip(others, np.abs(posterior.stacks).tolist(), strict=True))
    software = next((name for name in others if covariate_of_software(name) in at), "")
    is_old = np.array([name not in (TODAY, software) for name in softwares])
    here = [row for row, mine in zip(rows, at_precision, strict=True) if mine]
    today = at_precision & (~is_old | is_old[at_precision].all())
    stack = None if not software else others.index(software)
    # How far whole batches of devices lie apart tells little of hosts: each launches at its own pace.
    of_hosts = 0.0 if device_class == "cpu" else DEVICE_LOG_SD["call_s"]
    coefficients, covariance = _at(told, at, None, stack, of_hosts)
    whole_class = Fit(
        name=f"class-{device_class}-{told.runtime}{suffix}",
        device_id="",
        scope="class",
        device_class=device_class,
        families=tuple(sorted({specs[name].family for name in told.names})),
        runtime=told.runtime,
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
        made_by=told.made_by,
        domain=range_of(published_workload(row) for row in here),
    )
    fits = [whole_class]
    if is_old.all():
        return fits
    for number, name in enumerate(told.names):
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
        ran = {name for name, mine in zip(softwares, own, strict=True) if mine}
        spread = spread_of(posterior.residuals[own])
        if own.sum() < FEW_ROWS:
            spread = max(spread, whole_class.residual_log_sd)
        offset = number if len(told.names) > 1 else None
        coefficients, covariance = _at(told, {**at, covariate_of(name): 1.0}, offset, stack)
        changes = {
            "name": f"device-{name}-{told.runtime}{suffix}",
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
            "taken_with": tuple(sorted(ran - {TODAY, software})),
            "points": int(own.sum()),
            "measurements": (name,),
            "provenance": f"{own.sum()} published measurements of {name}",
        }
        fits.append(Fit(**{**dict(whole_class), **changes}))
    return fits


def _at(
    told: _Told,
    at: Mapping[str, float],
    device: int | None,
    stack: int | None,
    of_hosts_log_sd: float = 0.0,
) -> tuple[tuple[Coefficient, ...], Array]:
    """The coefficients of one device, or of the class, with one software, and their covariance.

    By the matrix from all logarithms to those: coefficients, deviations and offsets are known better
    together than each alone. Offsets are of whole batches, and so of all that takes time.
    """
    posterior = told.posterior
    jacobian = posterior.map_at(at)
    signs = [sign_of(each) for each in posterior.names]
    first = len(posterior.names) + len(posterior.shifts)
    places = (device, None if stack is None else len(posterior.offsets) + stack)
    for place in places:
        if place is not None:
            jacobian[:, first + place] = signs
    logs, covariance = jacobian @ posterior.point, jacobian @ posterior.covariance @ jacobian.T
    launch = posterior.names.index("call_s")
    covariance[launch, launch] += of_hosts_log_sd**2
    values = dict(zip(posterior.names, map(float, np.exp(logs)), strict=True))
    return coefficients_of(values, covariance, prior(told.device_class)), covariance
