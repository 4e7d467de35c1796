"""A few of each fault, in every test run; the whole campaign is `python -m tests.faults`."""

from pathlib import Path

import pytest

from domain.record import Unknown
from profiler.joules import Poll, energy_of
from tests.faults import readings
from tests.faults.artefacts import Heard
from tests.faults.damages import ANY, SPARSE, json_damages
from tests.faults.disk import disk
from tests.faults.kills import kills
from tests.faults.locks import _crashes, _unfinished
from tests.faults.mutations import mutations, problem_of
from tests.faults.oom import _by_the_kernel
from tests.faults.running import Sweep, seeded, toy_session
from tests.faults.scenarios import scenarios
from tests.faults.signals import STRIKES
from tests.faults.tally import Fault, Tally


def all_met(faults: "list[Fault]") -> bool:
    assert faults
    for fault in faults:
        assert fault.is_met, fault
    return True


def test_nothing_acknowledged_is_lost_by_a_kill():
    assert all_met([fault for fault in kills(8, seed=1) if fault.tried])


@pytest.mark.parametrize("fault", ["Ctrl-C once", "SIGTERM", "terminal closes"])
def test_a_signal_leaves_a_whole_journal_and_says_how_to_go_on(fault: str, tmp_path: Path) -> None:
    problems, lost = STRIKES[fault](tmp_path / "sweep", seeded(0))
    assert [problem for problem in problems if problem] == []
    assert lost == 0


def test_damaged_files_are_refused_or_said(tmp_path):
    assert all_met(list(mutations(100, seed=2)))


def test_a_disk_that_refuses_changes_nothing():
    assert all_met(list(disk(5, seed=0)))


def test_a_crash_frees_the_lock_and_its_litter_is_cleaned(tmp_path: Path) -> None:
    assert all_met([_crashes(tmp_path, 5), _unfinished(tmp_path, 5)])


def test_a_kernel_that_kills_for_memory_is_told_from_any_other_kill():
    assert all_met([_by_the_kernel(4)])


def test_senseless_readings_become_reasons():
    assert all_met([*readings.meters(200, 0), *readings.clocks(60, 0)])


# The campaign itself can fail: each of these is a fault that it must see.


def test_a_lost_row_and_a_doubled_one_are_seen(tmp_path):
    sweep = Sweep(tmp_path / "s", toy_session(3, 1))
    assert sweep.start().wait(180) == 0, sweep.said
    assert sweep.lost() == set()
    journal = sweep.folder / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    assert len(sweep.lost()) == 1


def test_a_silent_answer_a_crash_and_a_strange_exit_status_are_seen():
    intact = Heard(code=0, out="8 ms", err="", crash="", seconds=0.1)

    def heard(**changed: object) -> Heard:
        return Heard(**{**vars(intact), **changed})

    def problem(**changed: object) -> str:
        return problem_of(heard(**changed), intact, is_edit=False)

    assert problem() == ""
    assert problem(out="9 ms") == "silently accepted"
    assert problem(out="9 ms", err="the last 5 bytes were not read") == ""
    assert problem(code=6, err="error: no journal\n") == ""
    assert "exit status 6" in problem(code=6, err="")
    assert "crashed" in problem(code=1, crash="KeyError: 'x'")


def test_every_damage_changes_what_it_damages():
    content = b'{\n "format": 2,\n "batch": 8,\n "inner": {"share": 0.5, "name": "x"}\n}\n'
    for damage in (*ANY, *json_damages(is_sealed=True)):
        changes = {damage.change(content, seeded(damage.name, number)) for number in range(20)}
        assert changes - {content}, damage.name
    assert SPARSE[0].is_sparse


def test_a_meter_that_gives_zero_joules_would_be_seen():
    tally = Tally("zero")

    def law(polls: list[Poll]) -> None:
        assert not isinstance(
            energy_of(polls, readings.DEMAND, "cuda", Unknown(reason="x")).energy_j, float
        )

    readings._examined(law, readings.traces(), 200, 0, tally)
    assert tally.lost == 1


def test_a_bar_is_missed_where_nothing_was_tried():
    assert not Tally("idle").result().is_met
    tally = Tally("bad")
    tally.count("it broke")
    assert not tally.result().is_met


def test_hostile_scenarios_and_command_lines_get_an_answer_or_one_sentence():
    assert all_met(list(scenarios(60, seed=5)))
