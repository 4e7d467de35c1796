"""One transformer layer, on tokens in any arrangement."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from domain.architecture import Architecture
from morvit.attention import Attend, Memory

LAYER_SCALE_START = 0.1
# Hendrycks and Gimpel, arXiv 1606.08415, section 2.
QUICK_GELU = 1.702


class Layer(nn.Module):
    """A pre-norm transformer layer; `attend` knows whose tokens are whose.

    With `depths` over one it has norms for each recursion, and all else in common.
    """

    def __init__(self, architecture: Architecture, depths: int = 1) -> None:
        super().__init__()
        width, hidden = architecture.width, architecture.mlp_width
        self.width, self.heads = width, architecture.heads
        self.mlp, self.is_gated = architecture.mlp, architecture.mlp == "swiglu"
        self.norm_attention = _norms(width, depths)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=architecture.qkv_bias)
        self.norm_queries = norm_if(architecture.qk_norm, architecture.head_width)
        self.norm_keys = norm_if(architecture.qk_norm, architecture.head_width)
        self.norm_mixed = norm_if(architecture.inner_norms, width)
        self.projection = nn.Linear(width, width)
        self.scale_attention = _scale_if(architecture.layer_scale, width)
        self.norm_mlp = _norms(width, depths)
        self.mlp_in = nn.Linear(width, (1 + self.is_gated) * hidden)
        self.norm_hidden = norm_if(architecture.inner_norms, hidden)
        self.mlp_out = nn.Linear(hidden, width)
        self.scale_mlp = _scale_if(architecture.layer_scale, width)

    def forward(
        self,
        tokens: Float[Tensor, "*rows width"],
        attend: Attend,
        *,
        depth: int = 0,
        memory: Memory | None = None,
        keep: Callable[[Memory], None] | None = None,
    ) -> Float[Tensor, "*rows width"]:
        """The tokens after attention and MLP, in recursion `depth` (0 is the first).

        With a `memory` they attend to its keys and values in place of their own; `keep` is handed
        their own for that.
        """
        normed = _at(self.norm_attention, depth)(tokens)
        tokens = tokens + self._attended(normed, attend, memory, keep)
        normed = _at(self.norm_mlp, depth)(tokens)
        return tokens + self.scale_mlp(self.mlp_out(self.norm_hidden(self._hidden(normed))))

    def _attended(
        self,
        normed: Float[Tensor, "*rows width"],
        attend: Attend,
        memory: Memory | None,
        keep: Callable[[Memory], None] | None,
    ) -> Float[Tensor, "*rows width"]:
        # A method of its own: what it held is free before the MLP, the peak of a layer, begins.
        if memory is None:
            projected = self.queries_keys_values(normed)
            heads = projected.view(*normed.shape[:-1], 3, self.heads, -1)
            queries, keys, values = heads.unbind(-3)
            keys = self.norm_keys(keys)
            if keep is not None:
                # Copies: as views they would keep the queries beside them alive.
                keep(attend.remembered(keys.contiguous(), values.contiguous()))
            mixed = attend(self.norm_queries(queries), keys, values)
        else:
            weight = self.queries_keys_values.weight[: self.width]
            bias: Tensor | None = self.queries_keys_values.bias
            bias = None if bias is None else bias[: self.width]
            flat = functional.linear(normed, weight, bias)
            queries = flat.view(*normed.shape[:-1], self.heads, -1)
            mixed = attend.across(self.norm_queries(queries), memory)
        return self.scale_attention(self.projection(self.norm_mixed(mixed.flatten(-2))))

    def _hidden(self, tokens: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows mlp_width"]:
        if self.is_gated:
            gate, value = self.mlp_in(tokens).chunk(2, dim=-1)
            return functional.silu(gate) * value
        hidden = self.mlp_in(tokens)
        if self.mlp == "quickgelu":
            return hidden * torch.sigmoid(QUICK_GELU * hidden)
        return functional.gelu(hidden)


class Scale(nn.Module):
    """A learned factor for every channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((width,), LAYER_SCALE_START))

    def forward(self, tokens: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """The tokens, scaled."""
        return tokens * self.factor


def layers(architecture: Architecture, count: int, depths: int = 1) -> nn.ModuleList:
    """So many layers; those of a shared block may have norms for each of `depths` recursions."""
    return nn.ModuleList(Layer(architecture, depths) for _ in range(count))


def norm_if(wanted: bool, width: int) -> nn.Module:
    """A LayerNorm, or nothing."""
    return nn.LayerNorm(width) if wanted else nn.Identity()


def _norms(width: int, depths: int) -> nn.Module:
    if depths == 1:
        return nn.LayerNorm(width)
    return nn.ModuleList(nn.LayerNorm(width) for _ in range(depths))


def _at(norms: nn.Module, depth: int) -> nn.Module:
    return norms[depth] if isinstance(norms, nn.ModuleList) else norms


def _scale_if(wanted: bool, width: int) -> nn.Module:
    return Scale(width) if wanted else nn.Identity()
