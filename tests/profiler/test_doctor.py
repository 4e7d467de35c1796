from pathlib import Path
from typing import Any

import pytest

from domain.complaint import NoDevice
from profiler.doctor import Seen, findings, looked
from profiler.environment import choose_device, difference, slug, usable_bytes, usable_cores
from profiler.presence import Gpu, Gpus
from tests.profiler.networks import ENVIRONMENT

WELL = Seen(
    cores=4,
    threads=4,
    load=0.1,
    steal=0.0,
    memory_bytes=16 * 10**9,
    free_bytes=12 * 10**9,
    disk_bytes=10**11,
    torch="2.14.1+cu130",
    governor="performance",
    energy="readable",
    gpus=Gpus(reason="none"),
    cuda_problem="",
    has_checkpoint=True,
)


def levels(**changed: Any) -> dict[str, str]:
    found = findings(Seen(**{**vars(WELL), **changed}))
    assert all(each.cure for each in found if each.level != "PASS")
    return {each.subject: each.level for each in found if each.level != "PASS"}


def test_a_well_machine_passes_everything():
    assert levels() == {}


@pytest.mark.parametrize(
    ("changed", "bad"),
    [
        ({"load": 3.5}, {"load": "WARN"}),
        ({"steal": 0.2}, {"steal": "WARN"}),
        ({"threads": 8}, {"threads": "WARN"}),
        ({"cores": 1, "threads": 1}, {"cores": "WARN"}),
        ({"governor": "powersave"}, {"governor": "WARN"}),
        ({"free_bytes": 10**9}, {"memory": "WARN"}),
        ({"energy": "no RAPL"}, {"energy meter": "WARN"}),
        ({"cuda_problem": "blind"}, {"GPU": "WARN"}),
        ({"disk_bytes": 10**6}, {"disk": "FAIL"}),
        ({"torch": "2.9.1"}, {"torch": "FAIL"}),
        ({"has_checkpoint": False}, {"shipped checkpoint": "FAIL"}),
    ],
)
def test_what_is_wrong_is_named_with_a_cure(changed, bad):
    assert levels(**changed) == bad


def test_looking_at_this_machine_finds_sane_figures():
    seen = looked()
    assert seen.cores >= 1
    assert 0 <= seen.steal <= 1
    assert 0 < seen.free_bytes <= seen.memory_bytes * 2
    assert findings(seen)


def test_the_quota_of_a_container_bounds_cores_and_memory(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("100000 100000\n")
    (group / "memory.max").write_text("1000000\n")
    assert usable_cores(tmp_path) == 1
    assert usable_bytes(tmp_path) == 1000000
    (group / "memory.max").write_text("max\n")
    assert usable_bytes(tmp_path) > 1000000


def test_environments_that_are_equal_do_not_differ():
    assert difference(ENVIRONMENT, ENVIRONMENT) == ""


def test_a_slug_is_an_identifier_whatever_the_name():
    assert slug("  ÄMD™ / (R) x ") == "md-x"
    assert slug("???") == "unnamed"


def test_a_gpu_that_torch_cannot_use_is_named_and_auto_takes_the_cpu(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpus = Gpus(present=(Gpu(index=0, name="NVIDIA L4", uuid="GPU-1"),))
    assert choose_device("auto", gpus).kind == "cpu"
    with pytest.raises(NoDevice, match="NVIDIA L4 is here, but torch"):
        choose_device("l4", gpus)
