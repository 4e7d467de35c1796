"""Known answers: a meter and a clock that share one simulated time, in which passes take place."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.measurement import Energy
from domain.record import Unknown
from profiler.clock import RealClock
from profiler.energy import POLL_S, demand_of, energy_pass, idle_draw_w, polled
from profiler.joules import (
    Demand,
    EnergyPass,
    Poll,
    edges_of,
    energy_of,
    held_j,
    refusal_of,
)
from profiler.protocol import SETTINGS, Settings
from profiler.telemetry import AbsentMeter, RaplMeter
from tests.profiler.conftest import FakeDriver

NO_POWER = Unknown(reason="no power here")
DEMAND = Demand(window_s=1.0, windows=2, ticks=10)


ABSENT = AbsentMeter(reason="not in this world")


@dataclass
class World(RealClock):
    """Time, a device that has drawn `drawn_j` by then, and sensors that see it their way."""

    used_bytes = ABSENT.used_bytes
    processes = ABSENT.processes
    clock_hz = usual_clock_hz = ABSENT.clock_hz
    limits = ABSENT.limits
    throttling = ABSENT.throttling
    held_back_s = ABSENT.held_back_s
    lost = ABSENT.lost

    now: float = 0.0
    pass_s: float = 0.004
    tick_s: float = 0.1
    asking_s: float = 0.0
    drawn_j: Callable[[float], float] = lambda at_s: 200.0 * at_s
    seen_w: Callable[[float], float | Unknown] = lambda _: 200.0
    counted_j: Callable[[float], float | Unknown] | None = None
    passes: int = field(default=0)

    def run(self) -> None:
        self.now += self.pass_s
        self.passes += 1

    def host_s(self) -> float:
        return self.now

    def now_s(self) -> float:
        return self.now

    def energy_j(self) -> float | Unknown:
        self.now += self.asking_s
        ticked = math.floor(self.now / self.tick_s + 1e-9) * self.tick_s
        return self.drawn_j(ticked) if self.counted_j is None else self.counted_j(ticked)

    def power_w(self) -> float | Unknown:
        return self.seen_w(self.now)

    def energy(self, mode: str = "quick") -> EnergyPass:
        return energy_pass(self.run, self.pass_s, self, self, "cuda", SETTINGS[mode], 50.0)  # type: ignore[index]


def figure(energy: EnergyPass) -> float:
    assert isinstance(energy.energy_j, float), energy.energy_j
    return energy.energy_j


def record(energy: EnergyPass) -> Energy:
    assert isinstance(energy.energy, Energy), energy.energy
    return energy.energy


def reason(energy: EnergyPass) -> str:
    assert isinstance(energy.energy_j, Unknown), energy.energy_j
    return energy.energy_j.reason


@pytest.mark.parametrize("pass_s", [0.0007, 0.004, 0.03, 0.12, 0.4])
@pytest.mark.parametrize("tick_s", [0.001, 0.02, 0.1])
def test_a_constant_draw_gives_its_watts_times_the_seconds_of_a_pass(pass_s, tick_s):
    found = World(pass_s=pass_s, tick_s=tick_s).energy("default")
    assert figure(found) == pytest.approx(200.0 * pass_s, rel=0.03)
    assert record(found).mean_w == pytest.approx(200.0, rel=0.03)
    assert record(found).peak_w == 200.0
    assert found.notes == ()


def test_a_default_pass_has_five_windows_of_ten_seconds_and_a_hundred_ticks():
    world = World()
    found = record(world.energy("default"))
    assert len(found.windows_j) >= 5
    assert found.window_s >= 10.0
    assert (found.sensor, found.scope, found.idle_w) == ("nvml.energy", "gpu-board", 50.0)
    # Windows follow each other: their seconds, and the ticks that are looked for.
    assert world.now < 5 * 10.0 + 3.0


def test_a_slow_counter_makes_windows_longer_not_its_ticks_fewer():
    found = record(World(tick_s=0.13).energy("default"))
    assert found.window_s >= 100 * 0.13 - POLL_S


def test_settings_that_are_relaxed_share_their_seconds_among_fewer_windows():
    quick = SETTINGS["quick"]
    assert quick.relaxed
    demand = demand_of(quick)
    assert demand.windows * demand.window_s == quick.energy_s
    assert len(record(World(tick_s=0.02).energy("quick")).windows_j) == 2


def test_what_asking_takes_is_no_more_than_a_share_of_the_time():
    world = World(asking_s=0.01, tick_s=0.02)
    polls = polled(world.run, world.pass_s, world, world, demand_of(SETTINGS["quick"]))
    # Each poll asks the counter once; the first comes before anything is known.
    assert (len(polls) - 1) * world.asking_s <= 0.03 * world.now + 0.03


def test_a_square_wave_that_the_sensor_sees_fairly_agrees():
    # 100 ms at 300 W, 100 ms at 100 W: 200 W on average, whatever the phase of a window.
    def drawn_j(at_s: float) -> float:
        whole, rest = divmod(at_s, 0.2)
        return whole * 40.0 + 300.0 * min(rest, 0.1) + 100.0 * max(rest - 0.1, 0.0)

    found = World(
        drawn_j=drawn_j,
        tick_s=0.02,
        pass_s=0.003,
        seen_w=lambda at_s: 300.0 if at_s % 0.2 < 0.1 else 100.0,
    ).energy("default")
    assert figure(found) == pytest.approx(200.0 * 0.003, rel=0.02)
    assert record(found).peak_w == 300.0


def test_a_sensor_that_sees_a_quarter_of_a_square_wave_is_found_out():
    # The sensor looks in the first quarter of each 100 ms alone, where the wave is high: it says
    # 300 W, the counter 150 W on average.
    def drawn_j(at_s: float) -> float:
        whole, rest = divmod(at_s, 0.1)
        return whole * 15.0 + 300.0 * min(rest, 0.025) + 100.0 * max(rest - 0.025, 0.0)

    found = World(drawn_j=drawn_j, tick_s=0.1, seen_w=lambda _: 300.0).energy("default")
    assert "summed power readings lie 100% from the counter" in reason(found)
    assert record(found).disagreement == pytest.approx(1.0, abs=0.01)
    assert record(found).mean_w == pytest.approx(150.0, rel=0.01)


@pytest.mark.parametrize(
    ("seen", "is_noted", "is_known"),
    [(204.0, False, True), (216.0, True, True), (250.0, True, False)],
)
def test_a_disagreement_is_published_noted_or_fatal(seen, is_noted, is_known):
    found = World(seen_w=lambda _: seen).energy("default")
    assert record(found).disagreement == pytest.approx(seen / 200.0 - 1.0, abs=0.01)
    assert bool(found.notes) == is_noted
    assert found.is_known == is_known


def test_a_counter_that_stalls_gives_no_joules_and_does_not_keep_us():
    world = World(counted_j=lambda at_s: 200.0 * min(at_s, 4.0))
    assert reason(world.energy("default")).startswith("counter stalled at 800 J for ")
    assert world.now < 8.0


def test_a_counter_that_pauses_and_goes_on_gives_no_joules():
    def counted_j(at_s: float) -> float:
        return 200.0 * (at_s if at_s < 4.0 or at_s > 5.5 else 4.0)

    assert "counter stalled" in reason(World(counted_j=counted_j).energy("default"))


def test_a_counter_that_never_ticks_gives_no_joules():
    assert "counter stalled at 7 J" in reason(World(counted_j=lambda _: 7.0).energy())


def test_a_counter_that_goes_backwards_gives_no_joules():
    found = World(counted_j=lambda at_s: 200.0 * at_s - (900.0 if at_s > 6.0 else 0.0)).energy(
        "default"
    )
    assert "went backwards" in reason(found)


@pytest.mark.parametrize("value", [math.nan, -1.0, math.inf, 1e30])
def test_totals_that_are_no_joules_are_refused(value):
    assert "the energy counter gave" in reason(World(counted_j=lambda _: value).energy())


@pytest.mark.parametrize("value", [math.nan, -5.0, 0.0, math.inf, 1e30])
def test_power_that_is_no_power_leaves_the_counter_unchecked(value):
    found = World(seen_w=lambda _: value).energy("default")
    assert figure(found) == pytest.approx(0.8, rel=0.02)
    assert "power read as" in getattr(record(found).integrated_j, "reason", "")
    assert isinstance(record(found).disagreement, Unknown)
    assert isinstance(record(found).peak_w, Unknown)


def test_a_few_bad_readings_of_power_are_bridged():
    world = World(pass_s=0.05, seen_w=lambda at_s: 0.0 if round(at_s / 0.05) % 10 == 3 else 200.0)
    assert record(world.energy("default")).disagreement == pytest.approx(0.0, abs=0.01)


def test_passes_longer_than_a_reading_holds_leave_the_counter_unchecked():
    found = World(pass_s=0.8).energy("default")
    assert figure(found) == pytest.approx(160.0, rel=0.03)
    assert "between passes" in getattr(record(found).integrated_j, "reason", "")


def test_a_board_without_a_counter_goes_by_its_power():
    found = World(counted_j=lambda _: Unknown(reason="Not Supported")).energy("default")
    assert figure(found) == pytest.approx(0.8, rel=0.01)
    assert record(found).sensor == "nvml.power"
    assert isinstance(record(found).integrated_j, Unknown)


def test_a_processor_without_power_readings_goes_by_its_counter():
    world = World(tick_s=0.001, seen_w=lambda _: NO_POWER)
    found = energy_pass(world.run, 0.004, world, world, "cpu", SETTINGS["quick"], NO_POWER)
    assert figure(found) == pytest.approx(0.8, rel=0.05)
    assert (record(found).sensor, record(found).scope) == ("rapl", "package")
    assert record(found).idle_w == NO_POWER


def test_an_absent_meter_costs_no_pass():
    world = World(counted_j=lambda _: NO_POWER, seen_w=lambda _: NO_POWER)
    found = world.energy("rigorous")
    assert (world.passes, world.now) == (0, 0.0)
    assert found.energy_j == found.energy == NO_POWER


def test_readings_are_held_and_not_joined_by_a_line():
    def poll(at_s: float, power_w: float) -> Poll:
        return Poll(at_s=at_s, passes=0, total_j=0.0, power_w=power_w)

    assert held_j([poll(0.0, 100.0), poll(0.4, 300.0), poll(0.5, 900.0)]) == pytest.approx(70.0)
    assert held_j([poll(0.0, 100.0), poll(0.1, math.nan), poll(0.2, 100.0), poll(0.3, 100.0),
                   poll(0.4, 100.0)]) == pytest.approx(40.0)  # fmt: skip


def test_windows_meet_at_ticks():
    polls = [
        Poll(
            at_s=0.03 * n, passes=n, total_j=200.0 * math.floor(0.03 * n / 0.1) * 0.1, power_w=200.0
        )
        for n in range(200)
    ]
    edges = edges_of(polls, DEMAND)
    assert len(edges) > 3
    assert all(polls[edge].total_j != polls[edge - 1].total_j for edge in edges)


def test_an_empty_trace_is_refused():
    assert refusal_of([]) is not None


def test_the_idle_draw_is_the_median_of_what_is_read():
    world = World(seen_w=lambda at_s: 900.0 if at_s < 0.5 else 60.0)

    def sleep(seconds: float) -> None:
        world.now += seconds

    assert idle_draw_w(world, 2.0, world, sleep) == 60.0
    assert world.now == pytest.approx(2.0, abs=0.3)


def test_the_idle_draw_of_a_counter_is_what_it_gains():
    world = World(seen_w=lambda _: NO_POWER, tick_s=0.001, drawn_j=lambda at_s: 40.0 * at_s)

    def sleep(seconds: float) -> None:
        world.now += seconds

    assert idle_draw_w(world, 2.0, world, sleep) == pytest.approx(40.0, rel=0.02)


def test_an_absent_meter_has_no_idle_draw_and_takes_no_time():
    world = World(counted_j=lambda _: NO_POWER, seen_w=lambda _: NO_POWER)

    def never(seconds: float) -> None:
        raise AssertionError

    assert idle_draw_w(world, 30.0, world, never) == NO_POWER


numbers = st.one_of(
    st.floats(),
    st.floats(min_value=0, max_value=1000),
    st.just(Unknown(reason="NVML: gone")),
    st.sampled_from([0.0, 1.0, 1.0, 2.0]),
)
garbage = st.lists(
    st.builds(Poll, at_s=st.one_of(st.floats(), st.floats(0, 10)), passes=st.integers(-2, 50),
              total_j=numbers, power_w=numbers),
    max_size=12,
)  # fmt: skip


@st.composite
def nearly_good(draw: st.DrawFn) -> list[Poll]:
    """A trace of a good meter, some of whose readings are not."""
    count = draw(st.integers(4, 30))
    step_s = draw(st.floats(0.01, 0.5))
    polls = [
        Poll(at_s=n * step_s, passes=3 * n, total_j=n * step_s * 200.0, power_w=200.0)
        for n in range(count)
    ]
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, count - 1))
        good = polls[place]
        polls[place] = Poll(
            at_s=good.at_s,
            passes=good.passes,
            total_j=draw(st.one_of(st.just(good.total_j), numbers)),
            power_w=draw(numbers),
        )
    return polls


@settings(max_examples=500)
@given(st.one_of(garbage, nearly_good()), st.floats(0.01, 2), st.integers(1, 3), st.integers(0, 3))
def test_no_trace_gives_nothing_for_something(polls, window_s, windows, ticks):
    found = energy_of(polls, Demand(window_s=window_s, windows=windows, ticks=ticks), "cuda", 5.0)
    for value in (found.energy_j, getattr(found.energy, "mean_w", 1.0)):
        if isinstance(value, Unknown):
            assert value.reason
        else:
            assert math.isfinite(value)
            assert value > 0


@settings(max_examples=300)
@given(nearly_good(), st.floats(0.02, 0.5))
def test_a_figure_that_is_given_is_near_the_truth(polls, window_s):
    found = energy_of(polls, Demand(window_s=window_s, windows=1, ticks=2), "cuda", 5.0)
    clean = all(poll.total_j == 200.0 * poll.at_s for poll in polls)
    if found.is_known and clean:
        assert figure(found) == pytest.approx(200.0 * polls[1].at_s / 3)


def test_a_window_of_next_to_nothing_is_unknown_and_no_crash() -> None:
    gone = Unknown(reason="NVML: gone")
    polls = [Poll(at_s=0.0, passes=0, total_j=gone, power_w=0.0)] + [
        Poll(at_s=0.5 * step, passes=3 * step, total_j=100.0 * step, power_w=2.5e-167)
        for step in (1, 2, 3)
    ]
    found = energy_of(polls, Demand(window_s=0.5, windows=1, ticks=2), "cuda", 5.0)
    assert isinstance(found.energy_j, Unknown)


def test_processor_packages_that_wrap_are_measured_through_their_files(tmp_path: Path) -> None:
    # Two packages of 60 W whose counters wrap at 50 J: a dozen times each in these windows.
    world = World(pass_s=0.02)
    largest = 50_000_000

    def write() -> None:
        for number in range(2):
            joules = 60.0 * world.now + 20.0 * number
            zone = tmp_path / f"intel-rapl:{number}"
            zone.mkdir(exist_ok=True)
            (zone / "energy_uj").write_text(str(int(joules * 1e6) % largest))
            (zone / "max_energy_range_uj").write_text(str(largest))

    def run() -> None:
        world.run()
        write()

    write()
    meter = RaplMeter(tmp_path, tmp_path)
    quick = Settings(**{**dict(SETTINGS["quick"]), "energy_s": 10.0})
    found = energy_pass(run, 0.02, meter, world, "cpu", quick, NO_POWER)
    assert figure(found) == pytest.approx(2 * 60.0 * 0.02, rel=0.02)
    assert record(found).sensor == "rapl"


def test_the_drivers_milliunits_become_joules_and_watts(driver: FakeDriver) -> None:
    driver.say(drawing_w="250")
    answer = driver.python("""
import time
from profiler.clock import RealClock
from profiler.energy import energy_pass
from profiler.protocol import SETTINGS
from profiler.telemetry import nvml_meter
found = energy_pass(lambda: time.sleep(0.01), 0.01, nvml_meter("GPU-1234"), RealClock(), "cuda",
    SETTINGS["quick"], 50.0)
print(found.energy.mean_w, found.energy.peak_w, found.energy.disagreement)
""")
    mean_w, peak_w, apart = map(float, answer.split())
    assert mean_w == pytest.approx(250.0, rel=0.2)
    assert peak_w == 250.0
    assert apart < 0.2
