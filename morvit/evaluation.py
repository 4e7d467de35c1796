"""What a network does on labelled images: accuracy, where tokens go, and both by budget."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from domain.architecture import Architecture
from domain.card import AtBudget
from domain.routing import capacities_of_budget, kept_of
from morvit import losses
from morvit.data import LabelledImages, normalised
from morvit.losses import LossWeights
from morvit.model import OWN_CHOICE, MoRViT
from morvit.votes import Orders

EVALUATION_BATCH = 250
BUDGETS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)
# Images that thresholds are set on.
CALIBRATION_IMAGES = 1000

Line = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came out on images: the share of right answers and where the tokens went."""

    accuracy: float
    counts: Int[Tensor, "images recursions"]
    depths: Int[Tensor, "images tokens"]


@torch.inference_mode()
def evaluated(
    model: MoRViT,
    images: UInt8[Tensor, "images channels rows columns"],
    labels: Int[Tensor, " images"],
    orders: Orders = OWN_CHOICE,
) -> Evaluation:
    """The network in inference on labelled images."""
    model.eval()
    outputs = [
        model(normalised(part), orders=orders) for part in torch.split(images, EVALUATION_BATCH)
    ]
    answers = torch.cat([output.logits.argmax(dim=1) for output in outputs])
    return Evaluation(
        accuracy=int((answers == labels).sum()) / len(labels),
        counts=torch.cat([output.counts for output in outputs]),
        depths=torch.cat([output.depths for output in outputs]),
    )


def survival(evaluation: Evaluation, architecture: Architecture) -> list[float]:
    """Share of all tokens that entered each recursion."""
    return [float(mean) / architecture.tokens for mean in evaluation.counts.float().mean(dim=0)]


def by_budget(
    model: MoRViT,
    test: LabelledImages,
    calibration: LabelledImages,
    budgets: Sequence[float] = BUDGETS,
) -> tuple[AtBudget, ...]:
    """Accuracy at each budget: as many patches of every image, and by thresholds, whose counts vary.

    A network without routing has none. Thresholds are for expert choice.
    """
    architecture = model.architecture
    if not architecture.is_routed:
        return ()
    points = []
    for budget in budgets:
        orders = Orders.at_budget(budget, architecture.recursions)
        fixed = evaluated(model, test.images, test.labels, orders)
        point = AtBudget(
            budget=budget,
            mean_depth=_mean_depth(fixed, architecture),
            accuracy=fixed.accuracy,
        )
        if architecture.router == "expert-choice" and budget < 1:
            first = slice(CALIBRATION_IMAGES)
            thresholds = thresholds_at(model, calibration.images[first], budget)
            free = evaluated(model, test.images, test.labels, Orders(thresholds=thresholds))
            point = AtBudget(
                **{
                    **dict(point),
                    "thresholds": thresholds,
                    "threshold_mean_depth": _mean_depth(free, architecture),
                    "threshold_accuracy": free.accuracy,
                }
            )
        points.append(point)
    return tuple(points)


@torch.inference_mode()
def thresholds_at(
    model: MoRViT, images: UInt8[Tensor, "images channels rows columns"], budget: float
) -> tuple[float, ...]:
    """Ranks above which patches go on, so that over these images as many do as by the budget itself.

    Recursion by recursion: the quantile of all patches still in that leaves the wanted share, with
    the earlier thresholds in force.
    """
    model.eval()
    architecture = model.architecture
    wanted = capacities_of_budget(budget, architecture.recursions)
    parts = torch.split(images, EVALUATION_BATCH)
    states = [model.begun(normalised(part)) for part in parts]
    thresholds: list[float] = []
    for recursion, kept in enumerate(kept_of(wanted, architecture.patches)):
        votes = [model.voted(recursion, state, route) for state, route in states]
        ranks = torch.cat([vote.chosen_by()[staying] for vote, staying in votes])
        keep, ordered = kept * len(images), ranks.sort(descending=True).values
        # Half-way between the last that goes on and the first that does not.
        everyone = keep >= len(ordered)
        thresholds.append(0.0 if everyone else float((ordered[keep - 1] + ordered[keep]) / 2))
        orders = Orders(thresholds=tuple(thresholds))
        states = [
            model.recurred(recursion, state, route, orders=orders, into=state)
            for state, route in states
        ]
    return tuple(thresholds)


def _mean_depth(evaluation: Evaluation, architecture: Architecture) -> float:
    return sum(survival(evaluation, architecture)) / architecture.recursions


def routing_line(evaluation: Evaluation, architecture: Architecture, weights: LossWeights) -> Line:
    """What is watched of the router: survival, depth, dead positions, balance."""
    recursions = architecture.recursions
    patch_depths = evaluation.depths[:, architecture.prefix_tokens :]
    line: Line = {
        "survival": survival(evaluation, architecture),
        "mean_depth": float(patch_depths.float().mean()),
        "count_deviation": [
            float(deviation) for deviation in evaluation.counts.float().std(dim=0, correction=0)
        ],
        "dead_token_ratio": losses.dead_token_ratio(patch_depths, recursions),
    }
    if architecture.is_routed and architecture.router == "token-choice":
        load = losses.depth_load(patch_depths, recursions)
        aims = weights.depth_shares or (1 / recursions,) * recursions
        line["max_violation"] = losses.maximal_violation(load, aims)
        line["entropy"] = losses.entropy(load)
    return line
