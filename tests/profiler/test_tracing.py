import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from domain.complaint import Complaint
from profiler import tracing
from profiler.messages import Task
from profiler.session import Session, Stop, order_of
from profiler.subjects import subject_of
from profiler.traces import FOLDER, store_traces, trace_file
from profiler.tracing import MOST_PASSES, StageRanges, trace_of
from tests.profiler.fake_worker import answered
from tests.profiler.networks import ENVIRONMENT, RATES, forced, session
from tests.profiler.test_subjects import changed

STAGES = ("prologue", "recursion-1", "recursion-2", "recursion-3", "epilogue")


def ranges_in(content: bytes) -> Counter[str]:
    events = json.loads(content)["traceEvents"]
    return Counter(event["name"] for event in events if event.get("cat") == "user_annotation")


def test_every_stage_of_every_pass_has_a_range():
    seen = ranges_in(trace_of(subject_of(forced(), "cpu", 0), "cpu"))
    assert {stage: seen[stage] for stage in STAGES} == dict.fromkeys(STAGES, MOST_PASSES)


def test_ranges_hold_the_operators_of_their_stage():
    events = json.loads(trace_of(subject_of(forced(executor="masked"), "cpu", 0), "cpu"))
    named = [event for event in events["traceEvents"] if event.get("ph") == "X"]
    first = next(event for event in named if event["name"] == "prologue")
    embeddings = [event for event in named if event["name"] == "aten::conv2d"]
    inside = [
        event
        for event in embeddings
        if first["ts"] <= event["ts"] and event["ts"] + event["dur"] <= first["ts"] + first["dur"]
    ]
    assert len(inside) == 1


def test_a_recursion_alone_has_one_range():
    point = changed(forced(), subject="recursion-2")
    seen = ranges_in(trace_of(subject_of(point, "cpu", 0), "cpu"))
    assert {stage: seen[stage] for stage in STAGES if seen[stage]} == {"recursion-2": MOST_PASSES}


def test_a_pass_of_very_many_operators_is_traced_less_often_or_not(monkeypatch):
    subject = subject_of(forced(batch=2), "cpu", 0)
    with tracing.OperatorCount() as counted:
        subject.run(0)
    monkeypatch.setattr(tracing, "MOST_OPERATORS", counted.calls + 50)
    assert ranges_in(trace_of(subject, "cpu"))["prologue"] == 1
    monkeypatch.setattr(tracing, "MOST_OPERATORS", 10)
    with pytest.raises(Complaint, match="trace a smaller batch"):
        trace_of(subject, "cpu")


def test_no_range_is_left_open_or_begun_after_the_last():
    ranges = StageRanges(("prologue", "epilogue"))
    for stage in ("prologue", "epilogue"):
        ranges.mark(stage)
    assert ranges._open is None


@pytest.mark.slow
def test_each_point_that_was_measured_has_a_file_and_the_rest_a_reason(tmp_path: Path) -> None:
    toy = session("a", "b", "never-measured", runs=1)
    broken = changed(forced("broken"), runtime="compiled")
    plan = type(toy.plan)(name="p", runs=1, points=(*toy.plan.points, broken))
    toy = Session(**{**dict(toy), "plan": plan})
    records = [
        answered(
            Task(
                point=point, run=1, session="s1", seed=3, settings=toy.effective,
                environment=ENVIRONMENT, rates=RATES,
            )
        )
        for point in order_of(toy.plan, 1, 0)
        if point.id != "never-measured"
    ]  # fmt: skip
    said: list[str] = []
    trace_file(tmp_path, toy.plan.points[1]).parent.mkdir()
    trace_file(tmp_path, toy.plan.points[1]).write_bytes(b"there already")
    written = store_traces(toy, records, tmp_path, stop=Stop(), say=said.append)
    assert written == 1
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["a.json.gz", "b.json.gz"]
    content = gzip.decompress(trace_file(tmp_path, toy.plan.points[0]).read_bytes())
    assert set(STAGES) <= set(ranges_in(content))
    assert len(said) == 1
    assert "no trace of broken: runtime compiled" in said[0]
