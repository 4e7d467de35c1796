"""The worker that shows two points in turn, each pass after the same fixed kernel."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from domain.lockstep import LockstepRun
from domain.statistics import median
from profiler.clock import CLOCKS, Clock, DeviceKind, Laps
from profiler.latency import CalibrationKernel, Rotation
from profiler.lockstep import LockstepTask, Side, not_run
from profiler.lookout import Attempt, Lookout, persistent
from profiler.messages import Preparation, now_utc
from profiler.protocol import inner_loop, warm_up
from profiler.quartets import Timed, median_and_error, quartets
from profiler.subjects import CannotRun, Subject, subject_of
from profiler.telemetry import Meter
from profiler.worker import answering, failure_of, meter_of

# The last passes of a warm-up, which say how long a pass of a delayed side takes.
WARM_PASSES = 20
# Standard errors in half a 95 % interval.
INTERVAL = 1.96


@dataclass(frozen=True, kw_only=True)
class Alternation(Attempt):
    """Seconds of a pass, before and after, place by place."""

    before_s: tuple[float, ...]
    after_s: tuple[float, ...]
    precision_met: bool


def alternated(task: LockstepTask, kind: DeviceKind, meter: Meter) -> LockstepRun:
    """One run. Raises CannotRun, or what torch raises."""
    # Which of the two lies where in memory, and which comes first, is not always the same.
    sides = (task.before, task.after)[:: -1 if task.after_first else 1]
    if kind != "cpu" and task.after.slowdown:
        raise CannotRun("a slowdown is injected on a CPU only")
    if kind == "cuda" and len({side.point.precision == "tf32" for side in sides}) > 1:
        raise CannotRun(
            "a process rounds fp32 products to tf32 or not; measure one after the other"
        )
    subjects = [subject_of(side.point, kind, task.seed, side.source) for side in sides]
    with torch.inference_mode():
        came = persistent(lambda: _attempt(task, sides, subjects, kind, meter), task.settings)
    before, after = subjects[:: -1 if task.after_first else 1]
    return LockstepRun(
        before=task.before.point,
        after=task.after.point,
        before_weights=before.weights,
        after_weights=after.weights,
        run=task.run,
        session=task.session,
        taken_at=now_utc(),
        environment=task.environment,
        status=came.status,
        reason=came.reason,
        after_first=task.after_first,
        before_s=came.before_s,
        after_s=came.after_s,
        conditions=came.conditions,
        precision_met=came.precision_met,
        seed=task.seed,
    )


def _attempt(
    task: LockstepTask,
    sides: tuple[Side, ...],
    subjects: list[Subject],
    kind: DeviceKind,
    meter: Meter,
) -> Alternation:
    clock, settings = CLOCKS[kind](), task.settings
    kernel, laps = CalibrationKernel(kind), Laps(clock)
    calibration_s: list[float] = []
    rotation = max(len(subject.batches) for subject in subjects)

    def timed(side: Side, subject: Subject) -> Timed:
        show = Rotation(subject)
        with subject.quietly():
            warmup = warm_up(
                show.next,
                len(subject.batches),
                show.first,
                clock,
                settings,
                each=subject.builds_kernels,
            )
        inner = inner_loop(warmup, settings)
        delay_s = side.slowdown * median(warmup.samples_s[-WARM_PASSES:])

        def one(place: int) -> float:
            laps.start()
            kernel()
            calibration_s.append(laps.lap().wall_s)
            with subject.quietly():
                laps.start()
                for _ in range(inner):
                    subject.run(place)
                    _spin(clock, delay_s)
                return laps.lap().wall_s / inner

        return one

    def is_precise(ones: Sequence[float], others: Sequence[float]) -> bool:
        _, error = median_and_error(ones, others)
        return INTERVAL * error <= settings.half_width

    def is_over(ones: Sequence[float], others: Sequence[float]) -> bool:
        spent_s = laps.elapsed_s - began_s
        if spent_s > 2 * settings.most_s:
            return True
        wanted = max(2 * settings.least_samples, rotation)
        has_enough = spent_s >= settings.least_s and len(ones) >= wanted
        return has_enough and is_precise(ones, others)

    kernel()
    with Lookout(meter, clock, kind, task.environment.threads) as lookout:
        one, other = (timed(*each) for each in zip(sides, subjects, strict=True))
        calibration_s.clear()
        began_s = laps.elapsed_s
        lookout.begin()
        ones, others = quartets(one, other, is_over)
    came = lookout.attempt(calibration_s, notes=())
    before_s, after_s = (others, ones) if task.after_first else (ones, others)
    return Alternation(
        **vars(came),
        before_s=tuple(before_s),
        after_s=tuple(after_s),
        precision_met=is_precise(ones, others),
    )


def _spin(clock: Clock, seconds: float) -> None:
    """The slowdown of a self-test."""
    if seconds > 0:
        until_s = clock.now_s() + seconds
        while clock.now_s() < until_s:
            pass


def main() -> int:
    """Answer until the parent closes the pipe."""
    meters: list[Meter] = []

    def answer(line: str, preparation: Preparation) -> LockstepRun:
        task = LockstepTask.model_validate_json(line)
        if not meters:
            meters.append(meter_of(preparation))
        try:
            return alternated(task, preparation.kind, meters[0])
        except Exception as error:  # whatever a pair dies of is its result; the next one goes on
            return not_run(task, *failure_of(error))

    return answering(answer)


if __name__ == "__main__":
    sys.exit(main())
