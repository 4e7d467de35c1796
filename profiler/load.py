"""Queries against one server: when they come, when it takes them, when they are answered.

    intended arrivals   a   b c d          e
    server                [ a ]--wait--[ b c d ] [ e ]        most_batch 3 or timeout
    latency             answered − intended arrival, whatever the server was busy with

The loop runs on the server that it is given: in production a clock and a device
(profiler.load_worker), in tests and predictions `VirtualServer`. It is the same loop and the same
decision, so that a simulation and a load test mean the same by arrival, time-out and latency.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from domain.loadtest import Batching


class Server(Protocol):
    """One device that answers a batch at a time; seconds since the start of the trial."""

    def now_s(self) -> float:
        """The time."""
        ...

    def wait_until(self, when_s: float) -> None:
        """Return at `when_s` or later."""
        ...

    def run(self, first: int, count: int) -> float:
        """Answer the queries `first` to `first + count - 1`; gives when that was done."""
        ...


class VirtualServer:
    """Time that passes only where it is told to: a batch takes `service_s(first, count)`."""

    def __init__(self, service_s: Callable[[int, int], float]) -> None:
        self._service_s = service_s
        self._now_s = 0.0

    def now_s(self) -> float:
        """The time."""
        return self._now_s

    def wait_until(self, when_s: float) -> None:
        """Let time pass."""
        self._now_s = max(self._now_s, when_s)

    def run(self, first: int, count: int) -> float:
        """Let the service time of the batch pass."""
        self._now_s += self._service_s(first, count)
        return self._now_s


@dataclass(frozen=True, kw_only=True)
class Served:
    """Batches in their order: how many queries each took, when it started, when it was done."""

    arrivals_s: Sequence[float]
    batch_queries: list[int] = field(default_factory=list)
    started_s: list[float] = field(default_factory=list)
    done_s: list[float] = field(default_factory=list)

    def add(self, queries: int, started_s: float, done_s: float) -> None:
        """One more batch."""
        self.batch_queries.append(queries)
        self.started_s.append(started_s)
        self.done_s.append(done_s)

    @property
    def latencies_s(self) -> list[float]:
        """Completion less intended arrival of each answered query."""
        done = np.repeat(self.done_s, self.batch_queries)
        return list(done - np.asarray(self.arrivals_s[: len(done)]))


@dataclass(frozen=True, kw_only=True)
class Cut:
    """When a trial is given up: at a time, or once more than `most_late` queries were late."""

    at_s: float = math.inf
    latency_s: float = math.inf
    most_late: float = math.inf


NEVER = Cut()


def taken(waiting: int, oldest_s: float, now_s: float, rule: Batching) -> int:
    """How many of the queries that wait a free server takes now; 0 is none yet.

    `oldest_s` is when the first of them arrived. Without a time-out it takes what is there at once.

    >>> rule = Batching(most_batch=4, timeout_s=1.0)
    >>> taken(3, 0.0, 0.5, rule), taken(3, 0.0, 1.0, rule), taken(9, 0.0, 0.5, rule)
    (0, 3, 4)
    """
    is_full = waiting >= rule.most_batch
    is_late = waiting > 0 and now_s >= oldest_s + rule.timeout_s
    return min(waiting, rule.most_batch) if is_full or is_late else 0


def served(arrivals_s: Sequence[float], rule: Batching, server: Server, cut: Cut = NEVER) -> Served:
    """Every query from its intended arrival to its answer; open loop, in the order of arrival.

    The server does not know that no more will come: the last batch, too, waits for its time-out.
    """
    seen = Served(arrivals_s=arrivals_s)
    first, late, total = 0, 0, len(arrivals_s)
    while first < total and late <= cut.most_late:
        now_s = server.now_s()
        if now_s > cut.at_s:
            break
        arrived = bisect_right(arrivals_s, now_s, lo=first)
        count = taken(arrived - first, arrivals_s[first], now_s, rule)
        if count == 0:
            next_s = arrivals_s[arrived] if arrived < total else math.inf
            due_s = arrivals_s[first] + rule.timeout_s if arrived > first else math.inf
            server.wait_until(min(next_s, due_s))
            continue
        done_s = server.run(first, count)
        seen.add(count, now_s, done_s)
        # The oldest come first: late are those that arrived before `done - promise`.
        late += bisect_left(arrivals_s, done_s - cut.latency_s, first, first + count) - first
        first += count
    return seen


def streamed(server: Server, until_s: float, most_queries: int) -> Served:
    """One query after another, each issued when the last is answered, until the time is up."""
    arrivals: list[float] = []
    seen = Served(arrivals_s=arrivals)
    while len(arrivals) < most_queries:
        now_s = server.now_s()
        if now_s >= until_s and arrivals:
            break
        arrivals.append(now_s)
        seen.add(1, now_s, server.run(len(arrivals) - 1, 1))
    return seen


def poisson_arrivals_s(rate_per_s: float, queries: int, seed: int) -> tuple[float, ...]:
    """Intended arrivals at random, the first at 0; another rate stretches the same pattern.

    The same seed gives those of `scenarios.simulate`.

    >>> poisson_arrivals_s(2.0, 3, seed=1)[1] * 2 == poisson_arrivals_s(1.0, 3, seed=1)[1]
    True
    """
    if not 0 < rate_per_s < math.inf or queries < 1:
        raise ValueError(f"wanted a rate above 0 and a query, got {rate_per_s} and {queries}")
    gaps = np.random.default_rng(seed).exponential(1.0 / rate_per_s, queries - 1)
    return (0.0, *np.cumsum(gaps).tolist())


@dataclass(frozen=True, kw_only=True)
class Search:
    """Where a search for the highest rate ended: what was kept, and the lowest that was not."""

    valid_per_s: float | None = None
    invalid_per_s: float | None = None


def highest_rate(
    is_valid: Callable[[float], bool | None],
    start_per_s: float,
    *,
    within: float = 0.05,
    most_trials: int = 24,
    most_halvings: int = 4,
) -> Search:
    """The highest rate that is valid: by doubling (or halving) from `start_per_s`, then bisection.

    It ends when the lowest invalid rate is at most `within` above the highest valid one, after
    `most_trials`, or when `is_valid` gives None (somebody asked to stop). A start that is invalid
    is halved `most_halvings` times: what fails at a sixteenth of it fails by the service alone.

    >>> highest_rate(lambda rate: rate <= 5.0, 1.0, within=0.25)
    Search(valid_per_s=5.0, invalid_per_s=6.0)
    """
    valid: float | None = None
    invalid: float | None = None
    rate, least = start_per_s, start_per_s / 2**most_halvings
    for _ in range(most_trials):
        verdict = is_valid(rate)
        if verdict is None:
            break
        if verdict:
            valid = rate
        else:
            invalid = rate
        if valid is None:
            rate = rate / 2
            if rate < least:
                break
        elif invalid is None:
            rate = rate * 2
        elif invalid <= valid * (1 + within):
            break
        else:
            rate = (valid + invalid) / 2
    return Search(valid_per_s=valid, invalid_per_s=invalid)
