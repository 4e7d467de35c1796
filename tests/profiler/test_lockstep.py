import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from domain.lockstep import LockstepRun
from domain.measurement import MeasuringPlan
from domain.store import read_records, save
from profiler.alternating import alternated
from profiler.comparison import Terms
from profiler.lockstep import (
    JOURNAL,
    Contest,
    LockstepTask,
    Side,
    all_judged,
    contested,
    difference_of,
    judged_runs,
    not_run,
)
from profiler.lockstep_trials import real_checks, replayed_checks, trial, trial_pairs
from profiler.messages import Preparation
from profiler.protocol import SETTINGS, Settings
from profiler.quartets import error_of, log_ratios, median_and_error, quartets
from profiler.selftest import aa_plan
from profiler.session import Stop
from profiler.subjects import CannotRun
from profiler.telemetry import AbsentMeter
from tests.profiler.networks import ENVIRONMENT, forced
from tests.profiler.test_commands import profiler

FAKE = (sys.executable, "-m", "tests.profiler.fake_alternator")
METER = AbsentMeter(reason="no meter")
SHORT = Settings(
    **{
        **dict(SETTINGS["quick"]),
        "least_warmup_s": 0.01,
        "most_warmup_s": 0.05,
        "least_s": 0.05,
        "most_s": 0.2,
        "retries": 0,
    }
)
seconds = st.floats(1e-4, 1.0)


def task(before: Side, after: Side, *, run: int = 1, after_first: bool = False) -> LockstepTask:
    return LockstepTask(
        before=before,
        after=after,
        after_first=after_first,
        run=run,
        session="s1",
        seed=0,
        settings=SHORT,
        environment=ENVIRONMENT,
    )


def run_of(before_s, after_s, run=1, batches=(8, 8)):
    sides = [Side(point=forced(id, batch=n)) for id, n in zip("ab", batches, strict=True)]
    blank = dict(not_run(task(*sides, run=run), "failed", "blank"))
    timed = {"status": "ok", "reason": "", "before_s": before_s, "after_s": after_s}
    return LockstepRun(**{**blank, **timed})


def noisy_runs(ratio: float, sd: float, seed: int = 0, runs: int = 5) -> list[LockstepRun]:
    random = np.random.default_rng(seed)
    return [
        run_of(
            tuple(0.01 * np.exp(random.normal(0, sd, 40))),
            tuple(0.01 * ratio * np.exp(random.normal(0, sd, 40))),
            run,
        )
        for run in range(1, runs + 1)
    ]


@given(one=seconds, other=seconds, drift=st.floats(-1e-3, 1e-3), second=st.floats(-0.2, 0.2))
def test_a_steady_drift_and_what_being_second_does_cancel_in_every_quartet(
    one, other, drift, second
):
    turn = iter(range(10**6))

    def timed(base):
        def at(place):
            now = next(turn)
            # What comes second on a place finds it warm, by so much.
            return base * math.exp(drift * now + second * (now % 2))

        return at

    ones, others = quartets(timed(one), timed(other), lambda a, _: len(a) >= 12)
    assert len(ones) == len(others) == 12
    assert log_ratios(ones, others) == pytest.approx([math.log(other / one)] * 6, abs=1e-9)


def test_both_see_the_same_places_in_order():
    seen = {"one": [], "other": []}

    def at(name):
        return lambda place: seen[name].append(place) or 1.0

    quartets(at("one"), at("other"), lambda a, _: len(a) >= 6)
    assert seen == {"one": [0, 1, 2, 3, 4, 5], "other": [0, 1, 2, 3, 4, 5]}


