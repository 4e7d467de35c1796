"""From a machine's own journal to its fit. Pure: records in, records out."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from costmodel.certainty import STAGE_LOG_SD, WHOLE_LOG_SD, Stages, stages_of
from costmodel.discrepancy import discrepancy_of, features_of_group
from costmodel.latency import COEFFICIENTS, prior
from costmodel.points import (
    Points,
    TooFewPoints,
    configuration_of,
    drift_log_sd,
    kernel_share,
    machine_of,
    name_of,
    noise_log_sd,
    runs_like,
    setting_of,
    stages_of_runs_s,
    usable_points,
    whole_s,
    with_peaks,
)
from costmodel.regression import (
    Deviation,
    Observations,
    Posterior,
    posterior_of,
    scale_of,
    spread_of,
)
from costmodel.transfer import features_of
from costmodel.work import Array, Rates, Work, groups_of
from domain.fit import Coefficient, Discrepancy, Fit
from domain.measurement import Measurement
from domain.record import Precision
from domain.statistics import median
from domain.workload import Workload

# Standard error of a median over that of a mean, for normal samples.
MEDIAN_OVER_MEAN = 1.2533
LEAST_POINTS = 4
# What is believed of each coefficient beforehand: its median, and the spread of its logarithm.
Beliefs = Mapping[str, tuple[float, float]]
# What depends on a machine's setting. Half precision runs other kernels, whose shares of their own
# peak need not resemble those of fp32 at all; threads share what a core had alone.
DEVIATIONS = tuple(
    Deviation(coefficient=coefficient, covariate=covariate, log_sd=log_sd)
    for covariate, log_sd, coefficients in (
        (
            "half",
            0.6,
            (
                "gemm_efficiency",
                "rows_half",
                "attention_efficiency",
                "norm_efficiency",
                "activation_efficiency",
                "elementwise_efficiency",
                "call_s",
                "attention_calls",
                "gather_calls",
                "convolution_calls",
            ),
        ),
        (
            "threads",
            0.5,
            (
                "gemm_efficiency",
                "attention_efficiency",
                "traffic_efficiency",
                "call_s",
                "attention_calls",
                "gather_calls",
                "convolution_calls",
            ),
        ),
    )
    for coefficient in coefficients
)


def machine_observations(points: Points) -> Observations:
    """Every stage and every whole pass of measured points: one machine, all its settings.

    Half precision runs other kernels, and more threads share caches and wait for each other: what
    depends on that has a deviation where the points hold both.
    """
    groups, machines, target, passes, log_sd = [], [], [], [], []
    seconds: list[float] = []
    settings: list[dict[str, float]] = []
    for runs in points.values():
        first = runs[0]
        names = {depth.stage for depth in first.depths}
        of_runs_s = stages_of_runs_s(runs)
        whole = len(seconds)
        seconds.append(whole_s(runs))
        log_sd.append(believed_log_sd([median(run.samples_s) for run in runs], WHOLE_LOG_SD))
        for group in groups_of(first.workload, host_runs_ahead=False):
            stage = group[0].stage
            groups.append(group)
            machines.append(machine_of(first))
            settings.append(setting_of(first))
            passes.append(whole)
            target.append(len(seconds) if stage in names else -1)
            if stage in names:
                seconds.append(median(of_runs_s[stage]))
                log_sd.append(believed_log_sd(of_runs_s[stage], STAGE_LOG_SD))
    covariates = {
        name: np.array([setting[name] for setting in settings]) for name in ("half", "threads")
    }
    return Observations(
        work=Work.of(groups),
        rates=Rates.of(machines),
        target=np.array(target),
        whole=np.array(passes),
        seconds=np.array(seconds),
        log_sd=np.array(log_sd),
        design=np.zeros((len(seconds), 0)),
        devices=0,
        covariates=covariates,
        deviations=tuple(
            deviation for deviation in DEVIATIONS if np.ptp(covariates[deviation.covariate]) > 0
        ),
    )


def believed_log_sd(runs_s: Sequence[float], least: float) -> float:
    """How far the median of runs is believed: its standard error, or `least` if that is more."""
    if len(runs_s) < 2:
        return least
    spread = float(np.std(np.log(runs_s), ddof=1))
    return max(least, MEDIAN_OVER_MEAN * spread / math.sqrt(len(runs_s)))


def fit_machines(
    measurements: Iterable[Measurement], made_by: str, beliefs: Beliefs | None = None
) -> tuple[tuple[Fit, ...], tuple[str, ...]]:
    """A fit for each setting (precision, threads) of one machine, and what could not be fitted.

    All settings are fitted together, so that each learns from the others what they share. Most
    threads come first, then fp32. Without `beliefs`, what others say of such machines, the wide
    prior stands. Raises TooFewPoints where nothing can be fitted.
    """
    taken = list(measurements)
    points, left_out = with_peaks(usable_points(taken))
    if len(points) < LEAST_POINTS:
        raise TooFewPoints(f"wanted four measured points at least, got {len(points)}")
    others_said = "" if beliefs is None else ", believed beforehand as other CPUs say"
    beliefs = beliefs or prior_of(points)
    observations = machine_observations(points)
    posterior = machine_posterior(observations, points, beliefs)
    discrepancy = machine_discrepancy(places_of(points), observations.log_sd, posterior.residuals)
    held_out = held_out_predictions(points, beliefs)
    missed = {
        name: math.log(whole_s(points[name]) / stages.whole_s) for name, stages in held_out.items()
    }
    settings: dict[tuple[int, Precision], dict[str, Sequence[Measurement]]] = defaultdict(dict)
    for name, runs in points.items():
        threads, precision = runs[0].environment.threads, runs[0].workload.precision
        settings[threads, precision][name] = runs
    most = max(threads for threads, _ in settings)
    order = sorted(settings, key=lambda key: (-key[0], key[1] != "fp32", key[1]))
    fits = []
    for threads, precision in order:
        own = settings[threads, precision]
        first = next(iter(own.values()))[0]
        at = setting_of(first)
        timed = runs_like(first, taken)
        fits.append(
            Fit(
                name=f"machine-{first.environment.machine_id}-{first.workload.runtime}"
                f"{suffix_of(precision)}{'' if threads == most else f'-{threads}t'}",
                device_id=first.environment.machine_id,
                scope="machine",
                device_class="cpu" if first.environment.kind == "cpu" else "gpu",
                families=(),
                runtime=first.workload.runtime,
                precisions=(precision,),
                environment=first.environment,
                rates=first.rates,
                coefficients=coefficients_of(
                    posterior.values_at(at),
                    posterior.covariance_at(at),
                    beliefs_at(at, beliefs, posterior.deviations),
                ),
                covariance=tuple_of(posterior.covariance_at(at)),
                # What held-out points showed, not what the fit believes of itself.
                residual_log_sd=spread_of([missed[name] for name in own]),
                scale=scale_of([missed[name] / held_out[name].whole_log_sd for name in own]),
                noise_log_sd=noise_log_sd(own),
                drift_log_sd=drift_log_sd(each for each in timed if name_of(each) in own),
                discrepancy=discrepancy,
                points=len(own),
                measurements=tuple(sorted(own)),
                provenance=f"{sum(map(len, own.values()))} runs of {len(own)} points, fitted with "
                f"{len(points) - len(own)} of other settings, taken {first.taken_at[:10]} on "
                f"{first.environment.device_name} with {threads} "
                f"thread{'' if threads == 1 else 's'}, over its calibration kernel to the power of "
                f"{kernel_share(timed):.2f}{others_said}",
                taken_on=first.taken_at[:10],
                made_by=made_by,
                routed_points=sum(runs[0].workload.routing.mean_depth < 1 for runs in own.values()),
                domain=range_of(runs[0].workload for runs in own.values()),
            )
        )
    return tuple(fits), left_out


def fit_machine(measurements: Iterable[Measurement], made_by: str) -> Fit:
    """Coefficients of one machine in its first setting: most threads, fp32 where it was run."""
    return fit_machines(measurements, made_by)[0][0]


def suffix_of(precision: Precision) -> str:
    """What names bear to tell a precision; nothing for fp32.

    >>> suffix_of("fp32"), suffix_of("bf16")
    ('', '-bf16')
    """
    return "" if precision == "fp32" else f"-{precision}"


def stages_expected(
    measurement: Measurement, posterior: Posterior, discrepancy: Discrepancy | None
) -> Stages:
    """Seconds of each stage of the batch that `measurement` timed, and how sure they are."""
    setting = setting_of(measurement)
    return stages_of(
        groups_of(measurement.workload, host_runs_ahead=False),
        machine_of(measurement),
        posterior.values_at(setting),
        posterior.covariance_at(setting),
        discrepancy,
        setting,
    )


def held_out_predictions(points: Points, beliefs: Beliefs | None = None) -> dict[str, Stages]:
    """The stages of each point, by a fit that has not seen its configuration.

    Whatever was run alike, at another precision or with other threads, is left out with it.
    """
    configurations = {name: configuration_of(runs[0]) for name, runs in points.items()}
    return predictions_without(
        points, list(dict.fromkeys(configurations.values())), configurations, beliefs
    )


def predictions_without(
    points: Points,
    folds: Sequence[str],
    fold_of: Mapping[str, str],
    beliefs: Beliefs | None = None,
) -> dict[str, Stages]:
    """The stages of the points of `folds`, each by a fit of all other points.

    `fold_of` names the fold of each point; points of no listed fold are only learned from. Raises
    TooFewPoints where a fold is all there is.
    """
    observations, beliefs = machine_observations(points), beliefs or prior_of(points)
    owner, places = _owners(points, observations), places_of(points)
    starts = starts_of(observations, points, beliefs)
    if len(folds) > 1:
        # They differ little from all points, and their fits begin there: begun apart from it they end
        # within 0.2 %. One fold may be most points, and a start that has seen them leads elsewhere.
        starts = [machine_posterior(observations, points, beliefs).point]
    found = {}
    for fold in folds:
        own = [name for name in points if fold_of[name] == fold]
        if len(own) == len(points):
            raise TooFewPoints(f"wanted points to fit besides {fold}, got none; measure more")
        left_out = np.isin(owner, own)
        posterior = posterior_of(observations.without(left_out), beliefs, starts=starts)
        discrepancy = machine_discrepancy(
            [place for place, is_out in zip(places, left_out, strict=True) if not is_out],
            observations.log_sd[~left_out],
            posterior.residuals[~left_out],
        )
        for name in own:
            found[name] = stages_expected(points[name][0], posterior, discrepancy)
    return found


def _owners(points: Points, observations: Observations) -> NDArray[np.str_]:
    """The point of each observation: they come point by point, the pass before its stages."""
    starts = [int(x) for x in np.unique(np.asarray(observations.whole))]
    return np.repeat(list(points), np.diff([*starts, len(observations.seconds)]))


def places_of(points: Points) -> list[tuple[float, ...] | None]:
    """Where each of `machine_observations` lies among the others; whole passes do not."""
    places: list[tuple[float, ...] | None] = []
    for runs in points.values():
        first = runs[0]
        names = {depth.stage for depth in first.depths}
        groups = groups_of(first.workload, host_runs_ahead=False)
        places.append(None)
        places += [
            features_of_group(group, setting_of(first))
            for group in groups
            if group[0].stage in names
        ]
    return places


def machine_discrepancy(
    places: Sequence[tuple[float, ...] | None], log_sd: Array, residuals: Array
) -> Discrepancy | None:
    """What stages took beside the equations; one place, spread and residual for each observation."""
    rows = [row for row, place in enumerate(places) if place is not None]
    features = [place for place in places if place is not None]
    return discrepancy_of(features, residuals[rows], log_sd[rows])


def machine_posterior(observations: Observations, points: Points, beliefs: Beliefs) -> Posterior:
    """The fit of all `observations`, which are of `points`, from every start."""
    return posterior_of(observations, beliefs, starts=starts_of(observations, points, beliefs))


def starts_of(observations: Observations, points: Points, beliefs: Beliefs) -> list[Array]:
    """Where a fit begins: at what is believed, and at what would be if nobody had measured one like it."""
    rest = np.zeros(len(observations.deviations) + observations.design.shape[1])
    medians = {
        tuple(believed[name][0] for name in beliefs) for believed in (beliefs, prior_of(points))
    }
    return [np.concatenate([np.log(each), rest]) for each in sorted(medians)]


def prior_of(points: Points) -> Beliefs:
    """Beliefs about the machine where nobody measured one like it."""
    kind = next(iter(points.values()))[0].environment.kind
    return prior("cpu" if kind == "cpu" else "gpu")


def beliefs_at(
    setting: Mapping[str, float], beliefs: Beliefs, deviations: Sequence[Deviation]
) -> Beliefs:
    """The beliefs where the covariates are these: as much less sure as coefficients may deviate there."""
    moves = {name: [log_sd] for name, (_, log_sd) in beliefs.items()}
    for each in deviations:
        moves[each.coefficient].append(each.log_sd * setting[each.covariate])
    return {name: (median, math.hypot(*moves[name])) for name, (median, _) in beliefs.items()}


def coefficients_of(
    values: Mapping[str, float], covariance: Array, beliefs: Beliefs
) -> tuple[Coefficient, ...]:
    """Coefficients with their spread, and whether the data moved them off the prior."""
    deviations = np.sqrt(np.diag(covariance))
    return tuple(
        Coefficient(
            name=name,
            value=value,
            unit=COEFFICIENTS[name][0],
            log_sd=float(deviation),
            prior_log_sd=beliefs[name][1],
            is_identified=bool(deviation <= beliefs[name][1] / 2),
        )
        for (name, value), deviation in zip(values.items(), deviations, strict=True)
    )


def tuple_of(matrix: Array) -> tuple[tuple[float, ...], ...]:
    """A matrix as a record holds it, symmetric to the last digit."""
    even = (matrix + matrix.T) / 2
    return tuple(tuple(float(x) for x in row) for row in even)


def united(
    domains: Iterable[tuple[tuple[str, float, float], ...]],
) -> tuple[tuple[str, float, float], ...]:
    """From the least to the most of each feature over `domains`.

    >>> united([(("batch", 1.0, 4.0),), (("batch", 2.0, 8.0),)])
    (('batch', 1.0, 8.0),)
    """
    ends: dict[str, tuple[float, float]] = {}
    for name, low, high in (each for domain in domains for each in domain):
        least, most = ends.get(name, (low, high))
        ends[name] = (min(least, low), max(most, high))
    return tuple((name, *pair) for name, pair in ends.items())


def range_of(workloads: Iterable[Workload]) -> tuple[tuple[str, float, float], ...]:
    """Name, least and most of each feature over `workloads`."""
    features = [features_of(workload) for workload in workloads]
    return tuple(
        (name, min(each[name] for each in features), max(each[name] for each in features))
        for name in features[0]
    )
