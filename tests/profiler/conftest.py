"""A driver to talk to: a fake libnvidia-ml.so.1, built once, that reads its state from a file."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HEALTHY = {
    "gpu": "NVIDIA A100-SXM4-80GB",
    "uuid": "GPU-1234",
    "energy_mj": "5000",
    "power_mw": "250000",
    "used": "1000000",
    "clock_mhz": "1410",
    "reasons": "0",
    "usual_mhz": "1410",
    "max_mhz": "1980",
    "processes": "1",
}


@dataclass(frozen=True)
class FakeDriver:
    folder: Path
    state: Path

    def say(self, **changed: str | None) -> None:
        """Change what the driver says; a key may be "fail FUNCTION" with two blanks as `__`."""
        lines = {**HEALTHY, **{key.replace("__", " "): value for key, value in changed.items()}}
        self.state.write_text(
            "".join(f"{key} {value}\n" for key, value in lines.items() if value is not None)
        )

    @property
    def calls(self) -> Path:
        """Where the driver notes what changed the device, a line for each call."""
        return self.state.with_name("calls.txt")

    @property
    def told(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"},
            "LD_LIBRARY_PATH": str(self.folder),
            "FAKE_NVML_STATE": str(self.state),
            "FAKE_NVML_CALLS": str(self.calls),
            "XDG_STATE_HOME": str(self.state.parent / "state"),
            "PYTHONPATH": str(ROOT),
        }

    def python(self, code: str, *arguments: str) -> str:
        """What a fresh interpreter prints that finds this driver and runs `code`."""
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout


@pytest.fixture(scope="session")
def driver_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the fake NVIDIA driver with")
    folder = tmp_path_factory.mktemp("driver")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wl,-soname,libnvidia-ml.so.1",
         "-o", str(folder / "libnvidia-ml.so.1"), str(HERE / "fake_nvml.c")],
        check=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def driver(driver_folder: Path, tmp_path: Path) -> FakeDriver:
    fake = FakeDriver(folder=driver_folder, state=tmp_path / "nvml.txt")
    fake.say()
    return fake
