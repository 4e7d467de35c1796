"""The splits that predictions are judged by, written down before anything is tuned on them. Pure.

    reference CPU   each configuration left out, whatever its precision and threads; the same for
                    each kind of routing; width 384 by narrower nets; batches of 4 and more by
                    smaller ones; and the hard half of the first, each for itself
    published       timm on one GPU from another, from the data sheet and with four timings; an
                    A100 from four timings, each runtime; matrix products of a GPU family from two
                    others, and with eight timings
    memory          each configuration's peak

Timings are drawn 200 times from fixed seeds; a row of accuracy is the median over draws of a
draw's own median, 90th percentile and so on.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from costmodel.accuracy import Score, others_log_sd
from costmodel.anchoring import (
    TIMING_LOG_SD,
    Belief,
    belief_after,
    belief_before,
    left_over_log_sd,
)
from costmodel.baselines import BASELINES, table_of
from costmodel.calibration import held_out_predictions, predictions_without
from costmodel.discrepancy import discrepancy_of, features_of_group, log_correction
from costmodel.kernelsplits import (
    PRODUCT_LOG_SD,
    Blocks,
    belief_from,
    blocks_of,
    predicted_after,
    predicted_log_s,
)
from costmodel.latency import Array, groups_of
from costmodel.memory import peak_estimate
from costmodel.points import Points, configuration_of, setting_of, stage_s, whole_s
from costmodel.published import fits_of_published, published_observations, published_workload
from costmodel.regression import Observations, spread_of
from costmodel.transfer import EXTRAPOLATION_LOG_SD, log_normal
from domain.catalogue import PublishedRow
from domain.device import DeviceSpec
from domain.fit import HeldOut, ValidationRow
from domain.kernels import GemmRow
from domain.measurement import Measurement
from domain.record import Tier, Unknown
from domain.statistics import median

DRAWS, SEED = 200, 20
PRODUCTS = "product-latency"
NARROW, SMALL_BATCH = 256, 3
TIMM_ANCHORS, A100_ANCHORS, GEMM_ANCHORS = 4, 4, 8
TIMM_PAIRS = (("rtx3090", "rtx4090"), ("rtx4090", "rtx3090"))
GEMM_DEVICES = ("a100-sxm-80", "l40s", "h100-sxm-80")
# A spread is learned from what the other devices of a split missed; without any it is assumed.
NORMAL_90 = 1.645


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


def cpu_pairs(points: Points) -> dict[str, list[HeldOut]]:
    """Pairs of every split of a measured machine, by the split's name."""
    found = held_out_predictions(points)
    everything = _scores(points, found)
    splits = {"cpu-configuration": _pairs("cpu-configuration", everything, everything)}
    for name, is_member in SELECTIONS.items():
        members = {key: s for key, s in everything.items() if is_member(points[key[0]][0])}
        if members:
            splits[name] = _pairs(name, members, everything)
    routings = {name: routing_kind(runs[0]) for name, runs in points.items()}
    routed = list(dict.fromkeys(routings.values()))
    if len(routed) > 1:
        unseen = _scores(points, predictions_without(points, routed, routings))
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
            far = predictions_without(points, ["far"], sides)
            seen = max(size_of(points[point][0]) for point in points if sides[point] == "near")
            extra = {
                point: EXTRAPOLATION_LOG_SD * math.log(size_of(points[point][0]) / seen)
                for point in far
            }
            splits[name] = _pairs(name, _scores(points, far), everything, extra)
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

Scores = Mapping[tuple[str, str], Score]


def _scores(
    points: Points, found: Mapping[str, Mapping[str, float]]
) -> dict[tuple[str, str], Score]:
    scores = {}
    for name, stages in found.items():
        runs = points[name]
        seen = {depth.stage: stage_s(runs, depth.stage) for depth in runs[0].depths}
        guesses = {"latency": math.fsum(stages.values())} | {each: stages[each] for each in seen}
        for quantity, guess in guesses.items():
            scores[name, quantity] = Score(
                stratum=(quantity == "latency", *setting_of(runs[0]).values()),
                block=configuration_of(runs[0]),
                predicted=guess,
                measured=whole_s(runs) if quantity == "latency" else seen[quantity],
            )
    return scores


