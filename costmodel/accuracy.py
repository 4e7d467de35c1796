"""How good predictions are on what a fit has not seen: splits, errors, coverage. Pure."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from costmodel.calibration import machine_observations, stage_s, whole_predicted_s, whole_s
from costmodel.latency import group_s, groups_of, prior
from costmodel.published import (
    between_devices_log_sd,
    class_posterior,
    is_old_stack,
    published_observations,
)
from costmodel.regression import STACK_LOG_SD, posterior_of, spread_of
from costmodel.transfer import class_of, log_normal
from domain.catalogue import PublishedRow
from domain.device import DeviceSpec
from domain.fit import HeldOut, ValidationRow
from domain.measurement import Measurement
from domain.record import Tier
from domain.statistics import median, relative_errors

FOLDS = 5


def machine_pairs(points: Mapping[str, Sequence[Measurement]]) -> list[HeldOut]:
    """Each point, whole and by stage, predicted by a fit of the other points.

    The interval is jackknife: the spread that the other left-out points showed.
    """
    whole: dict[tuple[str, str], tuple[float, float]] = {}
    for name, runs in points.items():
        rest = {other: seen for other, seen in points.items() if other != name}
        values = posterior_of(machine_observations(rest), prior("cpu")).values
        whole[(name, "latency")] = (whole_predicted_s(runs[0], values), whole_s(runs))
        own = machine_observations({name: runs})
        predicted = group_s(own.work, own.rates, values)
        stages = groups_of(runs[0].workload, host_runs_ahead=False)
        # Groups come stage by stage, each once for the whole and once for itself.
        for number, group in enumerate(stages):
            stage = group[0].stage
            if stage in {depth.stage for depth in runs[0].depths}:
                whole[(name, stage)] = (float(predicted[2 * number]), stage_s(runs, stage))
    ratios = {key: math.log(seen / guess) for key, (guess, seen) in whole.items()}
    pairs = []
    for (name, quantity), (guess, seen) in whole.items():
        alike = quantity == "latency"
        others = [
            ratio
            for (other, kind), ratio in ratios.items()
            if other != name and (kind == "latency") == alike
        ]
        pairs.append(
            HeldOut(
                split="leave-one-point-out",
                point=name,
                quantity="latency" if alike else "stage-latency",
                predicted=log_normal(guess, spread_of(others)),
                measured=seen,
            )
        )
    return pairs


def noise_floor(points: Mapping[str, Sequence[Measurement]]) -> float | None:
    """Median over points of the relative difference between two runs; None with one run each."""
    gaps = []
    for runs in points.values():
        medians = [median(run.samples_s) for run in runs]
        for one, other in pairwise(medians):
            gaps.append(abs(one - other) / ((one + other) / 2))
    return median(gaps) if gaps else None


def device_pairs(rows: Sequence[PublishedRow], specs: Mapping[str, DeviceSpec]) -> list[HeldOut]:
    """Published rows of each device, predicted by a fit of its class's other devices."""
    pairs = []
    for (device_class, runtime), members in _sets(rows, specs).items():
        names = sorted({row.device_id for row in members})
        if len(names) < 2:
            continue
        for name in names:
            rest = [row for row in members if row.device_id != name]
            own = [row for row in members if row.device_id == name]
            posterior, others = class_posterior(rest, specs, device_class)
            # A stack that none of the others ran is as unknown as it was before.
            is_known_stack = {is_old_stack(row) for row in own} <= {
                is_old_stack(row) for row in rest
            }
            log_sd = math.hypot(
                spread_of(posterior.residuals),
                between_devices_log_sd(posterior, len(others)),
                0.0 if is_known_stack else STACK_LOG_SD,
            )
            observed = published_observations(own, specs, ())
            stack = posterior.stacks[0] if posterior.stacks.size else 0.0
            shift = np.array([stack * is_old_stack(row) for row in own])
            guesses = observed.predicted_s(posterior.values) * np.exp(shift)
            pairs += [
                HeldOut(
                    split=f"leave-device-out-{device_class}-{runtime}",
                    point=_label(row, number),
                    quantity="latency",
                    predicted=log_normal(float(guess), log_sd),
                    measured=float(seen),
                )
                for number, (row, guess, seen) in enumerate(
                    zip(own, guesses, observed.seconds, strict=True)
                )
            ]
    return pairs


def row_pairs(
    rows: Sequence[PublishedRow], specs: Mapping[str, DeviceSpec], seed: int = 0
) -> list[HeldOut]:
    """Published rows, predicted by a fit that saw the other folds of the same devices."""
    pairs = []
    for (device_class, runtime), members in _sets(rows, specs).items():
        fold_of = np.random.default_rng(seed).integers(FOLDS, size=len(members))
        for fold in range(FOLDS):
            rest = [row for row, own in zip(members, fold_of, strict=True) if own != fold]
            held = [row for row, own in zip(members, fold_of, strict=True) if own == fold]
            known = {row.device_id for row in rest}
            held = [row for row in held if row.device_id in known]
            posterior, names = class_posterior(rest, specs, device_class)
            shifts = dict(zip(names, posterior.offsets, strict=False))
            spreads = {
                name: spread_of(
                    [
                        r
                        for r, row in zip(posterior.residuals, rest, strict=True)
                        if row.device_id == name
                    ]
                )
                for name in known
            }
            observed = published_observations(held, specs, ())
            guesses = observed.predicted_s(posterior.values)
            stack = posterior.stacks[0] if posterior.stacks.size else 0.0
            for number, (row, guess, seen) in enumerate(
                zip(held, guesses, observed.seconds, strict=True)
            ):
                shift = shifts.get(row.device_id, 0.0) + stack * is_old_stack(row)
                pairs.append(
                    HeldOut(
                        split=f"leave-rows-out-{device_class}-{runtime}",
                        point=_label(row, number),
                        quantity="latency",
                        predicted=log_normal(
                            float(guess) * math.exp(shift), spreads[row.device_id]
                        ),
                        measured=float(seen),
                    )
                )
    return pairs


TIER_OF_SPLIT: dict[str, Tier] = {
    "leave-one-point-out": "calibrated",
    "leave-rows-out": "anchored",
    "leave-device-out": "spec-only",
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


def _sets(
    rows: Sequence[PublishedRow], specs: Mapping[str, DeviceSpec]
) -> dict[tuple[str, str], list[PublishedRow]]:
    sets: dict[tuple[str, str], list[PublishedRow]] = defaultdict(list)
    for row in rows:
        sets[(class_of(specs[row.device_id].device_class), row.runtime)].append(row)
    return dict(sorted(sets.items()))


def _label(row: PublishedRow, number: int) -> str:
    return re.sub(r"[^a-zA-Z0-9._+-]+", "-", f"{row.device_id}.{number}.{row.model}")[:128]
