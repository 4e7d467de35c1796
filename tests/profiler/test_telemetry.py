import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.record import Unknown
from profiler.telemetry import AbsentMeter, RaplMeter, nvml_meter, spent_j
from tests.profiler.conftest import FakeDriver

ASK_ALL = """
from profiler.telemetry import nvml_meter
meter = nvml_meter("GPU-1234")
for name in ("energy_j", "power_w", "used_bytes", "clock_hz", "throttling"):
    value = getattr(meter, name)()
    print(name, getattr(value, "reason", value), sep=": ")
"""


def packages(root: Path, *energies: int, largest: int = 1_000_000) -> RaplMeter:
    for number, energy in enumerate(energies):
        zone = root / f"intel-rapl:{number}"
        zone.mkdir(exist_ok=True)
        (zone / "energy_uj").write_text(f"{energy}\n")
        (zone / "max_energy_range_uj").write_text(f"{largest}\n")
    core = root / "intel-rapl:0:0"
    core.mkdir(exist_ok=True)
    (core / "energy_uj").write_text("999999\n")
    return RaplMeter(root)


def test_nvml_is_read_in_si_units(driver: FakeDriver) -> None:
    driver.say(reasons="65")
    assert driver.python(ASK_ALL).splitlines() == [
        "energy_j: 5.0",
        "power_w: 250.0",
        "used_bytes: 1000000",
        "clock_hz: 1410000000.0",
        "throttling: ('hardware thermal slowdown',)",
    ]


@pytest.mark.parametrize(
    ("code", "said"), [("3", "Not Supported"), ("4", "Permissions"), ("15", "lost")]
)
def test_every_nvml_error_is_a_reason_at_every_call(
    driver: FakeDriver, code: str, said: str
) -> None:
    functions = (
        "TotalEnergyConsumption",
        "PowerUsage",
        "MemoryInfo",
        "ClockInfo",
        "CurrentClocksThrottleReasons",
    )
    driver.say(**{f"fail nvmlDeviceGet{function}": code for function in functions})
    lines = driver.python(ASK_ALL).splitlines()
    assert len(lines) == 5
    assert all(": NVML: " in line and said.lower() in line.lower() for line in lines)


def test_a_lost_gpu_has_no_meter_and_says_so(driver: FakeDriver) -> None:
    driver.say(**{"fail nvmlDeviceGetHandleByUUID": "15"})
    lines = driver.python(ASK_ALL).splitlines()
    assert all("lost" in line.lower() for line in lines)


def test_zero_watts_are_unknown(driver: FakeDriver) -> None:
    driver.say(power_mw="0")
    assert "power_w: NVML gave 0 W" in driver.python(ASK_ALL)


def test_without_a_driver_there_is_a_reason():
    energy = nvml_meter("GPU-none").energy_j()
    assert isinstance(energy, Unknown)
    assert energy.reason


@given(st.floats(), st.floats())
def test_energy_is_positive_or_has_a_reason(before, after):
    spent = spent_j(before, after)
    if isinstance(spent, Unknown):
        assert spent.reason
    else:
        assert math.isfinite(spent)
        assert spent > 0


def test_unknown_totals_stay_unknown_with_their_reason():
    lost = Unknown(reason="GPU is lost")
    assert spent_j(lost, 3.0) == lost
    assert spent_j(3.0, lost) == lost


def test_a_stalled_counter_is_unknown():
    spent = spent_j(7.0, 7.0)
    assert isinstance(spent, Unknown)
    assert "stood still" in spent.reason


def test_rapl_sums_packages_and_not_their_parts(tmp_path: Path) -> None:
    meter = packages(tmp_path, 2_000_000, 3_000_000, largest=10**9)
    assert meter.energy_j() == pytest.approx(5.0)


def test_rapl_unwraps_one_package(tmp_path: Path) -> None:
    before = packages(tmp_path, 900_000).energy_j()
    meter = packages(tmp_path, 100_000)
    assert meter.spent_j(before, meter.energy_j()) == pytest.approx(0.2)


def test_rapl_that_may_not_be_read_is_unknown(tmp_path: Path) -> None:
    meter = packages(tmp_path, 1)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("no number")
    energy = meter.energy_j()
    assert isinstance(energy, Unknown)
    assert "cannot read RAPL" in energy.reason


def test_no_rapl_is_unknown_never_zero(tmp_path: Path) -> None:
    meter = RaplMeter(tmp_path / "absent")
    energy = meter.energy_j()
    assert isinstance(energy, Unknown)
    assert isinstance(meter.spent_j(energy, energy), Unknown)


def test_an_absent_meter_gives_its_reason_everywhere():
    meter = AbsentMeter(reason="no such thing")
    answers = (meter.energy_j(), meter.power_w(), meter.used_bytes(), meter.clock_hz())
    assert {str(answer) for answer in answers} == {str(Unknown(reason="no such thing"))}