def _pairs(
    split: str, members: Scores, everything: Scores, extra: Mapping[str, float] | None = None
) -> list[HeldOut]:
    """Members with the interval that other configurations of `everything` give them."""
    widened = extra or {}
    return [
        HeldOut(
            split=split,
            point=name,
            quantity="latency" if quantity == "latency" else "stage-latency",
            predicted=log_normal(
                score.predicted,
                math.hypot(others_log_sd(score, everything.values()), widened.get(name, 0.0)),
            ),
            measured=score.measured,
        )
        for (name, quantity), score in members.items()
    ]


def learning_rows(
    points: Points, sizes: Sequence[int] = (16, 64), draws: int = 10
) -> list[ValidationRow]:
    """Held-out error after so many training points, of the model and of every baseline.

    Points of one configuration are drawn together, as they would be measured; the rest is asked.
    All points: each configuration left out in turn.
    """
    names = list(points)
    firsts = [points[name][0] for name in names]
    blocks = [configuration_of(run) for run in firsts]
    amounts = table_of(firsts)
    seen_s = np.array([whole_s(points[name]) for name in names])
    misses: dict[tuple[str, int], list[Array]] = defaultdict(list)
    for size in sizes:
        for number in range(draws):
            order = np.random.default_rng([SEED, size, number]).permutation(sorted(set(blocks)))
            chosen: list[str] = []
            for block in order:
                if sum(each in chosen for each in blocks) < size:
                    chosen.append(str(block))
            is_known = np.array([each in chosen for each in blocks])
            if is_known.all():
                continue
            sides = {
                n: "near" if known else "far" for n, known in zip(names, is_known, strict=True)
            }
            found = predictions_without(points, ["far"], sides)
            own = np.array([math.fsum(found[n].values()) for n in names if n in found])
            misses["model", size].append(np.log(seen_s[~is_known] / own))
            for label, baseline in BASELINES.items():
                guess = baseline(amounts[is_known], seen_s[is_known], amounts[~is_known])
                misses[label, size].append(_log_ratio(seen_s[~is_known], guess))
    for label, baseline in BASELINES.items():
        left = np.zeros(len(names))
        for block in set(blocks):
            own_block = np.array([each == block for each in blocks])
            guess = baseline(amounts[~own_block], seen_s[~own_block], amounts[own_block])
            left[own_block] = _log_ratio(seen_s[own_block], guess)
        misses[label, len(names)].append(left)
    return [
        summary_of_draws(
            f"cpu-learning-{size}",
            "calibrated",
            [Draw(misses=each, log_sd=spread_of(each)) for each in drawn],
            quantity="latency" if label == "model" else f"latency.{label}",
        )
        for (label, size), drawn in misses.items()
    ]


