import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from domain.complaint import AllFailed, Complaint, CorruptFile, NoDevice, StorageFailed
from domain.measurement import Environment, Measurement, PlannedPoint
from domain.store import Journal, read_journal, save
from profiler.inputs import check_same_inputs, folder_sha256
from profiler.messages import Preparation
from profiler.session import (
    JOURNAL,
    SESSION,
    Session,
    Stop,
    check_same,
    check_storage,
    measure,
    order_of,
    prepared_worker,
    taken_up,
)
from profiler.starting import resumed
from profiler.supervisor import Worker, worker_environment
from tests.profiler.conftest import ROOT
from tests.profiler.networks import ENVIRONMENT, forced, session

FAKE = (sys.executable, "-m", "tests.profiler.fake_worker")


def run(toy: Session, folder: Path, timeout_s: float | None = None) -> tuple[Measurement, ...]:
    return measure(
        toy, folder, stop=Stop(), report=lambda *_: None, command=FAKE, timeout_s=timeout_s
    )


def statuses(records: Sequence[Measurement]) -> dict[str, str]:
    return {record.point: record.status for record in records}


def pairs_of(records: Sequence[Measurement]) -> list[tuple[str, int]]:
    return sorted((record.point, record.run) for record in records)


def test_every_point_of_every_run_is_in_the_journal_once(tmp_path: Path) -> None:
    run(session("a", "b", runs=3), tmp_path)
    records = read_journal(tmp_path / JOURNAL)
    assert pairs_of(records) == [(id, number) for id in ("a", "b") for number in (1, 2, 3)]
    assert {record.environment.key() for record in records} == {ENVIRONMENT.key()}


def test_points_are_shuffled_by_run_and_seed():
    toy = session(*"abcdefgh")
    orders = {tuple(point.id for point in order_of(toy.plan, number, 0)) for number in range(1, 6)}
    assert len(orders) == 5
    assert order_of(toy.plan, 2, 0) == order_of(toy.plan, 2, 0)
    assert order_of(toy.plan, 2, 0) != order_of(toy.plan, 2, 1)


@pytest.mark.parametrize(
    ("bad", "status", "said"),
    [
        ("die", "failed", "SIGKILL"),
        ("exit", "failed", "exit status 3; RuntimeError: the end"),
        ("hang", "timeout", "no answer in"),
        ("oom", "oom", "no room"),
        ("failed", "failed", "cannot"),
        ("noise", "failed", "no valid record"),
    ],
)
def test_a_bad_point_has_a_status_and_the_rest_goes_on(
    tmp_path: Path, bad: str, status: str, said: str
) -> None:
    records = run(session("a", bad, "b", runs=2), tmp_path, timeout_s=2.0)
    assert statuses(records) == {"a": "ok", "b": "ok", bad: status}
    assert len(records) == 6
    assert all(said in record.reason for record in records if record.point == bad)


def test_when_nothing_works_the_run_fails_but_keeps_its_journal(tmp_path: Path) -> None:
    with pytest.raises(AllFailed) as complaint:
        run(session("failed-1", "failed-2"), tmp_path)
    assert complaint.value.exit_code == 5
    assert len(read_journal(tmp_path / JOURNAL)) == 4


def test_a_larger_batch_than_one_without_room_is_not_tried(tmp_path: Path) -> None:
    toy = session("a", runs=3)
    plan = type(toy.plan)(
        name="sizes",
        runs=3,
        points=(
            forced("oom-8", batch=8),
            forced("big-32", batch=32),
            forced("small-4", batch=4),
        ),
    )
    records = run(Session(**{**dict(toy), "plan": plan}), tmp_path)[-3:]
    late = next(record for record in records if record.point == "big-32")
    assert statuses(records)["small-4"] == "ok"
    assert late.status == "oom"
    assert "implied" in late.reason
    assert late.workload.batch == 32


def test_no_room_under_one_routing_says_nothing_of_another(tmp_path: Path) -> None:
    toy = session("a", runs=3)
    points = (forced("oom-8", batch=8), forced("fewer-32", batch=32, survival=(0.5, 0.2, 0.1)))
    plan = type(toy.plan)(name="sizes", runs=3, points=points)
    records = run(Session(**{**dict(toy), "plan": plan}), tmp_path)
    assert {each.status for each in records if each.point == "fewer-32"} == {"ok"}


def test_resume_measures_what_is_left_and_nothing_twice(tmp_path: Path) -> None:
    toy = session("a", "b", "c")
    run(toy, tmp_path)
    journal = tmp_path / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:4]))
    run(toy, tmp_path)
    assert journal.read_bytes().startswith(b"".join(lines[:4]))
    assert pairs_of(read_journal(journal)) == [(id, n) for id in "abc" for n in (1, 2)]


