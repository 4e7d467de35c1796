"""One point of one run: clean latency, split by depth, energy, memory, work; each a pass of its own.

    warm up ─ clean samples ─ clean/split pairs ─ resident peak ─ energy ─ memory ─ work

Seconds, joules and FLOPs are of ONE batch of `workload.batch` images. Several batches are shown in
rotation, at least 64 distinct images; a sample times the next batch (where a batch takes less than
a millisecond, the mean of the next few). `workload.routing` and `DepthRecord.counts` hold all images
of the rotation in order; FLOPs are the mean over its batches, peak bytes those of its heaviest.
`resident_bytes` is the peak of this process on a CPU, all memory in use on a GPU. `energy_j` is the
median of the windows in `energy`.
"""

import gc

import torch

from domain.measurement import DepthRecord, Measurement
from domain.record import Executor, Unknown
from domain.statistics import median
from profiler.clock import CLOCKS, DeviceKind
from profiler.energy import NO_BASELINE, energy_pass
from profiler.latency import Rotation, latency_of
from profiler.memory import MEMORIES, forget_peak, peak_resident
from profiler.messages import SHIPPED_SOURCE, Source, Task, now_utc, workload_of
from profiler.subjects import Subject, subject_of
from profiler.telemetry import Meter

NO_STAGE_ENERGY = Unknown(reason="energy counters tick slower than a stage lasts")


def measured(
    task: Task,
    kind: DeviceKind,
    meter: Meter,
    source: Source = SHIPPED_SOURCE,
    idle_w: float | Unknown = NO_BASELINE,
) -> Measurement:
    """Everything that one run of one point gives. Raises CannotRun, or what torch raises.

    `idle_w` is what the device drew before the first point.
    """
    settings = task.settings
    subject = subject_of(task.point, kind, task.seed, source)
    gc.collect()
    if kind == "cuda":
        torch.cuda.empty_cache()  # else the next point's memory holds what this one left
    no_reset = forget_peak()
    with torch.inference_mode(), subject.quietly():
        _check_marks_change_nothing(subject)
        threads = task.environment.threads
        latency = latency_of(subject, kind, settings, threads, meter)
        resident = meter.used_bytes() if kind == "cuda" else _resident(no_reset)
        show = Rotation(subject)
        energy = energy_pass(
            show.next,
            median(latency.clean.samples_s),
            meter,
            CLOCKS[kind](),
            kind,
            settings,
            idle_w,
        )
    with torch.no_grad(), subject.quietly():
        memory = MEMORIES[kind](
            subject.model,
            subject.batches[subject.heaviest],
            lambda mark: subject.run(subject.heaviest, mark),
            meter,
            beside_bytes=sum(
                batch.untyped_storage().nbytes()
                for place, batch in enumerate(subject.batches)
                if place != subject.heaviest
            ),
        )
        executed = subject.flop(task.point.executor)
        least: Executor = "packed"
        routed = executed if task.point.executor == least else subject.flop(least)
    clean, split = latency.clean, latency.split
    point = task.point
    return Measurement(
        point=point.id,
        run=task.run,
        session=task.session,
        taken_at=now_utc(),
        workload=workload_of(point, subject.routing),
        subject=point.subject,
        weights=subject.weights,
        routing_source=point.routing_source,
        environment=task.environment,
        rates=task.rates,
        status=latency.status,
        reason="; ".join(filter(None, (latency.reason, *energy.notes))),
        samples_s=(*clean.samples_s, *split.samples_s),
        cpu_samples_s=(*clean.cpu_samples_s, *split.cpu_samples_s),
        host_samples_s=(*clean.host_samples_s, *split.host_samples_s),
        switches=(*clean.switches, *split.switches),
        passes_per_sample=latency.inner,
        calibration_s=latency.calibration_s,
        instrumented_s=tuple(split.instrumented_s),
        warmup_s=latency.warmup.samples_s,
        conditions=latency.conditions,
        depths=tuple(
            DepthRecord(
                stage=stage,
                counts=_entering(subject, stage),
                samples_s=tuple(seconds),
                routed_flop=routed[stage],
                executed_flop=executed[stage],
                peak_bytes=memory.stages[stage].peak_bytes,
                reserved_bytes=memory.stages[stage].reserved_bytes,
                device_bytes=memory.stages[stage].device_bytes,
                energy_j=NO_STAGE_ENERGY if energy.is_known else energy.energy_j,
            )
            for stage, seconds in split.stages_s.items()
        ),
        peak_bytes=memory.peak_bytes,
        resident_bytes=resident,
        reserved_bytes=memory.reserved_bytes,
        context_bytes=memory.context_bytes,
        energy_j=energy.energy_j,
        energy=energy.energy,
        precision_met=clean.precision_met,
        relaxed=settings.relaxed,
        involuntary_switches=latency.involuntary_switches,
        seed=task.seed,
    )


def _resident(no_reset: str) -> int | Unknown:
    return Unknown(reason=no_reset) if no_reset else peak_resident()


def _check_marks_change_nothing(subject: Subject) -> None:
    heard: list[str] = []
    clean, split = subject.run(0), subject.run(0, heard.append)
    if not torch.allclose(clean, split, rtol=1e-3, atol=1e-4):
        raise RuntimeError("the pass split by stage gives another result than the clean one")


def _entering(subject: Subject, stage: str) -> tuple[int, ...]:
    """Tokens of each image that enter a stage; prologue and epilogue take all."""
    if not stage.startswith("recursion-"):
        return (subject.point.architecture.tokens,) * len(subject.counts)
    recursion = int(stage.removeprefix("recursion-")) - 1
    return tuple(row[recursion] for row in subject.counts)
