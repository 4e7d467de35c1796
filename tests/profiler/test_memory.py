from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from domain.record import Unknown
from profiler.memory import (
    MEMORIES,
    LiveBytes,
    PassWithMarks,
    context_on_cuda,
    forget_peak,
    in_use_on_device,
    peak_of_group,
    peak_on_cpu,
    peak_resident,
    peaks_on_cuda,
)
from profiler.telemetry import AbsentMeter

TOTAL = 80_000


def test_live_bytes_follow_allocations_made_by_hand():
    with LiveBytes() as watched:
        first = torch.zeros(1000)  # 4,000 B
        second = first + first  # 8,000 B
        assert watched.live_bytes == 8000
        del first
        assert watched.live_bytes == 4000
        watched.mark("one")
        third = torch.cat([second, second])  # 4,000 + 8,000 B
        del second
        assert watched.live_bytes == 8000
        watched.mark("two")
        del third
    assert watched.live_bytes == 0
    assert watched.peak_bytes == 12000
    assert watched.stages == {"one": 8000, "two": 12000}


def test_a_view_is_no_second_storage_and_keeps_the_first_alive():
    with LiveBytes() as watched:
        whole = torch.zeros(100)
        part = whole[:10]
        assert watched.live_bytes == 400
        del whole
        assert watched.live_bytes == 400
        del part
        assert watched.live_bytes == 0


def test_working_in_place_takes_nothing():
    with LiveBytes() as watched:
        values = torch.zeros(100)
        values.add_(1).mul_(2)
    assert watched.peak_bytes == 400


def test_weights_and_input_are_counted_from_the_start():
    layer = torch.nn.Linear(100, 50, bias=False)  # 20,000 B
    rows = torch.zeros(10, 100)  # 4,000 B

    def run(mark):
        layer(rows)  # 2,000 B
        mark("prologue")

    with torch.no_grad():
        peak, stages = peak_on_cpu(layer, rows, run)
    assert peak == 26000
    assert stages == {"prologue": 26000}


def test_two_passes_have_the_same_peak():
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 64))
    rows = torch.zeros(32, 64)

    def run(mark):
        model(rows)
        mark("prologue")

    with torch.no_grad():
        assert peak_on_cpu(model, rows, run) == peak_on_cpu(model, rows, run)


def test_the_peak_resident_set_is_read_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t  2000 kB\n")
    assert peak_resident(tmp_path) == 2048000


def test_a_kernel_without_a_peak_is_unknown_never_zero(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tx\n")
    assert isinstance(peak_resident(tmp_path), Unknown)
    assert isinstance(peak_resident(tmp_path / "absent"), Unknown)


def test_a_peak_that_cannot_be_reset_says_why(tmp_path: Path) -> None:
    assert "does not let" in forget_peak(tmp_path / "absent")
    assert forget_peak(tmp_path) == ""


@dataclass
class Board:
    """A caching allocator on a board of 80,000 bytes, of which a context takes 500."""

    allocated: int = 100
    reserved: int = 200
    foreign: int = 0
    most_allocated: int = 0
    most_reserved: int = 0

    def take(self, size: int) -> None:
        self.allocated += size
        self.reserved = max(self.reserved, self.allocated)
        self.most_allocated = max(self.most_allocated, self.allocated)
        self.most_reserved = max(self.most_reserved, self.reserved)

    def give(self, size: int) -> None:
        self.allocated -= size

    def empty(self) -> None:
        self.reserved = self.allocated

    def reset(self) -> None:
        self.most_allocated, self.most_reserved = self.allocated, self.reserved

    def free_and_total(self) -> tuple[int, int]:
        return TOTAL - self.reserved - 500 - self.foreign, TOTAL


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    board = Board()
    for name, answer in {
        "max_memory_allocated": lambda: board.most_allocated,
        "max_memory_reserved": lambda: board.most_reserved,
        "memory_reserved": lambda: board.reserved,
        "reset_peak_memory_stats": board.reset,
        "mem_get_info": board.free_and_total,
        "synchronize": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return board


@dataclass(frozen=True, kw_only=True)
class Holders(AbsentMeter):
    reason: str = "not asked"
    count: int | Unknown = 1

    def processes(self) -> int | Unknown:
        return self.count


def two_stages(board: Board) -> PassWithMarks:
    def run(mark):
        board.take(1000)
        board.give(1000)
        board.empty()  # the peak of the first stage is over when the mark comes
        mark("prologue")
        board.take(300)
        mark("recursion-1")

    return run


def test_a_stage_keeps_its_own_peaks_on_every_level(board: Board) -> None:
    board.most_reserved = 70_000  # of the passes before
    stages = peaks_on_cuda(two_stages(board))
    first, second = stages["prologue"], stages["recursion-1"]
    assert (first.peak_bytes, first.reserved_bytes) == (1100, 1100)
    assert (second.peak_bytes, second.reserved_bytes) == (400, 400)
    assert (first.device_bytes, second.device_bytes) == (600, 900)


def test_a_pass_has_the_largest_of_its_stages(board: Board) -> None:
    whole = MEMORIES["cuda"](torch.nn.Identity(), torch.zeros(1), two_stages(board), Holders())
    assert (whole.peak_bytes, whole.reserved_bytes, whole.context_bytes) == (1100, 1100, 500)


def test_other_batches_of_the_rotation_are_taken_off_the_peak_alone(board: Board) -> None:
    model = torch.nn.Identity()
    whole = MEMORIES["cuda"](model, torch.zeros(1), two_stages(board), Holders(), beside_bytes=100)
    assert (whole.peak_bytes, whole.reserved_bytes) == (1000, 1100)


def test_the_context_is_what_the_device_holds_beside_the_allocator(board: Board) -> None:
    assert context_on_cuda(Holders()) == 500


@pytest.mark.parametrize(
    ("holders", "said"),
    [(2, "2 processes hold the device"), (Unknown(reason="hidden"), "not known: hidden")],
)
def test_the_context_is_unknown_unless_nobody_else_is_there(
    board: Board, holders: int | Unknown, said: str
) -> None:
    board.foreign = 9000
    context = context_on_cuda(Holders(count=holders))
    assert isinstance(context, Unknown)
    assert said in context.reason


def test_a_device_that_does_not_answer_is_unknown(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError("CUDA error: operation not supported\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch.cuda, "mem_get_info", refuse)
    for answer in (in_use_on_device(), context_on_cuda(Holders())):
        assert answer == Unknown(
            reason="the device does not say what is free: CUDA error: operation not supported"
        )


def test_a_cpu_says_what_stands_instead_of_the_levels_that_it_lacks():
    def run(mark):
        torch.zeros(10)
        mark("prologue")

    whole = MEMORIES["cpu"](torch.nn.Identity(), torch.zeros(1), run, Holders())
    stage = whole.stages["prologue"]
    for level in (
        whole.reserved_bytes,
        whole.context_bytes,
        stage.reserved_bytes,
        stage.device_bytes,
    ):
        assert isinstance(level, Unknown)
        assert "resident_bytes" in level.reason


def test_the_peak_of_a_control_group_is_read_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("1:cpu:/old\n0::/slice/ours\n")
    (tmp_path / "slice" / "ours").mkdir(parents=True)
    (tmp_path / "slice" / "ours" / "memory.peak").write_text("123456\n")
    assert peak_of_group(tmp_path, tmp_path) == 123456
    assert isinstance(peak_of_group(tmp_path, tmp_path / "absent"), Unknown)
    (tmp_path / "cgroup").write_text("1:cpu:/old\n")
    assert isinstance(peak_of_group(tmp_path, tmp_path), Unknown)