@given(st.lists(st.tuples(seconds, seconds), min_size=7, max_size=40))
def test_changing_places_changes_the_sign_and_nothing_else(pairs):
    pairs = pairs[: len(pairs) // 2 * 2]
    ones, others = zip(*pairs, strict=True)
    forth, back = median_and_error(ones, others), median_and_error(others, ones)
    assert back[0] == pytest.approx(-forth[0], abs=1e-12)
    if len(pairs) >= 12:
        assert back[1] == pytest.approx(forth[1], abs=1e-12)


def test_the_error_of_a_median_is_what_scatter_of_medians_shows():
    random = np.random.default_rng(0)
    drawn = random.normal(size=(2000, 60))
    assert np.mean([error_of(row) for row in drawn]) == pytest.approx(
        np.median(drawn, axis=1).std(), rel=0.1
    )


@given(
    st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=10),
    st.floats(0.0, 0.05),
)
def test_runs_together_are_a_t_interval_never_narrower_than_each_run_is_known(values, error):
    terms = Terms(level=0.95)
    seen = difference_of([(value, error) for value in values], terms)
    spread = max(np.std(values, ddof=1), error)
    reach = stats.t.ppf(0.975, len(values) - 1) * spread / math.sqrt(len(values))
    assert seen.log_ratio == pytest.approx(np.mean(values), abs=1e-12)
    assert seen.half_width == pytest.approx(reach, abs=1e-12)


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.0, "SAME"), (1.05, "SLOWER"), (1 / 1.05, "FASTER"), (1.01, "SAME")]
)
def test_the_verdict_is_on_the_ratio(ratio, verdict):
    seen = judged_runs(noisy_runs(ratio, 0.02), Terms())
    assert seen.verdict == verdict
    assert seen.ratio.low < ratio < seen.ratio.high


def test_batches_of_other_sizes_are_compared_by_the_image():
    twice = [run_of((0.01,) * 20, (0.02,) * 20, run, batches=(8, 16)) for run in (1, 2, 3)]
    seen = judged_runs(twice, Terms())
    assert seen.ratio.value == pytest.approx(1.0)
    assert "of an image" in seen.evidence


def test_too_few_usable_runs_are_no_verdict():
    runs = noisy_runs(1.0, 0.02, runs=3)
    lost = not_run(task(Side(point=forced("a")), Side(point=forced("b"))), "oom", "no room")
    seen = judged_runs([*runs[:2], lost], Terms())
    assert seen.verdict == "INVALID"
    assert "no room" in seen.evidence


def test_half_a_quartet_is_no_record():
    with pytest.raises(ValueError, match="quartets"):
        run_of((1.0,), (1.0,))
    with pytest.raises(ValueError, match="quartets"):
        run_of((1.0, 1.0), (1.0,))


@pytest.mark.parametrize("after_first", [False, True])
def test_a_slowdown_lands_on_the_side_that_has_it(after_first):
    point = forced("a")
    slow = Side(point=point.model_copy(update={"id": "b"}), slowdown=1.0)
    record = alternated(task(Side(point=point), slow, after_first=after_first), "cpu", METER)
    assert record.after_first == after_first
    # How many fit into the time, and how even they are, is the machine's affair.
    assert len(record.before_s) == len(record.after_s) >= 2
    ratio = math.exp(median_and_error(record.before_s, record.after_s)[0])
    assert ratio > 1.1


def test_two_checkpoints_executors_or_batches_may_be_the_sides():
    sides = Side(point=forced("a")), Side(point=forced("b", executor="masked", batch=2))
    record = alternated(task(*sides), "cpu", METER)
    assert (record.before.executor, record.after.executor) == ("packed", "masked")
    assert record.before_weights.startswith("random")
    assert len(record.before_s) == len(record.after_s)


def test_a_process_cannot_round_products_and_not(monkeypatch):
    rounded = forced("b").model_copy(update={"precision": "tf32"})
    with pytest.raises(CannotRun, match="tf32"):
        alternated(task(Side(point=forced("a")), Side(point=rounded)), "cuda", METER)


def contest(*pairs: tuple[Side, Side], runs: int = 3) -> Contest:
    return Contest(
        session="s1",
        pairs=pairs,
        settings=Settings(**{**dict(SHORT), "runs": runs}),
        seed=0,
        preparation=Preparation(kind="cpu", threads=1),
        environment=ENVIRONMENT,
    )


