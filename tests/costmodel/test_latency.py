"""Laws of seconds."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.latency import (
    GRAIN,
    TILES,
    arithmetic_s,
    group_s,
    launch_s,
    prior,
    shares_s,
    tiled,
)
from costmodel.operators import Operator
from costmodel.work import Machine, Rates, Work, groups_of
from domain.architecture import Architecture
from domain.routing import RoutingDistribution
from domain.workload import Workload
from tests.costmodel.strategies import machines, workloads

MACHINES = machines()
COEFFICIENTS = {name: median for name, (median, _) in prior("gpu").items()}


def seconds_of(groups, machine, coefficients=COEFFICIENTS):
    work, rates = Work.of(groups), Rates.of([machine] * len(groups))
    return float(group_s(work, rates, coefficients).sum())


@given(workloads(), MACHINES, st.sampled_from(["flop", "moved_bytes", "weight_bytes", "calls"]))
def test_more_work_never_costs_less(workload, machine, kind):
    groups = groups_of(workload, host_runs_ahead=machine.host_runs_ahead)
    # A call more is a whole one: with the FLOP and bytes of the others.
    kinds = ("calls", "flop", "weight_bytes", "moved_bytes") if kind == "calls" else (kind,)
    heavier = tuple(
        tuple(
            replace(each, **{name: getattr(each, name) * 1.5 for name in kinds}) for each in group
        )
        for group in groups
    )
    assert seconds_of(heavier, machine) >= seconds_of(groups, machine) * (1 - 1e-12)


@given(workloads(), MACHINES)
def test_twice_the_rates_take_half_the_time_without_launches(workload, machine):
    faster = replace(
        machine,
        peak_flop_per_s=2 * machine.peak_flop_per_s,
        memory_bytes_per_s=2 * machine.memory_bytes_per_s,
    )
    free = {name: 1e-30 if name.endswith("_s") else value for name, value in COEFFICIENTS.items()}
    groups = groups_of(workload, host_runs_ahead=machine.host_runs_ahead)
    assert seconds_of(groups, faster, free) == pytest.approx(seconds_of(groups, machine, free) / 2)


@given(workloads(), MACHINES)
def test_parts_add_up_to_the_whole(workload, machine):
    groups = groups_of(workload, host_runs_ahead=machine.host_runs_ahead)
    parts = math.fsum(seconds for _, seconds, _ in shares_s(groups, machine, COEFFICIENTS))
    assert parts == pytest.approx(seconds_of(groups, machine))


@given(st.integers(1, 6), st.data(), MACHINES, st.integers(1, 8))
def test_one_recursion_costs_what_the_plain_network_costs(depth, data, machine, batch):
    before = data.draw(st.integers(0, depth - 1))
    after = data.draw(st.integers(0, depth - 1 - before))
    plain = Architecture.plain(
        name="toy", depth=depth, width=16, heads=2, image_size=16, patch_size=4
    )
    split = Architecture(
        **{
            **plain.model_dump(),
            "layers_before": before,
            "shared_layers": depth - before - after,
            "layers_after": after,
        }
    )
    assert split.parameters == plain.parameters
    routing = RoutingDistribution.full(plain.tokens, 1)
    one, other = (
        seconds_of(
            groups_of(
                Workload(architecture=net, batch=batch, routing=routing),
                host_runs_ahead=machine.host_runs_ahead,
            ),
            machine,
        )
        for net in (plain, split)
    )
    assert one == pytest.approx(other)


@given(workloads(), MACHINES)
def test_no_group_is_faster_than_its_launches(workload, machine):
    groups = groups_of(workload, host_runs_ahead=machine.host_runs_ahead)
    work = Work.of(groups)
    host = np.bincount(work.group, launch_s(work, COEFFICIENTS), work.groups)
    whole = group_s(work, Rates.of([machine] * len(groups)), COEFFICIENTS)
    assert (whole >= host * (1 - 1e-12)).all()


@given(st.floats(1, 1e7), st.integers(2, 64), st.sampled_from(["activation", "residual"]))
def test_a_thread_is_given_no_less_than_a_grain_of_an_element_wise_operator(
    elements, threads, name
):
    operator = Operator(
        stage="prologue", name=name, family="elementwise", moved_bytes=8 * elements, rows=elements
    )
    whole = Machine(peak_flop_per_s=1e11, memory_bytes_per_s=2e10, units=1.0, host_runs_ahead=False)
    one = replace(whole, memory_bytes_per_s=2e10 / threads)
    free = {name: 1e-30 if name.endswith("_s") else value for name, value in COEFFICIENTS.items()}
    whole_s, one_s, split_s = (
        seconds_of([(operator,)], machine, free)
        for machine in (whole, one, replace(whole, units=float(threads)))
    )
    assert whole_s * (1 - 1e-9) <= split_s <= one_s * (1 + 1e-9)
    if elements <= GRAIN:
        assert split_s == pytest.approx(one_s)
    if elements >= GRAIN * threads:
        assert split_s == pytest.approx(whole_s)


sizes = st.integers(1, 40_000).map(float)
halves = st.floats(0, 200)


@given(sizes, sizes, st.integers(1, 200).map(float), halves, halves, st.floats(1, 4))
def test_more_rows_or_columns_never_take_less_time_in_tiles(
    rows, columns, units, rows_half, columns_half, more
):
    def time(*size):
        return (
            size[0]
            * size[1]
            * float(tiled(*map(np.array, size), np.array(units), rows_half, columns_half))
        )

    here = time(rows, columns)
    assert time(rows * more, columns) >= here * (1 - 1e-12)
    assert time(rows, columns * more) >= here * (1 - 1e-12)


@given(sizes, sizes, st.integers(1, 200).map(float), halves, halves)
def test_tiles_never_beat_the_rate_and_reach_it_where_they_are_many(
    rows, columns, units, rows_half, columns_half
):
    halved = (rows_half, columns_half)
    best = min((1 + rows_half / r) * (1 + columns_half / c) for r, c in TILES)
    assert float(tiled(*map(np.array, (rows, columns, units)), *halved)) >= best * (1 - 1e-12)
    # A thousand full waves of the largest tiles: neither padding nor the last wave is left.
    full = tuple(map(np.array, (256.0 * units * 1000, 256.0, units)))
    assert float(tiled(*full, *halved)) == pytest.approx(best)


def test_a_wave_begun_is_waited_for():
    """108 multiprocessors: 108 tiles of 256 x 128 in one wave, one tile more in a second."""
    one, more = (
        float(tiled(np.array(256.0), np.array(128.0 * tiles), np.array(108.0), 200.0, 200.0))
        * tiles
        for tiles in (108, 109)
    )
    assert more > 1.2 * one


@given(st.integers(1, 256), MACHINES)
def test_attention_pads_heads_on_a_gpu_and_a_cpu_does_not(width, machine):
    def seconds(head, in_tiles):
        # FLOP for each number of a head.
        own = Operator(
            stage="block", name="attention", family="attention", flop=1e9 * head, rows=64.0,
            inner=float(head), columns=200.0,
        )  # fmt: skip
        rates = Rates.of([replace(machine, in_tiles=in_tiles)])
        return float(arithmetic_s(Work.of([[own]]), rates, COEFFICIENTS)[0])

    step = 32 if width <= 128 else 64
    padded = math.ceil(width / step) * step
    assert seconds(width, True) == pytest.approx(seconds(padded, True))
    assert seconds(width, False) / width == pytest.approx(seconds(padded, False) / padded)
