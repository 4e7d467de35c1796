"""Work in closed form against torch's dispatch trace, fvcore, and its own laws."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from costmodel.loads import expected_distinct, expected_maximum, loads_of
from costmodel.operators import operators_of
from domain.architecture import Architecture
from domain.routing import RoutingDistribution
from domain.workload import Workload
from morvit.model import MoRViT
from morvit.votes import Orders
from tests.costmodel.strategies import architectures, routings, workloads


def flop_of(workload):
    return math.fsum(operator.flop for operator in operators_of(workload))


def bytes_of(workload):
    return math.fsum(each.weight_bytes + each.moved_bytes for each in operators_of(workload))


def traced_flop(net, batch, *, device="meta", **options):
    """FLOPs that torch dispatches for one batch."""
    with torch.device(device):
        model = MoRViT(net).eval()
        images = torch.zeros(batch, net.channels, net.image_size, net.image_size)
    counter = FlopCounterMode(display=False)
    # On the CPU path the counter gives 0 for fused attention; the plain one is counted.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        model(images, **options)
    return counter.get_total_flops()


@settings(max_examples=25)
@given(architectures(), st.integers(1, 4))
def test_closed_form_equals_the_dispatch_trace_on_the_meta_device(net, batch):
    whole = RoutingDistribution.full(net.tokens, net.recursions)
    workload = Workload(architecture=net, batch=batch, executor="masked", routing=whole)
    assert flop_of(workload) == traced_flop(net, batch, executor="masked")


@settings(max_examples=25)
@given(st.data())
def test_packed_closed_form_equals_the_trace_of_the_same_routing(data):
    net = data.draw(architectures(routed=True))
    batch = data.draw(st.integers(1, 4))
    routing = data.draw(routings(net, images=batch))
    workload = Workload(architecture=net, batch=batch, executor="packed", routing=routing)
    imposed = torch.tensor(routing.counts)
    orders = Orders(imposed=imposed)
    traced = traced_flop(net, batch, device="cpu", executor="packed", orders=orders)
    assert flop_of(workload) == pytest.approx(traced, rel=1e-12)


def test_deit_small_has_its_published_9_2_gflop():
    net = Architecture.plain(
        name="deit_small", depth=12, width=384, heads=6, image_size=224, patch_size=16
    )
    whole = RoutingDistribution.full(net.tokens, 1)
    assert flop_of(Workload(architecture=net, batch=1, routing=whole)) == pytest.approx(
        9.2e9, rel=0.005
    )


def test_fvcore_counts_half_for_products_and_leaves_out_what_is_listed_here():
    fvcore = pytest.importorskip("fvcore.nn")
    net = Architecture.plain(
        name="toy", depth=2, width=32, heads=2, image_size=16, patch_size=4, classes=10
    )
    model = MoRViT(net).eval()
    analysis = fvcore.FlopCountAnalysis(_Logits(model), torch.zeros(1, 3, 16, 16))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    counted = analysis.by_operator()
    workload = Workload(architecture=net, batch=1, routing=RoutingDistribution.full(net.tokens, 1))
    by_family = {"gemm": 0.0, "attention": 0.0}
    for operator in operators_of(workload):
        if operator.family in by_family:
            by_family[operator.family] += operator.flop
    # fvcore counts multiply-adds, FLOP are two of them.
    assert 2 * (counted["linear"] + counted["conv"]) == by_family["gemm"]
    left_out = set(analysis.unsupported_ops())
    assert "aten::scaled_dot_product_attention" in left_out
    assert "aten::gelu" in left_out
    assert by_family["attention"] > 0
    # Norms are traffic here; fvcore gives them arithmetic.
    assert set(counted) <= {"linear", "conv", "layer_norm"}


class _Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images).logits


@given(workloads())
def test_more_images_are_never_less_work(workload):
    larger = Workload(**{**_fields(workload), "batch": workload.batch + 1})
    assert flop_of(larger) >= flop_of(workload)
    assert bytes_of(larger) >= bytes_of(workload)


@given(st.data())
def test_more_tokens_are_never_less_work(data):
    net = data.draw(architectures(routed=True))
    routing = data.draw(routings(net))
    fuller = RoutingDistribution(
        tokens=net.tokens,
        counts=tuple((net.tokens, *row[1:]) for row in routing.counts),
    )
    for executor in ("packed", "padded", "capacity"):
        one, other = (
            Workload(architecture=net, batch=4, executor=executor, routing=each)
            for each in (routing, fuller)
        )
        assert flop_of(other) >= flop_of(one) * (1 - 1e-12)


@given(st.data())
def test_masked_is_at_least_padded_and_padded_at_least_packed(data):
    net = data.draw(architectures(routed=True))
    routing = data.draw(routings(net))
    tokens = {
        executor: sum(load.tokens for load in loads_of(routing, 4, executor, net))
        for executor in ("packed", "padded", "masked")
    }
    assert tokens["packed"] <= tokens["padded"] + 1e-9 <= tokens["masked"] + 2e-9


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 3))
def test_expectations_over_batches_equal_enumeration(values, draws):
    batches = list(itertools.product(values, repeat=draws))
    longest = sum(max(batch) for batch in batches) / len(batches)
    distinct = sum(len({v for v in batch if v}) for batch in batches) / len(batches)
    assert expected_maximum(np.array(values, float), draws) == pytest.approx(longest)
    assert expected_distinct(np.array(values, float), draws) == pytest.approx(distinct)


def _fields(record):
    return {name: getattr(record, name) for name in type(record).model_fields}


@given(st.data(), st.sampled_from(["padded", "packed", "capacity"]))
def test_where_all_tokens_go_on_nothing_is_taken_out_or_put_back(data, executor):
    net = data.draw(architectures(routed=True))
    whole = RoutingDistribution.full(net.tokens, net.recursions)
    batch = data.draw(st.integers(1, 4))
    work = Workload(architecture=net, batch=batch, executor=executor, routing=whole)
    gathers = {
        (each.moved_bytes, each.calls) for each in operators_of(work) if each.family == "gather"
    }
    assert gathers == {(0.0, 0.0)}


@given(st.data())
def test_images_of_one_length_are_not_put_together(data):
    net = data.draw(architectures(routed=True))
    routing = data.draw(routings(net, images=1))
    alike = Workload(architecture=net, batch=4, executor="packed", routing=routing)
    assert "joining" not in {each.name for each in operators_of(alike)}


@given(st.data(), st.sampled_from(["packed", "padded", "masked"]), st.integers(1, 8))
def test_nothing_costs_less_than_nothing_where_images_have_no_tokens_left(data, executor, batch):
    net = data.draw(architectures(routed=True))
    routed = data.draw(routings(net))
    emptied = tuple((row[0], *(0,) * (net.recursions - 1)) for row in routed.counts[:1])
    routing = RoutingDistribution(tokens=net.tokens, counts=(*emptied, *routed.counts))
    found = operators_of(
        Workload(architecture=net, batch=batch, executor=executor, routing=routing)
    )
    for each in found:
        assert min(each.flop, each.moved_bytes, each.weight_bytes, each.calls) >= 0, each


def moved_by(name, **fields):
    return [
        (each.stage, each.moved_bytes, each.calls)
        for each in operators_of(plain(**fields))
        if each.name == name
    ]


def plain(mlp="gelu", **fields):
    net = Architecture.plain(
        name="toy", depth=3, width=64, heads=2, image_size=32, patch_size=8, classes=10
    ).model_copy(update={"mlp": mlp, "prefix_tokens": 0})
    return Workload(
        architecture=net,
        batch=2,
        executor="masked",
        routing=RoutingDistribution.full(net.tokens, net.recursions),
        **fields,
    )


def test_quickgelu_is_three_kernels_where_nothing_is_fused_and_else_one():
    ((_, gelu, calls),) = moved_by("activation")
    ((_, quick, quick_calls),) = moved_by("activation", mlp="quickgelu")
    # Scaled, sigmoid, multiplied: two, two and three passes.
    assert (quick / gelu, quick_calls / calls) == (3.5, 3)
    for runtime in ("compiled", "engine"):
        fused = moved_by("activation", mlp="quickgelu", runtime=runtime)
        assert fused == moved_by("activation", runtime=runtime)


def test_states_by_channel_cost_traffic_in_eager_mode_alone():
    assert moved_by("reordering") == []
    ((_, reordered, calls),) = moved_by("reordering", states="by-channel")
    ((_, residual, same_calls),) = moved_by("residual")
    assert (reordered / residual, calls) == (pytest.approx(4 / 3), same_calls)
    assert moved_by("reordering", states="by-channel", runtime="compiled") == []
    assert flop_of(plain(states="by-channel")) == flop_of(plain())


@pytest.mark.parametrize("precision", ["fp32", "amp_bf16"])
def test_inner_norms_are_of_the_width_and_of_the_hidden_width(precision):
    without = plain(precision=precision)
    wider = without.architecture.model_copy(update={"inner_norms": True})
    within = without.model_copy(update={"architecture": wider})
    norms = [each for each in operators_of(within) if each.name == "inner-norm"]
    tokens, layers = 2 * wider.tokens, wider.effective_depth
    assert [each.rows for each in norms] == [tokens * wider.width, tokens * wider.mlp_width]
    # fp32 is read and written; autocast casts four bytes to two before and after.
    elements = tokens * layers * (wider.width + wider.mlp_width)
    casts = 2 * (4 + 2) if precision != "fp32" else 0
    assert bytes_of(within) - bytes_of(without) == pytest.approx(elements * (2 * 4 + casts))
    assert flop_of(within) == flop_of(without)


def torch_1_attention(queries, keys, values):
    """Attention as it was written before torch had a fused one, one operator after another."""
    scores = queries @ keys.transpose(-2, -1)
    scaled = scores * queries.shape[-1] ** -0.5
    return scaled.softmax(dim=-1) @ values


class Passes(TorchDispatchMode):
    """Counts the bytes of tensors of one shape that operators read and write, and the operators."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers, self.moved, self.kernels = numbers, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function._schema.returns[0].alias_info is None and "view" not in str(function):
            own = [
                each for each in (*args, out)
                if isinstance(each, torch.Tensor) and each.numel() == self.numbers
            ]  # fmt: skip
            self.moved += sum(each.numel() * each.element_size() for each in own)
            self.kernels += bool(own)
        return out


