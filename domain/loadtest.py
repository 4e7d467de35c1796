"""What a load test saw: when each query was meant to come, and when it was answered."""

from itertools import accumulate, pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from domain.measurement import Conditions, Environment, Rates, RoutingSource, Samples, Status
from domain.record import (
    Count,
    Identifier,
    NonNegative,
    Positive,
    PositiveCount,
    Record,
    Sentence,
    Unknown,
)
from domain.workload import Workload

LoadScenario = Literal["single-stream", "multi-stream", "server", "offline"]
Offsets = tuple[NonNegative, ...]


class Batching(Record):
    """When a free server takes queries: `most_batch` wait, or the oldest waited `timeout_s`."""

    most_batch: PositiveCount
    timeout_s: NonNegative = 0.0


class LatencyPromise(Record):
    """The share of queries that must be answered within `latency_s` of their intended arrival."""

    latency_s: Positive
    share: Annotated[float, Field(gt=0, lt=1)]


class LoadSeeds(Record):
    """What was drawn: the arrivals, and which images in which order."""

    arrivals: Count
    images: Count


class LoadResult(Record):
    """One trial of one scenario: every query, nothing summarised. Seconds are since its start.

    `arrivals_s` is when each query was MEANT to arrive, whatever the server did (in the streams,
    where the next waits for the last, when it was issued); all the samples of `offline` arrive at 0.
    Batch i took the next `batch_queries[i]` of them at `started_s[i]` and had answered them at
    `done_s[i]`. Queries that no batch took were given up when the trial was cut.

    A query is `images_per_query` images; `workload.batch` the most images of one pass, and
    `workload.routing` that of the images served, each distinct one as it was served first;
    `rerouted` counts the later servings that were routed otherwise. `service_s` are seconds of
    full batches back to back before the trial, in the order they ran.
    """

    format: Literal[1] = 1
    session: Identifier
    trial: PositiveCount
    taken_at: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
    scenario: LoadScenario
    workload: Workload
    weights: Sentence
    routing_source: RoutingSource
    environment: Environment
    rates: Rates
    status: Status
    reason: str = ""
    seeds: LoadSeeds
    asked_per_s: Positive | None = None
    batching: Batching
    images_per_query: PositiveCount = 1
    arrivals_s: Offsets = ()
    batch_queries: tuple[PositiveCount, ...] = ()
    started_s: Offsets = ()
    done_s: Offsets = ()
    service_s: Samples = ()
    calibration_s: Samples = ()
    rerouted: Count = 0
    relaxed: bool = False
    conditions: Conditions | Unknown = Unknown(reason="nobody watched the machine")

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if self.is_usable and not self.done_s:
            raise ValueError(f"status {self.status} wants answered queries, got none")
        if self.status != "ok" and not self.reason:
            raise ValueError(f"status {self.status} wants a reason, got none")
        return self

    @model_validator(mode="after")
    def _in_the_order_of_time(self) -> Self:
        if not len(self.batch_queries) == len(self.started_s) == len(self.done_s):
            raise ValueError(
                f"wanted a start and an end of every batch, got {len(self.batch_queries)} batches, "
                f"{len(self.started_s)} starts and {len(self.done_s)} ends"
            )
        if sum(self.batch_queries) > len(self.arrivals_s):
            raise ValueError(
                f"wanted {len(self.arrivals_s)} queries served at most, got "
                f"{sum(self.batch_queries)}"
            )
        if any(later < earlier for earlier, later in pairwise(self.arrivals_s)):
            raise ValueError("wanted arrivals in the order of time")
        free_s = 0.0
        ends = accumulate(self.batch_queries)
        for end, start, done in zip(ends, self.started_s, self.done_s, strict=True):
            if start < max(free_s, self.arrivals_s[end - 1]) or done < start:
                raise ValueError(
                    f"wanted batches one after another, each after its queries came, got one from "
                    f"{start} s to {done} s"
                )
            free_s = done
        return self

    @property
    def is_usable(self) -> bool:
        """Whether the latencies may be judged."""
        return self.status in ("ok", "unstable")

    @property
    def served(self) -> int:
        """Queries that were answered."""
        return sum(self.batch_queries)

    @property
    def unserved(self) -> int:
        """Queries that were given up when the trial was cut."""
        return len(self.arrivals_s) - self.served

    @property
    def latencies_s(self) -> tuple[float, ...]:
        """Completion less intended arrival of each answered query, in their order."""
        return tuple(
            done - arrival
            for arrival, done in zip(self.arrivals_s, self._of_each(self.done_s), strict=False)
        )

    @property
    def waits_s(self) -> tuple[float, ...]:
        """Start of its batch less intended arrival of each answered query, in their order."""
        return tuple(
            start - arrival
            for arrival, start in zip(self.arrivals_s, self._of_each(self.started_s), strict=False)
        )

    @property
    def batches_s(self) -> tuple[float, ...]:
        """Seconds that each batch was in service."""
        return tuple(done - start for start, done in zip(self.started_s, self.done_s, strict=True))

    @property
    def images_per_s(self) -> float:
        """Images answered over the wall clock of the whole trial; 0 where none was."""
        return self.served * self.images_per_query / self.done_s[-1] if self.done_s else 0.0

    @property
    def utilisation(self) -> float:
        """Share of the trial in which a batch was in service; 0 where none was."""
        return sum(self.batches_s) / self.done_s[-1] if self.done_s else 0.0

    def _of_each(self, batch_s: Offsets) -> tuple[float, ...]:
        return tuple(
            seconds
            for seconds, queries in zip(batch_s, self.batch_queries, strict=True)
            for _ in range(queries)
        )


class LoadVerdict(Record):
    """Whether a trial shows that a promise is kept, at 99 % confidence.

    `queries_more` is how many more queries it would take to be VALID if none of them were late;
    None where it is VALID, or where more would not help.
    """

    verdict: Literal["VALID", "INVALID"]
    reason: Sentence
    queries: Count
    late: Count
    queries_more: PositiveCount | None = None


class LoadTrial(Record):
    """One trial in figures. Percentiles are upper 99 % confidence bounds from order statistics."""

    trial: PositiveCount
    scenario: LoadScenario
    status: Status
    reason: str
    asked_per_s: Positive | None
    queries: Count
    unserved: Count
    images_per_s: NonNegative
    utilisation: NonNegative
    median_s: NonNegative | Unknown
    p90_s: NonNegative | Unknown
    p99_s: NonNegative | Unknown
    verdict: LoadVerdict | None = None


class LoadSummary(Record):
    """A load test in figures, made from the journal beside it. Stored as JSON.

    `most_per_s` is the highest rate of queries whose trial was VALID, `within` how much higher the
    lowest INVALID one was, as a share.
    """

    format: Literal[1] = 1
    session: Identifier
    scenario: LoadScenario
    promise: LatencyPromise | None = None
    trials: tuple[LoadTrial, ...]
    most_per_s: Positive | Unknown = Unknown(reason="no rate was searched for")
    within: NonNegative | Unknown = Unknown(reason="no rate was searched for")