def test_every_run_of_every_pair_is_in_the_journal_and_a_death_costs_one_record(tmp_path):
    good = Side(point=forced("a")), Side(point=forced("b"))
    deadly = Side(point=forced("a")), Side(point=forced("c", batch=666))
    heard = []
    records = contested(
        contest(good, deadly), tmp_path / JOURNAL, stop=Stop(), report=heard.append, command=FAKE
    )
    assert read_records(tmp_path / JOURNAL, LockstepRun) == records == tuple(heard)
    assert len(records) == 6
    seen = {each.point: each for each in all_judged(records, ("x", "y"), Terms()).points}
    assert seen["b"].verdict == "SLOWER"
    assert seen["b"].ratio.value == pytest.approx(1.1)
    assert seen["c"].verdict == "INVALID"
    assert "SIGKILL" in seen["c"].evidence


def test_each_run_has_an_order_and_a_first_side_of_its_own():
    pairs = [(Side(point=forced(f"a{n}")), Side(point=forced(f"b{n}"))) for n in range(6)]
    tasks = list(contest(*pairs, runs=4).tasks())
    orders = [[each.before.point.id for each in tasks if each.run == run] for run in (1, 2, 3, 4)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert [each.after_first for each in tasks[::6]] == [False, True, False, True]


def test_recorded_noise_raises_no_alarm_and_hides_no_slowdown():
    records = [
        each.model_copy(update={"after": each.after.model_copy(update={"id": f"p{n}-alike"})})
        for n in range(8)
        for each in noisy_runs(1.0, 0.03, seed=n)
    ]
    assert trial(records, pairs=60, slowdown=0.0).rate <= 0.05
    assert trial(records, pairs=60, slowdown=0.05).rate >= 0.9
    assert [check.passed for check in replayed_checks(records, 60)] == [True, True]
    assert not replayed_checks([], 60)[0].passed


def test_real_pairs_pass_only_if_every_one_was_judged():
    alike, slower = (
        [
            each.model_copy(update={"after": each.after.model_copy(update={"id": f"p-{name}"})})
            for each in noisy_runs(ratio, 0.01)
        ]
        for name, ratio in (("alike", 1.0), ("slower", 1.05))
    )
    assert [check.passed for check in real_checks([*alike, *slower])] == [True, True]
    assert [check.passed for check in real_checks(alike)] == [True, False]
    assert [check.passed for check in real_checks([*alike[:2], *slower])] == [False, True]


def test_the_self_test_shows_each_point_against_itself_and_against_itself_slowed_down():
    pairs = trial_pairs(aa_plan(3, 5))
    assert len(pairs) == 6
    for before, after in pairs:
        assert {**dict(before.point), "id": ""} == {**dict(after.point), "id": ""}
    assert sorted({after.slowdown for _, after in pairs}) == [0.0, 0.05]


def test_the_command_judges_two_executors_of_a_plan(tmp_path):
    plan = tmp_path / "plan.json"
    save(MeasuringPlan(name="tiny", runs=1, points=(forced("small"),)), plan)
    done = profiler(
        "lockstep", "small", "small,executor=masked", "--quick", "--device", "cpu", "--plan",
        str(plan), "--threads", "1", "--out", str(tmp_path / "out"), "--format", "json",
    )  # fmt: skip
    [verdict] = json.loads(done.stdout)["points"]
    # A busy machine may spoil runs; then there is no verdict.
    assert (done.returncode == 3) == (verdict["verdict"] == "INVALID"), done.stderr
    assert verdict["point"] == "small-executor-masked"
    assert len(read_records(tmp_path / "out" / JOURNAL, LockstepRun)) == 3
    again = profiler("lockstep", "batch=1", "batch=1", "--out", str(tmp_path / "out"))
    assert (again.returncode, again.stdout) == (2, "")
    assert "is there already" in again.stderr


@pytest.mark.parametrize(
    ("side", "said"),
    [
        ("batch=many", "whole number"),
        ("batch=0", "no point"),
        ("small", "no --plan"),
        ("executor=magic", "not built"),
        ("precision=fp7", "no point"),
        ("width=3", "one of batch, executor"),
        ("checkpoint=/nowhere.safetensors", "nowhere"),
    ],
)
def test_a_side_that_cannot_be_gets_one_sentence(side, said, tmp_path):
    done = profiler("lockstep", "batch=1", side, "--out", str(tmp_path / "out"))
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
