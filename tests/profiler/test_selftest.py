import math
import os
import threading
import time

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.measurement import Measurement
from domain.record import Unknown
from profiler.clock import CLOCKS, RealClock
from profiler.interference import spinning_processes, spinning_thread
from profiler.messages import Task, failed
from profiler.protocol import SETTINGS
from profiler.selftest import (
    SIDES,
    Check,
    SelfTest,
    aa_check,
    aa_plan,
    harness_checks,
    median_interval,
    rows_of,
    within,
)
from profiler.splitting import splits_of
from profiler.subjects import subject_of
from tests.profiler.networks import ENVIRONMENT, RATES, forced

counts = st.integers(min_value=1, max_value=500)
values = st.lists(st.floats(min_value=-1e3, max_value=1e3), min_size=1, max_size=80)


@given(values)
def test_the_interval_of_a_median_holds_it_and_the_series_holds_the_interval(series):
    seen = median_interval(series, draws=200)
    assert min(series) <= seen.low <= seen.value <= seen.high <= max(series)


def test_the_interval_of_a_median_holds_the_truth_as_often_as_it_says_also_where_noise_drifts():
    random = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        steps = random.normal(size=400)
        drifting = [steps[0]]
        for step in steps[1:]:
            drifting.append(0.5 * drifting[-1] + step)
        seen = median_interval(drifting, draws=400, seed=trial)
        held += seen.low <= 0.0 <= seen.high
    assert held / 200 > 0.85


def test_a_check_passes_only_where_its_whole_interval_does():
    assert within("x", [0.009] * 30, 0.01).passed
    assert not within("x", [0.011] * 30, 0.01).passed
    assert not within("x", [-0.011] * 30, 0.01).passed
    assert not within("x", [0.0, 0.2] * 15, 0.15).passed


def test_each_real_pair_is_one_point_under_two_names():
    plan = aa_plan(20, 5)
    sides = [[point for point in plan.points if point.id.endswith(f"-{side}")] for side in SIDES]
    assert [len(side) for side in sides] == [20, 20]
    for one, other in zip(*sides, strict=True):
        assert one.id.removesuffix("-a") == other.id.removesuffix("-b")
        assert {**dict(one), "id": ""} == {**dict(other), "id": ""}
    assert len({point.model_copy(update={"id": "x"}).key() for point in sides[0]}) == 20


def records(slower: float) -> list[Measurement]:
    """Three runs of three pairs, of which every b is slower by a share; 0.1 % apart otherwise."""
    random = np.random.default_rng(1)
    made = []
    for point in aa_plan(3, 3).points:
        for run in (1, 2, 3):
            blank = failed(
                Task(
                    point=point, run=run, session="s", seed=0, settings=SETTINGS["quick"],
                    environment=ENVIRONMENT, rates=RATES,
                ),
                "failed",
                "blank",
            )  # fmt: skip
            level = (1 + slower * point.id.endswith("-b")) * (1 + 0.001 * random.normal())
            samples = tuple(float(one) for one in level * (1 + 0.01 * random.normal(size=50)))
            fields = {"status": "ok", "reason": "", "samples_s": samples}
            made.append(Measurement(**{**dict(blank), **fields, "calibration_s": (1.0,) * 50}))
    return made


def test_pairs_that_differ_fail_the_check_and_pairs_that_do_not_pass_it():
    alike, _ = aa_check(records(slower=0.0))
    apart, verdicts = aa_check(records(slower=0.2))
    assert alike.passed
    assert not apart.passed
    assert {verdict.verdict for verdict in verdicts.points} == {"SLOWER"}


def test_pairs_that_could_not_be_judged_are_not_passed():
    spoiled = [
        Measurement(**{**dict(one), "status": "contended", "reason": "a hog"})
        for one in records(slower=0.0)
    ]
    check, _ = aa_check(spoiled)
    assert not check.passed
    assert isinstance(check.seen, Unknown)
    assert "a hog" in check.seen.reason


def test_the_harness_costs_something_and_less_than_a_pass_of_a_millisecond():
    idle, busy = harness_checks(lambda: None, most_s=0.3)
    assert idle.samples > busy.samples > 10
    for check in (idle, busy):
        assert not isinstance(check.seen, Unknown)
        # A relation that holds on any machine: the harness asks the clock, nothing more.
        assert 0.0 < check.seen.value < 1.0


class ToldClock(RealClock):
    """Time is what passes are said to take, and a microsecond for each look at it."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def now_s(self) -> float:
        self.time_s += 1e-6
        return self.time_s

    host_s = now_s


def test_pairs_in_both_orders_cancel_what_the_order_does(monkeypatch):
    clock, shown = ToldClock(), []
    subject = subject_of(forced(), "cpu", 0)

    def run(_, index, mark=None):
        # The second pass on a batch takes half as long; splitting costs a tenth, and has two parts.
        is_again = shown[-1:] == [index]
        shown.append(index)
        whole_s = 0.002 * (0.5 if is_again else 1.0) * (1.1 if mark else 1.0)
        for stage in ("first", "second"):
            clock.time_s += whole_s / 2
            if mark:
                mark(stage)

    monkeypatch.setattr(type(subject), "run", run)
    monkeypatch.setitem(CLOCKS, "cpu", lambda: clock)
    seen = splits_of(subject, "cpu", 41)
    assert len(seen.log_ratios) == 20
    assert seen.log_ratios == pytest.approx([math.log(1.1)] * 20, rel=0.05)
    assert len(seen.rests) == 40
    assert all(0.0 < rest < 0.01 for rest in seen.rests)


def test_a_spinning_thread_takes_the_time_of_its_own_process_and_ends():
    threads, used_s, mine_s = threading.active_count(), time.process_time(), time.thread_time()
    with spinning_thread():
        while time.process_time() - used_s < 0.2:
            time.sleep(0.01)
    assert time.thread_time() - mine_s < time.process_time() - used_s
    assert threading.active_count() == threads


def test_busy_neighbours_are_there_one_a_core_and_gone_afterwards():
    before = set(psutil.Process().children())
    with spinning_processes():
        during = set(psutil.Process().children()) - before
    assert len(during) == len(os.sched_getaffinity(0))
    assert set(psutil.Process().children()) == before


def test_a_table_of_checks_says_which_failed_and_why_there_is_no_figure():
    passed = within("harness", [0.001] * 9, 0.02)
    found = Check(
        name="hog", bar="yes", seen=Unknown(reason="ok: nothing seen"), samples=3, passed=False
    )
    tested = SelfTest(
        taken_at="2026-01-01T00:00:00Z", is_quick=True, environment=ENVIRONMENT,
        source_commit="unknown", checks=(passed, found),
    )  # fmt: skip
    rows = rows_of(tested)
    assert [row["verdict"] for row in rows] == ["PASS", "FAIL"]
    assert rows[0]["seen"] == "0.10%"
    assert rows[1]["note"] == "ok: nothing seen"
    assert not tested.has_passed
    assert SelfTest.model_validate_json(tested.model_dump_json()) == tested
