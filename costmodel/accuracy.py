"""How good predictions are on what a fit has not seen: splits, errors, coverage. Pure."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from costmodel.calibration import Beliefs, held_out_predictions, suffix_of
from costmodel.certainty import Stages
from costmodel.points import Points, TooFewPoints, configuration_of, setting_of, stage_s, whole_s
from costmodel.published import (
    generation_of,
    is_old_stack,
    published_workload,
)
from costmodel.publishedfits import fits_of_published
from costmodel.reach import class_of
from costmodel.regression import scale_of
from costmodel.transfer import NORMAL_90, forecast, log_normal
from domain.catalogue import PublishedRow
from domain.device import DeviceSpec
from domain.fit import HeldOut, ValidationRow
from domain.measurement import Measurement
from domain.prediction import Refusal
from domain.record import Tier
from domain.statistics import median, relative_errors

FOLDS = 5
LEFT_OUT, ANOTHER_OCCASION = "leave-one-point-out", "another-occasion"


def machine_pairs(points: Points, beliefs: Beliefs | None = None) -> list[HeldOut]:
    """Each point, whole and by stage, predicted by a fit that has not seen its configuration.

    The interval is what the fit promised, times what other left-out configurations of the same setting
    missed over what was promised there (their fits, and theirs alone, have seen this point).
    """
    scores = scores_of(points, held_out_predictions(points, beliefs))
    return [
        HeldOut(
            split=f"{LEFT_OUT}{suffix_of(points[name][0].workload.precision)}",
            point=name,
            quantity="latency" if quantity == "latency" else "stage-latency",
            predicted=log_normal(score.predicted, promised_log_sd(score, scores.values())),
            measured=score.measured,
        )
        for (name, quantity), score in scores.items()
    ]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One held-out prediction; `stratum` says which others are like it, `block` which are kin.

    `log_sd` is how sure the fit was of it.
    """

    stratum: tuple[float | bool | str, ...]
    block: str
    predicted: float
    log_sd: float
    measured: float

    @property
    def log_ratio(self) -> float:
        """log(seen / predicted)."""
        return math.log(self.measured / self.predicted)


Scores = Mapping[tuple[str, str], Score]


def scores_of(points: Points, found: Mapping[str, Stages]) -> dict[tuple[str, str], Score]:
    """Held-out predictions of points, whole and by stage, with what they are alike in."""
    scores = {}
    for name, stages in found.items():
        runs = points[name]
        guesses = {"latency": (stages.whole_s, stages.whole_log_sd, whole_s(runs))} | {
            depth.stage: (*stages.of(depth.stage), stage_s(runs, depth.stage))
            for depth in runs[0].depths
        }
        for quantity, (guess, log_sd, seen) in guesses.items():
            scores[name, quantity] = Score(
                stratum=(quantity == "latency", *setting_of(runs[0]).values()),
                block=configuration_of(runs[0]),
                predicted=guess,
                log_sd=log_sd,
                measured=seen,
            )
    return scores


def promised_log_sd(score: Score, scores: Iterable[Score]) -> float:
    """The spread of an interval around `score`: the fit's own, as wide as others needed it.

    Others are those of its stratum that are not kin; split-conformal over what they missed in spreads,
    where there are enough of them to narrow what was promised.
    """
    others = [
        other.log_ratio / other.log_sd
        for other in scores
        if other.stratum == score.stratum and other.block != score.block
    ]
    if not others:
        raise TooFewPoints(f"wanted two configurations to leave one out, got {score.block} alone")
    return scale_of(others) * score.log_sd


def occasion_pairs(
    pairs: Sequence[HeldOut], later: Points, drift_log_sd: float = 0.0
) -> list[HeldOut]:
    """Whole passes of another occasion, predicted by fits that saw neither it nor the point.

    `pairs` are those of `machine_pairs` on the first occasion; `drift_log_sd` is how far the
    machine's own speed was seen to wander then, which the interval takes in.
    """
    return [
        HeldOut(
            split=pair.split.replace(LEFT_OUT, ANOTHER_OCCASION),
            point=pair.point,
            quantity=pair.quantity,
            predicted=log_normal(
                pair.predicted.value,
                math.hypot(
                    math.log(pair.predicted.high / pair.predicted.value) / NORMAL_90, drift_log_sd
                ),
            ),
            measured=whole_s(later[pair.point]),
        )
        for pair in pairs
        if pair.quantity == "latency" and pair.point in later
    ]


def occasion_gap(
    points: Mapping[str, Sequence[Measurement]], later: Mapping[str, Sequence[Measurement]]
) -> float | None:
    """Median over points of the relative difference between two occasions; None without any."""
    gaps = []
    for name in points.keys() & later.keys():
        one_s, other_s = whole_s(points[name]), whole_s(later[name])
        gaps.append(abs(one_s - other_s) / ((one_s + other_s) / 2))
    return median(gaps) if gaps else None


def noise_floor(points: Mapping[str, Sequence[Measurement]]) -> float | None:
    """Median over points of the relative difference between two runs; None with one run each."""
    gaps = []
    for runs in points.values():
        medians = [median(run.samples_s) for run in runs]
        for one, other in pairwise(medians):
            gaps.append(abs(one - other) / ((one + other) / 2))
    return median(gaps) if gaps else None


