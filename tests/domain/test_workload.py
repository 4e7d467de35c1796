"""How the tokens of timm's networks lie in memory, against timm itself."""

import pytest
import timm
import torch

from domain.architecture import Architecture
from domain.catalogue import model_named
from domain.workload import timm_states


def last_states(model, images):
    """How the last layer of one of timm's networks leaves the tokens in memory."""
    seen = []
    model.blocks[-1].register_forward_hook(lambda block, taken, given: seen.append(given))
    with torch.inference_mode():
        model(images)
    (states,) = seen
    return "by-token" if states.is_contiguous() else "by-channel"


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_gap_224",
        "vit_base_patch16_siglip_gap_224",
        "vit_base_patch16_siglip_224",
        "vit_tiny_patch16_224",
        "vit_betwixt_patch16_reg1_gap_256",
        "vit_base_patch32_clip_quickgelu_224",
    ],
)
def test_tokens_lie_as_timm_lays_them_and_go_through_its_activation(name):
    net = model_named(name)
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        images = torch.zeros(2, 3, net.image_size, net.image_size)
    assert timm_states(net) == last_states(model, images)
    is_quick = "quick" in type(model.blocks[0].mlp.act).__name__.lower()
    assert is_quick == (net.mlp == "quickgelu")


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_what_copies_the_tokens_of_timm(layout, prefix, pre_norm):
    model = timm.models.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=8, depth=2, num_heads=2, num_classes=2,
        class_token=prefix == 1, global_pool="avg", pre_norm=pre_norm,
    ).eval()  # fmt: skip
    images = torch.zeros(2, 3, 16, 16)
    if layout == "nhwc":
        model, images = (each.to(memory_format=torch.channels_last) for each in (model, images))
    net = Architecture.plain(
        name="toy", depth=2, width=8, heads=2, image_size=16, patch_size=8, classes=2
    ).model_copy(update={"prefix_tokens": prefix, "pre_norm": pre_norm})
    assert timm_states(net, layout) == last_states(model, images)
