"""How long to warm up, how large a sample is, when there are enough: arithmetic on a given clock.

warm up          each batch once, then one batch until two halves agree
inner loop       passes per sample, so that a sample takes a millisecond or more
sample           pass … pass | calibration kernel | pass … pass | calibration kernel | …
pairs            clean | calibration kernel | split by stage | calibration kernel | clean | …
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from domain.record import NonNegative, Positive, PositiveCount, Record
from domain.statistics import median, median_bounds
from profiler.clock import DIGITS, Clock, Lap, Laps, StageClock

Mode = Literal["quick", "brief", "default", "rigorous"]
Run = Callable[[], object]
Marked = Callable[[Callable[[str], None]], object]


class Settings(Record):
    """How hard to measure. `relaxed` says that the minimum counts of the protocol are not asked.

    A point that was contended or throttled is measured again, `retries` times at most.
    """

    mode: Mode
    runs: PositiveCount
    least_warmups: PositiveCount
    least_warmup_s: Positive
    most_warmup_s: Positive
    least_samples: PositiveCount
    least_s: NonNegative
    most_s: Positive
    half_width: Positive
    least_pairs: PositiveCount
    most_pairs_s: Positive
    energy_s: Positive
    timeout_s: Positive
    relaxed: bool
    least_sample_s: Positive = 1e-3
    retries: Annotated[int, Field(ge=0, le=3)] = 3


SETTINGS: dict[Mode, Settings] = {
    "quick": Settings(
        mode="quick",
        runs=3,
        least_warmups=6,
        least_warmup_s=0.1,
        most_warmup_s=0.8,
        least_samples=10,
        least_s=0.4,
        most_s=1.0,
        half_width=0.02,
        least_pairs=5,
        most_pairs_s=0.5,
        energy_s=2.0,
        timeout_s=90.0,
        relaxed=True,
        retries=1,
    ),
    # A large plan in a quarter of an hour, to be measured again on another occasion: about three
    # seconds a point and run.
    "brief": Settings(
        mode="brief",
        runs=5,
        least_warmups=6,
        least_warmup_s=0.3,
        most_warmup_s=0.5,
        least_samples=20,
        least_s=1.0,
        most_s=1.6,
        half_width=0.01,
        least_pairs=8,
        most_pairs_s=0.6,
        energy_s=3.0,
        timeout_s=120.0,
        relaxed=True,
        retries=1,
    ),
    "default": Settings(
        mode="default",
        runs=5,
        least_warmups=20,
        least_warmup_s=0.5,
        most_warmup_s=10.0,
        least_samples=100,
        least_s=5.0,
        most_s=15.0,
        half_width=0.01,
        least_pairs=30,
        most_pairs_s=5.0,
        energy_s=10.0,
        timeout_s=300.0,
        relaxed=False,
    ),
    "rigorous": Settings(
        mode="rigorous",
        runs=10,
        least_warmups=20,
        least_warmup_s=2.0,
        most_warmup_s=30.0,
        least_samples=100,
        least_s=20.0,
        most_s=60.0,
        half_width=0.01,
        least_pairs=100,
        most_pairs_s=20.0,
        energy_s=30.0,
        timeout_s=900.0,
        relaxed=False,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """Seconds of every pass before measuring; steady or given up.

    The first is the cold start: what the first timed pass took, whatever had still to be loaded,
    allocated or chosen.
    """

    samples_s: tuple[float, ...]
    is_steady: bool


@dataclass(kw_only=True)
class Timings:
    """Wall and CPU seconds of one batch, sample by sample, each with the kernel that followed."""

    samples_s: list[float] = field(default_factory=list)
    cpu_samples_s: list[float] = field(default_factory=list)
    host_samples_s: list[float] = field(default_factory=list)
    switches: list[int] = field(default_factory=list)
    calibration_s: list[float] = field(default_factory=list)
    instrumented_s: list[float] = field(default_factory=list)
    stages_s: dict[str, list[float]] = field(default_factory=dict)
    precision_met: bool = False

    def add(self, lap: Lap, passes: int) -> None:
        """A clean sample of `passes` passes: seconds of one of them.

        A mean is kept with one digit more than the clock has.
        """
        digits = DIGITS if passes == 1 else DIGITS + 1
        self.samples_s.append(round(lap.wall_s / passes, digits))
        self.cpu_samples_s.append(max(round(lap.cpu_s / passes, digits), 1e-10))
        self.host_samples_s.append(max(round(lap.host_s / passes, digits), 1e-10))
        self.switches.append(lap.switches)


def is_steady(samples_s: Sequence[float], tolerance: float = 0.05) -> bool:
    """Whether the two halves agree: medians and quartiles within `tolerance`, no slow start.

    The slow start is a first sample over Q3 + 1.5 IQR (Tukey).

    >>> is_steady([1.0] * 10), is_steady([2.0] * 5 + [1.0] * 5)
    (True, False)
    """
    values = np.asarray(samples_s, dtype=float)
    half = len(values) // 2
    first, second = (
        np.quantile(part, [0.25, 0.5, 0.75]) for part in (values[:half], values[half:])
    )
    low, high = np.quantile(values, [0.25, 0.75])
    starts_slow = values[0] > high + 1.5 * (high - low) + 1e-12
    return not starts_slow and bool(np.all(np.abs(first - second) <= tolerance * second))


def warm_up(
    run: Run, rotation: int, same: Run, clock: Clock, settings: Settings, *, each: bool = False
) -> Warmup:
    """Run each batch once (`run`), then the `same` batch until its last passes are steady.

    Batches differ in work, so only passes on one batch can say whether the machine is steady. Half of
    `most_warmup_s` is for the batches, then it goes on to the one; when told that `each` must have run,
    they take as long as they take. When the time is up it goes on as it is.
    """
    laps = Laps(clock)
    samples: list[float] = []
    while len(samples) < rotation and (each or laps.elapsed_s < settings.most_warmup_s / 2):
        laps.start()
        run()
        samples.append(laps.lap().wall_s)
    alike: list[float] = []
    until_s = laps.elapsed_s + settings.most_warmup_s / 2 if each else settings.most_warmup_s
    while laps.elapsed_s < until_s or len(alike) < 2:
        laps.start()
        same()
        alike.append(laps.lap().wall_s)
        window = alike[-settings.least_warmups :]
        if (
            len(alike) >= settings.least_warmups
            and laps.elapsed_s >= settings.least_warmup_s
            and is_steady(window)
        ):
            return Warmup(samples_s=(*samples, *alike), is_steady=True)
    return Warmup(samples_s=(*samples, *alike), is_steady=False)


def inner_loop(warmup: Warmup, settings: Settings, rotation: int = 1) -> int:
    """Passes per sample so that a sample takes `least_sample_s` or more.

    It has no factor in common with the `rotation`: else some batches would never be the last of a
    sample, which is the one that is split by stage.

    >>> steady = Warmup(samples_s=(9.0, 4e-4, 4e-4), is_steady=True)
    >>> inner_loop(steady, SETTINGS["quick"]), inner_loop(steady, SETTINGS["quick"], rotation=9)
    (3, 4)
    """
    one_s = median(warmup.samples_s[-5:])
    passes = max(1, math.ceil(settings.least_sample_s / one_s))
    while math.gcd(passes, rotation) > 1:
        passes += 1
    return passes


def half_width(samples_s: Sequence[float]) -> float | None:
    """Half the 95 % interval of the median over the median; None for fewer than six samples.

    >>> half_width([1.0] * 5) is None, half_width([1.0] * 6)
    (True, 0.0)
    """
    bounds = median_bounds(samples_s)
    return None if bounds is None else (bounds[1] - bounds[0]) / 2 / median(samples_s)


def sample(
    run: Run, kernel: Run, rotation: int, inner: int, clock: Clock, settings: Settings
) -> Timings:
    """Samples until their median is precise and every batch was seen, or time is up."""
    timings = Timings()
    laps = Laps(clock)
    while laps.elapsed_s < settings.most_s or not timings.samples_s:
        laps.start()
        for _ in range(inner):
            run()
        timings.add(laps.lap(), inner)
        laps.start()
        kernel()
        timings.calibration_s.append(laps.lap().wall_s)
        count = len(timings.samples_s)
        if (
            laps.elapsed_s >= settings.least_s
            and count >= settings.least_samples
            and count * inner >= rotation
        ):
            width = half_width(timings.samples_s)
            if width is not None and width <= settings.half_width:
                timings.precision_met = True
                break
    return timings


def pairs(
    clean: Run,
    marked: Marked,
    kernel: Run,
    stages: StageClock,
    inner: int,
    rotation: int,
    clock: Clock,
    settings: Settings,
) -> Timings:
    """Clean samples and passes split by stage in turn, until every batch was split once.

    It stops at `most_pairs_s`, but not before two pairs. `marked` runs the batch that `clean` ran
    last.
    """
    timings = Timings()
    laps = Laps(clock)
    while len(timings.instrumented_s) < max(rotation, settings.least_pairs):
        if laps.elapsed_s >= settings.most_pairs_s and len(timings.instrumented_s) >= 2:
            break
        laps.start()
        for _ in range(inner):
            clean()
        timings.add(laps.lap(), inner)
        laps.start()
        kernel()
        timings.calibration_s.append(laps.lap().wall_s)
        laps.start()
        stages.start()
        marked(stages.mark)
        timings.instrumented_s.append(laps.lap().wall_s)
        for stage, seconds in stages.read().items():
            timings.stages_s.setdefault(stage, []).append(seconds)
        # The clean pass, too, finds the caches as the kernel leaves them.
        kernel()
        laps.lap()
    return timings
