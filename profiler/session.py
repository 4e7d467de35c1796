"""One session: a plan, the machine it is measured on, and the journal that grows point by point.

for each run      points in an order of its own, drawn from the seed; one worker
  for each point  ask the worker ─ append its answer to the journal (on disk) ─ next
"""

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import disk_usage
from types import FrameType, TracebackType
from typing import Literal, Self

from pydantic import ValidationError

from domain.complaint import (
    AllFailed,
    Complaint,
    CorruptFile,
    NoDevice,
    StorageFailed,
    first_error,
)
from domain.measurement import Environment, Measurement, MeasuringPlan, PlannedPoint, Rates
from domain.record import Identifier, Record
from domain.store import Journal, load, records_so_far
from profiler.environment import difference
from profiler.messages import Preparation, Prepared, Task, failed
from profiler.protocol import SETTINGS, Mode, Settings
from profiler.supervisor import START_S, WORKER, Worker, WorkerDied, WorkerLate

JOURNAL, SESSION = "journal.jsonl", "session.json"
BYTES_BESIDE_SAMPLES, BYTES_PER_SAMPLE = 20_000, 120
# A sample and the kernel beside it take so long at least.
LEAST_TURN_S = 3e-3
BYTES_BESIDE = 4_000_000


class Finding(Record):
    """One thing that the doctor looked at; `cure` says what to do about it."""

    level: Literal["PASS", "WARN", "FAIL"]
    subject: str
    found: str
    cure: str = ""


class Session(Record):
    """What was measured, how and where: the head of a journal. Stored beside it as JSON.

    Format 2 added the settings; before, the mode named them.
    """

    format: Literal[1, 2] = 2
    id: Identifier
    started_at: str
    mode: Mode
    settings: Settings | None = None
    seed: int
    plan: MeasuringPlan
    preparation: Preparation
    environment: Environment
    rates: Rates
    findings: tuple[Finding, ...] = ()
    source_commit: str = "unknown"
    weights_sha256: str = ""
    images_sha256: str = ""

    @property
    def effective(self) -> Settings:
        """The settings in force."""
        return self.settings or SETTINGS[self.mode]


