"""A load test: trials asked of one worker, one after another, each on the disk before the next.

    single-stream, multi-stream, offline    one trial
    server at a rate                        one trial
    server under a promise                  offline trial → rates by doubling, then bisection

The parent blocks on the worker's pipe: it takes no time from it.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ValidationError, model_validator

from domain.complaint import AllFailed, first_error
from domain.loadtest import (
    Batching,
    LatencyPromise,
    LoadResult,
    LoadScenario,
    LoadSeeds,
    LoadSummary,
    LoadTrial,
)
from domain.measurement import Environment, PlannedPoint, Rates, Status
from domain.record import Identifier, Positive, PositiveCount, Record, Unknown
from domain.store import Journal, save, write_trace
from profiler.load import Search, highest_rate
from profiler.load_evidence import FEWEST_LATE, in_figures, least_queries
from profiler.messages import Preparation, now_utc, workload_of
from profiler.protocol import Settings
from profiler.routings import presumed_routing
from profiler.session import Finding, Stop, check_same, prepared_worker
from profiler.supervisor import START_S, Worker, WorkerDied, WorkerLate

LOAD_WORKER = (sys.executable, "-m", "profiler.load_worker")
LOAD_JOURNAL, LOAD_SUMMARY, LOAD_ROUTING = "load.jsonl", "load.json", "routing.parquet"
# Distinct images in rotation; with fewer than a hundred, one image would be the 99th percentile.
POOL_IMAGES = 128
MOST_QUERIES = 1_000_000
LEAST_SECONDS = 60.0
# A search begins at this share of the offline throughput.
FIRST_SHARE = 0.125
OFFLINE_SECONDS = 10.0
# A trial of a search goes on until it can be judged, but at most this many times its seconds.
LONGEST = 3.0
TRIES = 3


class LoadTask(Record):
    """Every line to the load worker after the first: one trial. The answer is a LoadResult."""

    kind: Literal["load"] = "load"
    scenario: LoadScenario
    point: PlannedPoint
    trial: PositiveCount
    session: Identifier
    seeds: LoadSeeds
    images_per_query: PositiveCount
    batching: Batching
    seconds: Positive
    rate_per_s: Positive | None = None
    queries: PositiveCount = 1
    promise: LatencyPromise | None = None
    stops_when_broken: bool = False
    settings: Settings
    environment: Environment
    rates: Rates

    @model_validator(mode="after")
    def _rate_of_a_server(self) -> Self:
        if (self.scenario == "server") != (self.rate_per_s is not None):
            raise ValueError("wanted a rate for a server, and only there")
        return self

    @property
    def most_images(self) -> int:
        """Images of the largest pass."""
        return self.batching.most_batch * self.images_per_query

    @property
    def pool(self) -> PlannedPoint:
        """The network with the images in rotation."""
        return PlannedPoint(**{**dict(self.point), "batch": POOL_IMAGES})

    @property
    def relaxed(self) -> bool:
        """Whether it is shorter than the protocol asks."""
        return self.seconds < LEAST_SECONDS

    @property
    def timeout_s(self) -> float:
        """Longest that a worker may take: twice its time, the warm-up and the first start."""
        planned_s = self.queries / self.rate_per_s if self.rate_per_s else self.seconds
        return 2 * planned_s + self.settings.most_warmup_s + START_S


class LoadSession(Record):
    """What is tested, how and where: the head of a load journal. Stored beside it as JSON."""

    format: Literal[1] = 1
    id: Identifier
    started_at: str
    scenario: LoadScenario
    point: PlannedPoint
    seeds: LoadSeeds
    images_per_query: PositiveCount
    batching: Batching
    seconds: Positive
    rate_per_s: Positive | None = None
    promise: LatencyPromise | None = None
    settings: Settings
    preparation: Preparation
    environment: Environment
    rates: Rates
    findings: tuple[Finding, ...] = ()
    source_commit: str = "unknown"
    weights_sha256: str = ""

    @property
    def searches(self) -> bool:
        """Whether the highest rate under the promise is looked for."""
        return self.scenario == "server" and self.rate_per_s is None

    def figures_of(self, result: LoadResult) -> LoadTrial:
        """A trial in figures; the promise is about this scenario, not about finding the start."""
        return in_figures(result, self.promise if result.scenario == self.scenario else None)


def load_tested(
    session: LoadSession,
    folder: Path,
    *,
    stop: Stop,
    report: Callable[[LoadResult], None],
    first_worker: Worker | None = None,
    command: Sequence[str] = LOAD_WORKER,
) -> LoadSummary:
    """Run the trials that the session asks for; the journal, summary and routing lie in `folder`.

    `report` hears each trial. Raises AllFailed where no trial gave a number.
    """
    stop.worker = first_worker
    with Journal(folder / LOAD_JOURNAL, LoadResult) as journal:
        trials = _Trials(session, journal, stop, report, command)
        try:
            search = _search(trials) if session.searches else _one(trials)
        finally:
            worker, stop.worker = stop.worker, None
            if worker is not None:
                worker.end()
    results = trials.results
    if results and not any(result.done_s for result in results):
        raise AllFailed(f"no trial gave a number; the last: {results[-1].reason}")
    summary = _summary(session, results, search)
    save(summary, folder / LOAD_SUMMARY)
    if results:
        most = max(results, key=lambda result: result.served)
        write_trace(most.workload.routing, folder / LOAD_ROUTING)
    return summary


def failed_load(task: LoadTask, status: Status, reason: str) -> LoadResult:
    """The record of a trial that gave no number, and why."""
    return LoadResult(
        session=task.session,
        trial=task.trial,
        taken_at=now_utc(),
        scenario=task.scenario,
        workload=workload_of(task.point, presumed_routing(task.point, task.seeds.images)),
        weights=f"{task.point.weights}, not run",
        routing_source=task.point.routing_source,
        environment=task.environment,
        rates=task.rates,
        status=status,
        reason=" ".join(reason.split())[:600] or "no reason was given",
        seeds=task.seeds,
        asked_per_s=task.rate_per_s,
        batching=task.batching,
        images_per_query=task.images_per_query,
        relaxed=task.relaxed,
    )


_OF_EVERY_TRIAL = (
    "scenario",
    "point",
    "seeds",
    "images_per_query",
    "batching",
    "seconds",
    "promise",
    "settings",
    "environment",
    "rates",
)


class _Trials:
    """The trials so far, and how the next one is asked for."""

    def __init__(
        self,
        session: LoadSession,
        journal: Journal[LoadResult],
        stop: Stop,
        report: Callable[[LoadResult], None],
        command: Sequence[str],
    ) -> None:
        self.session = session
        self.stop = stop
        self.results: list[LoadResult] = []
        self._journal = journal
        self._report = report
        self._command = command

    def run(self, **changed: Any) -> LoadResult:
        """One more trial: the session's, with what is `changed`; it is on the disk then."""
        session = self.session
        fields: dict[str, Any] = {name: getattr(session, name) for name in _OF_EVERY_TRIAL}
        number = len(self.results) + 1
        task = LoadTask(**{**fields, "session": session.id, "trial": number, **changed})
        result = self._answer(task)
        if not self.stop.is_now:
            self._journal.append(result)
            self.results.append(result)
            self._report(result)
        return result

    def _answer(self, task: LoadTask) -> LoadResult:
        worker = self.stop.worker or self._started()
        try:
            return LoadResult.model_validate_json(
                worker.ask(task.model_dump_json(), task.timeout_s)
            )
        except ValidationError as error:
            return failed_load(
                task, "failed", f"the worker gave no valid record: {first_error(error)}"
            )
        except WorkerLate as error:
            self.stop.worker = None
            return failed_load(task, "timeout", str(error))
        except WorkerDied as error:
            self.stop.worker = None
            return failed_load(task, "oom" if error.is_out_of_memory else "failed", str(error))

    def _started(self) -> Worker:
        def began(worker: Worker) -> None:
            self.stop.worker = worker

        worker, came, _ = prepared_worker(self.session.preparation, self._command, began)
        check_same(self.session.environment, came)
        return worker


