from pathlib import Path

import pytest

from domain.record import Unknown
from profiler.telemetry import AbsentMeter, Limits, RaplMeter, nvml_meter
from tests.profiler.conftest import FakeDriver

ASK_ALL = """
from profiler.telemetry import nvml_meter
meter = nvml_meter("GPU-1234")
for name in ("energy_j", "power_w", "used_bytes", "processes", "clock_hz", "usual_clock_hz",
             "throttling", "held_back_s", "lost"):
    value = getattr(meter, name)()
    print(name, getattr(value, "reason", value), sep=": ")
"""
CODES = ("3", "4", "9", "10", "12", "15", "18", "999")
# Every call that is made, and a question that needs it.
SITES = {
    "nvmlInit": "energy_j",
    "nvmlDeviceGetHandleByUUID": "energy_j",
    "nvmlDeviceGetTotalEnergyConsumption": "energy_j",
    "nvmlDeviceGetPowerUsage": "power_w",
    "nvmlDeviceGetMemoryInfo": "used_bytes",
    "nvmlDeviceGetComputeRunningProcesses": "processes",
    "nvmlDeviceGetGraphicsRunningProcesses": "processes",
    "nvmlDeviceGetClockInfo": "clock_hz",
    "nvmlDeviceGetCurrentClocksThrottleReasons": "throttling",
    "nvmlDeviceGetViolationStatus": "held_back_s",
}
BEHIND = ("nvmlDeviceGetFieldValues", "nvmlDeviceGetDefaultApplicationsClock")
FAILING = """
import sys
from pathlib import Path
from profiler.telemetry import nvml_meter
state = Path(sys.argv[1])
healthy = state.read_text()

def failing(site, code):
    state.write_text(healthy + f"fail {site} {code}\\n")
    return nvml_meter("GPU-1234")
"""
ASK_FAILING = """
for case in sys.argv[2:]:
    site, code, question = case.split()
    print(site, code, failing(site, code).__getattribute__(question)(), sep="|")
"""
# Points that a CPU measures while a fake driver speaks: the latency needs no meter.
MEASURE = """
from profiler.messages import Task
from profiler.passes import measured
from profiler.protocol import SETTINGS, Settings
from tests.profiler.networks import ENVIRONMENT, RATES, forced
hurried = Settings(**{**dict(SETTINGS["quick"]), "most_warmup_s": 0.02, "least_warmups": 2,
    "least_samples": 2, "least_s": 0.0, "most_s": 0.02, "most_pairs_s": 0.02, "energy_s": 0.2,
    "retries": 0})
task = Task(point=forced(), run=1, session="s", seed=1, settings=hurried,
    environment=ENVIRONMENT, rates=RATES)
for case in sys.argv[2:]:
    site, code = case.split()
    record = measured(task, "cpu", failing(site, code))
    print(site, code, len(record.samples_s), record.energy_j, sep="|")
"""


def packages(root: Path, *energies: int, largest: int = 1_000_000) -> RaplMeter:
    for number, energy in enumerate(energies):
        zone = root / f"intel-rapl:{number}"
        zone.mkdir(exist_ok=True)
        (zone / "energy_uj").write_text(f"{energy}\n")
        (zone / "max_energy_range_uj").write_text(f"{largest}\n")
        (zone / "name").write_text(f"package-{number}\n")
    core = root / "intel-rapl:0:0"
    core.mkdir(exist_ok=True)
    (core / "energy_uj").write_text("999999\n")
    return RaplMeter(root, root / "cpu")


def test_nvml_is_read_in_si_units(driver: FakeDriver) -> None:
    driver.say(reasons="65", **{"violation 1": "2500000000", "violation 0": "0"})
    assert driver.python(ASK_ALL).splitlines() == [
        "energy_j: 5.0",
        "power_w: 250.0",
        "used_bytes: 1000000",
        "processes: 1",
        "clock_hz: 1410000000.0",
        "usual_clock_hz: 1410000000.0",
        "throttling: ('hardware thermal slowdown',)",
        "held_back_s: {'power cap': 0.0, 'thermal slowdown': 2.5}",
        "lost: ",
    ]


def test_power_of_this_instant_is_preferred_to_an_average(driver: FakeDriver) -> None:
    driver.say(instant_mw="301000")
    assert "power_w: 301.0" in driver.python(ASK_ALL)


def test_the_highest_clock_stands_in_for_a_default_that_there_is_not(driver: FakeDriver) -> None:
    driver.say(usual_mhz=None)
    assert "usual_clock_hz: 1980000000.0" in driver.python(ASK_ALL)


def test_reasons_that_are_in_order_are_told_apart(driver: FakeDriver) -> None:
    driver.say(reasons=str(0x01 | 0x02 | 0x04))
    code = "from profiler.telemetry import nvml_meter; print(nvml_meter('GPU-1234').limits())"
    wanted = Limits(is_power_capped=True, is_chosen=True, is_idle=True)
    assert driver.python(code).strip() == str(wanted)


def test_every_nvml_error_is_a_reason_at_every_call(driver: FakeDriver) -> None:
    cases = [f"{site} {code} {question}" for site, question in SITES.items() for code in CODES]
    lines = driver.python(FAILING + ASK_FAILING, str(driver.state), *cases).splitlines()
    assert len(lines) == len(cases)
    assert [line for line in lines if "|reason='NVML: " not in line] == []


def test_where_one_call_stands_behind_another_an_error_is_no_loss(driver: FakeDriver) -> None:
    for site in BEHIND:
        cases = [
            f"{site} {code} {name}" for code in CODES for name in ("power_w", "usual_clock_hz")
        ]
        lines = driver.python(FAILING + ASK_FAILING, str(driver.state), *cases).splitlines()
        assert [line for line in lines if "reason" in line] == []


