"""What the model and a spreadsheet's lines make of 16, of 64 and of all points. Pure."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from costmodel.baselines import baselines_here, table_of
from costmodel.calibration import Beliefs, predictions_without
from costmodel.draws import SEED, Draw, summary_of_draws
from costmodel.points import Points, configuration_of, whole_s
from costmodel.regression import spread_of
from costmodel.work import Array
from domain.fit import ValidationRow


def learning_rows(
    points: Points,
    beliefs: Beliefs | None = None,
    sizes: Sequence[int] = (16, 64),
    draws: int = 10,
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
            found = predictions_without(points, ["far"], sides, beliefs)
            own = np.array([found[n].whole_s for n in names if n in found])
            misses["model", size].append(np.log(seen_s[~is_known] / own))
            for label, baseline in baselines_here().items():
                guess = baseline(amounts[is_known], seen_s[is_known], amounts[~is_known])
                misses[label, size].append(_log_ratio(seen_s[~is_known], guess))
    for label, baseline in baselines_here().items():
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
