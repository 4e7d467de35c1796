import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from morvit.executors import EXECUTORS, executor_named, gated
from tests.morvit.networks import (
    changed,
    imposable_counts,
    network,
    pictures,
    routed_architectures,
)


@given(st.data(), routed_architectures())
@settings(max_examples=40)
def test_masked_and_packed_agree_for_any_imposed_routing(data, architecture):
    imposed = data.draw(imposable_counts(architecture))
    model, images = network(architecture), pictures(len(imposed), architecture)
    masked = model(images, executor="masked", imposed=imposed)
    packed = model(images, executor="packed", imposed=imposed)
    assume(torch.equal(masked.depths, packed.depths))  # a tie may fall either way by rounding
    torch.testing.assert_close(packed.logits, masked.logits, rtol=1e-5, atol=1e-5)


@given(routed_architectures(), st.sampled_from(["top-k", "threshold"]), st.integers(0, 9))
@settings(max_examples=25)
def test_masked_and_packed_agree_for_the_routers_own_choice(architecture, selection, seed):
    model, images = (
        network(architecture, seed, selection=selection),
        pictures(5, architecture, seed),
    )
    masked, packed = model(images, executor="masked"), model(images, executor="packed")
    assume(torch.equal(masked.depths, packed.depths))
    torch.testing.assert_close(packed.logits, masked.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("router", ["expert-choice", "token-choice"])
def test_masked_and_packed_give_the_same_gradients(router):
    gradients = {}
    for executor in EXECUTORS:
        model = network(changed(router=router)).double().train()
        model(pictures(3).double(), executor=executor).logits.square().sum().backward()
        gradients[executor] = {name: weight.grad for name, weight in model.named_parameters()}
    torch.testing.assert_close(gradients["packed"], gradients["masked"])


@pytest.mark.parametrize("executor", EXECUTORS)
def test_tokens_that_stay_behind_are_not_changed_nor_seen(executor):
    active = torch.tensor([[True, False, True], [True, True, True], [False, False, False]])
    state = torch.randn(3, 3, 4)

    def block(rows, attend):
        heads = rows.unflatten(-1, (2, 2))
        return attend(heads, heads, heads).flatten(-2)

    gate = torch.ones(3, 3)
    moved = EXECUTORS[executor](block, state, active, gate)
    assert torch.equal(moved[~active], state[~active])
    noisy = torch.where(active[..., None], state, 100.0)
    assert torch.equal(EXECUTORS[executor](block, noisy, active, gate)[active], moved[active])


def test_nothing_happens_where_no_token_is_active():
    state = torch.randn(2, 3, 4)
    nowhere = torch.zeros(2, 3, dtype=torch.bool)

    def block(rows, attend):
        raise AssertionError("nothing to run")

    assert torch.equal(EXECUTORS["packed"](block, state, nowhere, torch.ones(2, 3)), state)


def test_the_block_sees_only_the_active_tokens():
    seen = []

    def block(rows, attend):
        seen.append(tuple(rows.shape))
        return rows

    active = torch.tensor([[True, False, True], [True, True, True]])
    EXECUTORS["packed"](block, torch.zeros(2, 3, 4), active, torch.ones(2, 3))
    assert seen == [(5, 4)]


def test_the_update_is_a_gated_increment():
    before, after = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 6.0]])
    assert gated(before, after, torch.tensor([0.25])).tolist() == [[1.5, 3.0]]
    assert torch.equal(gated(before, after, torch.ones(1)), after)
    assert torch.equal(gated(before, after, torch.zeros(1)), before)


@pytest.mark.parametrize("name", ["padded", "capacity", "", "PACKED"])
def test_other_executors_are_refused_with_the_two_that_exist(name):
    with pytest.raises(ValueError, match=r"there are masked \(the reference\) and packed"):
        executor_named(name)