def _one(trials: _Trials) -> Search:
    rate, seconds = trials.session.rate_per_s, trials.session.seconds
    queries = 1 if rate is None else max(1, round(rate * seconds))
    trials.run(rate_per_s=rate, queries=queries)
    return Search()


def _search(trials: _Trials) -> Search:
    """The highest rate under the promise, from a share of what the device does offline."""
    session = trials.session
    assert session.promise is not None
    offline = trials.run(scenario="offline", seconds=min(session.seconds, OFFLINE_SECONDS))
    if not offline.done_s or trials.stop.is_asked:
        return Search()
    least = least_queries(FEWEST_LATE, session.promise.share)

    def is_valid(rate_per_s: float) -> bool | None:
        longest = min(round(rate_per_s * session.seconds * LONGEST), MOST_QUERIES)
        queries = max(1, round(rate_per_s * session.seconds), min(least, longest))
        for _ in range(TRIES):
            if trials.stop.is_asked:
                return None
            result = trials.run(
                rate_per_s=rate_per_s, queries=min(queries, MOST_QUERIES), stops_when_broken=True
            )
            verdict = session.figures_of(result).verdict
            if verdict is not None and verdict.queries_more is None:
                return verdict.verdict == "VALID"
            if verdict is not None:  # neither kept nor broken: longer, if it may be
                if queries >= longest:
                    return None
                queries = min(longest, queries + (verdict.queries_more or 0))
        return None  # disturbed or failed every time: nobody knows

    # Below this rate no trial could be long enough to be judged.
    slowest = least / (session.seconds * LONGEST)
    return highest_rate(is_valid, max(offline.images_per_s * FIRST_SHARE, slowest))


def _summary(session: LoadSession, results: Sequence[LoadResult], search: Search) -> LoadSummary:
    most: float | Unknown = Unknown(reason="no rate was searched for")
    within: float | Unknown = most
    if session.searches:
        most = search.valid_per_s or Unknown(reason=_why_none(session, results))
        within = Unknown(reason="the search ended before a rate was INVALID")
        if search.valid_per_s and search.invalid_per_s:
            within = search.invalid_per_s / search.valid_per_s - 1
    return LoadSummary(
        session=session.id,
        scenario=session.scenario,
        promise=session.promise,
        trials=tuple(session.figures_of(result) for result in results),
        most_per_s=most,
        within=within,
    )


def _why_none(session: LoadSession, results: Sequence[LoadResult]) -> str:
    """Why no rate was found, by the last trial."""
    if not results:
        return "no trial was run"
    last = session.figures_of(results[-1])
    if last.verdict is None:
        return f"nothing could be judged; the last trial was {last.status}: {last.reason}"
    return f"no rate was VALID; the last: {last.verdict.reason}"
