"""The timed passes of a point, under a lookout: warm up, clean samples, clean and split in turn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from domain.statistics import median
from profiler.clock import CLOCKS, STAGE_CLOCKS, DeviceKind
from profiler.lookout import Attempt, Lookout, persistent
from profiler.protocol import Settings, Timings, Warmup, inner_loop, pairs, sample, warm_up
from profiler.subjects import Subject
from profiler.telemetry import Meter

# Instrumented over clean, and the parts against the whole.
LARGEST_OVERHEAD, LARGEST_REST = 0.03, 0.02
# Thread CPU time over wall time of a clean sample: a thread that waits was not computing.
LEAST_CPU_SHARE = 0.9
# Host time over the whole of a GPU's sample, after trtexec: above it the GPU waits for its orders.
LARGEST_HOST_SHARE = 0.8


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
class Latency(Attempt):
    """What the timed passes gave."""

    warmup: Warmup
    inner: int
    clean: Timings
    split: Timings

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


def _attempt(
    subject: Subject,
    kind: DeviceKind,
    settings: Settings,
    threads: int,
    meter: Meter,
) -> Latency:
    clock = CLOCKS[kind]()
    batches = len(subject.batches)
    show, kernel, stages = Rotation(subject), CalibrationKernel(kind), STAGE_CLOCKS[kind](clock)
    kernel()
    with Lookout(meter, clock, kind, threads) as lookout:
        warmup = warm_up(
            show.next, batches, show.first, clock, settings, each=subject.builds_kernels
        )
        inner = inner_loop(warmup, settings, batches)
        lookout.begin()
        clean = sample(show.next, kernel, batches, inner, clock, settings)
        split = pairs(show.next, show.again, kernel, stages, inner, batches, clock, settings)
    came = lookout.attempt(
        calibration_s=(*clean.calibration_s, *split.calibration_s),
        notes=tuple(_notes(kind, warmup, clean, split)),
    )
    return Latency(**vars(came), warmup=warmup, inner=inner, clean=clean, split=split)


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
