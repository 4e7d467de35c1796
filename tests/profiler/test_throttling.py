import pytest

from domain.record import Unknown
from profiler.telemetry import Limits
from profiler.throttling import ClockWatch, Look, held_between, slowdown_of
from tests.profiler.conftest import FakeDriver

USUAL_HZ = 1.41e9
UNREADABLE = Unknown(reason="NVML: Insufficient Permissions")
WATCH = """
from profiler.clock import RealClock
from profiler.telemetry import nvml_meter
from profiler.throttling import ClockWatch
watch = ClockWatch(nvml_meter("GPU-1234"), RealClock(), "cuda")
watch.look()
print(watch.slowdown())
"""


def look(share: float = 1.0, **limits: object) -> Look:
    return Look(limits=Limits(**limits), clock_hz=share * USUAL_HZ)  # type: ignore[arg-type]


def test_a_healthy_device_has_nothing_to_say():
    seen = slowdown_of([look(), look(0.9)], USUAL_HZ, {"thermal slowdown": 0.0}, 10.0)
    assert (seen.causes, seen.notes) == ((), ())


@pytest.mark.parametrize("reason", ["hardware slowdown", "power brake"])
def test_one_look_at_heat_or_a_fault_is_enough(reason):
    seen = slowdown_of([look(), look(slowed=(reason,)), look()], USUAL_HZ, {}, 10.0)
    assert seen.causes == (reason,)


def test_a_power_cap_is_noted_even_where_it_halves_the_clock():
    seen = slowdown_of([look(0.5, is_power_capped=True)], USUAL_HZ, {"power cap": 4.0}, 10.0)
    assert seen.causes == ()
    assert seen.notes == (
        "power-capped",
        "power cap for 4 s",
        "the clock at 50% of the usual 1410 MHz",
    )


@pytest.mark.parametrize(("share", "is_slow"), [(0.74, True), (0.76, False)])
def test_a_clock_below_three_quarters_is_slow_whatever_the_device_says(share, is_slow):
    seen = slowdown_of([look(share)], USUAL_HZ, {}, 10.0)
    assert bool(seen.causes) == is_slow


@pytest.mark.parametrize("excuse", ["is_idle", "is_chosen"])
def test_an_idle_device_and_a_chosen_clock_are_not_slow(excuse):
    seen = slowdown_of([look(0.2, **{excuse: True})], USUAL_HZ, {}, 10.0)
    assert (seen.causes, seen.notes) == ((), ())


@pytest.mark.parametrize(("seconds", "is_slow"), [(0.5, True), (0.05, False)])
def test_totals_count_from_a_hundredth_of_the_time(seconds, is_slow):
    seen = slowdown_of([look()], USUAL_HZ, {"thermal slowdown": seconds}, 10.0)
    assert bool(seen.causes) == is_slow


def test_without_permission_the_check_is_marked_unavailable_and_nothing_is_concluded():
    blind = Look(limits=UNREADABLE, clock_hz=0.3 * USUAL_HZ)
    seen = slowdown_of([blind], USUAL_HZ, UNREADABLE, 10.0)
    assert seen.causes == ()
    assert seen.notes[-1] == f"throttle check unavailable: {UNREADABLE.reason}"


def test_totals_alone_are_a_check():
    seen = slowdown_of([Look(limits=UNREADABLE, clock_hz=UNREADABLE)], UNREADABLE, {}, 10.0)
    assert seen.notes == ()


def test_a_total_that_was_reset_says_nothing():
    assert held_between({"thermal slowdown": 9.0}, {"thermal slowdown": 1.0}) == {}
    assert held_between(UNREADABLE, {}) == UNREADABLE


def test_a_driver_that_reports_heat_is_heard(driver: FakeDriver) -> None:
    driver.say(reasons="64")
    assert "causes=('hardware thermal slowdown',)" in driver.python(WATCH)


def test_a_driver_that_denies_every_question_leaves_a_mark(driver: FakeDriver) -> None:
    denied = ("CurrentClocksThrottleReasons", "ViolationStatus", "ClockInfo")
    driver.say(**{f"fail nvmlDeviceGet{name}": "4" for name in denied})
    assert "throttle check unavailable: NVML: " in driver.python(WATCH)


def test_a_processor_without_counters_is_not_marked():
    from profiler.clock import RealClock
    from profiler.telemetry import AbsentMeter

    watch = ClockWatch(AbsentMeter(reason="none"), RealClock(), "cpu")
    watch.look()
    assert watch.slowdown().notes == ()
