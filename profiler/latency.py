"""The timed passes of a point and their verdict; measured again where something took the machine.

    watch ─ warm up ─ clean samples ─ clean/split pairs ─ watch ─ verdict ─┐
      └──────────────── pause, at most `retries` times ◄── contended ──────┘

The verdict rests on what was seen beside the samples, never on the samples: to measure again until
they please would be a choice among them.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from domain.measurement import Conditions, Status
from domain.statistics import median, relative_spread
from profiler.clock import CLOCKS, STAGE_CLOCKS, DeviceKind
from profiler.conditions import Watch, judged, spare_cores
from profiler.protocol import Settings, Timings, Warmup, inner_loop, pairs, sample, warm_up
from profiler.subjects import Subject
from profiler.telemetry import Meter
from profiler.throttling import ClockWatch

# Instrumented over clean, the parts against the whole, and the calibration kernel's spread.
LARGEST_OVERHEAD, LARGEST_REST, LARGEST_UNREST = 0.03, 0.02, 0.25
# Thread CPU time over wall time of a clean sample: a thread that waits was not computing.
LEAST_CPU_SHARE = 0.9
# Host time over the whole of a GPU's sample, after trtexec: above it the GPU waits for its orders.
LARGEST_HOST_SHARE = 0.8

# Back-offs of a point, and what all of its attempts may take: of the worker's timeout, and at all.
SPOILED: tuple[Status, ...] = ("contended", "throttled")
PAUSES_S = (1.0, 4.0, 10.0)
LARGEST_SHARE_OF_TIMEOUT, MOST_ATTEMPTS_S = 0.5, 120.0


class CalibrationKernel:
    """The same work every time, of the kind that a network does: says how fast the machine is now.

    Layer norm, two products and a GELU on 197 rows of width 192, three times: 2-5 ms on one core.
    """

    def __init__(self, kind: DeviceKind) -> None:
        generator = torch.Generator().manual_seed(0)

        def fixed(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(kind) / shape[-1] ** 0.5

        self._rows, self._up, self._down = fixed(197, 192), fixed(768, 192), fixed(192, 768)

    def __call__(self) -> Tensor:
        """Run it."""
        rows = self._rows
        # The point's own precision must not change it; nor does it run in TF32.
        with torch.autocast(rows.device.type, enabled=False):
            for _ in range(3):
                normal = functional.layer_norm(rows, (192,))
                rows = functional.linear(
                    functional.gelu(functional.linear(normal, self._up)), self._down
                )
        return rows


class Rotation:
    """Shows the batches of a subject in turn."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._place = -1

    def next(self) -> None:
        """A pass on the next batch."""
        self._place += 1
        self._subject.run(self._place)

    def first(self) -> None:
        """A pass on the first batch, always the same."""
        self._subject.run(0)

    def again(self, mark: Callable[[str], None]) -> None:
        """A pass on the batch shown last, split by stage."""
        self._subject.run(self._place, mark)


@dataclass(frozen=True, kw_only=True)
class Latency:
    """What the timed passes gave, under which conditions, and the verdict on it.

    `cause` is what took the machine; `reason` that, and whatever else is worth saying.
    """

    warmup: Warmup
    inner: int
    clean: Timings
    split: Timings
    conditions: Conditions
    status: Status
    reason: str
    cause: str = ""

    @property
    def calibration_s(self) -> tuple[float, ...]:
        """The fixed kernel beside every clean sample."""
        return (*self.clean.calibration_s, *self.split.calibration_s)

    @property
    def involuntary_switches(self) -> int:
        """Times that the scheduler took the core away during clean samples."""
        return sum(self.clean.switches) + sum(self.split.switches)


def latency_of(
    subject: Subject,
    kind: DeviceKind,
    settings: Settings,
    threads: int,
    meter: Meter,
) -> Latency:
    """The timed passes, again after a pause where they were contended or throttled."""
    return persistent(lambda: _attempt(subject, kind, settings, threads, meter), settings)


