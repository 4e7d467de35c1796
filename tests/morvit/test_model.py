from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from morvit.layer import Layer
from morvit.model import MoRViT, layers_of_recursion
from morvit.votes import Orders
from tests.morvit.networks import (
    TOY,
    changed,
    imposable_counts,
    network,
    pictures,
    routed_architectures,
)

ROUTERS = ("expert-choice", "token-choice")


@given(routed_architectures())
@settings(max_examples=40)
def test_a_network_has_the_parameters_that_its_architecture_counts(architecture):
    with torch.device("meta"):
        model = MoRViT(architecture)
    assert sum(weight.numel() for weight in model.parameters()) == architecture.parameters


@pytest.mark.parametrize(
    "fields",
    [
        {"recursions": 1},
        {"classes": 0},
        {"position_tokens": 16, "prefix_tokens": 5},
        {"position_tokens": 17, "prefix_tokens": 5},
        {"untouched_parameters": 11},
        {"channels": 3, "image_size": 32, "patch_size": 8, "width": 48, "heads": 3},
    ],
)
def test_special_networks_have_the_parameters_counted_and_run(fields):
    architecture = changed(**fields)
    model = network(architecture)
    assert sum(weight.numel() for weight in model.parameters()) == architecture.parameters
    logits = model(pictures(2, architecture)).logits
    assert logits.shape == (2, architecture.classes or architecture.width)
    assert logits.isfinite().all()


@pytest.mark.parametrize("split", [(0, 4, 0), (1, 2, 1), (2, 1, 1), (0, 1, 3)])
def test_one_recursion_is_a_plain_vit_however_its_layers_are_split(split):
    before, shared, after = split
    plain = network(changed(layers_before=0, shared_layers=4, layers_after=0, recursions=1))
    model = network(
        changed(layers_before=before, shared_layers=shared, layers_after=after, recursions=1),
        seed=1,
    )
    assert model.router is None
    layers = [*model.layers_before, *model.shared_layers, *model.layers_after]
    _copy_all_but_layers(plain, model)
    for ours, theirs in zip(layers, plain.shared_layers, strict=True):
        ours.load_state_dict(theirs.state_dict())
    images = pictures(3)
    output = model(images)
    assert torch.equal(output.logits, plain(images).logits)
    assert output.counts.tolist() == [[17]] * 3
    assert output.router_logits.shape == (3, 16, 0)


@given(routed_architectures(), st.sampled_from(["masked", "packed"]))
@settings(max_examples=20)
def test_uniform_depth_is_the_plain_vit_of_the_same_effective_depth(architecture, executor):
    architecture = changed(architecture, depth_parameters="none", keys_and_values="recursion-wise")
    model = network(architecture)
    deep = network(
        changed(
            architecture,
            sharing="middle-cycle",
            layers_before=0,
            shared_layers=architecture.effective_depth,
            layers_after=0,
            recursions=1,
        )
    )
    shared = [
        model.shared_layers[layer]
        for recursion in range(architecture.recursions)
        for layer in layers_of_recursion(architecture, recursion)
    ]
    _copy_all_but_layers(model, deep)
    layers = [*model.layers_before, *shared, *model.layers_after]
    for theirs, ours in zip(deep.shared_layers, layers, strict=True):
        theirs.load_state_dict(ours.state_dict())
    images = pictures(2, architecture)
    output = model(images, orders=Orders(uniform=True), executor=executor)
    torch.testing.assert_close(output.logits, deep(images).logits, rtol=1e-5, atol=1e-5)
    assert (output.counts == architecture.tokens).all()
    assert output.router_logits.shape[-1] == architecture.recursions


def _copy_all_but_layers(source: MoRViT, target: MoRViT) -> None:
    kept = {
        name: weight
        for name, weight in source.state_dict().items()
        if "layers" not in name and "router" not in name
    }
    target.load_state_dict(kept, strict=False)


@pytest.mark.parametrize("selection", ["top-k", "threshold"])
@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("executor", ["masked", "packed"])
def test_permuting_the_batch_permutes_the_output(router, executor, selection):
    model = network(changed(router=router), selection=selection)
    images, order = pictures(7), torch.tensor([4, 2, 6, 0, 1, 5, 3])
    straight, permuted = model(images, executor=executor), model(images[order], executor=executor)
    torch.testing.assert_close(permuted.logits, straight.logits[order], rtol=1e-5, atol=1e-5)
    assert torch.equal(permuted.depths, straight.depths[order])
    assert torch.equal(permuted.counts, straight.counts[order])


@given(routed_architectures(), st.sampled_from(["top-k", "threshold"]), st.integers(0, 5))
@settings(max_examples=30)
def test_counts_never_rise_and_cls_goes_to_the_end(architecture, selection, seed):
    output = network(architecture, seed, selection=selection)(pictures(3, architecture, seed))
    assert (output.counts[:, 1:] <= output.counts[:, :-1]).all()
    assert (output.depths[:, : architecture.prefix_tokens] == architecture.recursions).all()
    recursion = torch.arange(architecture.recursions)
    entered = (output.depths[:, :, None] > recursion).sum(dim=1)
    assert torch.equal(entered, output.counts)


