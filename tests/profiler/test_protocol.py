import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise, repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.clock import HostStages, Laps, RealClock, ScriptedClock
from profiler.conditions import conditions_between, reading
from profiler.latency import Latency, overhead_of, rest_of
from profiler.lookout import MOST_ATTEMPTS_S, PAUSES_S, persistent, verdict
from profiler.protocol import (
    SETTINGS,
    Settings,
    Timings,
    Warmup,
    half_width,
    inner_loop,
    is_steady,
    pairs,
    sample,
    warm_up,
)

QUICK = SETTINGS["quick"]

# Thread CPU seconds of one layer, recorded on a quiet and on a contended two-core machine.
QUIET = (
    0.0151, 0.0149, 0.0150, 0.0152, 0.0150, 0.0149, 0.0151, 0.0150, 0.0150, 0.0151,
    0.0149, 0.0150, 0.0152, 0.0150, 0.0149, 0.0150, 0.0151, 0.0150, 0.0149, 0.0150,
)  # fmt: skip
CONTENDED = (
    0.0312, 0.0184, 0.0486, 0.0203, 0.0329, 0.0291, 0.0450, 0.0198, 0.0377, 0.0263,
    0.0188, 0.0421, 0.0240, 0.0333, 0.0275, 0.0512, 0.0193, 0.0305, 0.0466, 0.0221,
)  # fmt: skip


def nothing() -> None:
    pass


def clock_of(laps_s: Iterable[float]) -> ScriptedClock:
    """A clock whose laps last as long as the script says."""
    readings = [0.0]
    for lap_s in laps_s:
        readings.append(readings[-1] + lap_s)
    return ScriptedClock(readings)


def interleaved(samples_s: Iterable[float], kernel_s: float = 0.003) -> list[float]:
    return [lap for sample_s in samples_s for lap in (sample_s, kernel_s)]


def settings(**changed: Any) -> Settings:
    return Settings(**{**vars(QUICK), **changed})


def test_warmup_stops_once_two_halves_agree():
    slow_start = [0.5, 0.1, 0.03, 0.02]
    warmup = warm_up(nothing, 2, nothing, clock_of([*slow_start, *QUIET]), QUICK)
    assert warmup.is_steady
    assert warmup.samples_s[:4] == pytest.approx(slow_start)
    assert len(warmup.samples_s) < len(slow_start) + len(QUIET)


def test_warmup_that_never_settles_is_cut_and_says_so():
    never = [0.02 * (1 + place % 7) for place in range(200)]
    limits = settings(most_warmup_s=1.0, least_warmups=20)
    warmup = warm_up(nothing, 1, nothing, clock_of(never), limits)
    assert not warmup.is_steady
    assert 1.0 <= sum(warmup.samples_s) <= 1.2


def test_warmup_on_a_slow_batch_still_runs_two_alike():
    warmup = warm_up(nothing, 64, nothing, clock_of([3.0] * 10), QUICK)
    assert len(warmup.samples_s) == 3


def test_warmup_shows_each_batch_where_told_to_and_then_still_looks_for_steadiness():
    shown = []
    warmup = warm_up(
        lambda: shown.append(1), 9, nothing, clock_of([*[0.5] * 9, *QUIET]), QUICK, each=True
    )
    assert len(shown) == 9
    assert warmup.is_steady


def test_a_trend_is_not_steady():
    assert not is_steady([1.0 * 0.95**place for place in range(20)])


def test_a_slow_first_pass_is_not_steady():
    assert not is_steady([2.0, *[1.0] * 19])


def test_quiet_noise_is_steady_and_contention_is_not():
    assert is_steady(QUIET)
    assert not is_steady(CONTENDED)


@given(st.floats(min_value=1e-7, max_value=10.0))
def test_a_sample_lasts_a_millisecond_and_no_pass_longer_than_needed(pass_s):
    inner = inner_loop(Warmup(samples_s=(pass_s,), is_steady=True), QUICK)
    assert inner * pass_s >= 1e-3 * (1 - 1e-9)
    assert inner == 1 or (inner - 1) * pass_s < 1e-3 * (1 + 1e-9)


def test_sampling_stops_when_the_median_is_precise():
    timings = sample(nothing, nothing, 4, 1, clock_of(interleaved(QUIET * 20)), QUICK)
    assert timings.precision_met
    spent = sum(timings.samples_s) + sum(timings.calibration_s)
    assert QUICK.least_s <= spent < QUICK.most_s


def test_sampling_of_a_restless_machine_stops_at_its_cap_and_says_so():
    timings = sample(nothing, nothing, 4, 1, clock_of(interleaved(CONTENDED * 20)), QUICK)
    assert not timings.precision_met
    spent = sum(timings.samples_s) + sum(timings.calibration_s)
    assert QUICK.most_s <= spent < QUICK.most_s + 0.1


