"""The worker that tries whether a batch has room: a few plain passes, and nothing beside them.

A full measurement counts work and memory in passes of their own, which want room too.
"""

import sys

import torch

from domain.measurement import Measurement
from domain.record import Unknown
from profiler.clock import CLOCKS, DeviceKind, Laps
from profiler.memory import forget_peak, peak_resident
from profiler.messages import Preparation, Source, Task, failed, now_utc, workload_of
from profiler.subjects import subject_of
from profiler.worker import answering, failure_of

PASSES = 3


def tried(task: Task, kind: DeviceKind, source: Source) -> Measurement:
    """A few passes of one batch: their seconds and the most memory. Raises what torch raises."""
    no_reset = forget_peak()
    subject = subject_of(task.point, kind, task.seed, source)
    with torch.inference_mode(), subject.quietly():
        laps = Laps(CLOCKS[kind]())
        passes = []
        for number in range(PASSES):
            subject.run(number)
            passes.append(laps.lap())
    allocated: int | Unknown = Unknown(reason="on a CPU only the whole process is seen by a try")
    resident: int | Unknown = Unknown(reason=no_reset) if no_reset else peak_resident()
    if kind == "cuda":
        allocated = torch.cuda.max_memory_allocated()
        resident = Unknown(reason="what the host keeps is not the GPU's memory")
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
        status="ok",
        reason="a try for room: too few passes to say how fast",
        samples_s=tuple(lap.wall_s for lap in passes),
        cpu_samples_s=tuple(lap.cpu_s for lap in passes),
        host_samples_s=tuple(lap.host_s for lap in passes),
        switches=tuple(lap.switches for lap in passes),
        peak_bytes=allocated,
        resident_bytes=resident,
        reserved_bytes=(
            torch.cuda.max_memory_reserved()
            if kind == "cuda"
            else Unknown(reason="a CPU has no allocator of torch's own")
        ),
        context_bytes=Unknown(reason="a try does not read it"),
        relaxed=True,
        seed=task.seed,
    )


def _answer(line: str, preparation: Preparation) -> Measurement:
    task = Task.model_validate_json(line)
    try:
        return tried(task, preparation.kind, preparation.source)
    except Exception as error:  # a try ends in a record, whatever it dies of
        return failed(task, *failure_of(error))


if __name__ == "__main__":
    sys.exit(answering(_answer))
