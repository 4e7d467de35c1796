"""Many batches at once take what each takes alone; drawn batches average to what is expected."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.discrepancy import discrepancy_of, features_of_group, log_correction
from costmodel.grid import Asked, batches_s
from costmodel.latency import group_s
from costmodel.loads import loads_of, loads_of_batches
from costmodel.work import Machine, Rates, Work, groups_of
from domain.record import Executor
from domain.routing import RoutingDistribution
from domain.workload import Workload
from tests.costmodel.machines import LAW, workload
from tests.costmodel.strategies import architectures, routings

EXECUTORS: tuple[Executor, ...] = ("packed", "padded", "masked", "capacity")


def machine(*, ahead):
    return Machine(
        peak_flop_per_s=1e12, memory_bytes_per_s=1e11, units=8, host_runs_ahead=ahead,
        cache_bytes=1e6 if ahead else 0.0, slowness=1.2,
    )  # fmt: skip


@settings(max_examples=40)
@given(st.data())
def test_many_batches_take_what_each_takes_alone(data):
    net = data.draw(architectures())
    executor, ahead = data.draw(st.sampled_from(EXECUTORS)), data.draw(st.booleans())
    alike = [data.draw(routings(net, images=1)) for _ in range(3)]
    sizes = [data.draw(st.integers(1, 9)) for _ in alike]
    works = [
        Workload(architecture=net, batch=size, executor=executor, routing=routing)
        for size, routing in zip(sizes, alike, strict=True)
    ]
    first = groups_of(works[0], host_runs_ahead=False)[-1]
    place = features_of_group(first, {})
    known = None if place is None else discrepancy_of([place], np.array([0.3]), np.array([0.01]))
    asked = Asked(
        net=net, precision="fp32", executor=executor, machine=machine(ahead=ahead),
        coefficients=LAW, discrepancy=known,
    )  # fmt: skip
    together = batches_s(asked, np.array([each.counts for each in alike]), np.array(sizes))
    for work, seconds in zip(works, together, strict=True):
        groups = groups_of(work, host_runs_ahead=ahead)
        alone = group_s(Work.of(groups), Rates.of([machine(ahead=ahead)] * len(groups)), LAW)
        shared = [log_correction(known, features_of_group(group, {})) for group in groups]
        assert seconds == pytest.approx(float(alone @ np.exp(shared)))


@settings(max_examples=25)
@given(st.data())
def test_all_batches_of_two_images_average_to_what_is_expected(data):
    net = data.draw(architectures(routed=True))
    executor = data.draw(st.sampled_from(EXECUTORS[:3]))
    routing: RoutingDistribution = data.draw(routings(net))
    counts = np.array(routing.counts)
    every = np.array(list(itertools.product(range(len(counts)), repeat=2)))
    drawn = loads_of_batches(counts[every], np.full(len(every), 2), executor, net)
    for exact, expected in zip(drawn.recursions, loads_of(routing, 2, executor, net), strict=True):
        for name in ("images", "tokens", "squares", "attention_calls"):
            # Alike images share a call even where nothing of them is left.
            if name == "attention_calls" and (counts == counts[0]).all():
                continue
            seen = np.mean(np.broadcast_to(getattr(exact, name), len(every)))
            assert seen == pytest.approx(getattr(expected, name)), name


def test_a_static_executor_refuses_images_that_differ():
    net = workload().architecture
    uneven = np.array([[[2] * net.recursions, [1] * net.recursions]])
    with pytest.raises(ValueError, match="as many tokens of every image"):
        loads_of_batches(uneven, np.array([2]), "capacity", net)