def family_pairs(rows: Sequence[PublishedRow], specs: Mapping[str, DeviceSpec]) -> list[HeldOut]:
    """Published rows, predicted from the data sheet by fits that saw no device of their family.

    Rows of old software help to fit, but are not judged: predictions are for today's.
    """
    return [
        pair
        for family in sorted({generation_of(specs[row.device_id]) for row in rows})
        for pair in _judged(
            "leave-family-out",
            [row for row in rows if generation_of(specs[row.device_id]) != family],
            [row for row in rows if generation_of(specs[row.device_id]) == family],
            specs,
        )
    ]


def row_pairs(
    rows: Sequence[PublishedRow], specs: Mapping[str, DeviceSpec], seed: int = 0
) -> list[HeldOut]:
    """Published rows, predicted by fits that saw other workloads of the same devices.

    Rows of the same workload lie in the same fold, whatever device or model name they bear.
    """
    # Layouts of the same network, and attention fused or not, are one workload here.
    alike = {"states": "by-token", "attention": "fused"}
    keys = [published_workload(row).model_copy(update=alike).key() for row in rows]
    fold_of = {
        key: int(fold)
        for key, fold in zip(
            sorted(set(keys)),
            np.random.default_rng(seed).integers(FOLDS, size=len(set(keys))),
            strict=True,
        )
    }
    return [
        pair
        for fold in range(FOLDS)
        for pair in _judged(
            "leave-workloads-out",
            [row for row, key in zip(rows, keys, strict=True) if fold_of[key] != fold],
            [row for row, key in zip(rows, keys, strict=True) if fold_of[key] == fold],
            specs,
        )
    ]


def ranking_of(pairs: Sequence[HeldOut]) -> tuple[float, int]:
    """Kendall's tau of devices from their data sheets, and how many pairs of devices it rests on.

    Two devices that ran one workload, both judged with their family left out, agree or do not.
    """
    workloads: dict[str, list[HeldOut]] = defaultdict(list)
    for pair in pairs:
        if pair.split.startswith("leave-family-out"):
            workloads[pair.point.partition(".")[2].partition(".")[2]].append(pair)
    agreeing = count = 0
    for members in workloads.values():
        for number, one in enumerate(members):
            for other in members[:number]:
                if one.point.partition(".")[0] != other.point.partition(".")[0]:
                    measured = one.measured - other.measured
                    predicted = one.predicted.value - other.predicted.value
                    count += 1
                    agreeing += 1 if measured * predicted > 0 else -1
    if not count:
        raise TooFewPoints("no workload was run by two devices")
    return agreeing / count, count


def _judged(
    split: str,
    rest: Sequence[PublishedRow],
    held: Sequence[PublishedRow],
    specs: Mapping[str, DeviceSpec],
) -> list[HeldOut]:
    """Today's rows of `held`, predicted as a user would get them from fits of `rest`."""
    fits = fits_of_published(rest, specs, "python -m costmodel.validate") if rest else ()
    pairs = []
    for number, row in enumerate(held):
        answer = forecast(published_workload(row), specs[row.device_id], fits)
        if is_old_stack(row) or isinstance(answer, Refusal):
            continue
        device_class = class_of(specs[row.device_id].device_class)
        pairs.append(
            HeldOut(
                split=f"{split}-{device_class}-{row.runtime}",
                point=_label(row, number),
                quantity="latency",
                predicted=answer.latency_s,
                measured=(row.batch or 1) / row.throughput_img_per_s,
            )
        )
    return pairs


TIER_OF_SPLIT: dict[str, Tier] = {
    "cpu-": "calibrated",
    LEFT_OUT: "calibrated",
    ANOTHER_OCCASION: "calibrated",
    "leave-workloads-out": "anchored",
    "leave-family-out": "spec-only",
    "unseen-cpu": "spec-only",
}


def summary_of(pairs: Sequence[HeldOut], noise: float | None) -> list[ValidationRow]:
    """One row of accuracy for each split and quantity."""
    sets: dict[tuple[str, str], list[HeldOut]] = defaultdict(list)
    for pair in pairs:
        sets[(pair.split, pair.quantity)].append(pair)
    rows = []
    for (split, quantity), members in sets.items():
        errors = relative_errors(
            [pair.predicted.value for pair in members], [pair.measured for pair in members]
        )
        tier = next(tier for prefix, tier in TIER_OF_SPLIT.items() if split.startswith(prefix))
        covered = [pair.predicted.low <= pair.measured <= pair.predicted.high for pair in members]
        widths = [
            (pair.predicted.high - pair.predicted.low) / 2 / pair.predicted.value
            for pair in members
        ]
        rows.append(
            ValidationRow(
                split=split,
                quantity=quantity,
                tier=tier,
                n=len(members),
                median_abs_error=float(np.median(np.abs(errors))),
                p90_abs_error=float(np.quantile(np.abs(errors), 0.9)),
                signed_error=float(np.median(errors)),
                coverage_90=float(np.mean(covered)),
                half_width=float(np.median(widths)),
                noise_floor=noise if tier == "calibrated" else None,
            )
        )
    return rows


def _label(row: PublishedRow, number: int) -> str:
    size = row.image_size or row.seq_len
    label = (
        f"{row.device_id}.{number}.{row.model}-{size}-b{row.batch}-{row.precision}-{row.runtime}"
    )
    return re.sub(r"[^a-zA-Z0-9._+-]+", "-", label)[:128]
