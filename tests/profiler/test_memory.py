from pathlib import Path

import torch

from domain.record import Unknown
from profiler.memory import LiveBytes, forget_peak, peak_on_cpu, peak_resident


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
