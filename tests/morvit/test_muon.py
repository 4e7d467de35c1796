"""Muon in single precision is torch's Muon, whose products are in bfloat16, but for rounding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from morvit.muon import Muon, orthogonalised


@given(
    rows=st.integers(2, 24), columns=st.integers(2, 24), count=st.integers(1, 3), seed=st.integers()
)
def test_singular_values_end_about_one(rows: int, columns: int, count: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed % 2**32)
    # Well-conditioned: five rounds lift a singular value of a hundredth of the largest, not less.
    bases = torch.linalg.qr(torch.randn(count, rows, rows, generator=random)).Q
    others = torch.linalg.qr(torch.randn(count, columns, columns, generator=random)).Q
    least = min(rows, columns)
    values = torch.rand(count, least, generator=random) + 0.5
    matrices = bases[:, :, :least] * values[:, None] @ others[:, :, :least].transpose(1, 2)
    turned = orthogonalised(matrices)
    seen = torch.linalg.svdvals(turned)
    assert (seen > 0.6).all()
    assert (seen < 1.3).all()
    # The singular vectors stay: the product with the transpose is symmetric and positive.
    product = matrices.transpose(1, 2) @ turned
    assert torch.allclose(product, product.transpose(1, 2), atol=1e-3)


@pytest.mark.parametrize("shape", [(192, 64), (64, 256), (64, 64)])
def test_updates_are_those_of_torch_but_for_bfloat16(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    one = Muon([ours], lr=0.02, weight_decay=0.05)
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step()
        other.step()
    moved = (ours - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_matrices_of_one_shape_do_not_mix() -> None:
    torch.manual_seed(1)
    starts, gradients = torch.randn(2, 8, 4), torch.randn(2, 8, 4)
    alone = []
    for start, gradient in zip(starts, gradients, strict=True):
        weight = torch.nn.Parameter(start.clone())
        weight.grad = gradient.clone()
        Muon([weight], lr=0.1).step()
        alone.append(weight.detach())
    together = [torch.nn.Parameter(start.clone()) for start in starts]
    for weight, gradient in zip(together, gradients, strict=True):
        weight.grad = gradient.clone()
    Muon(together, lr=0.1).step()
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))])