def test_sampling_shows_every_batch_before_it_is_precise():
    limits = settings(least_s=0.0, most_s=100.0)
    timings = sample(nothing, nothing, 64, 1, clock_of(interleaved([0.01] * 100)), limits)
    assert len(timings.samples_s) == 64


def test_every_sample_has_its_calibration_and_cpu_time_beside_it():
    timings = sample(nothing, nothing, 4, 1, clock_of(interleaved(QUIET * 20)), QUICK)
    assert len(timings.samples_s) == len(timings.calibration_s) == len(timings.cpu_samples_s)
    assert timings.calibration_s == pytest.approx([0.003] * len(timings.samples_s))
    assert timings.samples_s == pytest.approx((QUIET * 20)[: len(timings.samples_s)])


def test_a_sample_of_several_passes_is_their_mean():
    shown: list[int] = []
    clock = clock_of(interleaved([0.004] * 500))
    timings = sample(lambda: shown.append(1), nothing, 1, 4, clock, QUICK)
    assert timings.samples_s[0] == pytest.approx(0.001)
    assert len(shown) == 4 * len(timings.samples_s)


def test_a_pass_longer_than_the_budget_is_sampled_once():
    timings = sample(nothing, nothing, 8, 1, clock_of(interleaved([60.0, 60.0])), QUICK)
    assert timings.samples_s == [60.0]
    assert not timings.precision_met


def test_a_clock_that_goes_backwards_is_refused():
    laps = Laps(ScriptedClock([1.0, 0.5]))
    with pytest.raises(ValueError, match="clock that moves on"):
        laps.lap()


@given(st.lists(st.floats(min_value=1e-6, max_value=1.0), min_size=6, max_size=60))
def test_half_width_is_never_negative_and_scales_out(samples):
    width = half_width(samples)
    assert width is not None
    assert width >= 0
    assert half_width([2 * one for one in samples]) == pytest.approx(width)


def test_half_width_covers_the_median_as_often_as_it_says():
    import numpy as np

    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        drawn = sorted(random.lognormal(0.0, 0.2, 30))
        middle = (drawn[14] + drawn[15]) / 2
        reach = 0.98 * math.sqrt(30)
        low, high = drawn[math.floor(15 - reach)], drawn[math.ceil(15 + reach) - 1]
        assert half_width(drawn) == pytest.approx((high - low) / 2 / middle)
        covered += low <= 1.0 <= high
    assert covered / 400 > 0.92


def test_pairs_split_the_same_batches_as_they_time_clean():
    heard: list[str] = []

    def clean() -> None:
        heard.append("clean")

    def marked(mark: Callable[[str], None]) -> None:
        heard.append("marked")
        for stage in ("prologue", "recursion-1", "epilogue"):
            mark(stage)

    one_pair = [1.0, 0.5, *[0.0, 0.2, 0.5, 0.3], 0.02, 0.5]
    clock = clock_of(one_pair * 4)
    timings = pairs(
        clean, marked, nothing, HostStages(clock), 1, 3, clock,
        settings(least_pairs=3, most_pairs_s=100.0),
    )  # fmt: skip
    assert heard == ["clean", "marked"] * 3
    assert timings.stages_s["recursion-1"] == pytest.approx([0.5] * 3)
    assert timings.instrumented_s == pytest.approx([1.02] * 3)
    assert len(timings.samples_s) == len(timings.calibration_s) == 3
    assert overhead_of(timings) == pytest.approx(0.02)
    assert rest_of(timings) == pytest.approx(0.02 / 1.02)


def test_settings_grow_harder_in_order():
    modes = [SETTINGS[mode] for mode in ("quick", "default", "rigorous")]
    for easy, hard in pairwise(modes):
        assert easy.runs < hard.runs
        assert easy.most_s < hard.most_s
        assert easy.half_width >= hard.half_width
    assert [each.relaxed for each in modes] == [True, False, False]


class CountingClock(RealClock):
    """Time moves on by a millisecond at every reading of the wall; readings are counted."""

    def __init__(self) -> None:
        self.asked = 0

    def now_s(self) -> float:
        self.asked += 1
        return self.asked / 1e3

    def host_s(self) -> float:
        self.asked += 1
        return self.asked / 1e3

    def cpu_s(self) -> float:
        self.asked += 1
        return self.asked / 1e3

    def switches(self) -> int:
        self.asked += 1
        return 0