class Stop:
    """Hears Ctrl-C: once asks to stop after the point at hand, twice stops now.

    SIGTERM and SIGHUP stop now. Stopping now ends the worker, never a write in progress.
    """

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self.is_asked = False
        self.is_now = False
        self.worker: Worker | None = None
        self._say = say

    def __enter__(self) -> Self:
        self._old = {
            number: signal.signal(number, self._hear)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN  # nohup, say
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and not self.is_asked:
            self.is_asked = True
            # A terminal that is gone, or that is being written to just now, must not stop a write.
            with suppress(OSError, RuntimeError):
                self._say("stopping after this point; Ctrl-C again stops now")
            return
        self.is_asked = self.is_now = True
        if self.worker is not None:
            self.worker.kill()


def order_of(plan: MeasuringPlan, run: int, seed: int) -> list[PlannedPoint]:
    """The points in the order of one run: shuffled, the same again for the same seed."""
    points = list(plan.points)
    random.Random(f"{seed}:{run}").shuffle(points)  # noqa: S311 - an order, not a secret
    return points


def prepared_worker(
    preparation: Preparation,
    command: Sequence[str] = WORKER,
    began: Callable[[Worker], None] = lambda _: None,
) -> tuple[Worker, Environment, Rates | None]:
    """A worker that is ready, and where it is. Raises NoDevice where it cannot measure.

    `began` hears of the worker before it is ready, so that it can be ended meanwhile.
    """
    try:
        worker = Worker(preparation, command)
    except OSError as error:
        raise NoDevice(f"no worker could be started: {error}") from error
    began(worker)
    try:
        answer = Prepared.model_validate_json(worker.ask(preparation.model_dump_json(), START_S))
    except (WorkerDied, WorkerLate) as error:
        raise NoDevice(f"no worker could be started: {error}") from error
    except BaseException as error:  # Ctrl-C, too, leaves no worker behind
        worker.kill()
        worker.end()
        if isinstance(error, ValidationError):
            raise NoDevice(f"the worker gave no valid answer: {first_error(error)}") from error
        raise
    if answer.environment is None:
        worker.end()
        raise NoDevice(answer.complaint)
    return worker, answer.environment, answer.rates


def record_bytes(settings: Settings) -> int:
    """Bytes of a record of the shortest samples, roughly."""
    samples = (settings.least_s + settings.most_pairs_s) / LEAST_TURN_S
    return round(BYTES_BESIDE_SAMPLES + BYTES_PER_SAMPLE * samples)


def check_storage(folder: Path, records_bytes: int) -> None:
    """Raise StorageFailed where the disk has not the room for records of so many bytes."""
    wanted = records_bytes + BYTES_BESIDE
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    try:
        free = disk_usage(existing).free
    except OSError as error:
        raise StorageFailed(f"cannot look at {existing}: {error.strerror}") from error
    if free < wanted:
        raise StorageFailed(
            f"{folder} needs {wanted} bytes, {existing} has {free}; make room or name another --out"
        )


def taken_up(folder: Path) -> tuple[Session, tuple[Measurement, ...]]:
    """The session in a folder and what was measured so far.

    Raises CorruptFile where the journal cannot be read or is another session's. A damaged tail does
    not count; the journal sets it aside when it is opened.
    """
    head = folder / SESSION
    if not head.exists():
        raise Complaint(f"{folder} has no {SESSION}; name the folder that `run` wrote")
    session = load(head, Session)
    return session, measured_in(folder / JOURNAL, session)


def measured_in(journal: Path, session: Session) -> tuple[Measurement, ...]:
    """The records of a session's journal, none where there is no journal yet."""
    if not journal.exists():
        return ()
    records = records_so_far(journal, Measurement)
    left = {
        (session.id, point.id, run)
        for point in session.plan.points
        for run in range(1, session.plan.runs + 1)
    }
    for number, record in enumerate(records, start=1):
        key = (record.session, record.point, record.run)
        if key not in left:
            raise CorruptFile(
                f"{journal}:{number}: run {record.run} of {record.point} in session "
                f"{record.session} is not planned, or there twice; {SESSION} is of {session.id}"
            )
        left.remove(key)
    return records


def measure(
    session: Session,
    folder: Path,
    *,
    stop: Stop,
    report: Callable[[Measurement, int, int], None],
    first_worker: Worker | None = None,
    command: Sequence[str] = WORKER,
    timeout_s: float | None = None,
) -> tuple[Measurement, ...]:
    """Measure what the journal in `folder` lacks; gives all records, old and new.

    `report` hears each new record with its number and how many there will be. Raises Complaint
    where a worker finds itself in another environment than the session's, AllFailed where no point
    could be measured.
    """
    workers = _Workers(session, stop, command, first_worker)
    with Journal(folder / JOURNAL, Measurement) as journal:
        records = list(measured_in(folder / JOURNAL, session))
        done = {(record.point, record.run) for record in records}
        total = session.plan.runs * len(session.plan.points)
        limits = timeout_s or session.effective.timeout_s
        with workers.ended():
            for task in _tasks(session, done):
                if stop.is_asked:
                    break
                record = _implied(task, records, session.plan.points) or workers.answer(
                    task, limits
                )
                if stop.is_now:
                    break
                journal.append(record)
                records.append(record)
                report(record, len(records), total)
    # A contended record has its numbers, if not to be fitted: the machine failed, not the point.
    if len(records) == total and not any(record.samples_s for record in records):
        raise AllFailed(f"all {total} measurements failed; the last: {records[-1].reason}")
    return tuple(records)


class _Workers:
    """One worker for each run, a new one after a death."""

    def __init__(
        self, session: Session, stop: Stop, command: Sequence[str], first: Worker | None
    ) -> None:
        self._session = session
        self._stop = stop
        self._command = command
        self._run = 1
        stop.worker = first

    def answer(self, task: Task, timeout_s: float) -> Measurement:
        if task.run != self._run:
            self._end()
            self._run = task.run
        try:
            worker = self._stop.worker or self._started()
        except NoDevice as error:
            if self._stop.is_now:
                return failed(task, "failed", f"stopped: {error}")
            raise
        if self._stop.is_now:
            worker.kill()  # the signal came before there was a worker to end
        try:
            record = Measurement.model_validate_json(worker.ask(task.model_dump_json(), timeout_s))
        except ValidationError as error:
            return failed(task, "failed", f"the worker gave no valid record: {first_error(error)}")
        except WorkerLate as error:
            self._stop.worker = None
            return failed(task, "timeout", str(error))
        except WorkerDied as error:
            self._stop.worker = None
            return failed(task, "oom" if error.is_out_of_memory else "failed", str(error))
        if not _answers(record, task):
            return failed(task, "failed", f"the worker measured {_named(record)} instead")
        if self._session.preparation.kind == "cuda" and record.status in ("failed", "oom"):
            self._end()  # its CUDA context may be dead, and every later point with it
        return record

    @contextmanager
    def ended(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._end()

    def _started(self) -> Worker:
        def began(worker: Worker) -> None:
            self._stop.worker = worker
            if self._stop.is_now:
                worker.kill()

        try:
            worker, came, _ = self._prepared(began)
        except NoDevice:
            self._stop.worker = None
            raise
        check_same(self._session.environment, came)
        return worker

    def _prepared(
        self, began: Callable[[Worker], None]
    ) -> tuple[Worker, Environment, Rates | None]:
        """A worker that is ready; one that dies on the way is tried again, for the sweep's sake."""
        try:
            return prepared_worker(self._session.preparation, self._command, began)
        except NoDevice as error:
            if self._stop.is_asked or not isinstance(error.__cause__, WorkerDied):
                raise
        return prepared_worker(self._session.preparation, self._command, began)

    def _end(self) -> None:
        worker = self._stop.worker
        if worker is not None:
            if self._stop.is_now:
                worker.kill()
            worker.end()  # until then a signal can still end it
        self._stop.worker = None


def check_same(wanted: Environment, came: Environment) -> None:
    """Raise Complaint where two environments differ: their records are never merged."""
    if wanted.key() != came.key():
        raise Complaint(
            f"this session was measured in another environment: {difference(wanted, came)}; start "
            f"a new one with `python -m profiler run`"
        )


def _tasks(session: Session, done: set[tuple[str, int]]) -> Iterator[Task]:
    for run in range(1, session.plan.runs + 1):
        for point in order_of(session.plan, run, session.seed):
            if (point.id, run) not in done:
                yield Task(
                    point=point,
                    run=run,
                    session=session.id,
                    seed=session.seed,
                    settings=session.effective,
                    environment=session.environment,
                    rates=session.rates,
                )


def _answers(record: Measurement, task: Task) -> bool:
    """Whether a record is of what was asked: no other point, run, batch, or network."""
    asked, ran = task.point, record.workload
    return (record.point, record.run, record.session, record.subject) == (
        asked.id,
        task.run,
        task.session,
        asked.subject,
    ) and (ran.architecture, ran.batch, ran.precision, ran.runtime, ran.executor) == (
        asked.architecture,
        asked.batch,
        asked.precision,
        asked.runtime,
        asked.executor,
    )


def _named(record: Measurement) -> str:
    return f"run {record.run} of {record.point} with batch {record.workload.batch}"


def _implied(
    task: Task, records: Sequence[Measurement], points: Sequence[PlannedPoint]
) -> Measurement | None:
    """A batch that is larger than one that had no room has none either, under the same routing."""
    wanted = task.point
    planned = {point.id: point for point in points}
    for record in records:
        ran = record.workload
        asked = planned.get(record.point)
        if (
            record.status == "oom"
            and not record.reason.startswith("implied")
            and asked is not None
            and (asked.subject, asked.routing_source, asked.survival, asked.spread)
            == (wanted.subject, wanted.routing_source, wanted.survival, wanted.spread)
            and ran.batch < wanted.batch
            and (ran.architecture, ran.precision, ran.runtime, ran.executor)
            == (wanted.architecture, wanted.precision, wanted.runtime, wanted.executor)
        ):
            reason = f"implied: {record.point} with batch {ran.batch} had no room"
            return failed(task, "oom", reason)
    return None
