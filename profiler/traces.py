"""Traces of the points of a session: asked of a worker, one file each, when all else is measured."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from domain.complaint import NoDevice, first_error
from domain.measurement import Measurement, PlannedPoint
from domain.record import Record
from profiler.messages import Preparation
from profiler.session import Session, Stop, prepared_worker
from profiler.supervisor import Worker, WorkerDied, WorkerLate

FOLDER = "traces"
WORKER = (sys.executable, "-m", "profiler.tracing")
TIMEOUT_S = 300.0


class TraceTask(Record):
    """A line to the worker: one point to trace, and into which file. The answer is a Traced."""

    point: PlannedPoint
    seed: int
    file: str


class Traced(Record):
    """A trace is in its file, or why there is none."""

    complaint: str = ""


def trace_file(folder: Path, point: PlannedPoint) -> Path:
    """Where the trace of a point lies."""
    return folder / FOLDER / f"{point.id}.json.gz"


def store_traces(
    session: Session,
    records: Sequence[Measurement],
    folder: Path,
    *,
    stop: Stop,
    say: Callable[[str], None],
    command: Sequence[str] = WORKER,
) -> int:
    """Trace each point that run 1 could measure and that has no trace yet; gives how many it wrote.

    A point without a trace is said, and harms nothing.
    """
    written = 0
    try:
        for point in _untraced(session, records, folder):
            if stop.is_asked:
                break
            said = _traced(point, session, trace_file(folder, point), stop, command)
            written += not said
            if said and not stop.is_now:
                say(f"no trace of {point.id}: {said}")
    finally:
        _end(stop)
    return written


def _untraced(
    session: Session, records: Sequence[Measurement], folder: Path
) -> Iterator[PlannedPoint]:
    first = {record.point for record in records if record.run == 1 and record.samples_s}
    for point in session.plan.points:
        if point.id in first and not trace_file(folder, point).exists():
            yield point


def _traced(
    point: PlannedPoint, session: Session, file: Path, stop: Stop, command: Sequence[str]
) -> str:
    """Why there is no trace; empty where there is."""

    def began(worker: Worker) -> None:
        stop.worker = worker
        if stop.is_now:
            worker.kill()

    task = TraceTask(point=point, seed=session.seed, file=str(file.resolve()))
    try:
        if stop.worker is None:
            preparation = Preparation(**{**dict(session.preparation), "wants_rates": False})
            prepared_worker(preparation, command, began)
        assert stop.worker is not None
        return Traced.model_validate_json(
            stop.worker.ask(task.model_dump_json(), TIMEOUT_S)
        ).complaint
    except ValidationError as error:
        return f"the worker gave no valid answer: {first_error(error)}"
    except (NoDevice, WorkerDied, WorkerLate) as error:
        stop.worker = None
        return str(error)


def _end(stop: Stop) -> None:
    if stop.worker is not None:
        stop.worker.end()
    stop.worker = None
