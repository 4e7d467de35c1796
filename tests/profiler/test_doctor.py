import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from domain.complaint import NoDevice
from domain.record import Unknown
from profiler.board import QUESTIONS, board_facts
from profiler.doctor import Seen, findings, looked
from profiler.environment import choose_device, difference, slug, usable_bytes, usable_cores
from profiler.preflight import Fact, lasting_flags, machine_facts, torch_facts
from profiler.presence import Gpu, Gpus
from tests.profiler.conftest import FakeDriver
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
        ({"steal": Unknown(reason="not said")}, {}),
        ({"facts": (Fact(subject="fan", found="pwm 0"),)}, {}),
        ({"facts": (Fact(subject="fan", found="stuck", cure="free it"),)}, {"fan": "WARN"}),
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
    assert isinstance(seen.steal, Unknown) or 0 <= seen.steal <= 1
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


MACHINE = {
    "sys/devices/system/cpu/smt/active": "1",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "1",
    "sys/devices/system/node/node0/cpulist": "0-3",
    "sys/devices/system/node/node1/cpulist": "4-7",
    "sys/fs/cgroup/cpu.max": "150000 100000",
    "sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_periods 100\nnr_throttled 50",
    "sys/class/thermal/thermal_zone0/temp": "45000",
    "sys/class/thermal/thermal_zone1/temp": "91000",
    "sys/class/dmi/id/sys_vendor": "Toy",
    "proc/cpuinfo": "flags : fpu hypervisor avx2",
    "proc/1/cgroup": "0::/kubepods/pod1",
}
JETSON = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.0",
    "var/lib/nvpmodel/status": "pmode:0002",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "729600",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1984000",
    "sys/class/hwmon/hwmon0/pwm1": "128",
}


def machine(root: Path, files: dict[str, str]) -> dict[str, Fact]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return {fact.subject: fact for fact in machine_facts(root, {})}


def test_what_a_machine_is_set_to_is_read_from_its_files(tmp_path: Path) -> None:
    facts = machine(tmp_path, MACHINE)
    assert {name: fact.found for name, fact in facts.items()} == {
        "smt": "on",
        "numa nodes": "2",
        "turbo": "off",
        "container": "kubepods",
        "virtual machine": "yes (Toy)",
        "cpu quota": "1.5 cores, used up in 50.0% of the periods so far",
        "temperature": "91 °C",
    }
    assert {name for name, fact in facts.items() if fact.cure} == {"cpu quota", "temperature"}


def test_a_machine_that_says_nothing_is_unreadable_and_not_ill(tmp_path: Path) -> None:
    facts = machine(tmp_path, {})
    assert facts["smt"].found == facts["cpu quota"].found == "unreadable"
    assert facts["temperature"].found == "unreadable"
    assert not any(fact.cure for fact in facts.values())


@pytest.mark.parametrize(
    ("files", "subject", "found"),
    [
        ({"sys/devices/system/cpu/cpufreq/boost": "1"}, "turbo", "on"),
        ({".dockerenv": ""}, "container", "docker"),
        ({"run/.containerenv": ""}, "container", "podman"),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, "cpu quota", "none"),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1"}, "cpu quota", "none"),
        ({"sys/fs/cgroup/cpu.max": "noise 0"}, "cpu quota", "unreadable"),
        ({"sys/class/thermal/thermal_zone0/temp": "noise"}, "temperature", "unreadable"),
    ],
)
def test_other_kernels_say_it_elsewhere(tmp_path, files, subject, found):
    assert machine(tmp_path, files)[subject].found == found


def test_a_jetson_tells_its_power_mode_clocks_and_fan(tmp_path: Path) -> None:
    facts = machine(tmp_path, JETSON)
    assert facts["power mode"].found == "pmode:0002"
    assert facts["jetson_clocks"].found == "off"
    assert facts["fan"].found == "pwm 128"
    fixed = {"sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "1984000"}
    assert machine(tmp_path, fixed)["jetson_clocks"].found == "on"


def test_what_varies_from_minute_to_minute_is_in_no_environment(tmp_path: Path) -> None:
    machine(tmp_path, MACHINE | JETSON)
    before = lasting_flags(tmp_path, {})
    machine(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone1/temp": "20000",
            "sys/fs/cgroup/cpu.stat": "nr_periods 900\nnr_throttled 1",
            "sys/class/hwmon/hwmon0/pwm1": "0",
        },
    )
    assert lasting_flags(tmp_path, {}) == before
    machine(tmp_path, {"sys/devices/system/cpu/smt/active": "0"})
    assert lasting_flags(tmp_path, {}) == before | {"smt": "off"}


