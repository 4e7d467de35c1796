"""Arithmetic that a pass really asks for, counted from the operators that torch runs.

The products are counted, not computed: they give memory as it lies, at once, so a count costs a
fraction of a pass. Which tokens go where must therefore be imposed. The formulas are torch's own (FlopCounterMode
leaves out attention on a CPU, where it knows no formula; here it has one). Element-wise work is not
counted: vendors' peaks and the usual figures leave it out too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_ATEN = torch.ops.aten


class WorkCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """FLOPs by stage of one pass. Use it under `torch.no_grad()`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stages: dict[str, float] = {}
        self._since_mark = 0.0

    def mark(self, stage: str) -> None:
        """`stage` has ended: keep its FLOPs."""
        self.stages[stage] = self._since_mark
        self._since_mark = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        operator = func._overloadpacket
        if operator in _INSTEAD:
            flop, result = _INSTEAD[operator](*args, **named)
            self._since_mark += flop
            return result
        formula = flop_registry.get(operator)
        if formula is None:
            with self:
                parts = func.decompose(*args, **named)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **named)
        if formula is not None:
            self._since_mark += formula(*args, **named, out_val=result)
        return result


def _mm(left: Tensor, right: Tensor) -> tuple[float, Tensor]:
    rows, inner = left.shape
    columns = right.shape[1]
    return 2.0 * rows * inner * columns, left.new_empty(rows, columns)


def _addmm(bias: Tensor, left: Tensor, right: Tensor, **scales: Any) -> tuple[float, Tensor]:
    return _mm(left, right)


def _bmm(left: Tensor, right: Tensor) -> tuple[float, Tensor]:
    batch, rows, inner = left.shape
    columns = right.shape[2]
    return 2.0 * batch * rows * inner * columns, left.new_empty(batch, rows, columns)


def _cpu_attention(
    query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any
) -> tuple[float, tuple[Tensor, Tensor]]:
    batch, heads, rows, width = query.shape
    flop = 2.0 * batch * heads * rows * key.shape[2] * (width + value.shape[3])
    return flop, (torch.empty_like(query), query.new_empty(query.shape[:3]))


def _gelu(values: Tensor, **named: Any) -> tuple[float, Tensor]:
    return 0.0, torch.empty_like(values)


def _layer_norm(values: Tensor, *rest: Any) -> tuple[float, tuple[Tensor, ...]]:
    return 0.0, (torch.empty_like(values), values.new_empty(0), values.new_empty(0))


_INSTEAD: dict[Any, Callable[..., tuple[float, Any]]] = {
    _ATEN.mm: _mm,
    _ATEN.addmm: _addmm,
    _ATEN.bmm: _bmm,
    _ATEN.gelu: _gelu,
    _ATEN.native_layer_norm: _layer_norm,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _cpu_attention,
}
