"""What measured CPUs say of one that is not measured, or not yet: a class, and beliefs. Pure.

A machine's own fit alone, by its own points and the wide prior, is what both are made of: what is
believed of a machine has not seen it.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from costmodel.calibration import Beliefs, coefficients_of, tuple_of, united
from costmodel.latency import prior
from costmodel.points import Points
from costmodel.reach import check_coefficients
from costmodel.transfer import NORMAL_90
from costmodel.work import Array
from domain.fit import Fit

# Assumed: the spread between CPUs where one alone was measured; and what a data sheet's rates may be from
# those that fixed kernels reach, which no measured machine has told.
ASSUMED_CPU_LOG_SD = 0.35


def class_of_machines(machines: Sequence[Fit]) -> Fit:
    """What measured CPUs say of others: their shares of what kernels reach, and how far they differ.

    The mean of their log coefficients. Another one is as unsure of each as they are themselves, or as
    a further draw beside n of them (`variance_of_another`) where they differ by more, times what few
    machines may tell too little (`short_of`). One alone does not tell how far CPUs differ; that is
    assumed.
    """
    first, count = machines[0], len(machines)
    names = [each.name for each in first.coefficients]
    mean, covariance = _logs_of(machines).mean(axis=0), _covariance_of(machines)
    assumed = f"{ASSUMED_CPU_LOG_SD} in log"
    said = f"the spread between CPUs is assumed, {assumed}"
    if count > 1:
        apart = short_of(count) ** 2 * variance_of_another(machines)
        covariance = covariance + np.diag(np.maximum(apart - np.diag(covariance), 0.0))
        said = f"the spread between CPUs is that of these {count}, beside a data sheet's rates {assumed}"
    kind = "cpu" if first.device_class == "cpu" else "gpu"
    return Fit(
        **{
            **dict(first),
            "name": f"class-{first.device_class}-{first.runtime}",
            "device_id": "",
            "scope": "class",
            "families": ("one measured CPU" if count == 1 else f"{count} measured CPUs",),
            "environment": None,
            "rates": None,
            "coefficients": coefficients_of(
                dict(zip(names, map(float, np.exp(mean)), strict=True)), covariance, prior(kind)
            ),
            "covariance": tuple_of(covariance),
            "residual_log_sd": max(machine.residual_log_sd for machine in machines),
            "noise_log_sd": max(machine.noise_log_sd for machine in machines),
            "device_log_sd": ASSUMED_CPU_LOG_SD if count == 1 else 0.0,
            "rates_log_sd": 0.0 if count == 1 else ASSUMED_CPU_LOG_SD,
            # What is left over, and how its neighbours disturb it, is each machine's own.
            "discrepancy": None,
            "drift_log_sd": 0.0,
            "scale": None,
            "points": sum(machine.points for machine in machines),
            "routed_points": sum(machine.routed_points for machine in machines),
            "measurements": tuple(
                sorted({name for machine in machines for name in machine.measurements})
            ),
            "domain": united(machine.domain for machine in machines),
            "provenance": "; ".join(machine.provenance for machine in machines) + f"; {said}",
        }
    )


def _logs_of(machines: Sequence[Fit]) -> Array:
    return np.log([[each.value for each in machine.coefficients] for machine in machines])


def _covariance_of(machines: Sequence[Fit]) -> Array:
    return np.asarray(np.mean([each.covariance for each in machines], axis=0))


def variance_of_another(machines: Sequence[Fit]) -> Array:
    """Variance of each log coefficient of one more machine about the mean of n: (1 + 1/n) s̃²."""
    names = [each.name for each in machines[0].coefficients]
    return np.asarray((1 + 1 / len(machines)) * moderated(_logs_of(machines), names))


def short_of(count: int) -> float:
    """How much wider than a normal's the 90 % interval is whose spread `count` machines told.

    Student's t over the normal, with the degrees of freedom of `moderated`: n − 1 of a coefficient's
    own and as many of all.

    >>> round(short_of(2), 2), round(short_of(4), 2)
    (1.78, 1.18)
    """
    return float(stdtrit(2 * (count - 1), 0.95)) / NORMAL_90


def moderated(logs: Array, names: Sequence[str]) -> Array:
    """Variance between machines of each log coefficient, one row a machine: half its own, half of all.

    Few machines may agree by chance in one. What all have is the mean of the variances over those of
    the wide prior (Smyth 2004, moderated t, with as many degrees of freedom before as after).
    """
    wide = np.array([prior("cpu")[name][1] for name in names]) ** 2
    own = logs.var(axis=0, ddof=1) / wide
    return np.asarray((own + own.mean()) / 2 * wide)


def beliefs_from(machines: Sequence[Fit]) -> Beliefs | None:
    """What is believed of a CPU beside those `machines`; None where they are fewer than two.

    Each coefficient as unsure as the machines are themselves, or as one more beside them is, and
    nowhere less sure than the wide prior. One CPU does not tell how far its coefficients are its own.
    """
    if len(machines) < 2:
        return None
    names = [each.name for each in machines[0].coefficients]
    own = np.diag(_covariance_of(machines))
    log_sds = np.sqrt(np.maximum(own, variance_of_another(machines)))
    means = np.exp(_logs_of(machines).mean(axis=0))
    wide = prior("cpu")
    return {
        name: (float(mean), min(float(log_sd), wide[name][1]))
        for name, mean, log_sd in zip(names, means, log_sds, strict=True)
    }


def beliefs_about(points: Points, machines: Sequence[Fit]) -> Beliefs | None:
    """What `machines`, each by its fits alone, say beforehand of the one that has these points.

    Of each other machine the fit that was made where all deviations are zero: in fp32, and on one
    thread where the points have several numbers of them. None where fewer than two can say anything.
    Raises CorruptFile where a fit has other coefficients than this model.
    """
    runs = [run for of_point in points.values() for run in of_point]
    if all(run.workload.precision != "fp32" for run in runs):
        return None
    own = runs[0].environment
    threads = {run.environment.threads for run in runs}
    base = 1 if len(threads) > 1 else own.threads
    nearest: dict[str, Fit] = {}
    for each in sorted(machines, key=lambda fit: abs(math.log2(fit.threads / base))):
        check_coefficients(each)
        alike = (own.kind, runs[0].workload.runtime, ("fp32",))
        is_alike = (each.device_class, each.runtime, each.precisions) == alike
        if is_alike and each.device_id != own.machine_id:
            nearest.setdefault(each.device_id, each)
    return beliefs_from([nearest[name] for name in sorted(nearest)])