def test_a_torn_tail_is_set_aside_and_its_point_measured_again(tmp_path: Path) -> None:
    toy = session("a", "b")
    run(toy, tmp_path)
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-100])
    run(toy, tmp_path)
    assert pairs_of(read_journal(journal)) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert (tmp_path / f"{JOURNAL}.torn").read_bytes() in whole


def test_a_journal_torn_in_its_first_line_starts_anew(tmp_path: Path) -> None:
    toy = session("a")
    save(toy, tmp_path / SESSION)
    (tmp_path / JOURNAL).write_bytes(b'{"crc32":1,"rec')
    assert taken_up(tmp_path) == (toy, ())
    assert len(run(toy, tmp_path)) == 2


def test_a_journal_of_another_session_is_refused_and_not_touched(tmp_path: Path) -> None:
    run(session("a"), tmp_path)
    other = Session(**{**dict(session("a")), "id": "s2"})
    save(other, tmp_path / SESSION)
    whole = (tmp_path / JOURNAL).read_bytes()
    with pytest.raises(CorruptFile, match=r"journal\.jsonl:1: run . of a in session s1 .* of s2"):
        taken_up(tmp_path)
    with pytest.raises(CorruptFile):
        run(other, tmp_path)
    assert (tmp_path / JOURNAL).read_bytes() == whole


def test_an_altered_session_is_refused(tmp_path: Path) -> None:
    head = tmp_path / SESSION
    save(session("a", seed=3), head)
    head.write_text(head.read_text().replace('"seed": 3', '"seed": 4'))
    with pytest.raises(CorruptFile, match="altered"):
        taken_up(tmp_path)


def test_a_worker_that_answers_for_another_point_is_not_believed(tmp_path: Path) -> None:
    records = run(session("other-1", "a", runs=1), tmp_path)
    assert statuses(records) == {"a": "ok", "other-1": "failed"}
    assert any("measured run 1 of other-1 with batch 9 instead" in each.reason for each in records)


@pytest.mark.parametrize(("kind", "workers"), [("cpu", 1), ("cuda", 3)])
def test_on_a_gpu_a_point_that_failed_takes_its_worker_along(
    tmp_path: Path, kind: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def noted(*arguments: object, **named: object) -> Worker:
        begun.append(Worker(*arguments, **named))  # type: ignore[arg-type]
        return begun[-1]

    monkeypatch.setattr("profiler.session.Worker", noted)
    toy = session("failed-1", "oom-1", "a", "b", runs=1)
    preparation = Preparation(kind=kind, threads=1)  # type: ignore[arg-type]
    run(Session(**{**dict(toy), "preparation": preparation, "seed": seed_with_failures_first(toy)}),
        tmp_path)  # fmt: skip
    assert len(begun) == workers


def seed_with_failures_first(toy: Session) -> int:
    return next(
        seed
        for seed in range(1000)
        if [point.id for point in order_of(toy.plan, 1, seed)][:2] == ["failed-1", "oom-1"]
    )


def test_no_room_for_the_network_says_nothing_of_one_recursion(tmp_path: Path) -> None:
    toy = session("a", runs=2)
    alone = PlannedPoint(**{**dict(forced("alone-32", batch=32)), "subject": "recursion-1"})
    plan = type(toy.plan)(name="two", runs=2, points=(forced("oom-8", batch=8), alone))
    records = run(Session(**{**dict(toy), "plan": plan}), tmp_path)
    assert statuses(records) == {"oom-8": "oom", "alone-32": "ok"}


def test_a_changed_image_folder_is_another_session(tmp_path: Path) -> None:
    picture = tmp_path / "cats" / "1.png"
    picture.parent.mkdir()
    picture.write_bytes(b"one")
    was = folder_sha256(tmp_path)
    check_same_inputs("image folder", was, folder_sha256(tmp_path))
    check_same_inputs("image folder", "", was)  # a session of before this was kept
    for change in (
        lambda: picture.write_bytes(b"two"),
        lambda: picture.rename(picture.with_name("2.png")),
        lambda: picture.with_name("3.png").write_bytes(b""),
    ):
        change()
        with pytest.raises(Complaint, match="the image folder changed since this session began"):
            check_same_inputs("image folder", was, folder_sha256(tmp_path))


def test_a_resumed_session_says_what_it_sets_aside(tmp_path: Path) -> None:
    toy = session("a", "b", runs=1)
    save(toy, tmp_path / SESSION)
    run(toy, tmp_path)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b"torn")
    said: list[str] = []
    assert resumed(tmp_path, said.append)[1] is None
    assert "the last 4 bytes, after line 2, are damaged" in said[0]
    assert "journal.jsonl.torn" in said[0]


