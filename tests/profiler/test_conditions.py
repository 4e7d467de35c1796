import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.measurement import Conditions, Measurement
from domain.record import Unknown
from profiler.affinity import chosen_cores, named, physical_cores, shown
from profiler.conditions import (
    LARGEST_TAKEN,
    NOTED,
    TICK_S,
    Reading,
    conditions_between,
    judged,
    reading,
)
from profiler.interference import spinning_processes
from profiler.messages import Preparation, Task
from profiler.protocol import SETTINGS
from profiler.session import prepared_worker
from tests.profiler.conftest import ROOT
from tests.profiler.networks import RATES, forced

TWO = frozenset({0, 1})
START = Reading(
    wall_s=0.0,
    own_s=0.0,
    parent_s=0.0,
    asleep_s=0.0,
    busy_s={0: 0.0, 1: 0.0, 2: 0.0},
    stolen_s={0: 0.0, 1: 0.0, 2: 0.0},
)
shares = st.floats(min_value=0.0, max_value=2.0)


def quiet(wall_s: float = 10.0, **changed: object) -> Conditions:
    fields = {"own_cpu_s": 2 * wall_s, "parent_cpu_s": 0.0, "others_cpu_s": 0.0, "steal_s": 0.0}
    return Conditions.model_validate({**fields, "suspended_s": 0.0, "wall_s": wall_s, **changed})


def after(**changed: Any) -> Reading:
    """Ten seconds later: this process had both of its cores, the third was idle."""
    busy = {0: 10.0, 1: 10.0, 2: 0.0}
    fields: dict[str, Any] = {"wall_s": 10.0, "own_s": 20.0, "busy_s": busy, **changed}
    return replace(START, **fields)


@given(shares, shares)
def test_more_of_the_cores_taken_never_clears_a_record(share, more):
    less = judged(quiet(others_cpu_s=10 * share), 2)
    worse = judged(quiet(others_cpu_s=10 * (share + more)), 2)
    assert bool(less.causes) <= bool(worse.causes)
    assert bool(less.causes or less.notes) <= bool(worse.causes or worse.notes)


@given(shares, st.integers(min_value=0, max_value=8))
def test_cores_that_the_work_leaves_idle_are_for_others_to_use(share, spare):
    used = quiet(others_cpu_s=10 * (share + spare))
    assert bool(judged(used, 9, spare).causes) == bool(
        judged(quiet(others_cpu_s=10 * share), 9).causes
    )


def test_an_idle_machine_is_neither_contended_nor_noted():
    # What two idle cores with a login and an agent on them used: 0.002 to 0.012 of a core.
    for share in (0.0, 0.002, 0.012):
        judgement = judged(quiet(others_cpu_s=10 * share), 2)
        assert judgement.causes == judgement.notes == ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"parent_cpu_s": 9.7}, "the parent process used 0.97 of a core while it should wait"),
        ({"others_cpu_s": 6.2}, "other processes used 0.62 of a core"),
        ({"steal_s": 1.6}, "the host took 8%"),
        ({"suspended_s": 3.0}, "the machine slept for 3 s"),
    ],
)
def test_what_took_the_machine_is_named(changed, said):
    assert judged(quiet(**changed), 2).causes == (said,)


def test_what_is_noticeable_but_small_is_a_note():
    judgement = judged(quiet(others_cpu_s=0.7, steal_s=0.8, beside_cpu_s=9.0), 2)
    assert judgement.causes == ()
    assert judgement.notes == (
        "other processes used 0.07 of a core",
        "other processes used 0.90 of a core beside ours, which share cache and memory",
        "the host took 4%",
    )


def test_what_nobody_could_read_is_held_against_nobody():
    unread = Unknown(reason="no /proc here")
    blind = quiet(parent_cpu_s=unread, others_cpu_s=unread, steal_s=unread, suspended_s=unread)
    assert judged(blind, 2).causes == judged(blind, 2).notes == ()


def test_a_few_ticks_in_a_short_window_are_doubted():
    share = LARGEST_TAKEN + 2 * TICK_S
    assert judged(quiet(wall_s=10.0, others_cpu_s=10 * share), 2).causes
    assert not judged(quiet(wall_s=0.3, others_cpu_s=0.3 * share), 2).causes


