"""Peak memory in closed form against the tensors that really are alive."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from costmodel.memory import allocated_bytes, fit_probability, peak_estimate
from costmodel.published import published_workload
from domain.architecture import Architecture
from domain.catalogue import devices, published
from domain.routing import RoutingDistribution
from domain.workload import Workload
from morvit.model import MoRViT
from morvit.votes import Orders
from profiler.memory import peak_on_cpu
from tests.costmodel.strategies import workloads


@pytest.mark.parametrize("executor", ["packed", "masked"])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("survival", [(1, 1, 1), (1, 0.6, 0.3), (0.5, 0.3, 0.1)])
@pytest.mark.parametrize("shared_layers", [1, 3])
def test_closed_form_is_within_three_percent_of_live_tensors(
    executor, batch, survival, shared_layers
):
    net = Architecture(
        name="toy", image_size=32, patch_size=4, channels=3, classes=10, width=64, heads=4,
        mlp_width=256, layers_before=1, shared_layers=shared_layers, recursions=3, layers_after=1,
    )  # fmt: skip
    routing = RoutingDistribution.from_survival(survival, net.tokens, images=batch)
    workload = Workload(architecture=net, batch=batch, executor=executor, routing=routing)
    model = MoRViT(net).eval()
    images = torch.zeros(batch, 3, 32, 32)
    imposed = torch.tensor(routing.counts)
    with torch.inference_mode():
        seen, _ = peak_on_cpu(
            model,
            images,
            lambda mark: model(
                images, executor=executor, orders=Orders(imposed=imposed), mark=mark
            ),
        )
    assert allocated_bytes(workload) == pytest.approx(seen, rel=0.03)


@given(workloads())
def test_a_larger_batch_never_needs_less(workload):
    fields = {name: getattr(workload, name) for name in Workload.model_fields}
    larger = Workload(**{**fields, "batch": workload.batch + 1})
    assert allocated_bytes(larger) >= allocated_bytes(workload)


@given(st.integers(0, 6))
def test_what_fits_in_less_memory_fits_in_more(power):
    net = Architecture.plain(
        name="toy", depth=12, width=768, heads=12, image_size=224, patch_size=16
    )
    routing = RoutingDistribution.full(net.tokens, 1)
    peak = peak_estimate(Workload(architecture=net, batch=8 * 4**power, routing=routing))
    small, large = (fit_probability(peak, devices()[name]) for name in ("t4", "h200-sxm-141"))
    assert 0 <= small <= large <= 1


def test_batches_that_others_ran_are_said_to_fit():
    """Third-party rows: every batch of them had room. That fused layers need less was learned from them."""
    chances = []
    for row in published():
        device = devices()[row.device_id]
        if device.device_class != "cpu" and row.batch is not None:
            peak = peak_estimate(published_workload(row))
            chances.append(fit_probability(peak, device))
    assert len(chances) > 3000
    assert min(chances) > 0.35
    assert sum(chance < 0.5 for chance in chances) <= len(chances) / 400


@given(workloads(executors=("masked",)))
def test_fusing_never_needs_more_and_unfused_attention_never_less(workload):
    fields = {name: getattr(workload, name) for name in Workload.model_fields}
    compiled, unfused = (
        allocated_bytes(Workload(**{**fields, **each}))
        for each in ({"runtime": "compiled"}, {"attention": "unfused"})
    )
    assert compiled <= allocated_bytes(workload) <= unfused