def test_unfused_attention_moves_the_scores_that_its_operators_read_and_write():
    workload = plain(attention="unfused")
    net, batch = workload.architecture, workload.batch
    shape = (batch, net.heads, net.tokens, net.head_width)
    heads = [torch.empty(shape, device="meta") for _ in range(3)]
    with Passes(batch * net.heads * net.tokens**2) as traced:
        torch_1_attention(*heads)
    ((_, moved, kernels),) = moved_by("scores", attention="unfused")
    assert moved == traced.moved * net.effective_depth
    # The first of the two products is counted as attention itself.
    assert kernels == (traced.kernels - 1) * net.effective_depth


@pytest.mark.parametrize("precision", ["fp32", "fp16", "amp_fp16"])
def test_unfused_attention_is_more_traffic_by_the_square_of_the_tokens_and_no_more_flop(precision):
    fused, unfused = (plain(precision=precision, attention=each) for each in ("fused", "unfused"))
    assert flop_of(unfused) == flop_of(fused)
    extra = [each for each in operators_of(unfused) if each.name in ("scores", "heads")]
    added = sum(each.moved_bytes for each in extra)
    assert bytes_of(unfused) - bytes_of(fused) == pytest.approx(added)
    net = fused.architecture
    squares = fused.batch * net.heads * net.tokens**2 * net.effective_depth
    # Six passes; under autocast softmax writes four bytes more than it does, and a cast reads them.
    each_score = {"fp32": 24.0, "fp16": 12.0, "amp_fp16": 20.0}[precision]
    assert extra[0].moved_bytes == pytest.approx(each_score * squares)
    fewer = plain(precision=precision, attention="unfused", runtime="compiled")
    assert sum(o.calls for o in operators_of(fewer)) < sum(o.calls for o in operators_of(unfused))
