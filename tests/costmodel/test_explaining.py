"""Explanations add up to what they explain; comparisons are probabilities."""

import json
import subprocess
import sys

import pytest

from costmodel.explaining import (
    batch_percentiles,
    beats,
    bound_shares,
    break_even_share,
    by_stage_and_operator,
    executors_compared,
    ranked,
    what_ifs,
)
from costmodel.transfer import forecast
from domain.catalogue import devices, model_named
from domain.routing import RoutingDistribution
from domain.store import stored_fits
from domain.workload import Workload

FITS = stored_fits()
L4 = devices()["l4"]
NET = model_named("morvit-small")


def asked(survival=(1, 0.6, 0.3), **changes):
    routing = RoutingDistribution.from_survival(survival, NET.tokens)
    return Workload(
        **{"architecture": NET, "batch": 8, "precision": "fp16", "routing": routing, **changes}
    )


def test_operators_add_up_to_the_batch_and_bounds_to_one():
    answer = forecast(asked(), L4, FITS)
    rows = by_stage_and_operator(answer)
    assert sum(row["latency_ms"] for row in rows) == pytest.approx(answer.latency_s.value * 1e3)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert sum(bound_shares(answer).values()) == pytest.approx(1)
    assert len({(row["stage"], row["operator"]) for row in rows}) == len(rows)


def test_better_hardware_never_takes_longer():
    rows = {row["change"]: row["latency_change"] for row in what_ifs(asked(), L4, FITS)}
    for name in ("twice the memory bandwidth", "twice the arithmetic peak", "twice the cache"):
        assert -0.51 < rows[name] <= 1e-12, name


def test_packing_pays_when_few_tokens_stay():
    share = break_even_share(asked(batch=64), L4, FITS)
    assert share is not None
    assert 0 < share <= 1
    rows = {
        row["executor"]: row["latency_ms"]
        for row in executors_compared(asked((0.3, 0.2, 0.1), batch=64), L4, FITS)
    }
    assert rows["packed"] < rows["masked"]


def test_batches_of_different_images_have_a_tail_and_of_equal_ones_none():
    even = batch_percentiles(asked(), L4, FITS)
    assert even["p99"] == pytest.approx(even["p50"], rel=0.02)
    tokens = NET.tokens
    mixed = RoutingDistribution(tokens=tokens, counts=((tokens,) * 3, (1, 1, 1)))
    # At batch 1 an image is a batch: half of them take the whole, half nearly nothing.
    torn = batch_percentiles(asked(routing=mixed, batch=1), L4, FITS)
    assert torn["p99"] >= torn["p95"] >= torn["p50"]
    apart = batch_percentiles(asked(routing=mixed, batch=32), L4, FITS)
    assert apart["p99"] > apart["p50"]


def test_the_faster_device_beats_the_slower_with_more_than_one_half():
    one, other = (forecast(asked(), devices()[name], FITS) for name in ("a100-sxm-80", "t4"))
    assert beats(one, other) + beats(other, one) == pytest.approx(1)
    rows = ranked([other, one])
    assert [row["device_id"] for row in rows] == ["a100-sxm-80", "t4"]
    assert rows[0]["beats_next"] > 0.5
    assert rows[1]["beats_next"] is None


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "costmodel.predict", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_explains_and_compares():
    told = command("--explain", "--device", "l4", "--routing", "1,0.6,0.3", "--format", "json")
    assert told.returncode == 0, told.stderr
    assert {"by_operator", "what_if", "packing_break_even_share"} <= set(json.loads(told.stdout))
    for shape in ("table", "md", "csv"):
        assert command("--explain", "--device", "l4", "--format", shape).returncode == 0
    order = command("--compare", "a100,l4,jetson-orin", "--format", "json")
    assert [row["rank"] for row in json.loads(order.stdout)] == [1, 2, 3]
    for wrong in ("a100", "a100,a100", "a100,nobody"):
        assert command("--compare", wrong).returncode == 2
