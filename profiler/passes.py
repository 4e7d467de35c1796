"""One point of one run: clean latency, split by depth, energy, memory, work; each a pass of its own.

    warm up ─ clean samples ─ clean/split pairs ─ resident peak ─ energy ─ memory ─ work

Seconds, joules and FLOPs are of ONE batch of `workload.batch` images. Several batches are shown in
rotation, at least 64 distinct images; a sample times the next batch (where a batch takes less than
a millisecond, the mean of the next few). `workload.routing` and `DepthRecord.counts` hold all images
of the rotation in order; FLOPs are the mean over its batches, peak bytes those of its heaviest.
`resident_bytes` is the peak of this process on a CPU, all memory in use on a GPU.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from domain.measurement import DepthRecord, Measurement, Status
from domain.record import Executor, Unknown
from domain.statistics import median, relative_spread
from profiler.clock import CLOCKS, STAGE_CLOCKS, Clock, DeviceKind
from profiler.memory import PEAKS, forget_peak, peak_resident
from profiler.messages import SHIPPED_SOURCE, Source, Task, now_utc, workload_of
from profiler.protocol import Settings, Timings, inner_loop, pairs, sample, warm_up
from profiler.subjects import Subject, subject_of
from profiler.telemetry import Meter

# Instrumented over clean, the parts against the whole, and the calibration kernel's spread.
LARGEST_OVERHEAD, LARGEST_REST, LARGEST_UNREST = 0.03, 0.02, 0.25
# Thread CPU time over wall time of a clean sample: a thread that waits was not computing.
LEAST_CPU_SHARE = 0.9

NO_STAGE_ENERGY = Unknown(reason="energy counters tick slower than a stage lasts")


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
class _Latency:
    warmup_s: tuple[float, ...]
    clean: Timings
    split: Timings
    involuntary_switches: int
    notes: tuple[str, ...]


def measured(
    task: Task,
    kind: DeviceKind,
    meter: Meter,
    source: Source = SHIPPED_SOURCE,
) -> Measurement:
    """Everything that one run of one point gives. Raises CannotRun, or what torch raises."""
    settings = task.settings
    clock = CLOCKS[kind]()
    subject = subject_of(task.point, kind, task.seed, source)
    gc.collect()
    if kind == "cuda":
        torch.cuda.empty_cache()  # else the next point's memory holds what this one left
    no_reset = forget_peak()
    before = meter.throttling()
    with torch.inference_mode(), subject.quietly():
        _check_marks_change_nothing(subject)
        latency = _latency(subject, kind, clock, settings)
        resident = meter.used_bytes() if kind == "cuda" else _resident(no_reset)
        energy = _energy(subject, meter, clock, settings)
    slowed = _throttled(before, meter.throttling())
    with torch.no_grad(), subject.quietly():
        peak_bytes, stage_bytes = PEAKS[kind](
            subject.model,
            subject.batches[subject.heaviest],
            lambda mark: subject.run(subject.heaviest, mark),
        )
    executed = subject.flop(task.point.executor)
    least: Executor = "packed"
    routed = executed if task.point.executor == least else subject.flop(least)
    clean, split = latency.clean, latency.split
    calibration = (*clean.calibration_s, *split.calibration_s)
    status, reason = _verdict(latency, calibration, slowed)
    point = task.point
    return Measurement(
        point=point.id,
        run=task.run,
        session=task.session,
        taken_at=now_utc(),
        workload=workload_of(point, subject.routing),
        weights=subject.weights,
        routing_source=point.routing_source,
        environment=task.environment,
        rates=task.rates,
        status=status,
        reason=reason,
        samples_s=(*clean.samples_s, *split.samples_s),
        cpu_samples_s=(*clean.cpu_samples_s, *split.cpu_samples_s),
        host_samples_s=(*clean.host_samples_s, *split.host_samples_s),
        switches=(*clean.switches, *split.switches),
        calibration_s=calibration,
        instrumented_s=tuple(split.instrumented_s),
        warmup_s=latency.warmup_s,
        depths=tuple(
            DepthRecord(
                stage=stage,
                counts=_entering(subject, stage),
                samples_s=tuple(seconds),
                routed_flop=routed[stage],
                executed_flop=executed[stage],
                peak_bytes=stage_bytes[stage],
                energy_j=NO_STAGE_ENERGY if isinstance(energy, float) else energy,
            )
            for stage, seconds in split.stages_s.items()
        ),
        peak_bytes=peak_bytes,
        resident_bytes=resident,
        energy_j=energy,
        precision_met=clean.precision_met,
        relaxed=settings.relaxed,
        involuntary_switches=latency.involuntary_switches,
        seed=task.seed,
    )


def _latency(subject: Subject, kind: DeviceKind, clock: Clock, settings: Settings) -> _Latency:
    batches = len(subject.batches)
    show, kernel = Rotation(subject), CalibrationKernel(kind)
    kernel()
    gc.disable()
    try:
        warmup = warm_up(show.next, batches, show.first, clock, settings)
        inner = inner_loop(warmup, settings)
        clean = sample(show.next, kernel, batches, inner, clock, settings)
        split = pairs(
            show.next,
            show.again,
            kernel,
            STAGE_CLOCKS[kind](clock),
            inner,
            batches,
            clock,
            settings,
        )
        switches = sum(clean.switches) + sum(split.switches)
    finally:
        gc.enable()
    notes = [] if warmup.is_steady else ["the warm-up was cut before it was steady"]
    if kind == "cpu" and overhead_of(split) > LARGEST_OVERHEAD:
        notes.append(f"splitting by stage cost {overhead_of(split):.1%}: take its shares only")
    share = median(clean.cpu_samples_s) / median(clean.samples_s)
    if kind == "cpu" and share < LEAST_CPU_SHARE:
        notes.append(
            f"the measuring thread had a core {share:.0%} of the time: a contended machine"
        )
    if rest_of(split) > LARGEST_REST:
        notes.append(f"the stages leave {rest_of(split):.1%} of the split pass unexplained")
    return _Latency(
        warmup_s=warmup.samples_s,
        clean=clean,
        split=split,
        involuntary_switches=switches,
        notes=tuple(notes),
    )


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


def _verdict(
    latency: _Latency, calibration: Sequence[float], slowed: tuple[str, ...]
) -> tuple[Status, str]:
    """Status and reason; a reason beside `ok` is a note."""
    notes = "; ".join(latency.notes)
    if slowed:
        return "throttled", f"the device slowed down: {', '.join(slowed)}"
    unrest = relative_spread(calibration)
    if unrest > LARGEST_UNREST:
        said = (
            f"the calibration kernel spread by {unrest:.0%} (IQR over median): a restless machine"
        )
        return "unstable", f"{said}; {notes}" if notes else said
    return "ok", notes


def _energy(subject: Subject, meter: Meter, clock: Clock, settings: Settings) -> float | Unknown:
    """Joules of one batch, idle draw included, over a window of `energy_s`."""
    before = meter.energy_j()
    if isinstance(before, Unknown):
        return before
    show = Rotation(subject)
    passes, until_s = 0, clock.now_s() + settings.energy_s
    while clock.now_s() < until_s:
        show.next()
        passes += 1
    spent = meter.spent_j(before, meter.energy_j())
    return spent if isinstance(spent, Unknown) else spent / passes


def _resident(no_reset: str) -> int | Unknown:
    return Unknown(reason=no_reset) if no_reset else peak_resident()


def _throttled(
    before: tuple[str, ...] | Unknown, after: tuple[str, ...] | Unknown
) -> tuple[str, ...]:
    seen = [reasons for reasons in (before, after) if not isinstance(reasons, Unknown)]
    return tuple(dict.fromkeys(reason for reasons in seen for reason in reasons))


def _check_marks_change_nothing(subject: Subject) -> None:
    heard: list[str] = []
    clean, split = subject.run(0).logits, subject.run(0, heard.append).logits
    if not torch.allclose(clean, split, rtol=1e-3, atol=1e-4):
        raise RuntimeError("the pass split by stage gives other logits than the clean one")


def _entering(subject: Subject, stage: str) -> tuple[int, ...]:
    """Tokens of each image that enter a stage; prologue and epilogue take all."""
    if not stage.startswith("recursion-"):
        return (subject.point.architecture.tokens,) * len(subject.counts)
    recursion = int(stage.removeprefix("recursion-")) - 1
    return tuple(row[recursion] for row in subject.counts)
