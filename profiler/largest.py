"""The largest batch that has room: searched one by one, each try in a process of its own.

1 ─ 2 ─ 4 ─ 8 ─ … ─ the first without room ─ halves between ─ the largest with room

A batch is never changed: every try is of one batch, and what came of it, room or none, is a record
in the journal. A batch larger than one without room is not tried: it has none either.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from domain.complaint import NoDevice, first_error
from domain.measurement import Environment, Measurement, PlannedPoint, Rates
from domain.record import Identifier
from domain.store import Journal
from profiler.messages import Preparation, Task, failed
from profiler.protocol import SETTINGS
from profiler.session import Stop, check_same, prepared_worker
from profiler.supervisor import Worker, WorkerDied, WorkerLate

JOURNAL = "largest.jsonl"
WORKER = (sys.executable, "-m", "profiler.trying")
TIMEOUT_S = 600.0
# What a process says that died because an allocation in C or C++ found no room.
DYING_WORDS = ("bad_alloc", "cannot allocate memory", "can't allocate memory", "out of memory")


class Undecided(Exception):
    """A try that says neither that there is room nor that there is none."""


def largest(has_room: Callable[[int], bool], most: int) -> int:
    """The largest batch up to `most` that has room; 0 where not even one image has.

    Doubling, then bisection: 2 log2(n) tries at most, none of them twice. What has room is taken to
    have it for every smaller batch.

    >>> largest(lambda batch: batch <= 100, most=4096)
    100
    """
    fits, batch = 0, 1
    while batch <= most and has_room(batch):
        fits, batch = batch, min(2 * batch, most) if batch < most else most + 1
    too_large = batch
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        if has_room(middle):
            fits = middle
        else:
            too_large = middle
    return fits


@dataclass(frozen=True, kw_only=True)
class Search:
    """Whose largest batch, where, and with how much memory. `point` is one of any batch."""

    session: Identifier
    point: PlannedPoint
    most: int
    seed: int
    preparation: Preparation
    environment: Environment | None = None
    rates: Rates | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """The largest batch with room (0: none), whether `most` ended the search, and every try."""

    batch: int
    is_most: bool
    tries: tuple[Measurement, ...]
    undecided: str = ""


def searched(
    wanted: Search,
    journal_at: Path,
    *,
    stop: Stop,
    report: Callable[[Measurement], None],
    command: Sequence[str] = WORKER,
    timeout_s: float = TIMEOUT_S,
) -> Found:
    """Search, each try in the journal before the next.

    A try that ends in neither `ok` nor `oom` ends the search: what is known till then is given, with
    why there is no more.
    """
    tries: list[Measurement] = []
    trier = _Trier(wanted, stop, command, timeout_s)
    with Journal(journal_at, Measurement) as journal:

        def has_room(batch: int) -> bool:
            record = trier.tried(batch)
            journal.append(record)
            tries.append(record)
            report(record)
            if record.status not in ("ok", "oom"):
                raise Undecided(f"batch {batch} gave {record.status}: {record.reason}")
            return record.status == "ok"

        try:
            batch, undecided = largest(has_room, wanted.most), ""
        except Undecided as reason:
            batch, undecided = _known(tries), str(reason)
    is_most = batch == wanted.most
    return Found(batch=batch, is_most=is_most, tries=tuple(tries), undecided=undecided)


def _known(tries: Sequence[Measurement]) -> int:
    return max((each.workload.batch for each in tries if each.status == "ok"), default=0)


class _Trier:
    """Tries a batch in a new process; keeps what the first one said of the machine."""

    def __init__(
        self, wanted: Search, stop: Stop, command: Sequence[str], timeout_s: float
    ) -> None:
        self._wanted = wanted
        self._stop = stop
        self._command = command
        self._timeout_s = timeout_s
        self._where, self._rates = wanted.environment, wanted.rates

    def tried(self, batch: int) -> Measurement:
        """The record of one try. Raises Undecided where somebody asked to stop."""
        if self._stop.is_asked:
            raise Undecided("stopped")
        preparation = Preparation(
            **{**dict(self._wanted.preparation), "wants_rates": self._rates is None}
        )
        try:
            worker, came, rates = prepared_worker(preparation, self._command, self._began)
        except NoDevice as error:
            self._stop.worker = None
            if self._stop.is_now:
                raise Undecided("stopped") from None
            raise NoDevice(
                f"{error}; the limit may be less than libraries take"
                if self._is_limited
                else str(error)
            ) from error
        if self._where is None:
            self._where = came
        self._rates = self._rates or rates
        task = self._task(batch)
        is_gone = False
        try:
            check_same(self._where, came)
            answer = worker.ask(task.model_dump_json(), self._timeout_s)
            return Measurement.model_validate_json(answer)
        except ValidationError as error:
            return failed(task, "failed", f"the worker gave no valid record: {first_error(error)}")
        except WorkerLate as error:
            is_gone = True
            return failed(task, "timeout", str(error))
        except WorkerDied as error:
            is_gone = True
            if self._stop.is_now:
                raise Undecided("stopped") from None
            return failed(task, "oom" if _for_memory(error) else "failed", str(error))
        finally:
            self._stop.worker = None
            if not is_gone:
                worker.end()

    def _began(self, worker: Worker) -> None:
        self._stop.worker = worker
        if self._stop.is_now:
            worker.kill()

    @property
    def _is_limited(self) -> bool:
        return self._wanted.preparation.memory_limit_bytes is not None

    def _task(self, batch: int) -> Task:
        assert self._where is not None
        assert self._rates is not None
        point = self._wanted.point
        return Task(
            point=PlannedPoint(**{**dict(point), "id": f"{point.id}-b{batch}", "batch": batch}),
            run=1,
            session=self._wanted.session,
            seed=self._wanted.seed,
            settings=SETTINGS["quick"],
            environment=self._where,
            rates=self._rates,
        )


def _for_memory(error: WorkerDied) -> bool:
    said = str(error).lower()
    return error.is_out_of_memory or any(word in said for word in DYING_WORDS)


def rows_of(found: Found) -> Iterator[dict[str, str | float | int | bool | None]]:
    """Every try as a row, the largest batch with room marked."""
    for each in sorted(found.tries, key=lambda record: record.workload.batch):
        yield {
            "batch": each.workload.batch,
            "status": each.status,
            "largest": each.workload.batch == found.batch,
            "latency_ms": min(each.samples_s) * 1e3 if each.samples_s else None,
            "peak_mb": _megabytes(each.peak_bytes),
            "resident_mb": _megabytes(each.resident_bytes),
            "reason": each.reason[:100],
        }


def _megabytes(amount: object) -> float | None:
    return amount / 1e6 if isinstance(amount, int) else None