def _log_ratio(seen_s: Array, guess_s: Array) -> Array:
    return np.log(seen_s / np.maximum(guess_s, 1e-9))


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


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Held-out log(seen / predicted) of one draw of timings, and the spread that was promised."""

    misses: Array
    log_sd: float | Array

    @property
    def scores(self) -> Array:
        """Misses in spreads."""
        return np.abs(self.misses) / self.log_sd

    def scaled(self, factor: float) -> "Draw":
        """The same with a wider promise."""
        return Draw(misses=self.misses, log_sd=self.log_sd * factor)


def promised_by_others(drawn: Mapping[str, Sequence[Draw]]) -> dict[str, list[Draw]]:
    """Each target's draws with the spread that the same procedure needed on the other targets.

    Procedure-level conformal scaling: with D other targets no more than D/(D + 1) can be
    guaranteed, whatever the nominal level.
    """
    scaled = {}
    for target, draws in drawn.items():
        others = [draw.scores for name, each in drawn.items() if name != target for draw in each]
        factor = spread_of(np.concatenate(others)) if others else 1.0
        scaled[target] = [draw.scaled(factor) for draw in draws]
    return scaled


def summary_of_draws(
    split: str, tier: Tier, draws: Sequence[Draw], quantity: str = "latency"
) -> ValidationRow:
    """The median over draws of each draw's figures; coverage over all."""
    errors = [np.expm1(-draw.misses) for draw in draws]
    inside = [np.abs(draw.misses) <= NORMAL_90 * draw.log_sd for draw in draws]
    return ValidationRow(
        split=split,
        quantity=quantity,
        tier=tier,
        n=len(draws[0].misses),
        median_abs_error=float(np.median([np.median(np.abs(each)) for each in errors])),
        p90_abs_error=float(np.median([np.quantile(np.abs(each), 0.9) for each in errors])),
        signed_error=float(np.median([np.median(each) for each in errors])),
        coverage_90=float(np.mean(np.concatenate(inside))),
        half_width=float(
            np.median([np.median(np.sinh(NORMAL_90 * draw.log_sd)) for draw in draws])
        ),
        noise_floor=None,
    )


def published_rows(
    rows: Sequence[PublishedRow], specs: Mapping[str, DeviceSpec], draws: int = DRAWS
) -> list[ValidationRow]:
    """Timm from one GPU to another, and an A100 at any batch: without and with a few timings."""
    judged: list[ValidationRow] = []
    eager = [
        row
        for row in rows
        if row.file.startswith("timm_rtx")
        and row.runtime == "eager"
        and row.torch_version.startswith("2.4")
    ]
    timed: dict[str, list[Draw]] = {}
    for known, target in TIMM_PAIRS:
        few = FewTimings.of(
            [row for row in eager if row.device_id == known],
            [row for row in eager if row.device_id == target],
            specs,
        )
        name = f"timm-{known}-to-{target}"
        judged.append(summary_of_draws(name, "spec-only", [few.unseen()]))
        timed[f"{name}-{TIMM_ANCHORS}"] = few.draws(TIMM_ANCHORS, draws)
    for runtime in ("eager", "engine"):
        few = FewTimings.of(
            [r for r in rows if r.runtime == runtime and not r.file.startswith("aitemplate")],
            [r for r in rows if r.runtime == runtime and r.file.startswith("aitemplate")],
            specs,
        )
        timed[f"a100-{runtime}-{A100_ANCHORS}"] = few.draws(A100_ANCHORS, draws)
    for name, promised in promised_by_others(timed).items():
        judged.append(summary_of_draws(name, "calibrated", promised))
    return judged