def test_latency_is_measured_whatever_error_nvml_gives(driver: FakeDriver) -> None:
    driver.say(drawing_w="250")
    blind = ["nvmlInit 999", "nvmlDeviceGetTotalEnergyConsumption 4"]
    seeing = ["nvmlDeviceGetPowerUsage 3", "nvmlDeviceGetCurrentClocksThrottleReasons 10"]
    cases = [*blind, *seeing]
    printed = driver.python(FAILING + MEASURE, str(driver.state), *cases).splitlines()
    answers = {
        f"{site} {code}": rest for site, code, *rest in (line.split("|") for line in printed)
    }
    assert list(answers) == cases
    for case, (count, energy) in answers.items():
        assert int(count) > 0
        # A board whose counter fails goes by its power; a busy machine may leave it no window.
        assert energy.startswith("reason='NVML: ") == (case == "nvmlInit 999")
        assert energy.startswith("reason=") or float(energy) > 0


def test_a_lost_gpu_says_so_and_stays_lost(driver: FakeDriver) -> None:
    for site in ("nvmlDeviceGetHandleByUUID", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetClockInfo"):
        driver.say(**{f"fail {site}": "15"})
        assert "lost: the GPU was lost (NVML: " in driver.python(ASK_ALL)


@pytest.mark.parametrize(
    ("state", "question"),
    [("power_mw", "power_w"), ("used", "used_bytes"), ("clock_mhz", "clock_hz")],
)
def test_zero_is_unknown(driver: FakeDriver, state: str, question: str) -> None:
    driver.say(**{state: "0"})
    answers = dict(line.split(": ", 1) for line in driver.python(ASK_ALL).splitlines())
    assert " gave 0 " in answers[question]


def test_a_container_that_hides_processes_is_unknown_not_alone(driver: FakeDriver) -> None:
    driver.say(processes="0")
    assert "processes: NVML lists no process" in driver.python(ASK_ALL)


def test_without_a_driver_there_is_a_reason():
    energy = nvml_meter("GPU-none").energy_j()
    assert isinstance(energy, Unknown)
    assert energy.reason


def test_rapl_sums_packages_and_neither_their_parts_nor_the_platform(tmp_path: Path) -> None:
    platform = tmp_path / "intel-rapl:2"
    platform.mkdir()
    (platform / "name").write_text("psys\n")
    (platform / "energy_uj").write_text("1\n")
    meter = packages(tmp_path, 2_000_000, 3_000_000, largest=10**9)
    assert meter.energy_j() == 0.0
    packages(tmp_path, 2_500_000, 4_000_000, largest=10**9)
    assert meter.energy_j() == pytest.approx(1.5)


def test_rapl_unwraps_each_package(tmp_path: Path) -> None:
    meter = packages(tmp_path, 900_000, 100_000)
    meter.energy_j()
    packages(tmp_path, 100_000, 300_000)
    assert meter.energy_j() == pytest.approx(0.2 + 0.2)
    packages(tmp_path, 200_000, 50_000)
    meter = packages(tmp_path, 200_000, 900_000)
    meter.energy_j()
    packages(tmp_path, 300_000, 0)
    assert meter.energy_j() == pytest.approx(0.1 + 0.1)


def test_rapl_that_goes_backwards_did_not_wrap(tmp_path: Path) -> None:
    meter = packages(tmp_path, 500_000)
    meter.energy_j()
    packages(tmp_path, 499_000)
    energy = meter.energy_j()
    assert isinstance(energy, Unknown)
    assert "backwards, from 500000 µJ to 499000 µJ" in energy.reason


def test_rapl_that_may_not_be_read_is_unknown(tmp_path: Path) -> None:
    meter = packages(tmp_path, 1)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("no number")
    energy = meter.energy_j()
    assert isinstance(energy, Unknown)
    assert "cannot read RAPL" in energy.reason


def test_no_rapl_is_unknown_never_zero(tmp_path: Path) -> None:
    energy = RaplMeter(tmp_path / "absent").energy_j()
    assert isinstance(energy, Unknown)
    assert "no RAPL counter" in energy.reason


def test_the_slowdown_of_a_cpu_is_that_of_its_worst_core(tmp_path: Path) -> None:
    for number, (core_ms, package_ms) in enumerate([(1500, 40), (500, 40)]):
        folder = tmp_path / "cpu" / f"cpu{number}" / "thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_total_time_ms").write_text(f"{core_ms}\n")
        (folder / "package_throttle_total_time_ms").write_text(f"{package_ms}\n")
    held_s = RaplMeter(tmp_path, tmp_path / "cpu").held_back_s()
    assert isinstance(held_s, dict)
    assert held_s["thermal slowdown of the core"] == pytest.approx(1.5)
    assert held_s["thermal slowdown of the package"] == pytest.approx(0.04)
    assert isinstance(RaplMeter(tmp_path, tmp_path / "none").held_back_s(), Unknown)


def test_an_absent_meter_gives_its_reason_everywhere():
    meter = AbsentMeter(reason="no such thing")
    answers = (
        meter.energy_j(),
        meter.power_w(),
        meter.used_bytes(),
        meter.processes(),
        meter.clock_hz(),
        meter.usual_clock_hz(),
        meter.limits(),
        meter.throttling(),
        meter.held_back_s(),
    )
    assert {str(answer) for answer in answers} == {str(Unknown(reason="no such thing"))}
    assert meter.lost() == ""
