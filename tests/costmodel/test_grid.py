"""Many batches at once take what each takes alone; drawn batches average to what is expected."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.discrepancy import FEATURES, corrections_at, discrepancy_of, features_of_group
from costmodel.grid import Asked, batches_s
from costmodel.latency import group_s, launch_s, operator_s, together_s
from costmodel.loads import loads_of, loads_of_batches
from costmodel.operators import operators_for
from costmodel.work import Machine, Rates, Work, grouped, groups_of
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


# How a runtime goes about what is no product changes what is counted.
ways = st.fixed_dictionaries(
    {
        "runtime": st.sampled_from(["eager", "compiled"]),
        "states": st.sampled_from(["by-token", "by-channel"]),
        "attention": st.sampled_from(["fused", "unfused"]),
    }
)


@settings(max_examples=40)
@given(st.data())
def test_many_batches_take_what_each_takes_alone(data):
    net = data.draw(architectures())
    executor, ahead = data.draw(st.sampled_from(EXECUTORS)), data.draw(st.booleans())
    alike = [data.draw(routings(net, images=1)) for _ in range(3)]
    sizes = [data.draw(st.integers(1, 9)) for _ in alike]
    way = data.draw(ways)
    works = [
        Workload(architecture=net, batch=size, executor=executor, routing=routing, **way)
        for size, routing in zip(sizes, alike, strict=True)
    ]
    first = groups_of(works[0], host_runs_ahead=False)[-1]
    place = features_of_group(first, {})
    known = None if place is None else discrepancy_of([place], np.array([0.3]), np.array([0.01]))
    asked = Asked(
        net=net, precision="fp32", executor=executor, machine=machine(ahead=ahead),
        coefficients=LAW, discrepancy=known, **way,
    )  # fmt: skip
    together = batches_s(asked, np.array([each.counts for each in alike]), np.array(sizes))
    for work, seconds in zip(works, together, strict=True):
        groups = groups_of(work, host_runs_ahead=ahead)
        alone = group_s(Work.of(groups), Rates.of([machine(ahead=ahead)] * len(groups)), LAW)
        shared = corrections_at(known, [features_of_group(group, {}) for group in groups])
        assert seconds == pytest.approx(float(alone @ np.exp(shared)))


def plain_s(asked, counts, batch):
    """One batch: every operator of every recursion on its own, nothing looked up."""
    loads = loads_of_batches(counts[None], np.array([batch]), asked.executor, asked.net)
    operators = operators_for(
        asked.net, loads, precision=asked.precision, executor=asked.executor,
        runtime=asked.runtime, states=asked.states, attention=asked.attention,
    )  # fmt: skip
    rates, total_s = Rates.of([asked.machine]), 0.0
    for group in grouped(
        operators, asked.net, asked.executor, host_runs_ahead=asked.machine.host_runs_ahead
    ):
        works = [Work.alone(operator) for operator in group]
        device_s = sum(operator_s(work, rates, asked.coefficients)[0] for work in works)
        host_s = sum(launch_s(work, asked.coefficients)[0] for work in works)
        own_s = together_s(device_s, host_s, rates.host_runs_ahead, asked.coefficients["stage_s"])
        place = features_of_group(group, dict(asked.setting))
        total_s += own_s[0] * np.exp(corrections_at(asked.discrepancy, [place])[0])
    return total_s


@settings(max_examples=60)
@given(st.data())
def test_batches_of_images_that_differ_or_recur_take_what_plain_formulas_say(data):
    net = data.draw(architectures())
    executor = data.draw(st.sampled_from(EXECUTORS))
    images = 1 if executor == "capacity" else data.draw(st.integers(1, 3))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    shape = (data.draw(st.integers(1, 12)), images, net.recursions)
    # Prefix tokens never leave.
    counts = -np.sort(-random.integers(net.prefix_tokens, net.tokens + 1, size=shape), axis=2)
    # Batches need not be a multiple of the images that stand for them.
    sizes = random.integers(1, 4, size=len(counts))
    points = random.normal(1.0, 1.5, size=(9, len(FEATURES)))
    known = discrepancy_of([*map(tuple, points)], random.normal(0, 0.1, 9), np.full(9, 0.02))
    asked = Asked(
        net=net, precision="fp32", executor=executor, coefficients=LAW, discrepancy=known,
        machine=machine(ahead=data.draw(st.booleans())), **data.draw(ways),
    )  # fmt: skip
    together = batches_s(asked, counts, sizes)
    for own, size, seconds in zip(counts, sizes, together, strict=True):
        assert seconds == pytest.approx(plain_s(asked, own, size), rel=1e-10)


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


@given(st.integers(0, 999), st.integers(2, 40), st.integers(1, 20))
def test_images_of_equal_length_share_a_call_however_many_there_are(seed, images, batches):
    random = np.random.default_rng(seed)
    net = workload().architecture
    drawn = random.integers(0, min(net.tokens, 12), size=(batches, images, net.recursions))
    counts = -np.sort(-drawn, axis=2)
    counts[0, 0], counts[0, 1] = 1, 2  # so that not all are alike
    loads = loads_of_batches(counts, np.full(batches, images), "packed", net)
    for recursion, load in enumerate(loads.recursions):
        own = counts[:, :, recursion]
        lengths = [len(set(row.tolist()) - {0}) for row in own]
        assert np.broadcast_to(load.attention_calls, batches).tolist() == lengths
        assert np.broadcast_to(load.squares, batches).tolist() == (own**2).sum(axis=1).tolist()
        assert np.broadcast_to(load.images, batches).tolist() == (own > 0).sum(axis=1).tolist()


def test_a_static_executor_refuses_images_that_differ():
    net = workload().architecture
    uneven = np.array([[[2] * net.recursions, [1] * net.recursions]])
    with pytest.raises(ValueError, match="as many tokens of every image"):
        loads_of_batches(uneven, np.array([2]), "capacity", net)