@dataclass(frozen=True, kw_only=True)
class FewTimings:
    """Batches of one device, and what is believed of them before any is seen."""

    before: Belief
    seen: Observations
    places: Sequence[tuple[float, ...]]
    log_sd: float
    unseen_log_sd: float

    @classmethod
    def of(
        cls,
        known: Sequence[PublishedRow],
        target: Sequence[PublishedRow],
        specs: Mapping[str, DeviceSpec],
    ) -> "FewTimings":
        """The class that `known` rows make, of the precision that `target` was timed at."""
        precision = target[0].precision
        fit = next(
            fit
            for fit in fits_of_published(known, specs, "python -m costmodel.validate")
            if fit.scope == "class" and precision in fit.precisions
        )
        log_sd = left_over_log_sd(fit)
        seen = published_observations(target, specs, ())
        return cls(
            before=belief_before(fit),
            seen=replace(seen, log_sd=np.full(len(target), log_sd)),
            places=[_place_of(row) for row in target],
            log_sd=log_sd,
            unseen_log_sd=math.hypot(fit.residual_log_sd, fit.device_log_sd),
        )

    def unseen(self) -> Draw:
        """What is missed of all rows from the data sheet."""
        misses = np.log(self.seen.seconds) - _log_s(self.before, self.seen)
        return Draw(misses=misses, log_sd=self.unseen_log_sd)

    def draws(self, count: int, draws: int) -> list[Draw]:
        """`draws` seeded draws of `count` timings."""
        few = []
        for number in range(draws):
            random = np.random.default_rng([SEED, number])
            few.append(self.draw(np.sort(random.choice(len(self.places), count, replace=False))))
        return few

    def draw(self, timed: NDArray[np.int64]) -> Draw:
        """What is missed of the other rows after seeing those `timed`."""
        after, left_over = belief_after(self.before, self.seen.only(timed))
        places = [self.places[row] for row in timed]
        shared = discrepancy_of(places, left_over, np.full(len(timed), TIMING_LOG_SD))
        corrections = np.array([log_correction(shared, each) for each in self.places])
        misses = np.log(self.seen.seconds) - _log_s(after, self.seen) - corrections
        others = np.setdiff1d(np.arange(len(misses)), timed)
        own = np.hypot(self.log_sd, _log_sd_of(after, self.seen))
        return Draw(misses=misses[others], log_sd=own[others])


def _log_s(belief: Belief, seen: Observations) -> Array:
    logs = dict(zip(belief.names, belief.log_values, strict=True))
    return np.log(seen.predicted_s(logs, np.zeros(0)))


def _log_sd_of(belief: Belief, seen: Observations) -> Array:
    """The spread of log seconds that the coefficients leave: gᵀ Σ g of every observation."""
    logs = dict(zip(belief.names, belief.log_values, strict=True))
    slopes = seen.log_slopes(logs, np.zeros(0))
    return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", slopes, belief.covariance, slopes)))


def _place_of(row: PublishedRow) -> tuple[float, ...]:
    group = groups_of(published_workload(row), host_runs_ahead=True)[0]
    place = features_of_group(group, {"half": float(row.precision not in ("fp32", "tf32"))})
    assert place is not None, "a published network has layers"
    return place


def kernel_rows(
    rows: Sequence[GemmRow], specs: Mapping[str, DeviceSpec], draws: int = DRAWS
) -> list[ValidationRow]:
    """Matrix products of each GPU family, from two others' and with eight timings of its own."""
    blocks = [
        blocks_of([row for row in rows if row.device_id == name], specs[name])
        for name in GEMM_DEVICES
    ]
    judged = []
    timed: dict[str, list[Draw]] = {}
    for own in blocks:
        others = [each for each in blocks if each is not own]
        before = belief_from(others)
        log_s = np.log(own.observations.seconds)
        promised = Draw(misses=log_s - predicted_log_s(before, own), log_sd=_family_spread(others))
        judged.append(summary_of_draws(f"gemm-{own.device_id}", "spec-only", [promised], PRODUCTS))
        few = []
        for number in range(draws):
            random = np.random.default_rng([SEED, number])
            chosen = np.sort(random.choice(len(log_s), GEMM_ANCHORS, replace=False))
            left = np.setdiff1d(np.arange(len(log_s)), chosen)
            missed = (log_s - predicted_after(before, own, chosen))[left]
            few.append(Draw(misses=missed, log_sd=PRODUCT_LOG_SD))
        timed[f"gemm-{own.device_id}-{GEMM_ANCHORS}"] = few
    for name, scaled in promised_by_others(timed).items():
        judged.append(summary_of_draws(name, "calibrated", scaled, PRODUCTS))
    return judged


def _family_spread(known: Sequence[Blocks]) -> float:
    """The spread that one of two known families shows from the other: all that can be learned."""
    one, other = known
    return spread_of(
        np.concatenate(
            [
                np.log(target.observations.seconds) - predicted_log_s(belief_from([source]), target)
                for source, target in ((one, other), (other, one))
            ]
        )
    )