def persistent(
    attempt: Callable[[], Latency],
    settings: Settings,
    now_s: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Latency:
    """What an attempt gives, made again where something else took the machine.

    At most `settings.retries` times, and only where a further one as long as the last still ends in
    time. The last attempt is what counts; the reason tells what spoiled those before.
    """
    began_s = now_s()
    most_s = min(MOST_ATTEMPTS_S, LARGEST_SHARE_OF_TIMEOUT * settings.timeout_s)
    earlier: list[str] = []
    while True:
        attempt_s = now_s()
        latency = attempt()
        ended_s = now_s()
        pause_s = PAUSES_S[len(earlier)] if len(earlier) < settings.retries else math.inf
        would_end_s = ended_s + pause_s + (ended_s - attempt_s)
        if latency.status not in SPOILED or would_end_s - began_s > most_s:
            break
        earlier.append(f"attempt {len(earlier) + 1}: {latency.cause}")
        pause(pause_s)
    if not earlier:
        return latency
    last = f"attempt {len(earlier) + 1}: {latency.reason or 'undisturbed'}"
    return replace(latency, reason="; ".join([*earlier, last]))


def _attempt(
    subject: Subject,
    kind: DeviceKind,
    settings: Settings,
    threads: int,
    meter: Meter,
) -> Latency:
    clock = CLOCKS[kind]()
    clocks = ClockWatch(meter, clock, kind)
    clocks.look()
    batches = len(subject.batches)
    show, kernel = Rotation(subject), CalibrationKernel(kind)
    kernel()
    gc.disable()
    try:
        warmup = warm_up(show.next, batches, show.first, clock, settings)
        inner = inner_loop(warmup, settings, batches)
        watch = Watch()
        clean = sample(show.next, kernel, batches, inner, clock, settings)
        stages = STAGE_CLOCKS[kind](clock)
        split = pairs(show.next, show.again, kernel, stages, inner, batches, clock, settings)
        seen = watch.seen()
    finally:
        gc.enable()
    clocks.look()
    slow = clocks.slowdown()
    judgement = judged(seen, len(watch.cores), spare_cores(kind, threads))
    slowed = [f"the device slowed down: {', '.join(slow.causes)}"] if slow.causes else []
    status, reason = verdict(
        slowed=slowed,
        causes=judgement.causes,
        calibration_s=(*clean.calibration_s, *split.calibration_s),
        notes=(*judgement.notes, *slow.notes, *_notes(kind, warmup, clean, split)),
    )
    return Latency(
        warmup=warmup,
        inner=inner,
        clean=clean,
        split=split,
        conditions=seen,
        status=status,
        reason=reason,
        cause="; ".join([*slowed, *judgement.causes]),
    )


def verdict(
    slowed: Sequence[str],
    causes: Sequence[str],
    calibration_s: Sequence[float],
    notes: Sequence[str],
) -> tuple[Status, str]:
    """Status and reason: the first that applies decides, all is said. Beside `ok` it is a note."""
    unrest = relative_spread(calibration_s)
    restless = (
        [f"the calibration kernel spread by {unrest:.0%} (IQR over median): a restless machine"]
        if unrest > LARGEST_UNREST
        else []
    )
    status: Status = (
        "throttled" if slowed else "contended" if causes else "unstable" if restless else "ok"
    )
    return status, "; ".join([*slowed, *causes, *restless, *notes])


def overhead_of(split: Timings) -> float:
    """What splitting by stage cost, as a share of the clean pass: the median over pairs."""
    return (
        median(
            [
                marked / clean
                for marked, clean in zip(split.instrumented_s, split.samples_s, strict=True)
            ]
        )
        - 1.0
    )


def rest_of(split: Timings) -> float:
    """Share of the split pass that no stage explains: the median over passes."""
    stages = zip(*split.stages_s.values(), strict=True)
    return median(
        [
            1.0 - sum(parts) / whole
            for parts, whole in zip(stages, split.instrumented_s, strict=True)
        ]
    )


def _notes(kind: DeviceKind, warmup: Warmup, clean: Timings, split: Timings) -> Iterator[str]:
    if not warmup.is_steady:
        yield "the warm-up was cut before it was steady"
    if kind == "cpu" and overhead_of(split) > LARGEST_OVERHEAD:
        yield f"splitting by stage cost {overhead_of(split):.1%}: take its shares only"
    share = median(clean.cpu_samples_s) / median(clean.samples_s)
    if kind == "cpu" and share < LEAST_CPU_SHARE:
        yield f"the measuring thread had a core {share:.0%} of the time"
    host = host_share_of(clean)
    if kind == "cuda" and host > LARGEST_HOST_SHARE:
        yield (
            f"the calls returned after {host:.0%} of a pass: bound by launching, or by waiting for "
            f"shapes that depend on data"
        )
    if rest_of(split) > LARGEST_REST:
        yield f"the stages leave {rest_of(split):.1%} of the split pass unexplained"


def host_share_of(clean: Timings) -> float:
    """Time until the calls returned over time until the work was done, medians of the samples."""
    return median(clean.host_samples_s) / median(clean.samples_s)
