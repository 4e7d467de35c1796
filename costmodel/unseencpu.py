"""One measured CPU predicted by others, as who has not measured it would ask. Pure.

What is known of the target is what its fixed kernels reached, its peak and its copying (medians over
its sessions), then four timings of one run each, over the calibration kernel beside them. The class is
made of the other machines alone: neither its coefficients nor its spread have seen the target.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from costmodel.accuracy import summary_of
from costmodel.draws import SEED
from costmodel.hierarchy import class_of_machines
from costmodel.own import Timing, fits_with
from costmodel.points import Points, whole_s
from costmodel.reach import machine_seen
from costmodel.transfer import forecast
from domain.device import DeviceSpec
from domain.fit import Fit, HeldOut, ValidationRow
from domain.measurement import Measurement
from domain.prediction import Refusal
from domain.statistics import median

UNSEEN_CPU = "unseen-cpu"
ANCHORS = 4
# Each takes half a second: a fit, and every other point anew.
DRAWS = 24


def unseen_cpu_rows(
    machines: Mapping[str, Points], fits: Mapping[str, Fit], draws: int = DRAWS
) -> tuple[list[HeldOut], list[ValidationRow]]:
    """Pairs and rows of every machine in `machines`, by the class that the `fits` of others make.

    Both are by the machine's name. The pairs are those without a timing.
    """
    pairs: list[HeldOut] = []
    rows: list[ValidationRow] = []
    for name, points in machines.items():
        others = [fit for other, fit in fits.items() if other != name]
        if not others:
            continue
        known = (class_of_machines(others),)
        for precision in dict.fromkeys(runs[0].workload.precision for runs in points.values()):
            own = {
                point: runs
                for point, runs in points.items()
                if runs[0].workload.precision == precision
            }
            split = f"{UNSEEN_CPU}-{precision}.{name}"
            unseen = list(_answers(split, own, fits[name], known))
            pairs += unseen
            rows += summary_of(unseen, None)
        rows.append(_after_timings(name, points, fits[name], known, draws))
    return pairs, rows


def _answers(split: str, points: Points, target: Fit, known: Sequence[Fit]) -> Iterator[HeldOut]:
    for point, runs in points.items():
        answer = forecast(runs[0].workload, _device(points, point, target), known)
        if not isinstance(answer, Refusal):
            yield HeldOut(
                split=split,
                point=point,
                quantity="latency",
                predicted=answer.latency_s,
                measured=whole_s(runs),
            )


def _timing(run: Measurement) -> Timing:
    return Timing(workload=run.workload, seconds=median(run.samples_s))


def _device(points: Points, point: str, target: Fit) -> DeviceSpec:
    run = points[point][0]
    return machine_seen(target.device_id, run.environment, run.rates, target.taken_on)


def _after_timings(
    name: str, points: Points, target: Fit, known: Sequence[Fit], draws: int
) -> ValidationRow:
    """The median over draws of `ANCHORS` timings of the target's first setting; coverage over all."""
    assert target.environment is not None, "a machine's fit says where it was made"
    threads, precision = target.environment.threads, target.precisions[0]
    own = {
        point: runs
        for point, runs in points.items()
        if runs[0].environment.threads == threads and runs[0].workload.precision == precision
    }
    drawn = []
    for number in range(draws):
        random = np.random.default_rng([SEED, number])
        timed = random.choice(list(own), ANCHORS, replace=False)
        timings = [_timing(own[point][int(random.integers(len(own[point])))]) for point in timed]
        fits = fits_with(timings, _device(own, timed[0], target), known)
        others = {point: runs for point, runs in own.items() if point not in timed}
        split = f"{UNSEEN_CPU}-{precision}-{ANCHORS}.{name}"
        drawn += summary_of(list(_answers(split, others, target, fits)), None)
    return ValidationRow(
        **{
            **dict(drawn[0]),
            **{
                figure: float(np.median([getattr(row, figure) for row in drawn]))
                for figure in ("median_abs_error", "p90_abs_error", "signed_error", "half_width")
            },
            "coverage_90": float(np.mean([row.coverage_90 for row in drawn])),
            "tier": "calibrated",
        }
    )
