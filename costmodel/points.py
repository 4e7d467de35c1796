"""From runs to points: what is alike, at the machine's typical speed. Pure: records in, records out."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from costmodel.work import Machine, measured_machine
from domain.complaint import AllFailed
from domain.measurement import Environment, Measurement
from domain.measurement import Rates as SessionRates
from domain.record import Unknown
from domain.statistics import median, stage_medians

Points = Mapping[str, Sequence[Measurement]]

# Beliefs about `kernel_share` before runs are seen, and how far the median of a run is believed.
SHARE_SD, RUN_LOG_SD = 0.25, 0.03


class TooFewPoints(AllFailed):
    """Nothing can be fitted from so little."""


def _usable(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Usable runs in their order; a recursion measured alone is no pass of a network."""
    usable = [each for each in measurements if each.is_usable and each.subject == "network"]
    if not usable:
        raise TooFewPoints(
            "no measurement with status ok or unstable; run `python -m profiler run`"
        )
    return usable


def usable_points(measurements: Iterable[Measurement], share: float | None = None) -> Points:
    """Usable runs of each point of the newest machine and runtime, split by stage.

    A point is what was run at one number of threads. Runs of different environments never lie in
    one point; other threads of the same machine and software are other points. Samples are brought
    to the machine's typical speed, see `at_typical_speed` for `share`. Raises TooFewPoints where none is left.
    """
    usable = _usable(measurements)
    newest = usable[-1]
    machine, runtime = machine_key(newest.environment), newest.workload.runtime
    environments: dict[str, list[Measurement]] = defaultdict(list)
    for each in usable:
        is_alike = machine_key(each.environment) == machine and each.workload.runtime == runtime
        if is_alike and each.depths:
            environments[each.environment.key()].append(each)
    points: dict[str, list[Measurement]] = defaultdict(list)
    for alike in environments.values():
        for measurement in at_typical_speed(alike, share):
            points[name_of(measurement)].append(measurement)
    return dict(points)


def by_name(measurements: Iterable[Measurement]) -> Points:
    """Usable runs of each point as the clock timed them."""
    points: dict[str, list[Measurement]] = defaultdict(list)
    for each in _usable(measurements):
        points[name_of(each)].append(each)
    return dict(points)


def name_of(measurement: Measurement) -> str:
    """The point and its number of threads."""
    return f"{measurement.point}-{measurement.environment.threads}t"


def configuration_of(measurement: Measurement) -> str:
    """What was run, whatever the precision: points of one configuration are left out together."""
    work = measurement.workload
    return "|".join(
        (work.architecture.key(), work.routing.key(), str(work.batch), work.executor, work.runtime)
    )


def machine_key(environment: Environment) -> str:
    """The same for environments that differ only in their number of threads and where they sit."""
    flags = tuple(flag for flag in environment.flags if flag[0] != "affinity")
    return Environment(**{**dict(environment), "threads": 1, "flags": flags}).key()


def runs_like(one: Measurement, measurements: Iterable[Measurement]) -> list[Measurement]:
    """Usable runs in the environment and runtime of `one`, split by stage, as the clock timed them."""
    own = (one.environment.key(), one.workload.runtime)
    return [
        each
        for each in _usable(measurements)
        if each.depths and (each.environment.key(), each.workload.runtime) == own
    ]


def at_typical_speed(
    measurements: Sequence[Measurement], share: float | None = None
) -> list[Measurement]:
    """Each sample at the typical speed of the calibration kernel that ran beside it.

    A shared machine drifts by tens of per cent in minutes, and the kernel drifts with it, sometimes more
    than the networks do: sample · (typical kernel / kernel)^`share` repeats better than the seconds;
    the share is `kernel_share` unless it is given. Records without a kernel beside every sample stay as
    they are. The rates of sessions, measured at one moment each, become their medians.
    """
    kernels = [seconds for each in measurements for seconds in each.calibration_s]
    typical_s = median(kernels) if kernels else 0.0
    share = kernel_share(measurements) if share is None else share
    rates = typical_rates([each.rates for each in measurements])
    return [
        Measurement(
            **{
                **dict(each),
                "rates": rates,
                "samples_s": tuple(
                    sample * (typical_s / kernel) ** share
                    for sample, kernel in zip(each.samples_s, each.calibration_s, strict=True)
                )
                if each.has_kernels
                else each.samples_s,
            }
        )
        for each in measurements
    ]