def test_a_resumed_session_waits_for_nobody_who_writes_there(tmp_path: Path) -> None:
    toy = session("a")
    save(toy, tmp_path / SESSION)
    with (
        Journal(tmp_path / JOURNAL, Measurement),
        pytest.raises(StorageFailed, match="another run"),
    ):
        resumed(tmp_path, lambda _: None)


def test_another_environment_is_refused_with_what_differs(tmp_path: Path) -> None:
    with pytest.raises(Complaint, match=r"torch was 2\.14, is 9\.9"):
        measure(
            session("a"), tmp_path, stop=Stop(), report=lambda *_: None,
            command=(*FAKE, "elsewhere"),
        )  # fmt: skip


def test_a_changed_flag_is_another_environment():
    other = Environment(**{**dict(ENVIRONMENT), "flags": (("governor", "powersave"),)})
    with pytest.raises(Complaint, match="governor was performance, is powersave"):
        check_same(ENVIRONMENT, other)


def test_a_folder_without_a_session_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(Complaint, match="the folder that `run` wrote"):
        taken_up(tmp_path)


def test_a_disk_without_room_is_refused_before_measuring(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="needs"):
        check_storage(tmp_path / "not" / "yet", 10**12)
    check_storage(tmp_path, 1)


def test_a_worker_that_cannot_start_is_no_device():
    preparation = Preparation(kind="cpu", threads=1)
    with pytest.raises(NoDevice, match="exit status 2"):
        prepared_worker(preparation, (sys.executable, "-c", "import sys; sys.exit(2)"))


def test_a_worker_sees_its_threads_and_only_its_gpu():
    seen = worker_environment(
        {"OMP_NUM_THREADS": "64", "HOME": "/h"},
        Preparation(kind="cuda", gpu_name="X", gpu_uuid="GPU-1", threads=3),
    )
    assert seen["OMP_NUM_THREADS"] == seen["MKL_NUM_THREADS"] == "3"
    assert seen["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert seen["HOME"] == "/h"


def test_a_waiting_parent_uses_no_cpu():
    worker = Worker(
        Preparation(kind="cpu", threads=1),
        (sys.executable, "-c", "import time; input(); time.sleep(1); print('x')"),
    )
    before = time.process_time()
    assert worker.ask("go", 30.0) == "x"
    assert time.process_time() - before < 0.1
    worker.end()


def measuring(folder: Path, slow_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.profiler.measuring", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FAKE_WORKER_SLOW_S": str(slow_s)},
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"the run ended before it said {text}")


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def is_gone(pid: int, within_s: float = 5.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_ctrl_c_finishes_the_point_and_resume_does_the_rest(tmp_path: Path) -> None:
    process = measuring(tmp_path, 0.2)
    wait_for(process, "2/12")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert "stopping after this point" in said
    assert "stopped" in said
    before = read_journal(tmp_path / JOURNAL)
    assert len(before) in (2, 3)  # the signal may come just before the third begins
    again = measuring(tmp_path, 0.0)
    assert "finished" in again.communicate(timeout=60)[0]
    after = read_journal(tmp_path / JOURNAL)
    assert after[: len(before)] == before
    assert pairs_of(after) == [(id, n) for id in "abc" for n in range(1, 5)]


def test_ctrl_c_twice_stops_now_with_an_intact_journal(tmp_path: Path) -> None:
    process = measuring(tmp_path, 3.0)
    wait_for(process, "1/12")
    workers = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    wait_for(process, "stopping after this point")
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert time.monotonic() - begin < 2.5
    assert len(read_journal(tmp_path / JOURNAL)) == 1
    assert all(is_gone(pid) for pid in workers)


def test_a_killed_parent_leaves_no_orphan_and_loses_no_row(tmp_path: Path) -> None:
    process = measuring(tmp_path, 0.1)
    wait_for(process, "4/12")
    workers = children_of(process.pid)
    assert workers
    process.kill()
    process.communicate(timeout=30)
    assert len(read_journal(tmp_path / JOURNAL)) >= 4
    assert all(is_gone(pid) for pid in workers)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    process = measuring(tmp_path, 1.0)
    wait_for(process, "1/12")
    with pytest.raises(StorageFailed, match="being written by another run"):
        run(session("a"), tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0