@given(st.data(), routed_architectures())
@settings(max_examples=30)
def test_imposed_counts_are_obeyed_exactly(data, architecture):
    imposed = data.draw(imposable_counts(architecture))
    output = network(architecture)(
        pictures(len(imposed), architecture), orders=Orders(imposed=imposed)
    )
    assert torch.equal(output.counts, imposed)


def test_imposed_counts_go_to_the_patches_that_the_router_likes_best():
    model, images = network(), pictures(4)
    free = model(images)
    assert torch.equal(model(images, orders=Orders(imposed=free.counts)).counts, free.counts)
    fewer = model(images, orders=Orders(imposed=torch.tensor([[17, 5, 2]] * 4)))
    tail = fewer.router_logits.softmax(dim=-1).flip(-1).cumsum(-1).flip(-1)[..., 1]
    took = fewer.depths[:, 1:] > 1
    worst_taken = tail.masked_fill(~took, 2).amin(dim=1)
    assert (tail.masked_fill(took, -1).amax(dim=1) <= worst_taken).all()


def test_marks_come_at_the_end_of_every_stage_in_order():
    heard = []
    network()(pictures(1), mark=heard.append)
    assert heard == ["prologue", "recursion-1", "recursion-2", "recursion-3", "epilogue"]


@pytest.mark.parametrize("router", ROUTERS)
def test_every_weight_gets_a_gradient_the_routers_too(router):
    # Of every recursion a part: where all go on, nothing is weighed.
    capacities = (0.8, 0.5, 0.2) if router == "expert-choice" else None
    model = network(changed(router=router), capacities=capacities).train()
    model(pictures(4)).logits.square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"prefix_tokens": 0}, "head reads CLS"),
        ({"position_tokens": 99}, "resized positions are not built"),
    ],
)
def test_what_is_not_built_is_refused(fields, complaint):
    with pytest.raises(ValueError, match=complaint):
        MoRViT(changed(**fields))


@pytest.mark.parametrize(
    ("imposed", "complaint"),
    [
        ([[17, 9]], "shape"),
        ([[17, 5, 9]], "never rise"),
        ([[18, 5, 4]], "from 17 tokens"),
        ([[17, 5, 0]], "down to 1"),
    ],
)
def test_impossible_counts_are_refused(imposed, complaint):
    with pytest.raises(ValueError, match=complaint):
        network()(pictures(1), orders=Orders(imposed=torch.tensor(imposed)))


def test_a_plain_network_refuses_fewer_tokens():
    model = network(changed(recursions=1))
    with pytest.raises(ValueError, match="no router"):
        model(pictures(1), orders=Orders(imposed=torch.tensor([[9]])))
    assert model(pictures(1), orders=Orders(imposed=torch.tensor([[17]]))).counts.tolist() == [[17]]


def test_shared_keys_and_values_are_those_of_the_first_recursion():
    """Active tokens look at all that entered recursion 1, whatever left since."""
    model = network(changed(router="expert-choice", keys_and_values="recursive-sharing"))
    images = pictures(3)
    state, route = model.begun(images)
    orders = Orders.at_budget(0.5, 3)
    state, route = model.recurred(0, state, route, orders=orders)
    first = route.memories
    assert [memory.keys.shape[1] for memory in first] == [int(route.counts[0][0])] * 2
    for recursion in (1, 2):
        state, route = model.recurred(recursion, state, route, orders=orders)
        assert all(now is then for now, then in zip(route.memories, first, strict=True))
    # What is remembered is what is looked at.
    other = replace(
        route, memories=tuple(replace(each, values=each.values + 1.0) for each in route.memories)
    )
    same, changed_state = (
        model.recurred(2, state, each, orders=orders)[0] for each in (route, other)
    )
    assert not torch.equal(same, changed_state)


def test_seeds_decide_the_weights():
    torch.manual_seed(3)
    one = MoRViT(TOY)
    torch.manual_seed(3)
    two = MoRViT(TOY)
    assert all(map(torch.equal, one.parameters(), two.parameters()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("executor", ["masked", "packed"])
def test_half_precision_runs_whole_and_by_autocast(router, executor, dtype):
    model, images = network(changed(router=router)), pictures(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(images, executor=executor)
    half = model.to(dtype)(images.to(dtype), executor=executor)
    assert half.logits.dtype == dtype
    assert half.logits.isfinite().all()
    assert mixed.logits.isfinite().all()


def test_quickgelu_is_what_clip_does():
    torch.manual_seed(0)
    net = changed(mlp="quickgelu")
    layer = Layer(net)
    tokens = torch.randn(5, net.width)
    hidden = layer.mlp_in(tokens)
    assert torch.equal(layer._hidden(tokens), hidden * torch.sigmoid(1.702 * hidden))
    # It is near the exact one, which the other networks have.
    assert (layer._hidden(tokens) - functional.gelu(hidden)).abs().max() < 0.021
