from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from morvit import attention, executors
from morvit import router as routers
from morvit.attention import Memory, Packed, Together
from morvit.executors import EXECUTORS, Going, executor_named, gated, rows_computed
from morvit.votes import Orders
from tests.morvit.networks import (
    changed,
    imposable_counts,
    network,
    pictures,
    routed_architectures,
)

RAGGED = ("padded", "packed")


def in_double(model, images):
    """Where no tie falls either way by rounding, so that all must choose the same tokens."""
    return model.double(), images.double()


@contextmanager
def filled_up_to(multiple):
    """Every product sees a multiple of so many rows, as half precision on a CPU has it."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (executors, routers):
            patched.setattr(
                module, "rows_computed", lambda rows, like: -(-rows // multiple) * multiple
            )
        yield


@given(st.data(), routed_architectures(), st.sampled_from(RAGGED), st.sampled_from([1, 8]))
@settings(max_examples=120)
def test_all_agree_with_masked_for_any_imposed_routing(data, architecture, executor, multiple):
    """In double, where no choice is a matter of rounding, whatever only fills."""
    imposed = data.draw(imposable_counts(architecture))
    model, images = in_double(network(architecture), pictures(len(imposed), architecture))
    orders = Orders(imposed=imposed)
    masked = model(images, executor="masked", orders=orders)
    with filled_up_to(multiple):
        other = model(images, executor=executor, orders=orders)
    assert torch.equal(masked.depths, other.depths)
    torch.testing.assert_close(other.logits, masked.logits, rtol=1e-5, atol=1e-5)


@given(routed_architectures(), st.floats(0.05, 1.0), st.integers(0, 9), st.sampled_from(
    ["padded", "packed", "capacity"]
))  # fmt: skip
@settings(max_examples=60)
def test_all_agree_with_masked_at_any_budget(architecture, budget, seed, executor):
    model, images = in_double(network(architecture, seed), pictures(5, architecture, seed))
    orders = Orders.at_budget(budget, architecture.recursions)
    masked = model(images, executor="masked", orders=orders)
    other = model(images, executor=executor, orders=orders)
    assert torch.equal(masked.depths, other.depths)
    torch.testing.assert_close(other.logits, masked.logits, rtol=1e-5, atol=1e-5)


@given(routed_architectures(), st.sampled_from(["top-k", "threshold"]), st.integers(0, 9))
@settings(max_examples=25)
def test_packed_agrees_with_masked_for_the_routers_own_choice(architecture, selection, seed):
    model, images = in_double(
        network(architecture, seed, selection=selection), pictures(5, architecture, seed)
    )
    masked, packed = model(images, executor="masked"), model(images, executor="packed")
    assert torch.equal(masked.depths, packed.depths)
    torch.testing.assert_close(packed.logits, masked.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("memory", ["recursion-wise", "recursive-sharing"])
@pytest.mark.parametrize("router", ["expert-choice", "token-choice"])
@pytest.mark.parametrize("executor", ["padded", "packed", "capacity"])
@pytest.mark.parametrize("multiple", [1, 8])
def test_all_give_the_gradients_of_masked(router, executor, memory, multiple):
    gradients = {}
    architecture = changed(router=router, keys_and_values=memory)
    for name in ("masked", executor):
        model = network(architecture).double().train()
        orders = Orders.at_budget(0.6, 3)
        with filled_up_to(multiple):
            logits = model(pictures(3).double(), executor=name, orders=orders).logits
        logits.square().sum().backward()
        gradients[name] = {each: weight.grad for each, weight in model.named_parameters()}
    torch.testing.assert_close(gradients[executor], gradients["masked"])


def test_the_router_learns_from_the_task_through_its_gate():
    for router, capacities in (("expert-choice", (0.8, 0.5, 0.2)), ("token-choice", None)):
        model = network(changed(router=router), capacities=capacities).train()
        model(pictures(3)).logits.square().sum().backward()
        for name, weight in model.router.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name


def ran(executor, block, state, active, gate=None, **known):
    gate = torch.ones(active.shape) if gate is None else gate
    return EXECUTORS[executor](block, state, Going(active=active, gate=gate, **known))


def attending(rows, attend):
    heads = rows.unflatten(-1, (2, 2))
    return attend(heads, heads, heads).flatten(-2)


@pytest.mark.parametrize("executor", ["masked", *RAGGED])
def test_tokens_that_stay_behind_are_not_changed_nor_seen(executor):
    active = torch.tensor([[True, False, True], [True, True, True], [False, False, False]])
    state = torch.randn(3, 3, 4)
    moved = ran(executor, attending, state, active).state
    assert torch.equal(moved[~active], state[~active])
    noisy = torch.where(active[..., None], state, 100.0)
    assert torch.equal(ran(executor, attending, noisy, active).state[active], moved[active])


@pytest.mark.parametrize("executor", EXECUTORS)
def test_what_was_moved_lies_at_its_rows(executor):
    active = torch.tensor([[True, False, True], [False, True, True]])
    state = torch.randn(2, 3, 4)
    came = ran(executor, attending, state, active)
    flat = came.state.flatten(0, 1)
    assert torch.equal(came.moved, flat if came.rows is None else flat[came.rows])
    if came.rows is not None:
        assert sorted(came.rows.tolist()) == active.flatten().nonzero().flatten().tolist()


@pytest.mark.parametrize("executor", ["packed", "padded", "capacity"])
def test_a_known_count_gives_what_counting_gives(executor):
    active = torch.tensor([[True, False, True], [False, True, True]])
    state = torch.randn(2, 3, 4)
    counted, known = (ran(executor, attending, state, active, **each) for each in ({}, {"each": 2}))
    assert torch.equal(counted.state, known.state)


@pytest.mark.parametrize("executor", ["packed", "padded", "capacity"])
def test_moved_tokens_are_written_where_they_are_wanted_and_the_state_is_left_alone(executor):
    active = torch.tensor([[True, False, True], [False, True, True]])
    state = torch.randn(2, 3, 4)
    before, into = state.clone(), state.clone()
    came = ran(executor, attending, state, active, into=into)
    assert came.state is into
    assert torch.equal(state, before)
    assert torch.equal(into, ran(executor, attending, state, active).state)


@pytest.mark.parametrize("executor", ["packed", "padded", "capacity"])
def test_nothing_happens_where_no_token_is_active(executor):
    state = torch.randn(2, 3, 4)
    nowhere = torch.zeros(2, 3, dtype=torch.bool)

    def block(rows, attend):
        raise AssertionError("nothing to run")

    assert torch.equal(ran(executor, block, state, nowhere).state, state)
    assert torch.equal(ran(executor, block, state, nowhere, each=0).state, state)


@pytest.mark.parametrize(
    ("executor", "shape"), [("packed", (5, 4)), ("padded", (2, 3, 4)), ("masked", (2, 3, 4))]
)
def test_the_block_sees_what_the_executor_says(executor, shape):
    seen = []

    def block(rows, attend):
        seen.append(tuple(rows.shape))
        return rows

    active = torch.tensor([[True, False, True], [True, True, True]])
    ran(executor, block, torch.zeros(2, 3, 4), active)
    assert seen == [shape]


def test_capacity_refuses_images_that_differ():
    active = torch.tensor([[True, False], [True, True]])
    with pytest.raises(ValueError, match=r"as many tokens of every image, got \[1, 2\]"):
        ran("capacity", attending, torch.zeros(2, 2, 4), active)


def test_the_update_is_a_gated_increment():
    before, after = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 6.0]])
    assert gated(before, after, torch.tensor([0.25])).tolist() == [[1.5, 3.0]]
    assert torch.equal(gated(before, after, torch.ones(1)), after)
    assert torch.equal(gated(before, after, torch.zeros(1)), before)


@pytest.mark.parametrize("name", ["fast", "", "PACKED"])
def test_other_executors_are_refused_with_those_that_exist(name):
    with pytest.raises(ValueError, match="there are masked, padded, packed, capacity"):
        executor_named(name)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 99))
@settings(max_examples=30)
def test_packed_attention_to_what_is_remembered_is_that_of_each_image_alone(lengths, seed):
    torch.manual_seed(seed)
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    images = [torch.randn(length, 2, 3) for length in lengths]
    memory = Memory(keys=torch.randn(len(lengths), 5, 2, 3), values=torch.randn(len(lengths), 5, 2, 3),
                    visible=None)  # fmt: skip
    arrangement = Packed(tuple((1, lengths[image]) for image in order), tuple(order), len(lengths))
    together = arrangement.across(torch.cat([images[image] for image in order]), memory)
    for image, mixed in zip(order, together.split([lengths[i] for i in order]), strict=True):
        alone = Together().across(
            images[image][None],
            Memory(keys=memory.keys[[image]], values=memory.values[[image]], visible=None),
        )
        torch.testing.assert_close(mixed, alone[0])


def test_keys_and_values_of_a_gpu_go_through_one_ragged_call(monkeypatch):
    from torch.nn.attention import varlen

    asked = {}

    def ragged(queries, keys, values, ends, ends_of_keys, longest, longest_key):
        asked.update(ends=ends.tolist(), longest=longest)
        return queries

    monkeypatch.setattr(varlen, "varlen_attn", ragged)
    monkeypatch.setattr(attention, "has_ragged_kernel", lambda queries: True)
    heads = torch.randn(5, 2, 8).bfloat16()
    Packed(((1, 2), (1, 3)), None, 2)(heads, heads, heads)
    assert asked == {"ends": [0, 2, 5], "longest": 3}


@given(st.integers(0, 10_000), st.sampled_from([torch.float16, torch.bfloat16]))
def test_few_numbers_of_rows_are_computed_in_half_precision_and_few_rows_in_vain(rows, dtype):
    like = torch.zeros(1, dtype=dtype)
    computed = rows_computed(rows, like)
    assert rows <= computed <= max(rows + 3, rows * 33 / 32)
    assert rows_computed(computed, like) == computed
    assert rows_computed(rows, like.float()) == rows == rows_computed(rows, like.to("meta"))
    if rows > 128:
        assert len({rows_computed(each, like) for each in range(rows, 2 * rows)}) <= 33


@pytest.mark.parametrize("executor", ["padded", "packed"])
@pytest.mark.parametrize("images", [1, 3])
def test_products_in_half_precision_see_few_numbers_of_rows(executor, images):
    architecture = changed(image_size=28, router="expert-choice", router_shape="mlp")
    model, tokens = network(architecture).bfloat16(), architecture.tokens
    shown = pictures(images, architecture).bfloat16()
    seen: set[int] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.linear.default:
                seen.add(args[0].numel() // args[0].shape[-1])
            return function(*args, **(kwargs or {}))

    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        counts = torch.randint(1, tokens + 1, (images, 3), generator=generator)
        orders = Orders(imposed=counts.sort(dim=1, descending=True).values)
        with torch.inference_mode(), Watch():
            model(shown, executor=executor, orders=orders)
    few = {images, *(rows_computed(rows, shown) for rows in range(images * tokens))}
    few |= {images * min(rows_computed(each, shown), tokens) for each in range(tokens + 1)}
    assert len(seen) > 10
    assert seen <= few


@pytest.mark.parametrize("executor", ["padded", "packed"])
def test_where_no_token_stays_behind_none_is_moved(executor):
    state = torch.randn(2, 3, 4)
    seen = []

    def block(rows, attend):
        seen.append(rows is state)
        return rows + 1

    result = EXECUTORS[executor](
        block, state, Going(active=torch.ones(2, 3, dtype=torch.bool), gate=torch.ones(2, 3))
    )
    assert seen == [True]
    assert result.rows is None
    torch.testing.assert_close(result.state, state + 1)
