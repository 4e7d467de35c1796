"""What a worker keeps from point to point: the meter, the idle draw, and that a device is gone."""

import pytest
import torch

from domain.measurement import Measurement
from domain.record import Unknown
from profiler import passes
from profiler.messages import Preparation, Task
from profiler.protocol import SETTINGS
from profiler.telemetry import AbsentMeter
from profiler.worker import Bench, failure_of
from tests.profiler.fake_worker import answered
from tests.profiler.networks import ENVIRONMENT, RATES, forced

CPU = Preparation(kind="cpu", threads=1)
TASK = Task(
    point=forced(), run=1, session="s", seed=1, settings=SETTINGS["quick"],
    environment=ENVIRONMENT, rates=RATES,
)  # fmt: skip
HERE, GONE = AbsentMeter(reason="none"), AbsentMeter(reason="none", gone="the GPU was lost")


class Leaving(AbsentMeter):
    """There at first, lost when asked again."""

    asked = 0

    def lost(self) -> str:
        type(self).asked += 1
        return "the GPU was lost" if type(self).asked > 1 else ""


def test_nothing_is_tried_on_a_device_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*anything: object) -> Measurement:
        raise AssertionError("tried")

    monkeypatch.setattr(passes, "measured", never)
    bench = Bench(GONE)
    for _ in range(3):
        record = bench.measurement(TASK, CPU)
        assert (record.status, record.reason) == ("failed", "the GPU was lost")


def test_a_point_during_which_the_device_is_lost_says_so_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dies(*anything: object) -> Measurement:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(passes, "measured", dies)
    record = Bench(Leaving(reason="none")).measurement(TASK, CPU)
    assert record.status == "failed"
    assert record.reason.startswith("the GPU was lost; ")


def test_the_idle_draw_is_taken_before_the_first_point_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[float] = []
    heard: list[object] = []

    def idle(meter: object, seconds: float, clock: object) -> Unknown:
        taken.append(seconds)
        return Unknown(reason="taken once")

    def measured(task: Task, kind: str, meter: object, source: object, idle_w: object) -> object:
        heard.append(idle_w)
        return answered(task)

    monkeypatch.setattr("profiler.energy.idle_draw_w", idle)
    monkeypatch.setattr(passes, "measured", measured)
    bench = Bench(HERE)
    for _ in range(3):
        bench.measurement(TASK, CPU)
    assert taken == [SETTINGS["quick"].energy_s]
    assert heard == [Unknown(reason="taken once")] * 3


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory"), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory."), "oom"),
        (RuntimeError("CUDA error: out of memory"), "oom"),
        (MemoryError(), "oom"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "failed"),
        (RuntimeError("CUDA error: device-side assert triggered"), "failed"),
    ],
)
def test_a_fault_of_a_kernel_is_no_lack_of_memory(error: Exception, status: str) -> None:
    assert failure_of(error)[0] == status