def test_a_quiet_machine_leaves_nothing_for_others():
    seen = conditions_between(START, after(), TWO, frozenset({2}))
    assert (seen.parent_cpu_s, seen.others_cpu_s, seen.beside_cpu_s) == (0.0, 0.0, 0.0)
    assert (seen.wall_s, seen.own_cpu_s, seen.steal_s, seen.suspended_s) == (10.0, 20.0, 0.0, 0.0)


def test_every_busy_second_belongs_to_us_our_parent_or_others():
    busy = {0: 10.0, 1: 10.0, 2: 4.0}
    seen = conditions_between(
        START, after(own_s=12.0, parent_s=3.0, busy_s=busy), TWO, frozenset({2})
    )
    assert (seen.parent_cpu_s, seen.others_cpu_s, seen.beside_cpu_s) == (3.0, 5.0, 4.0)


def test_a_parent_beside_our_cores_takes_nothing_from_others():
    busy = {0: 10.0, 1: 10.0, 2: 9.0}
    seen = conditions_between(START, after(parent_s=9.0, busy_s=busy), TWO, frozenset({2}))
    assert (seen.others_cpu_s, seen.beside_cpu_s) == (0.0, 0.0)
    assert judged(seen, 2).causes


def test_a_core_that_is_not_ours_is_not_looked_at():
    hog = {0: 10.0, 1: 10.0, 2: 10.0}
    assert conditions_between(START, after(busy_s=hog), TWO).others_cpu_s == 0.0


def test_counters_that_do_not_show_this_process_are_not_believed():
    seen = conditions_between(START, after(busy_s={0: 1.0, 1: 1.0}), TWO)
    assert isinstance(seen.others_cpu_s, Unknown)
    assert "not of this machine" in seen.others_cpu_s.reason


def test_a_window_of_a_few_ticks_says_that_it_is_too_short():
    short = after(wall_s=5 * TICK_S, own_s=2 * TICK_S)
    seen = conditions_between(START, short, TWO)
    assert isinstance(seen.others_cpu_s, Unknown)
    assert "too short" in seen.others_cpu_s.reason


def test_a_counter_that_went_backwards_is_unknown():
    seen = conditions_between(replace(START, parent_s=5.0), after(parent_s=4.0), TWO)
    assert isinstance(seen.parent_cpu_s, Unknown)
    assert "backwards" in seen.parent_cpu_s.reason


def machine(
    root: Path, stat: str, parent: str = "7 (a) (b) R 1 1 1 0 -1 0 0 0 0 0 150 50 0 0"
) -> Path:
    (root / "proc/7").mkdir(parents=True)
    (root / "proc/stat").write_text(stat)
    (root / "proc/7/stat").write_text(parent)
    return root


def test_proc_is_read_by_core_and_guests_are_not_counted_twice(tmp_path: Path) -> None:
    stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 10 20 999 50 3 7 5 40 2\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 5\n"
    seen = reading(7, machine(tmp_path, stat))
    assert seen.busy_s == pytest.approx({0: 140 * TICK_S, 1: 0.0})
    assert seen.stolen_s == pytest.approx({0: 5 * TICK_S, 1: 0.0})
    assert seen.parent_s == pytest.approx(200 * TICK_S)


@pytest.mark.parametrize(
    "stat", ["", "cpu0 1 2 x 4 5 6 7 8\n", "cpu0 1 2 3\n", "cpu 1 2 3 4 5 6 7 8\n"]
)
def test_a_proc_of_another_shape_is_unknown(tmp_path: Path, stat: str) -> None:
    assert isinstance(reading(7, machine(tmp_path, stat)).busy_s, Unknown)


def test_where_proc_cannot_be_read_nothing_is_zero(tmp_path: Path) -> None:
    before, then = reading(7, tmp_path), replace(reading(7, tmp_path), wall_s=1e9)
    seen = conditions_between(before, then, TWO)
    for amount in (seen.parent_cpu_s, seen.others_cpu_s, seen.steal_s, seen.beside_cpu_s):
        assert isinstance(amount, Unknown)
        assert "cannot read" in amount.reason


def test_a_parent_in_another_container_is_unknown():
    assert isinstance(reading(0).parent_s, Unknown)


