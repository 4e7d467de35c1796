"""Load tests as sessions: a worker in virtual time, and the real one on a small network."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from domain.complaint import UNSTABLE, AllFailed
from domain.loadtest import (
    Batching,
    LatencyPromise,
    LoadResult,
    LoadScenario,
    LoadSeeds,
    LoadSummary,
)
from domain.measurement import PlannedPoint
from domain.record import Unknown
from domain.store import load, read_records, read_trace
from profiler.commands.loading import _conclude
from profiler.load_evidence import in_figures, percentile_s
from profiler.load_worker import DeployedServer, trial
from profiler.loading import (
    LOAD_JOURNAL,
    LOAD_ROUTING,
    LOAD_SUMMARY,
    POOL_IMAGES,
    LoadSession,
    LoadTask,
    failed_load,
    load_tested,
)
from profiler.messages import Preparation, Source
from profiler.protocol import SETTINGS
from profiler.session import Stop
from profiler.subjects import subject_of
from profiler.telemetry import AbsentMeter
from tests.profiler.networks import ENVIRONMENT, RATES, network
from tests.profiler.test_commands import profiler

FAKE = (sys.executable, "-m", "tests.profiler.fake_load_worker")
POINT = PlannedPoint(
    id="load", architecture=network(), weights="random", batch=1, routing_source="real-images"
)
SEEDS = LoadSeeds(arrivals=1, images=1)


def session(**changed: Any) -> LoadSession:
    fields: dict[str, Any] = {
        "id": "load-1",
        "started_at": "2026-01-01T00:00:00Z",
        "scenario": "server",
        "point": POINT,
        "seeds": SEEDS,
        "images_per_query": 1,
        "batching": Batching(most_batch=1),
        "seconds": 60.0,
        "settings": SETTINGS["quick"],
        "preparation": Preparation(kind="cpu", threads=1),
        "environment": ENVIRONMENT,
        "rates": RATES,
    }
    return LoadSession(**{**fields, **changed})


def ran(folder: Path, *arguments: str, **changed: Any) -> LoadSummary:
    return load_tested(
        session(**changed),
        folder,
        stop=Stop(),
        report=lambda _: None,
        command=(*FAKE, *arguments),
    )


def test_the_highest_rate_is_that_of_the_queue(tmp_path: Path) -> None:
    # One server, 10 ms each: 90 % wait for less than 20 ms up to a load of about 0.61 (M/D/1).
    promise = LatencyPromise(latency_s=0.030, share=0.9)
    summary = ran(tmp_path, promise=promise)
    assert isinstance(summary.most_per_s, float)
    assert 50 < summary.most_per_s < 72
    assert isinstance(summary.within, float)
    assert summary.within <= 0.05
    assert summary.trials[0].scenario == "offline"
    assert summary.trials[0].verdict is None
    rates = [trial.asked_per_s for trial in summary.trials[1:4]]
    assert rates == pytest.approx([12.5, 25.0, 50.0])
    assert load(tmp_path / LOAD_SUMMARY, LoadSummary) == summary


def test_a_promise_below_the_service_time_is_kept_at_no_rate(tmp_path: Path) -> None:
    summary = ran(tmp_path, promise=LatencyPromise(latency_s=0.009, share=0.9))
    assert isinstance(summary.most_per_s, Unknown)
    assert "no rate was VALID" in summary.most_per_s.reason
    assert {trial.verdict.verdict for trial in summary.trials[1:] if trial.verdict} == {"INVALID"}
    assert exit_code(summary) == 7


def test_a_search_begins_where_a_trial_can_be_judged(tmp_path: Path) -> None:
    # p99 wants 662 queries, a trial of ten seconds may last thirty: from 22 per second on.
    promise = LatencyPromise(latency_s=0.050, share=0.99)
    summary = ran(tmp_path, promise=promise, seconds=10.0)
    assert summary.trials[1].asked_per_s == pytest.approx(662 / 30)
    assert isinstance(summary.most_per_s, float)


def test_trials_too_short_to_judge_are_no_broken_promise(tmp_path: Path) -> None:
    promise = LatencyPromise(latency_s=0.050, share=0.99)
    summary = ran(tmp_path, promise=promise, seconds=1.0)
    assert isinstance(summary.most_per_s, Unknown)
    assert exit_code(summary) == UNSTABLE


def test_every_trial_is_in_the_journal_with_every_query(tmp_path: Path) -> None:
    summary = ran(tmp_path, rate_per_s=50.0)
    (result,) = read_records(tmp_path / LOAD_JOURNAL, LoadResult)
    assert len(result.arrivals_s) == result.served == 3000
    assert min(result.latencies_s) >= 0.0099999
    assert summary.trials == (in_figures(result),)
    assert read_trace(tmp_path / LOAD_ROUTING) == result.workload.routing


def test_a_trial_that_was_always_disturbed_is_no_evidence_against_the_device(
    tmp_path: Path,
) -> None:
    summary = ran(tmp_path, "busy", promise=LatencyPromise(latency_s=0.030, share=0.9))
    assert [trial.status for trial in summary.trials] == ["ok", *["contended"] * 3]
    assert isinstance(summary.most_per_s, Unknown)
    assert "nothing could be judged; the last trial was contended" in summary.most_per_s.reason
    assert exit_code(summary) == 3


def exit_code(summary: LoadSummary) -> int:
    with pytest.raises(typer.Exit) as exit:
        _conclude(summary, was_search=True)
    return exit.value.exit_code


def test_a_disturbed_trial_is_repeated(tmp_path: Path) -> None:
    promise = LatencyPromise(latency_s=0.030, share=0.9)
    summary = ran(tmp_path, "restless", promise=promise)
    statuses = [trial.status for trial in summary.trials]
    assert statuses[:4] == ["ok", "contended", "contended", "ok"]
    assert isinstance(summary.most_per_s, float)


def test_a_worker_that_dies_leaves_its_trials_and_a_reason(tmp_path: Path) -> None:
    promise = LatencyPromise(latency_s=0.030, share=0.9)
    summary = ran(tmp_path, "die", promise=promise)
    assert [trial.status for trial in summary.trials] == ["ok", "failed", "failed", "failed"]
    assert isinstance(summary.most_per_s, Unknown)
    assert "SIGKILL" in summary.most_per_s.reason


def test_a_single_trial_that_fails_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(AllFailed, match="SIGKILL"):
        ran(tmp_path, "die", rate_per_s=5.0)
    assert read_records(tmp_path / LOAD_JOURNAL, LoadResult)[0].status == "failed"


def test_an_overload_has_no_percentiles_and_says_what_was_given_up(tmp_path: Path) -> None:
    summary = ran(tmp_path, rate_per_s=400.0, seconds=60.0)
    (figures,) = summary.trials
    assert figures.unserved > 0
    assert isinstance(figures.median_s, Unknown)
    assert isinstance(figures.p99_s, Unknown)
    assert "given up" in figures.p99_s.reason
    assert figures.images_per_s == pytest.approx(100.0)


def test_a_percentile_needs_its_queries(tmp_path: Path) -> None:
    ran(tmp_path, rate_per_s=1.0, seconds=40.0)
    (result,) = read_records(tmp_path / LOAD_JOURNAL, LoadResult)
    assert percentile_s(result, 0.9) == Unknown(reason="n/a (needs 64, have 40)")
    assert isinstance(percentile_s(result, 0.5), float)


@pytest.mark.parametrize(
    "wrong",
    [
        {"started_s": (0.0, 1.0), "done_s": (1.5, 2.0)},  # starts before the last was done
        {"arrivals_s": (0.5, 0.6)},  # starts before its query came
        {"arrivals_s": (0.6, 0.0)},
        {"arrivals_s": (0.0,)},  # more served than came
        {"done_s": (1.0,)},
        {"done_s": (), "started_s": (), "batch_queries": ()},
        {"status": "contended"},
    ],
)
def test_a_result_out_of_the_order_of_time_is_refused(wrong):
    good = {
        **dict(failed_load(task("offline"), "failed", "blank")),
        "status": "ok",
        "reason": "",
        "arrivals_s": (0.0, 0.0),
        "batch_queries": (1, 1),
        "started_s": (0.0, 1.0),
        "done_s": (1.0, 2.0),
    }
    LoadResult(**good)
    with pytest.raises(ValueError, match="want"):
        LoadResult(**{**good, **wrong})


def task(scenario: LoadScenario, **changed: Any) -> LoadTask:
    fields: dict[str, Any] = {
        "scenario": scenario,
        "point": POINT,
        "trial": 1,
        "session": "load-1",
        "seeds": SEEDS,
        "images_per_query": 1,
        "batching": Batching(most_batch=1),
        "seconds": 0.2,
        "settings": SETTINGS["quick"],
        "environment": ENVIRONMENT,
        "rates": RATES,
    }
    return LoadTask(**{**fields, **changed})


@pytest.mark.parametrize(
    ("scenario", "changed"),
    [
        ("single-stream", {}),
        ("multi-stream", {"images_per_query": 8}),
        ("server", {"rate_per_s": 100.0, "queries": 30, "batching": Batching(most_batch=4)}),
        ("offline", {"batching": Batching(most_batch=16)}),
    ],
)
def test_the_real_network_serves_every_scenario(scenario, changed):
    asked = task(scenario, **changed)
    result = trial(asked, "cpu", AbsentMeter(reason="none"), Source())
    assert result.unserved == 0
    assert result.rerouted == 0
    images = result.served * result.images_per_query
    assert result.workload.routing.images == min(images, POOL_IMAGES)
    assert result.relaxed
    assert not isinstance(result.conditions, Unknown)
    if scenario == "server":
        assert len(result.arrivals_s) == 30
        assert result.arrivals_s[0] == 0


@torch.inference_mode()
def test_images_are_shown_in_rotation_and_their_counts_kept():
    pool = PlannedPoint(**{**dict(POINT), "batch": POOL_IMAGES})
    subject = subject_of(pool, "cpu", 1)
    server = DeployedServer(subject, "cpu", images_per_query=3, most=12)
    server.begin(100)
    first = 0
    for count in (1, 4, 2, 4, 4, 3) * 5:
        server.run(first, count)
        first += count
    routing, rerouted = server.routed(3 * first)
    assert 3 * first > POOL_IMAGES
    assert routing.counts == subject.counts
    assert rerouted == 0
    server._counts[POOL_IMAGES] += 1
    assert server.routed(3 * first)[1] == 1


def test_the_command_serves_at_a_rate_and_stores_what_it_saw(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = profiler(
        "load", "--scenario", "server", "--qps", "20", "--seconds", "2", "--threads", "1",
        "--device", "cpu", "--latency-ms", "100000", "--out", str(out), "--format", "json",
    )  # fmt: skip
    (row,) = json.loads(done.stdout)
    assert done.returncode == 3, done.stderr  # 40 queries are too few for a 99th percentile
    assert row["queries"] == 40
    assert row["p90_ms"] == "n/a (needs 64, have 40)"
    if row["status"] in ("ok", "unstable"):
        assert (row["verdict"], row["queries_more"]) == ("INVALID", 419)
    (result,) = read_records(out / LOAD_JOURNAL, LoadResult)
    assert result.served == 40
    assert math.isfinite(result.images_per_s)
    again = profiler("load", "--scenario", "offline", "--out", str(out))
    assert again.returncode == 2
    assert "already holds a session" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scenario", "server"), "wants --qps"),
        (("--scenario", "offline", "--qps", "5"), "--qps means nothing to offline"),
        (("--scenario", "servr"), "nearest: server"),
        (("--scenario", "server", "--qps", "1000000"), "queries at most"),
        (("--executor", "magic"), "executor 'magic' is not built; there are"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(arguments, said):
    done = profiler("load", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
