"""What a few timings would be worth: which to take, and how far the interval would narrow. Pure.

How sure a prediction is after a timing does not depend on what it will show, so that its worth is
known before it is taken: a timing with slope g along the coefficients leaves, of their covariance Σ,

    Σ − Σg gᵀΣ / (gᵀΣg + s²)

On a device that nobody measured that is what `predict --anchor` would then believe; on a measured
machine it is a fit that has seen one more point, and neighbours of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.anchoring import Belief, believed_after, expected_fit, timed_observations
from costmodel.certainty import STAGE_LOG_SD, WHOLE_LOG_SD
from costmodel.discrepancy import expected_at, features_of_group
from costmodel.own import Timing
from costmodel.reach import Reach, reach_of, setting_for
from costmodel.transfer import features_of, forecast
from costmodel.work import groups_of
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.measurement import MeasuringPlan, PlannedPoint
from domain.prediction import Prediction, Refusal
from domain.routing import RoutingDistribution
from domain.workload import Workload

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
# Shares of tokens kept in every recursion: few tell of launches, many of arithmetic.
SHARES = (1.0, 0.5, 0.25)
RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Worth:
    """Timings in the order of their worth; half-widths of the 90 % interval before and after each."""

    timings: tuple[Workload, ...]
    half_widths: tuple[float, ...]


def worth_of_timings(
    asked: Workload, device: DeviceSpec, fits: Sequence[Fit], count: int
) -> Worth | Refusal:
    """The timings of the asked network that narrow its prediction most, and by how much.

    Of what fits into the device's memory; at most `count`, fewer where no other narrows it.
    """
    before, reach = forecast(asked, device, fits), reach_of(asked, device, fits)
    if isinstance(before, Refusal):
        return before
    assert isinstance(reach, Reach), "what is predicted is reached"
    left = [
        each
        for each in _candidates(asked)
        if each != asked and isinstance(forecast(each, device, fits), Prediction)
    ]
    chosen: list[Workload] = []
    widths = [_half_width(before)]
    while left and len(chosen) < count:
        after = [_width_after(asked, device, reach, [*chosen, each]) for each in left]
        best = int(np.argmin(after))
        if after[best] >= widths[-1]:
            break
        chosen.append(left.pop(best))
        widths.append(after[best])
    return Worth(timings=tuple(chosen), half_widths=tuple(widths))


def _width_after(
    asked: Workload, device: DeviceSpec, reach: Reach, timed: Sequence[Workload]
) -> float:
    fit = (
        _measured_too(reach, timed)
        if reach.fit.scope == "machine"
        # How long they take does not matter.
        else expected_fit(reach.fit, device, [Timing(workload=each, seconds=1.0) for each in timed])
    )
    after = forecast(asked, device, (fit,))
    assert isinstance(after, Prediction), "a timing takes nothing away"
    return _half_width(after)


def _measured_too(reach: Reach, timed: Sequence[Workload]) -> Fit:
    """A machine's fit, had it also seen these batches show what it expects.

    Each is one reading of the whole batch; its stages, which the profiler records, tell a little more.
    """
    fit = reach.fit
    machines = {each.precision: reach.machine for each in timed}
    seen = timed_observations(
        [Timing(workload=each, seconds=1.0) for each in timed], machines, WHOLE_LOG_SD
    )
    before = Belief(
        names=tuple(each.name for each in fit.coefficients),
        log_values=np.log([each.value for each in fit.coefficients]),
        covariance=np.array(fit.covariance),
    )
    covariance = believed_after(before, seen).covariance
    places = [
        place
        for each in timed
        for group in groups_of(each, host_runs_ahead=reach.machine.host_runs_ahead)
        if (place := features_of_group(group, setting_for(each, fit))) is not None
    ]
    features = [features_of(each) for each in timed]
    return Fit(
        **{
            **dict(fit),
            "covariance": tuple(tuple(map(float, row)) for row in (covariance + covariance.T) / 2),
            "discrepancy": None
            if fit.discrepancy is None
            else expected_at(fit.discrepancy, places, STAGE_LOG_SD),
            "domain": tuple(
                (
                    name,
                    min(low, *(each.get(name, low) for each in features)),
                    max(high, *(each.get(name, high) for each in features)),
                )
                for name, low, high in fit.domain
            ),
        }
    )


def _half_width(prediction: Prediction) -> float:
    """Half of what lies between the ends of the 90 % interval, as a share of the seconds."""
    latency = prediction.latency_s
    return (latency.high - latency.low) / (2 * latency.value)


def plan_of(worth: Worth) -> MeasuringPlan:
    """The timings as a plan for `python -m profiler run --plan`."""
    points = []
    for number, work in enumerate(worth.timings, start=1):
        net = work.architecture
        points.append(
            PlannedPoint(
                id=f"worth-{number}-{net.name}-b{work.batch}-{work.precision}"[:128],
                architecture=net,
                weights="random",
                batch=work.batch,
                precision=work.precision,
                runtime=work.runtime,
                executor=work.executor,
                routing_source="forced-distribution" if net.is_routed else "none",
                survival=work.routing.survival if net.is_routed else None,
                separates="narrows the prediction that was asked for",
            )
        )
    return MeasuringPlan(name="worth-measuring", runs=RUNS, points=tuple(points))


def _candidates(asked: Workload) -> list[Workload]:
    net = asked.architecture
    routings = [
        RoutingDistribution.from_survival([share] * net.recursions, net.tokens, net.prefix_tokens)
        for share in SHARES
    ]
    return [
        Workload(**{**dict(asked), "batch": batch, "routing": routing})
        for batch in BATCHES
        for routing in (routings if net.is_routed else [asked.routing])
    ]