def watched(spin: bool) -> tuple[Conditions, str]:
    """What a child saw that computed while its parent, this process, waited or spun."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.profiler.watching"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("go\n")
        child.stdin.flush()
        while spin and child.poll() is None:
            pass
        conditions, causes = child.stdout.readline(), child.stdout.readline()
    assert child.returncode == 0
    return Conditions.model_validate_json(conditions), causes


def test_a_parent_that_spins_is_found_and_named():
    seen, said = watched(spin=True)
    assert not isinstance(seen.parent_cpu_s, Unknown)
    assert seen.parent_cpu_s > LARGEST_TAKEN * seen.wall_s
    assert "the parent process used" in said


def test_a_parent_that_waits_is_not_blamed():
    seen, said = watched(spin=False)
    assert not isinstance(seen.parent_cpu_s, Unknown)
    assert seen.parent_cpu_s < NOTED * seen.wall_s + 2 * TICK_S
    assert "parent" not in said


def test_other_processes_on_our_cores_are_found_and_named():
    with spinning_processes():
        seen, said = watched(spin=False)
    assert not isinstance(seen.others_cpu_s, Unknown)
    assert seen.others_cpu_s > LARGEST_TAKEN * seen.wall_s
    assert "other processes used" in said


def test_a_record_beside_a_hog_was_tried_twice_keeps_its_samples_and_is_not_usable():
    worker, environment, _ = prepared_worker(Preparation(kind="cpu", threads=1))
    task = Task(
        point=forced(), run=1, session="s", seed=1, settings=SETTINGS["quick"],
        environment=environment, rates=RATES,
    )  # fmt: skip
    try:
        with spinning_processes():
            record = Measurement.model_validate_json(worker.ask(task.model_dump_json(), 120.0))
    finally:
        worker.end()
    assert record.status == "contended"
    assert not record.is_usable
    assert len(record.samples_s) == len(record.calibration_s) > 0
    attempts = [part for part in record.reason.split("; ") if part.startswith("attempt ")]
    assert len(attempts) == 1 + SETTINGS["quick"].retries
    assert all("other processes used" in attempt for attempt in attempts)


def processors(root: Path, siblings: dict[int, str], nodes: dict[int, int] | None = None) -> Path:
    for core, listed in siblings.items():
        folder = root / f"sys/devices/system/cpu/cpu{core}"
        (folder / "topology").mkdir(parents=True)
        (folder / "topology/thread_siblings_list").write_text(listed + "\n")
        (folder / f"node{(nodes or {}).get(core, 0)}").mkdir()
    return root


def test_threads_get_physical_cores_of_their_own(tmp_path: Path) -> None:
    root = processors(tmp_path, {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"})
    assert physical_cores({0, 1, 4, 5}, root) == (frozenset({0, 4}), frozenset({1, 5}))
    assert chosen_cores({0, 1, 4, 5}, 1, root) == {1}
    assert chosen_cores({0, 4, 5}, 1, root) == {5}


def test_threads_stay_on_one_memory_node_where_it_has_room(tmp_path: Path) -> None:
    nodes = {0: 0, 1: 0, 2: 0, 3: 1, 4: 1}
    root = processors(tmp_path, {core: str(core) for core in nodes}, nodes)
    assert chosen_cores(nodes, 2, root) == {1, 2}
    assert chosen_cores(nodes, 4, root) == {1, 2, 3, 4}


def test_as_many_threads_as_cores_change_nothing(tmp_path: Path) -> None:
    assert chosen_cores({0, 1}, 2, tmp_path) == chosen_cores({0, 1}, 9, tmp_path) == {0, 1}


@given(st.frozensets(st.integers(min_value=0, max_value=300)))
def test_cores_read_back_as_they_were_shown(cores):
    assert named(shown(cores)) == cores


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core leaves no choice")
def test_a_worker_with_fewer_threads_than_cores_is_pinned_and_says_where():
    worker, environment, _ = prepared_worker(Preparation(kind="cpu", threads=1))
    try:
        cores = named(dict(environment.flags)["affinity"])
        time.sleep(0.1)
        threads = Path(f"/proc/{worker.pid}/task").iterdir()
        assert all(os.sched_getaffinity(int(thread.name)) == cores for thread in threads)
    finally:
        worker.end()
    assert len(cores) == environment.threads == 1
    assert environment.cores > 1
