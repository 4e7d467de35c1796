import math
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.complaint import NoDevice
from domain.measurement import Measurement
from domain.store import read_journal
from profiler.largest import JOURNAL, WORKER, Found, Search, largest, rows_of, searched
from profiler.limits import available_bytes
from profiler.messages import Preparation, Task
from profiler.protocol import SETTINGS
from profiler.session import Stop, prepared_worker
from tests.profiler.networks import ENVIRONMENT, RATES, forced
from tests.profiler.test_commands import profiler

batches = st.integers(min_value=1, max_value=10**6)


@given(room=st.integers(min_value=0, max_value=10**6), most=batches)
def test_the_search_finds_exactly_the_largest_batch_with_room(room, most):
    assert largest(lambda batch: bool(batch <= room), most) == min(room, most)


@given(room=st.integers(min_value=0, max_value=10**6), most=batches)
def test_no_batch_is_tried_twice_nor_one_larger_than_one_without_room(room, most):
    tried: list[int] = []

    def has_room(batch: int) -> bool:
        refused = [each for each in tried if each > room]
        assert batch not in tried
        assert all(batch < each for each in refused)
        assert 1 <= batch <= most
        tried.append(batch)
        return bool(batch <= room)

    largest(has_room, most)
    assert len(tried) <= 2 * math.log2(max(2, min(room, most))) + 3


def found_by(
    folder: Path, room: int, most: int, how: str = "oom", timeout_s: float = 60.0
) -> tuple[Found, tuple[Measurement, ...]]:
    wanted = Search(
        session="s",
        point=forced("toy"),
        most=most,
        seed=0,
        preparation=Preparation(kind="cpu", threads=1, memory_limit_bytes=10**9),
    )
    found = searched(
        wanted, folder / JOURNAL, stop=Stop(), report=lambda _: None, timeout_s=timeout_s,
        command=(sys.executable, "-m", "tests.profiler.fake_trier", str(room), how),
    )  # fmt: skip
    return found, read_journal(folder / JOURNAL)


@pytest.mark.parametrize("how", ["oom", "bad-alloc"])
def test_every_try_is_a_process_and_a_record_of_the_batch_that_was_asked(
    tmp_path: Path, how: str
) -> None:
    found, stored = found_by(tmp_path, room=11, most=64, how=how)
    assert found == Found(batch=11, is_most=False, tries=stored)
    assert [each.workload.batch for each in stored] == [1, 2, 4, 8, 16, 12, 10, 11]
    assert [each.status for each in stored] == ["ok"] * 4 + ["oom"] * 2 + ["ok"] * 2
    alive = [each.reason for each in stored if each.status == "ok"]
    assert len(set(alive)) == len(alive) == 6
    assert {each.rates for each in stored} == {RATES}
    assert {each.point for each in stored} >= {"toy-b1", "toy-b11"}


def test_room_for_the_most_that_is_tried_is_said_so(tmp_path: Path) -> None:
    found, stored = found_by(tmp_path, room=10**6, most=6)
    assert (found.batch, found.is_most) == (6, True)
    assert [each.workload.batch for each in stored] == [1, 2, 4, 6]


def test_without_room_for_one_image_there_is_no_batch(tmp_path: Path) -> None:
    found, stored = found_by(tmp_path, room=0, most=64)
    assert (found.batch, found.is_most, found.undecided) == (0, False, "")
    assert len(stored) == 1


@pytest.mark.parametrize(("how", "said"), [("failed-4", "failed"), ("hang-4", "timeout")])
def test_a_try_that_says_neither_ends_the_search_with_what_is_known(
    tmp_path: Path, how: str, said: str
) -> None:
    found, stored = found_by(tmp_path, room=100, most=64, how=how, timeout_s=3.0)
    assert found.batch == 2
    assert f"batch 4 gave {said}" in found.undecided
    assert [each.status for each in stored] == ["ok", "ok", said]


def test_a_process_that_somebody_kills_is_no_lack_of_memory(tmp_path: Path) -> None:
    found, _ = found_by(tmp_path, room=1, most=8, how="killed")
    assert found.batch == 1
    assert "batch 2 gave failed" in found.undecided


def test_rows_are_in_the_order_of_size_and_mark_the_answer(tmp_path: Path) -> None:
    found, _ = found_by(tmp_path, room=3, most=8)
    rows = list(rows_of(found))
    assert [row["batch"] for row in rows] == [1, 2, 3, 4]
    assert [row["largest"] for row in rows] == [False, False, True, False]


@pytest.mark.slow
def test_a_real_lack_of_memory_is_oom_and_a_small_batch_has_room():
    statuses = {}
    for batch in (1, 8192):
        point = forced(f"b{batch}", batch=batch, tokens=197, executor="masked")
        preparation = Preparation(kind="cpu", threads=1, memory_limit_bytes=1_300_000_000)
        worker, where, _ = prepared_worker(preparation, WORKER)
        task = Task(
            point=point, run=1, session="s", seed=0, settings=SETTINGS["quick"],
            environment=where, rates=RATES,
        )  # fmt: skip
        statuses[batch] = Measurement.model_validate_json(worker.ask(task.model_dump_json(), 120.0))
        worker.end()
    assert statuses[1].status == "ok"
    assert statuses[8192].status == "oom"
    assert "can't allocate memory" in statuses[8192].reason
    assert statuses[8192].workload.batch == 8192


@pytest.mark.slow
def test_the_command_says_the_limit_and_the_batch(tmp_path: Path) -> None:
    done = profiler(
        "largest-batch", "--device", "cpu", "--threads", "1", "--most", "2", "--format", "csv",
        "--limit-bytes", "4000000000", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "largest batch: 2 or more" in done.stderr
    assert "limit 4 GB of process data" in done.stderr
    assert done.stdout.splitlines()[2].startswith("2,ok,True,")
    again = profiler("largest-batch", "--device", "cpu", "--out", str(tmp_path / "out"))
    assert (again.returncode, "name another --out" in again.stderr) == (2, True)


def test_what_a_container_has_left_is_less_than_what_the_machine_has(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("5000\n")
    (group / "memory.current").write_text("2000\n")
    assert available_bytes(tmp_path) == 3000
    (group / "memory.max").write_text("max\n")
    assert available_bytes(tmp_path) > 3000


def test_a_worker_that_cannot_start_under_the_limit_says_so(tmp_path: Path) -> None:
    wanted = Search(
        session="s", point=forced("toy"), most=2, seed=0, environment=ENVIRONMENT, rates=RATES,
        preparation=Preparation(kind="cpu", threads=1, memory_limit_bytes=1),
    )  # fmt: skip
    with pytest.raises(NoDevice, match="less than libraries take"):
        searched(
            wanted, tmp_path / JOURNAL, stop=Stop(), report=lambda _: None,
            command=(sys.executable, "-c", "import sys; sys.exit(2)"),
        )  # fmt: skip
