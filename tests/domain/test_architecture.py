import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.architecture import Architecture
from domain.catalogue import model_named, plain_vits
from tests.domain.strategies import architectures

# Counted on instances of timm 1.0.31; the first four agree with the tables of the papers:
# 86.6 M and 304.3 M (arXiv 2010.11929), 5.7 M and 22.1 M (arXiv 2012.12877).
COUNTED = {
    "vit_base_patch16_224": 86_567_656,
    "vit_large_patch16_224": 304_326_632,
    "deit_tiny_patch16_224": 5_717_416,
    "deit_small_patch16_224": 22_050_664,
    "vit_huge_patch14_224": 630_764_800,
    "deit_base_distilled_patch16_224": 87_338_192,
    "vit_small_patch14_dinov2": 22_056_192,
    "vit_base_patch32_clip_224": 88_225_000,
    "vit_giant_patch14_dinov2": 1_136_479_232,
}


@pytest.mark.parametrize("name", COUNTED)
def test_parameters_are_those_that_timm_counts(name):
    assert plain_vits()[name].parameters == COUNTED[name]


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ("deit3_base_patch16_224", "deit3_base_patch16_384"),
        ("vit_base_patch16_224", "vit_base_patch16_384"),
        ("vit_base_patch16_siglip_256", "vit_base_patch16_siglip_512"),
        ("vit_mediumd_patch16_reg4_gap_256", "vit_mediumd_patch16_reg4_gap_384"),
    ],
)
def test_a_network_on_another_image_size_has_the_positions_of_that_size(small, large):
    wanted = model_named(large)
    resized = model_named(small, image_size=wanted.image_size)
    assert resized.parameters == wanted.parameters
    assert resized.tokens == wanted.tokens
    assert resized.at_image_size(model_named(small).image_size) == model_named(small)


@pytest.mark.parametrize(
    "wrong",
    [
        {"patch_size": 5},
        {"heads": 3},
        {"width": 0},
        {"recursions": 0},
        {"layers_before": -1},
        {"sharing": "cycle", "layers_before": 1},
        {"image_size": 8.5},
        {"nonsense": 1},
    ],
)
def test_a_shape_that_does_not_fit_together_is_refused(wrong):
    toy = Architecture.plain(name="toy", depth=3, width=8, heads=2, image_size=8, patch_size=4)
    with pytest.raises(ValidationError):
        Architecture(**{**toy.model_dump(), **wrong})


@given(architectures())
def test_recursions_add_depth_but_only_a_router_in_weights(architecture):
    deeper = Architecture(
        **{**architecture.model_dump(), "recursions": architecture.recursions + 1}
    )
    assert deeper.effective_depth == architecture.effective_depth + architecture.shared_layers
    added = deeper.parameters - architecture.parameters
    assert added == deeper.router_parameters - architecture.router_parameters
    assert deeper.unique_layers == architecture.unique_layers


@given(architectures())
def test_parameters_are_positive_and_tokens_are_patches_and_prefix(architecture):
    assert architecture.parameters > architecture.unique_layers * architecture.layer_parameters
    assert architecture.tokens == architecture.patches + architecture.prefix_tokens
    assert architecture.head_width * architecture.heads == architecture.width


@given(architectures(), st.integers(min_value=1, max_value=8))
def test_another_image_size_changes_only_tokens_and_positions(architecture, side):
    other = architecture.at_image_size(side * architecture.patch_size)
    assert other.layer_parameters == architecture.layer_parameters
    added = (other.tokens - architecture.tokens) * architecture.width
    assert other.parameters - architecture.parameters == added
