"""Muon for the matrices of the layers, in the precision of the weights.

torch.optim.Muon orthogonalises in bfloat16, matrix by matrix. Of a step of twelve layers (width 64, 16
images of 197 tokens, one Zen 3 core, no bfloat16) that was 224 of 581 ms; in single precision, with
matrices of one shape together, it is 16 of 377 ms.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

# Of the quintic that pulls singular values towards one, and how often it is applied (Jordan 2024).
QUINTIC, ROUNDS = (3.4445, -4.7750, 2.0315), 5
TINY = 1e-7
# Root mean square of AdamW's updates, which Muon's are scaled to (arXiv 2502.16982, section 2.2).
ADAMW_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Momentum (Nesterov), orthogonalised; decoupled weight decay. For matrices only.

    Jordan 2024, with the scale of arXiv 2502.16982, eq. 4, so that AdamW's learning rate serves.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(list(matrices), defaults)
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.ndim != 2:
                    raise ValueError(f"Muon is for matrices, got shape {tuple(matrix.shape)}")

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every matrix that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(tuple(matrix.shape), []).append(matrix)
            for alike in by_shape.values():
                self._update(alike, group)
        return loss

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        aims = []
        for matrix in matrices:
            gradient = matrix.grad
            assert gradient is not None
            state = self.state[matrix]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            buffer = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
            aims.append(gradient.lerp(buffer, group["momentum"]))
        rate = group["lr"] * ADAMW_RMS * math.sqrt(max(matrices[0].shape))
        for matrix, turned in zip(matrices, orthogonalised(torch.stack(aims)), strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(turned, alpha=-rate)


def orthogonalised(
    matrices: Float[Tensor, "matrices rows columns"],
) -> Float[Tensor, "matrices rows columns"]:
    """Each matrix with its singular values pulled to about one: X ← aX + (bXXᵀ + c(XXᵀ)²)X, five times.

    Newton and Schulz's iteration with Jordan's coefficients, which end between 0.7 and 1.2.
    """
    first, third, fifth = QUINTIC
    is_tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.transpose(1, 2) if is_tall else matrices
    norms = wide.flatten(1).norm(dim=1).clamp(min=TINY)
    wide = wide / norms[:, None, None]
    for _ in range(ROUNDS):
        gram = wide @ wide.transpose(1, 2)
        odd = torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth)
        wide = torch.baddbmm(wide, odd, wide, beta=first)
    return wide.transpose(1, 2) if is_tall else wide
