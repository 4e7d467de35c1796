"""Small networks for tests, and what torch counts in them."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from domain.architecture import Architecture
from domain.record import Executor
from morvit.model import MoRViT
from morvit.votes import Orders

TOY = Architecture(
    name="toy",
    image_size=8,
    patch_size=2,
    channels=1,
    classes=5,
    width=8,
    heads=2,
    mlp_width=16,
    layers_before=1,
    shared_layers=2,
    recursions=3,
    layers_after=1,
    router="token-choice",
)


def changed(architecture: Architecture = TOY, **fields: Any) -> Architecture:
    return Architecture(**{**architecture.model_dump(), **fields})


def network(architecture: Architecture = TOY, seed: int = 0, **options: Any) -> MoRViT:
    """A network whose weights are large enough for routing and attention to matter."""
    torch.manual_seed(seed)
    model = MoRViT(architecture, **options)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.3)
    return model.eval()


def pictures(count: int, architecture: Architecture = TOY, seed: int = 1) -> Tensor:
    side = architecture.image_size
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, architecture.channels, side, side, generator=generator)


@st.composite
def routed_architectures(draw: st.DrawFn) -> Architecture:
    has_ends = draw(st.booleans())
    sharing = draw(st.sampled_from(["cycle", "sequence"]))
    return changed(
        sharing=f"middle-{sharing}" if has_ends else sharing,
        layers_before=draw(st.integers(0, 2)) if has_ends else 0,
        layers_after=draw(st.integers(0, 2)) if has_ends else 0,
        shared_layers=draw(st.integers(1, 2)),
        recursions=draw(st.integers(2, 4)),
        router=draw(st.sampled_from(["expert-choice", "token-choice", "random"])),
        router_shape=draw(st.sampled_from(["linear", "mlp", "wide-mlp"])),
        router_reads=draw(st.sampled_from(["token", "token-and-context"])),
        router_gate=draw(st.sampled_from(["softmax", "sigmoid"])),
        router_bias=draw(st.booleans()),
        depth_parameters=draw(
            st.sampled_from(["none", "embeddings", *(["norms"] if sharing == "cycle" else [])])
        ),
        keys_and_values=(
            draw(st.sampled_from(["recursion-wise", "recursive-sharing"]))
            if sharing == "cycle"
            else "recursion-wise"
        ),
        prefix_tokens=draw(st.integers(1, 3)),
        mlp=draw(st.sampled_from(["gelu", "quickgelu", "swiglu"])),
        layer_scale=draw(st.booleans()),
        qkv_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        inner_norms=draw(st.booleans()),
        pre_norm=draw(st.booleans()),
        final_norm=draw(st.booleans()),
    )


@st.composite
def imposable_counts(draw: st.DrawFn, architecture: Architecture) -> Tensor:
    """Counts of one to four images: CLS alone, all tokens, and anything between."""
    least, full = architecture.prefix_tokens, architecture.tokens
    count = st.one_of(st.just(least), st.just(full), st.integers(least, full))
    row = st.lists(count, min_size=architecture.recursions, max_size=architecture.recursions)
    rows = draw(st.lists(row, min_size=1, max_size=4))
    return torch.tensor([sorted(row, reverse=True) for row in rows])


def traced_flop(
    architecture: Architecture,
    batch: int,
    imposed: Tensor | None,
    executor: Executor = "packed",
) -> int:
    """FLOP of one pass as torch counts them: matrix products, two per multiply-add.

    Attention is done by plain products, for the counter gives 0 for the fused kernel of a CPU.
    Without imposed counts nothing depends on data, and the pass runs without memory.
    """
    device = "meta" if imposed is None else "cpu"
    side = architecture.image_size
    with torch.device(device):
        model = MoRViT(architecture).eval()
        images = torch.zeros(batch, architecture.channels, side, side)
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        model(
            images,
            executor="masked" if imposed is None else executor,
            orders=Orders(imposed=imposed, uniform=imposed is None),
        )
    return counter.get_total_flops()
