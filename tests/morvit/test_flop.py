import torch

from tests.morvit.networks import TOY, changed, traced_flop


def by_hand(architecture, counts):
    """Two FLOP a multiply-add: patches, projections, MLP and both attention products, head."""
    width, hidden = architecture.width, architecture.mlp_width

    def layer(tokens):
        return 2 * tokens * (4 * width**2 + 2 * width * hidden) + 4 * tokens**2 * width

    patches = architecture.patches * architecture.channels * architecture.patch_size**2 * width
    ends = architecture.layers_before + architecture.layers_after
    total = 2 * patches + ends * layer(architecture.tokens) + 2 * width * architecture.classes
    total += architecture.shared_layers * sum(layer(tokens) for tokens in counts)
    return total + 2 * architecture.tokens * width * architecture.recursions  # router


def test_packed_work_is_that_of_the_active_tokens_alone():
    imposed = torch.tensor([[17, 9, 4], [17, 17, 1], [12, 5, 5]])
    counted = sum(by_hand(TOY, row) for row in imposed.tolist())
    assert traced_flop(TOY, 3, imposed) == counted


def test_masked_work_is_that_of_all_tokens():
    imposed = torch.tensor([[17, 9, 4], [17, 17, 1]])
    full = 2 * by_hand(TOY, (17, 17, 17))
    assert traced_flop(TOY, 2, imposed, executor="masked") == full
    assert traced_flop(TOY, 2, None) == full


def test_deit_small_takes_the_flop_that_is_published():
    deit = changed(
        image_size=224,
        patch_size=16,
        channels=3,
        classes=1000,
        width=384,
        heads=6,
        mlp_width=1536,
        layers_before=0,
        shared_layers=12,
        recursions=1,
        layers_after=0,
    )
    assert abs(traced_flop(deit, 1, None) / 9.2e9 - 1) < 0.01
