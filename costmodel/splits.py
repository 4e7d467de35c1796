"""The splits that predictions are judged by, written down before anything is tuned on them. Pure.

a measured CPU  (its name follows a dot) each configuration left out, whatever its precision and
                threads; the same for each kind of routing; width 384 by narrower nets; batches
                of 4 and more by smaller ones; and the hard half of the first, each for itself
another CPU     (`unseencpu`) a measured CPU by the class that the others make: with what its fixed
                kernels reached alone, and with four timings of its own
published       (`fewtimings`) timm on one GPU from another, from the data sheet and with four
                timings; an A100 from four timings, each runtime; (`kernelsplits`) matrix
                products of a GPU family from two others, and with eight timings
learning        (`learning`) 16, 64 and all points, beside what a spreadsheet makes of them
memory          each configuration's peak
"""

from collections.abc import Callable, Mapping

import numpy as np

from costmodel.accuracy import Scores, promised_log_sd, scores_of
from costmodel.calibration import Beliefs, held_out_predictions, predictions_without
from costmodel.certainty import Stages
from costmodel.memory import peak_estimate, safe_bytes
from costmodel.points import Points, whole_s
from costmodel.transfer import log_normal
from domain.fit import HeldOut, ValidationRow
from domain.measurement import Measurement
from domain.record import Unknown
from domain.statistics import median

NARROW, SMALL_BATCH = 256, 3


def noise_of(points: Points) -> float | None:
    """Median over points of the gap between the first and the second half of their runs."""
    gaps = []
    for runs in points.values():
        sessions = list(dict.fromkeys(run.session for run in runs))
        half = [[run for run in runs if run.session == session] for session in sessions[:2]]
        if len(half) == 2:
            one_s, other_s = whole_s(half[0]), whole_s(half[1])
            gaps.append(abs(one_s - other_s) / ((one_s + other_s) / 2))
    return median(gaps) if gaps else None


def routing_kind(run: Measurement) -> str:
    """What routing distributions have in common that are left out together: survival and spread."""
    counts = np.array(run.workload.routing.counts, dtype=float)
    shares = counts.mean(axis=0) / run.workload.routing.tokens
    spread = counts[:, 0].std() / counts[:, 0].mean()
    return "-".join(f"{share:.1f}" for share in shares) + f"~{spread:.1f}"


def cpu_pairs(
    points: Points, found: Mapping[str, Stages], beliefs: Beliefs | None = None
) -> dict[str, list[HeldOut]]:
    """Pairs of every split of a measured machine, by the split's name.

    `found` are the predictions with each configuration left out, `held_out_predictions`, by the
    same `beliefs`.
    """
    everything = scores_of(points, found)
    splits = {"cpu-configuration": _pairs("cpu-configuration", everything, everything)}
    for name, is_member in SELECTIONS.items():
        members = {key: s for key, s in everything.items() if is_member(points[key[0]][0])}
        if members:
            splits[name] = _pairs(name, members, everything)
    routings = {name: routing_kind(runs[0]) for name, runs in points.items()}
    routed = list(dict.fromkeys(routings.values()))
    if len(routed) > 1:
        unseen = scores_of(points, predictions_without(points, routed, routings, beliefs))
        splits["cpu-unseen-routing"] = _pairs("cpu-unseen-routing", unseen, everything)
    farther: dict[str, tuple[Callable[[Measurement], float], float]] = {
        "cpu-hard-wider": (lambda run: float(run.workload.architecture.width), NARROW),
        "cpu-hard-larger-batch": (lambda run: float(run.workload.batch), SMALL_BATCH),
    }
    for name, (size_of, most) in farther.items():
        sides = {
            point: "far" if size_of(runs[0]) > most else "near" for point, runs in points.items()
        }
        if set(sides.values()) == {"far", "near"}:
            far = scores_of(points, predictions_without(points, ["far"], sides, beliefs))
            near = {point: runs for point, runs in points.items() if sides[point] == "near"}
            # As who measured the near side alone would have it.
            splits[name] = _pairs(name, far, scores_of(near, held_out_predictions(near, beliefs)))
    return splits


def _is(run: Measurement, precision: str, threads: int) -> bool:
    return run.workload.precision == precision and run.environment.threads == threads


def _spread(run: Measurement) -> float:
    counts = np.array(run.workload.routing.counts, dtype=float)[:, 0]
    return float(counts.std() / counts.mean())


# What the first split is looked at by: its predictions, nothing left out anew.
SELECTIONS: dict[str, Callable[[Measurement], bool]] = {
    "cpu-fp32-1t": lambda run: _is(run, "fp32", 1),
    "cpu-fp32-2t": lambda run: _is(run, "fp32", 2),
    "cpu-hard-bf16": lambda run: run.workload.precision == "bf16",
    "cpu-hard-masked": lambda run: run.workload.executor == "masked",
    "cpu-hard-uneven": lambda run: _spread(run) > 0.1,
}


def _pairs(split: str, members: Scores, everything: Scores) -> list[HeldOut]:
    """Members with the interval that other configurations of `everything` give them."""
    return [
        HeldOut(
            split=split,
            point=name,
            quantity="latency" if quantity == "latency" else "stage-latency",
            predicted=log_normal(score.predicted, promised_log_sd(score, everything.values())),
            measured=score.measured,
        )
        for (name, quantity), score in members.items()
    ]


def memory_pairs(points: Points) -> list[HeldOut]:
    """Peaks of measured points: the closed form has no coefficient, so nothing is left out."""
    return [
        HeldOut(
            split="cpu-memory",
            point=name,
            quantity="peak-memory",
            predicted=peak_estimate(runs[0].workload),
            measured=float(runs[0].peak_bytes),
        )
        for name, runs in points.items()
        if not isinstance(runs[0].peak_bytes, Unknown)
    ]


def false_fits(points: Points) -> ValidationRow:
    """How often memory that is said to suffice with 99 % is less than what was measured.

    The row's errors are that share; the signed one how far the safe memory lies above the peak.
    """
    peaks = [
        (float(runs[0].peak_bytes), safe_bytes(peak_estimate(runs[0].workload), on_cpu=True))
        for runs in points.values()
        if not isinstance(runs[0].peak_bytes, Unknown)
    ]
    share = float(np.mean([seen > safe for seen, safe in peaks]))
    return ValidationRow(
        split="cpu-memory",
        quantity="false-fits",
        tier="calibrated",
        n=len(peaks),
        median_abs_error=share,
        p90_abs_error=share,
        signed_error=float(np.median([safe / seen - 1 for seen, safe in peaks])),
        coverage_90=1 - share,
        half_width=0.0,
        noise_floor=None,
    )