def test_torch_says_its_switches():
    assert {fact.subject for fact in torch_facts()} == {
        "cuDNN",
        "TF32",
        "cudnn.benchmark",
        "deterministic",
    }


ANSWERS = {
    "nvmlSystemGetDriverVersion": "570.1",
    "nvmlSystemGetCudaDriverVersion_v2": 12080,
    "nvmlDeviceGetUUID": "GPU-1",
    "nvmlDeviceGetVbiosVersion": "96.00",
    "nvmlDeviceGetEccMode": [1, 1],
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetComputeMode": 0,
    "nvmlDeviceGetEnforcedPowerLimit": 400_000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 400_000,
    "nvmlDeviceGetClockInfo": 1200,
    "nvmlDeviceGetMaxClockInfo": 1410,
    "nvmlDeviceGetApplicationsClock": 1410,
    "nvmlDeviceGetCurrPcieLinkGeneration": 1,
    "nvmlDeviceGetCurrPcieLinkWidth": 16,
    "nvmlDeviceGetMaxPcieLinkGeneration": 4,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
    "nvmlDeviceGetTemperature": 35,
    "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=os.getpid())],
}


def board(**changed: Any) -> dict[str, Fact]:
    """Facts of a healthy board but for what is changed; an exception is raised, not given."""

    def answering(value: Any) -> Any:
        def answer(*_: Any) -> Any:
            if isinstance(value, Exception):
                raise value
            return value

        return answer

    functions = {name: answering(value) for name, value in (ANSWERS | changed).items()}
    return {fact.subject: fact for fact in board_facts(SimpleNamespace(**functions), None)}


def test_a_healthy_board_needs_no_cure_and_answers_every_question():
    facts = board()
    assert len(facts) == len(QUESTIONS)
    assert not any(fact.cure or "n/a" in fact.found for fact in facts.values())
    assert facts["CUDA of the driver"].found == "12.8"
    assert facts["PCIe"].found == "gen 1 × 16 now, gen 4 × 16 at most"
    assert facts["power limit"].found == "400 W enforced, 400 W by default"
    assert facts["other compute processes"].found == "none"


@pytest.mark.parametrize(
    ("function", "value", "subject", "found"),
    [
        ("nvmlDeviceGetEccMode", [1, 0], "ECC", "on"),
        ("nvmlDeviceGetPersistenceMode", 0, "persistence", "off"),
        ("nvmlDeviceGetComputeMode", 2, "compute mode", "prohibited"),
        ("nvmlDeviceGetEnforcedPowerLimit", 250_000, "power limit", "250 W enforced, 400 W"),
        ("nvmlDeviceGetCurrPcieLinkWidth", 8, "PCIe", "gen 1 × 8 now"),
        ("nvmlDeviceGetTemperature", 88, "GPU temperature", "88 °C"),
        (
            "nvmlDeviceGetComputeRunningProcesses",
            [SimpleNamespace(pid=-5)],
            "other compute processes",
            "1 (-5)",
        ),
    ],
)
def test_what_is_wrong_with_a_board_is_named_with_a_cure(function, value, subject, found):
    facts = board(**{function: value})
    assert facts[subject].found.startswith(found)
    assert [name for name, fact in facts.items() if fact.cure] == [subject]


@pytest.mark.parametrize("function", sorted(ANSWERS))
def test_a_question_that_fails_is_not_answered_and_the_others_are(function):
    facts = board(**{function: RuntimeError("Not Supported")})
    (silent,) = (fact for fact in facts.values() if "n/a" in fact.found)
    assert silent.found == "n/a (NVML: Not Supported)"
    assert not silent.cure


ASK_BOARD = """
import profiler.board
from profiler.presence import Gpu
profiler.board.LONGEST_ANSWER_S = 1.0
for fact in profiler.board.driver_facts(Gpu(index=0, name="A", uuid="GPU-1234")):
    print(fact.subject, fact.found, sep=": ", flush=True)
import os
os._exit(0)
"""


def test_a_driver_is_asked_through_nvml_and_what_it_lacks_is_said(driver: FakeDriver) -> None:
    lines = driver.python(ASK_BOARD).splitlines()
    assert len(lines) == len(QUESTIONS)
    assert "UUID: GPU-1234" in lines
    assert any(": n/a (NVML: " in line for line in lines)


def test_a_driver_that_hangs_is_given_up(driver: FakeDriver) -> None:
    driver.say(hang__nvmlInit="1")
    assert driver.python(ASK_BOARD).splitlines() == ["driver: no answer in 1 s"]
