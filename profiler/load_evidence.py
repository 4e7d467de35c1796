"""What a load test proves: percentiles with their confidence, a verdict on a promise, figures."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from domain.loadtest import LatencyPromise, LoadResult, LoadTrial, LoadVerdict
from domain.record import Unknown
from domain.statistics import median, upper_percentile

CONFIDENCE = 0.99
FEWEST_LATE = 1


def at_most(late: int, queries: int, share: float) -> float:
    """Probability that `late` or fewer of `queries` are late where each is with `share`: binomial.

    >>> round(at_most(0, 2, 0.5), 3), round(at_most(1, 2, 0.5), 3)
    (0.25, 0.75)
    """
    if late >= queries:
        return 1.0
    whole = math.lgamma(queries + 1)
    return math.fsum(
        math.exp(
            whole
            - math.lgamma(count + 1)
            - math.lgamma(queries - count + 1)
            + count * math.log(share)
            + (queries - count) * math.log1p(-share)
        )
        for count in range(late + 1)
    )


def least_queries(late: int, share: float, confidence: float = CONFIDENCE) -> int:
    """Fewest queries, `late` of them late, that show that `share` are in time (LoadGen's d = 0).

    >>> least_queries(0, 0.9), least_queries(1, 0.99)
    (44, 662)
    """
    few, many = late, max(2 * late, 8)
    while at_most(late, many, 1 - share) > 1 - confidence:
        few, many = many, 2 * many
    return _first(lambda queries: at_most(late, queries, 1 - share) <= 1 - confidence, few, many)


def most_late(queries: int, share: float) -> int:
    """Most late queries of so many that still show that `share` are in time; -1 where none do.

    >>> most_late(43, 0.9), most_late(64, 0.9)
    (-1, 1)
    """
    shown_by = 1 - CONFIDENCE
    return (
        _first(lambda late: at_most(late, queries, 1 - share) > shown_by, -1, queries) - 1
        if at_most(0, queries, 1 - share) <= shown_by
        else -1
    )


def verdict_on(latencies_s: Sequence[float], unserved: int, promise: LatencyPromise) -> LoadVerdict:
    """Whether the latencies show that the promise is kept; a trial that was cut is INVALID."""
    queries = len(latencies_s)
    late = sum(latency > promise.latency_s for latency in latencies_s)
    said = f"{late} of {queries} queries took longer than {promise.latency_s * 1e3:g} ms"
    allowed = most_late(queries + unserved, promise.share)
    more: int | None = None
    verdict: Literal["VALID", "INVALID"] = "INVALID"
    if unserved:
        reason = f"{said}, {max(allowed, 0)} may; {unserved} more were given up"
    elif late <= allowed:
        verdict, reason = "VALID", f"{said}; {allowed} may at 99 % confidence"
    elif _is_broken(late, queries, promise.share):
        reason = f"{said}, {late / queries:.2%}; {1 - promise.share:.3g} may"
    else:
        wanted = least_queries(late, promise.share)
        more = wanted - queries
        reason = f"{said}: too few to judge; needs {wanted} with no more late, have {queries}"
    return LoadVerdict(
        verdict=verdict, reason=reason, queries=queries, late=late, queries_more=more
    )


def _is_broken(late: int, queries: int, share: float) -> bool:
    """Whether so many late ones show, at 99 % confidence, that fewer than `share` are in time."""
    return late > 0 and 1 - at_most(late - 1, queries, 1 - share) <= 1 - CONFIDENCE


def percentile_s(result: LoadResult, share: float) -> float | Unknown:
    """Upper 99 % confidence bound of a percentile of latency, or why there is none."""
    if result.unserved:
        return Unknown(reason=f"n/a ({result.unserved} queries were given up)")
    least = least_queries(FEWEST_LATE, share)
    bound = upper_percentile(result.latencies_s, share) if result.served >= least else None
    if bound is None:
        return Unknown(reason=f"n/a (needs {least}, have {result.served})")
    return bound


def in_figures(result: LoadResult, promise: LatencyPromise | None = None) -> LoadTrial:
    """A trial without its raw data."""
    given_up = result.unserved or not result.served
    verdict = None
    if promise is not None and result.is_usable:
        verdict = verdict_on(result.latencies_s, result.unserved, promise)
    return LoadTrial(
        trial=result.trial,
        scenario=result.scenario,
        status=result.status,
        reason=result.reason,
        asked_per_s=result.asked_per_s,
        queries=len(result.arrivals_s),
        unserved=result.unserved,
        images_per_s=result.images_per_s,
        utilisation=result.utilisation,
        median_s=Unknown(reason="n/a (queries were given up)")
        if given_up
        else median(result.latencies_s),
        p90_s=percentile_s(result, 0.9),
        p99_s=percentile_s(result, 0.99),
        verdict=verdict,
    )


def _first(holds: Callable[[int], bool], false_at: int, true_at: int) -> int:
    """The smallest number for which a condition holds that, once true, stays true."""
    while true_at - false_at > 1:
        middle = (false_at + true_at) // 2
        if holds(middle):
            true_at = middle
        else:
            false_at = middle
    return true_at
