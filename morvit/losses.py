"""What training minimises: one function, one equation; and what is watched while it goes.

Equations and weights of MoR, arXiv 2507.10524, sections 2 and 4.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from domain.architecture import Architecture
from domain.record import NonNegative, Record
from morvit.model import Output


class LossWeights(Record):
    """Weight of each term beside the cross-entropy, and the shares that balancing aims at.

    `depth_shares[d]` is the wanted share of patches that stop after d + 1 recursions; none means
    equal shares.
    """

    auxiliary: NonNegative = 0.001
    router_z: NonNegative = 0.001
    balancing: NonNegative = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    depth_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = None


def cross_entropy(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """−log p(label), mean over images; `smoothing` spreads that share over all classes."""
    return functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def distilled(
    logits: Float[Tensor, "batch classes"],
    taught: Float[Tensor, "batch classes"],
    temperature: float,
) -> Float[Tensor, ""]:
    """T² KL(teacher ‖ student) of answers softened by T, mean over images (arXiv 1503.02531, section 2)."""
    student = functional.log_softmax(logits.float() / temperature, dim=-1)
    teacher = functional.log_softmax(taught.float() / temperature, dim=-1)
    divergence = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def auxiliary(
    logits: Float[Tensor, "batch patches recursions"],
    scored: Bool[Tensor, "batch patches recursions"],
    chosen: Bool[Tensor, "batch patches recursions"],
) -> Float[Tensor, ""]:
    """BCE(logit, 1 if chosen), mean over the scored patches: a threshold then finds the top-k."""
    each = functional.binary_cross_entropy_with_logits(
        logits.float(), chosen.float(), reduction="none"
    )
    return (each * scored).sum() / scored.sum()


def router_z(
    logits: Float[Tensor, "batch patches votes"],
) -> Float[Tensor, ""]:
    """Mean of logsumexp(logits)², which keeps them small (ST-MoE, arXiv 2202.08906, eq. 5)."""
    return logits.float().logsumexp(dim=-1).square().mean()


def balancing(
    logits: Float[Tensor, "batch patches depths"], shares: Sequence[float] | None = None
) -> Float[Tensor, ""]:
    """Σ f_i P_i / (R q_i): f_i = (R/T) #{arg max = i}, P_i the mean probability, q_i the aim.

    With equal aims this is the loss of Switch transformers (arXiv 2101.03961, eq. 4). Any state
    with f_i = R q_i costs one.
    """
    recursions = logits.shape[-1]
    aims = logits.new_tensor(shares or [1 / recursions] * recursions, dtype=torch.float32)
    probability = functional.softmax(logits.float(), dim=-1).mean(dim=(0, 1))
    chosen = functional.one_hot(logits.argmax(dim=-1), recursions).float().mean(dim=(0, 1))
    return (chosen * probability / aims).sum()


def total_loss(
    output: Output,
    labels: Int[Tensor, " batch"],
    architecture: Architecture,
    weights: LossWeights,
    *,
    uniform: bool = False,
) -> dict[str, Float[Tensor, ""]]:
    """Every term of the loss by name, and their weighted sum as `total`.

    In a uniform pass the router has no say, so what it chose is no aim of the auxiliary loss.
    """
    terms = {"cross_entropy": cross_entropy(output.logits, labels, weights.label_smoothing)}
    total = terms["cross_entropy"]
    if architecture.is_routed and architecture.router == "token-choice":
        terms["balancing"] = balancing(output.router_logits, weights.depth_shares)
        terms["router_z"] = router_z(output.router_logits)
        total = (
            total + weights.balancing * terms["balancing"] + weights.router_z * terms["router_z"]
        )
    elif architecture.is_routed and architecture.router == "expert-choice" and not uniform:
        scored, chosen = scored_and_chosen(output, architecture)
        terms["auxiliary"] = auxiliary(output.router_logits, scored, chosen)
        total = total + weights.auxiliary * terms["auxiliary"]
    return {**terms, "total": total}


def scored_and_chosen(
    output: Output, architecture: Architecture
) -> tuple[Bool[Tensor, "batch patches recursions"], Bool[Tensor, "batch patches recursions"]]:
    """Which patches each recursion's router scored, and which of those went on."""
    depths = output.depths[:, architecture.prefix_tokens :, None]
    recursion = torch.arange(architecture.recursions, device=depths.device)
    return depths >= recursion, depths > recursion


def depth_load(
    depths: Int[Tensor, "images patches"], recursions: int
) -> Float[Tensor, " recursions"]:
    """Share of patches that stop after 1 … R recursions, of those that entered the first."""
    counted = torch.bincount(depths.flatten(), minlength=recursions + 1)[1:].float()
    return counted / counted.sum().clamp_min(1)


def maximal_violation(load: Float[Tensor, " recursions"], shares: Sequence[float]) -> float:
    """MaxVio: max_i (load_i − aim_i) / aim_i (arXiv 2408.15664, with aims in place of the mean).

    >>> maximal_violation(torch.tensor([0.75, 0.25]), (0.5, 0.5))
    0.5
    """
    aims = torch.tensor(shares)
    return float(((load - aims) / aims).max())


def entropy(load: Float[Tensor, " recursions"]) -> float:
    """Entropy of the load over its largest possible value: 1 is balanced, 0 all at one depth.

    >>> entropy(torch.tensor([1.0, 0.0])), entropy(torch.tensor([0.5, 0.5]))
    (0.0, 1.0)
    """
    return float(torch.special.entr(load).sum() / math.log(len(load)))


def dead_token_ratio(depths: Int[Tensor, "images patches"], recursions: int) -> float:
    """Share of patch positions that no image sends to the last recursion.

    >>> dead_token_ratio(torch.tensor([[3, 1], [2, 2]]), 3)
    0.5
    """
    return 1 - float((depths == recursions).any(dim=0).float().mean())