def kernel_share(measurements: Iterable[Measurement]) -> float:
    """How far batches go along with the kernel when the machine's speed wanders: 0 not at all, 1 as far.

    The slope of log batch on log kernel, medians of runs within points, believed to be 1 ±
    `SHARE_SD` before the runs are seen; an emulated precision has no say. On two threads of a shared
    machine the kernel, which is short, waits longer for its second core than a network does. One slope:
    a few runs a point tell no more (`profiler.variation`, which has hundreds, finds a knee).
    """
    runs_of: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for each in measurements:
        if each.has_kernels and not each.environment.emulates(each.workload.precision):
            kernel, batch = median(each.calibration_s), median(each.samples_s)
            runs_of[name_of(each)].append((math.log(kernel), math.log(batch)))
    along, across = 1.0 / SHARE_SD**2, 1.0 / SHARE_SD**2
    for runs in runs_of.values():
        kernel, batch = (np.array(runs) - np.mean(runs, axis=0)).T
        along += float(kernel @ batch) / RUN_LOG_SD**2
        across += float(kernel @ kernel) / RUN_LOG_SD**2
    return min(max(along / across, 0.0), 1.0)


def typical_rates(rates: Sequence[SessionRates]) -> SessionRates:
    """The median of each rate over sessions; unknown where no session measured it."""
    halves = [each.gemm_bf16_flop_per_s for each in rates]
    known = [each for each in halves if not isinstance(each, Unknown)]
    return SessionRates(
        gemm_flop_per_s=median([each.gemm_flop_per_s for each in rates]),
        copy_bytes_per_s=median([each.copy_bytes_per_s for each in rates]),
        gemm_bf16_flop_per_s=median(known) if known else halves[0],
    )


def whole_s(runs: Sequence[Measurement]) -> float:
    """Median over runs of the median wall seconds of a batch."""
    return median([median(run.samples_s) for run in runs])


def stage_s(runs: Sequence[Measurement], stage: str) -> float:
    """Median over runs of a stage's seconds, scaled to the clean pass."""
    return median(stages_of_runs_s(runs)[stage])


def stages_of_runs_s(runs: Sequence[Measurement]) -> dict[str, list[float]]:
    """Of each stage the seconds of every run, scaled to its clean pass."""
    of_runs = [
        stage_medians({each.stage: each.samples_s for each in run.depths}, run.samples_s)
        for run in runs
    ]
    return {stage: [seconds[stage] for seconds in of_runs] for stage in of_runs[0]}


def noise_log_sd(points: Points) -> float:
    """Run-to-run log spread of the medians, pooled over points; 0 with one run a point."""
    deviations = []
    for runs in points.values():
        logs = np.log([median(run.samples_s) for run in runs])
        if len(logs) > 1:
            deviations.append(float(np.var(logs, ddof=1)))
    return math.sqrt(float(np.median(deviations))) if deviations else 0.0


def drift_log_sd(measurements: Iterable[Measurement]) -> float:
    """How far the machine's own speed wanders from run to run: log spread by the wall clock alone.

    What a user feels at another hour, beside what the calibration kernel takes out. Mean over
    points of the variance between runs; 0 with one run a point.
    """
    runs_of: dict[str, list[float]] = defaultdict(list)
    for each in _usable(measurements):
        runs_of[name_of(each)].append(math.log(median(each.samples_s)))
    variances = [float(np.var(logs, ddof=1)) for logs in runs_of.values() if len(logs) > 1]
    return math.sqrt(float(np.mean(variances))) if variances else 0.0


def setting_of(measurement: Measurement) -> dict[str, float]:
    """What a machine's coefficients may depend on: half precision, and doublings of threads."""
    return {
        "half": float(measurement.workload.precision != "fp32"),
        "threads": math.log2(measurement.environment.threads),
    }


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


def with_peaks(points: Points) -> tuple[Points, tuple[str, ...]]:
    """Points whose precision's peak was measured; and what is left out, in words.

    A precision that the CPU only emulates is left out too: nobody serves in it, and what it takes says
    nothing of the others.
    """
    left_out: dict[str, None] = {}
    kept: dict[str, Sequence[Measurement]] = {}
    for name, runs in points.items():
        precision = runs[0].workload.precision
        if runs[0].environment.emulates(precision):
            left_out[
                f"{precision} was not fitted: this CPU has no instructions for it and emulates it; "
                "serve in fp32"
            ] = None
            continue
        try:
            machine_of(runs[0])
        except TooFewPoints as complaint:
            left_out[f"{precision} was not fitted: {complaint}"] = None
        else:
            kept[name] = runs
    if not kept:
        raise TooFewPoints("; ".join(left_out))
    return kept, tuple(left_out)