@given(st.integers(min_value=10, max_value=60), st.integers(min_value=1, max_value=50))
def test_the_clock_is_asked_as_often_for_every_sample_however_many_passes_it_has(samples, inner):
    clock, passes = CountingClock(), []
    limits = settings(least_samples=samples, least_s=0.0, most_s=1e9, half_width=1e9)
    timings = sample(lambda: passes.append(1), nothing, 1, inner, clock, limits)
    at_first, to_start, to_end = 3, 3, 4
    # The passes are a lap, and the kernel is: CPU, switches and wall before, host time too after.
    assert clock.asked == at_first + 2 * (to_start + to_end) * len(timings.samples_s)
    assert len(passes) == inner * len(timings.samples_s)


class TickingClock(CountingClock):
    """Every reading and every question between the passes takes a second; passes take none."""

    def now_s(self) -> float:
        self.asked += 1
        return float(self.asked)

    host_s = cpu_s = now_s

    def switches(self) -> int:
        self.asked += 1
        return 0


def test_what_is_done_between_samples_is_in_none_of_them():
    clock = TickingClock()

    def kernel() -> None:
        clock.asked += 1000  # bookkeeping, here after the kernel's own lap began

    limits = settings(least_samples=10, least_s=0.0, most_s=1e5, half_width=1e-12)
    timings = sample(nothing, kernel, 1, 1, clock, limits)
    # From the last reading at the start to the end: host time, then wall time.
    assert set(timings.samples_s) == {2.0}
    assert set(timings.calibration_s) == {1002.0}


@given(st.floats(min_value=1e-6, max_value=1e3), st.integers(min_value=1, max_value=99))
def test_stored_seconds_say_no_more_than_the_clock_knew(lap_s, passes):
    timings = Timings()
    timings.add(Laps(ScriptedClock([0.0, lap_s])).lap(), passes)
    digits = 9 if passes == 1 else 10
    assert timings.samples_s[0] == round(timings.samples_s[0], digits)
    assert timings.samples_s[0] == pytest.approx(lap_s / passes, abs=1.1e-9)


QUIET_LATENCY = Latency(
    inner=1,
    warmup=Warmup(samples_s=(1.0,), is_steady=True),
    clean=Timings(),
    split=Timings(),
    conditions=conditions_between(reading(0), replace(reading(0), wall_s=1e9), frozenset()),
    status="ok",
    reason="",
    cause="",
)
CONTENDED_LATENCY = replace(
    QUIET_LATENCY, status="contended", cause="a hog", reason="a hog; a note"
)


class Tries:
    """Attempts of `took_s` each with these outcomes in turn, on a clock of their own."""

    def __init__(self, outcomes: Iterable[Latency], took_s: float = 1.0) -> None:
        self._outcomes = iter(outcomes)
        self._took_s = took_s
        self.time_s = 0.0
        self.count = 0

    def attempt(self) -> Latency:
        self.count += 1
        self.time_s += self._took_s
        return next(self._outcomes)

    def pause(self, seconds: float) -> None:
        self.time_s += seconds

    def last(self, limits: Settings) -> Latency:
        return persistent(self.attempt, limits, lambda: self.time_s, self.pause)


@given(
    st.sampled_from(list(SETTINGS.values())),
    st.floats(min_value=1e-3, max_value=500.0),
    st.integers(min_value=0, max_value=3),
)
def test_a_point_is_tried_again_a_few_times_and_never_for_long(mode, took_s, retries):
    tries = Tries(repeat(CONTENDED_LATENCY), took_s)
    last = tries.last(Settings(**{**vars(mode), "retries": retries}))
    assert last.status == "contended"
    assert 1 <= tries.count <= 1 + retries <= 1 + len(PAUSES_S)
    assert tries.time_s <= max(took_s, MOST_ATTEMPTS_S) + 1e-6
    assert tries.count == 1 or tries.time_s < mode.timeout_s


def test_a_point_that_was_contended_once_says_so_and_is_what_it_was_then():
    tries = Tries([CONTENDED_LATENCY, QUIET_LATENCY])
    last = tries.last(SETTINGS["default"])
    assert (last.status, last.reason) == ("ok", "attempt 1: a hog; attempt 2: undisturbed")


def test_an_undisturbed_or_unstable_point_is_measured_once():
    for latency in (QUIET_LATENCY, replace(QUIET_LATENCY, status="unstable", reason="restless")):
        tries = Tries([latency])
        assert tries.last(SETTINGS["default"]) is latency


@pytest.mark.parametrize(
    ("slowed", "causes", "calibration_s", "status"),
    [
        (["heat"], ["a hog"], CONTENDED, "throttled"),
        ([], ["a hog"], CONTENDED, "contended"),
        ([], [], CONTENDED, "unstable"),
        ([], [], QUIET, "ok"),
    ],
)
def test_what_took_the_machine_decides_before_how_it_looked(slowed, causes, calibration_s, status):
    came, reason = verdict(slowed, causes, calibration_s, ["a note"])
    assert came == status
    assert all(said in reason for said in (*slowed, *causes, "a note"))
