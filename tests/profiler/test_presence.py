import subprocess
import sys

import pytest

from domain.catalogue import device_reported_as, devices, resolve_device
from domain.complaint import Complaint, NoDevice
from profiler.environment import choose_device
from profiler.presence import Choice, Gpu, Gpus, catalogue_id_of, choose, main
from tests.profiler.conftest import ROOT, FakeDriver

NONE = Gpus(reason="libnvidia-ml.so.1 is not installed")


def gpus(*names: str) -> Gpus:
    return Gpus(
        present=tuple(
            Gpu(index=place, name=name, uuid=f"GPU-{place}") for place, name in enumerate(names)
        )
    )


def presence(
    *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-m", "profiler.presence", *arguments],
        cwd=ROOT,
        env=environment or {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_absent_device_is_refused_with_one_sentence_and_exit_4():
    done = presence("a100")
    assert done.returncode == 4
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "wanted a100" in line
    assert "found no NVIDIA GPU" in line
    assert "python -m costmodel.predict --device a100" in line


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_a_cpu_is_always_here(name):
    assert presence(name).returncode == 0


def test_cuda_needs_a_gpu():
    done = presence("cuda")
    assert done.returncode == 4
    assert "wanted a CUDA device" in done.stderr


def test_presence_needs_the_standard_library_alone():
    code = (
        "import sys; sys.path.insert(0, '.'); import profiler.presence as presence;"
        "presence.main(['a100']);"
        "print(sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # What is left is the interpreter itself and us: no pydantic, no torch, no domain.
    assert set(eval_names(done.stdout)) <= {"__main__", "profiler", "sitecustomize"}


def eval_names(printed: str) -> list[str]:
    return [name.strip(" '") for name in printed.strip().strip("[]").split(",")]


def test_a_present_device_is_found_through_the_driver(driver: FakeDriver) -> None:
    assert presence("a100", environment=driver.environment()).returncode == 0
    assert presence("a100-sxm-80", environment=driver.environment()).returncode == 0
    wrong = presence("h100", environment=driver.environment())
    assert wrong.returncode == 4
    assert "found NVIDIA A100-SXM4-80GB" in wrong.stderr


@pytest.mark.parametrize(
    ("function", "code", "said"),
    [
        ("nvmlInit", "9", "Driver Not Loaded"),
        ("nvmlInit", "18", "version mismatch"),
        ("nvmlDeviceGetCount", "15", "GPU is lost"),
        ("nvmlDeviceGetName", "15", "none that answers"),
    ],
)
def test_a_driver_that_fails_is_no_gpu_and_says_why(
    driver: FakeDriver, function: str, code: str, said: str
) -> None:
    driver.say(**{f"fail {function}": code})
    done = presence("cuda", environment=driver.environment())
    assert done.returncode == 4
    assert said in done.stderr


def test_hidden_devices_are_not_chosen(driver: FakeDriver) -> None:
    hidden = {**driver.environment(), "CUDA_VISIBLE_DEVICES": ""}
    assert presence("cuda", environment=hidden).returncode == 4
    shown = {**driver.environment(), "CUDA_VISIBLE_DEVICES": "GPU-12"}
    assert presence("cuda", environment=shown).returncode == 0


def test_an_alias_takes_any_device_that_bears_the_name():
    choice = choose("a100", gpus("NVIDIA A100-PCIE-40GB"))
    assert isinstance(choice, Choice)
    assert choice.gpu is not None
    assert choice.gpu.index == 0
    assert isinstance(choose("a100-sxm-80", gpus("NVIDIA A100-PCIE-40GB")), str)


def test_the_second_gpu_is_found_too():
    choice = choose("rtx4090", gpus("NVIDIA A10", "NVIDIA GeForce RTX 4090"))
    assert isinstance(choice, Choice)
    assert choice.gpu is not None
    assert choice.gpu.index == 1


def test_a_slice_of_a_device_is_not_the_device():
    assert catalogue_id_of("NVIDIA A100-SXM4-80GB MIG 1g.10gb") is None


def test_an_unknown_name_gets_the_nearest_ones():
    sentence = choose("a10o", NONE)
    assert isinstance(sentence, str)
    assert "nearest" in sentence
    assert "a100" in sentence


def test_an_unknown_name_is_a_question_of_usage():
    with pytest.raises(Complaint) as complaint:
        choose_device("a10o", NONE)
    assert complaint.value.exit_code == 2
    assert main(["a10o"]) == 2


def test_a_name_for_a_kind_of_device_says_why_it_is_none():
    sentence = choose("jetson", NONE)
    assert isinstance(sentence, str)
    assert "jetson" in sentence


def test_the_profiler_says_the_same_sentence():
    with pytest.raises(NoDevice) as complaint:
        choose_device("a100", NONE)
    assert str(complaint.value) == choose("a100", NONE)
    assert complaint.value.exit_code == 4
    assert choose_device("auto", NONE).kind == "cpu"


def test_presence_and_the_catalogue_know_the_same_devices():
    for id, device in devices().items():
        if device.nvml_name is None:
            continue
        name = f"NVIDIA {device.nvml_name}"
        reported = device_reported_as(name)
        assert reported is not None
        assert catalogue_id_of(name) == reported.id
        assert choose(id, gpus(name)) == Choice(kind="cuda", gpu=gpus(name).present[0])


def test_presence_resolves_aliases_as_the_catalogue_does():
    for name in ("a100", "A100 80", "h100", "rtx4090", "l4"):
        try:
            wanted = resolve_device(name).device
        except Complaint:
            assert isinstance(choose(name, NONE), str)
            continue
        if wanted.nvml_name:
            assert isinstance(choose(name, gpus(f"NVIDIA {wanted.nvml_name}")), Choice)
