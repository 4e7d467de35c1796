"""Events on a stream that exists only here: each `record` is a millisecond later, or as told."""

import pytest
import torch

from profiler.clock import EVENT_RESOLUTION_S, USUAL_MARKS, CudaStages, ScriptedClock


class Stream:
    def __init__(self) -> None:
        self.now_ms = 0.0
        self.step_ms = 1.0
        self.made: list[Event] = []
        self.said: list[str] = []


class Event:
    stream = Stream()

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing
        self.at_ms: float | None = None
        self.is_finished = False
        self.stream.made.append(self)
        self.stream.said.append("make")

    def record(self) -> None:
        stream = self.stream
        stream.now_ms += stream.step_ms
        self.at_ms, self.is_finished = stream.now_ms, False
        stream.said.append("record")

    def synchronize(self) -> None:
        self.stream.said.append("wait")
        for event in self.stream.made:
            event.is_finished |= event.at_ms is not None and event.at_ms <= (self.at_ms or 0.0)

    def elapsed_time(self, end: "Event") -> float:
        assert self.is_finished
        assert end.is_finished
        assert self.at_ms is not None
        assert end.at_ms is not None
        return end.at_ms - self.at_ms


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    stream = Stream()
    monkeypatch.setattr(Event, "stream", stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    return stream


def passed(stages: CudaStages, count: int) -> dict[str, float]:
    stages.start()
    for number in range(count):
        stages.mark(f"recursion-{number + 1}")
    return stages.read()


def test_a_stage_lasts_from_the_mark_before_it_to_its_own(stream: Stream) -> None:
    stages = CudaStages(ScriptedClock([]))
    stages.start()
    stages.mark("prologue")
    stream.step_ms = 5.0
    stages.mark("recursion-1")
    assert stages.read() == {"prologue": 0.001, "recursion-1": 0.005}


def test_while_a_pass_runs_events_are_recorded_and_neither_made_nor_waited_for(
    stream: Stream,
) -> None:
    stages = CudaStages(ScriptedClock([]))
    for _ in range(3):
        stream.said.clear()
        assert len(passed(stages, 5)) == 5
        assert stream.said == ["record"] * 6 + ["wait"]
    assert len(stream.made) == USUAL_MARKS


def test_every_event_exists_in_the_driver_before_the_first_pass(stream: Stream) -> None:
    CudaStages(ScriptedClock([]))
    assert all(event.is_finished for event in stream.made)


def test_a_deeper_network_gets_more_events(stream: Stream) -> None:
    stages = CudaStages(ScriptedClock([]))
    for _ in range(2):
        assert len(passed(stages, 2 * USUAL_MARKS)) == 2 * USUAL_MARKS
    assert len(stream.made) == 2 * USUAL_MARKS + 1


def test_a_pass_with_fewer_stages_forgets_those_of_the_one_before(stream: Stream) -> None:
    stages = CudaStages(ScriptedClock([]))
    passed(stages, 6)
    assert list(passed(stages, 2)) == ["recursion-1", "recursion-2"]


def test_a_stage_shorter_than_events_can_tell_is_their_resolution_and_not_zero(
    stream: Stream,
) -> None:
    stages = CudaStages(ScriptedClock([]))
    stream.step_ms = 0.0
    assert passed(stages, 1) == {"recursion-1": EVENT_RESOLUTION_S}
