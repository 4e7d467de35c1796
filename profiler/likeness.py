"""Which records may be compared at all: the same work, on the same machine, often enough."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from domain.measurement import Measurement
from profiler.environment import difference as environments_differ

_SAME_WORK = ("batch", "precision", "runtime", "executor")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One thing to compare: its records on both sides, one of which may be empty."""

    point: str
    before: tuple[Measurement, ...]
    after: tuple[Measurement, ...]

    @property
    def usable(self) -> tuple[list[Measurement], list[Measurement]]:
        """The records of both sides that have samples to compare."""
        return (
            [record for record in self.before if record.is_usable],
            [record for record in self.after if record.is_usable],
        )

    @property
    def is_one_machine(self) -> bool:
        """Whether both sides were measured in one environment, so that one kernel speaks for both."""
        keys = {record.environment.key() for side in self.usable for record in side}
        return len(keys) == 1

    @property
    def is_one_session(self) -> bool:
        """Whether both sides were measured in one session, whose runs they share."""
        return len({record.session for side in self.usable for record in side}) == 1

    @property
    def shared_runs(self) -> int:
        """Runs of one session that measured both sides."""
        one, other = ({record.run for record in side} for side in self.usable)
        return len(one & other) if self.is_one_session else 0

    @property
    def has_met_precision(self) -> bool:
        """Whether every run on both sides was as precise as it was asked to be."""
        return all(record.precision_met for side in self.usable for record in side)


def matched(before: Sequence[Measurement], after: Sequence[Measurement]) -> tuple[Pair, ...]:
    """Records of the same work and subject together, in the order of `before`, then of `after`.

    A point that asks for other work on the two sides is one pair too, to be refused with a reason.
    """
    # A side that measured one thing under two names has two points of it.
    by_name = (
        any(
            len({record.point for record in runs}) > 1
            for side in (before, after)
            for runs in by_work(side).values()
        )
        and {record.point for record in before} & {record.point for record in after} != set()
    )
    sides = [by_work(before, by_name=by_name), by_work(after, by_name=by_name)]
    pairs = [
        Pair(point=runs[0].point, before=runs, after=sides[1][work])
        for work, runs in sides[0].items()
        if work in sides[1]
    ]
    gone, new = (
        [runs for work, runs in side.items() if work not in other]
        for side, other in (sides, reversed(sides))
    )
    for runs in gone:
        name = runs[0].point
        changed = next((other for other in new if other[0].point == name), ())
        new = [other for other in new if other is not changed]
        pairs.append(Pair(point=name, before=runs, after=changed))
    pairs += [Pair(point=runs[0].point, before=(), after=runs) for runs in new]
    return tuple(pairs)


def by_work(
    records: Sequence[Measurement], *, by_name: bool = False
) -> dict[tuple[str, str, str], tuple[Measurement, ...]]:
    """Records by what was run: the key of their workload, their subject, and the name if asked."""
    runs: dict[tuple[str, str, str], list[Measurement]] = defaultdict(list)
    for record in records:
        name = record.point if by_name else ""
        runs[record.workload.key(), record.subject, name].append(record)
    return {work: tuple(found) for work, found in runs.items()}


def refusal_of(
    pair: Pair, *, least_runs: int, allow_env_diff: bool, is_same_work: bool = True
) -> str:
    """Why nothing may be said of a pair; empty where something may.

    Without `is_same_work` the two sides may be different points, of the same batch.
    """
    for side, records in (("before", pair.before), ("after", pair.after)):
        if not records:
            return f"not measured {side}: only on the other side"
    for side, records, usable in zip(
        ("before", "after"), (pair.before, pair.after), pair.usable, strict=True
    ):
        if not usable:
            return f"no usable run {side}; {records[-1].status}: {records[-1].reason}"
    return _unlike(pair, is_same_work, allow_env_diff) or _too_few(pair, least_runs)


def _too_few(pair: Pair, least: int) -> str:
    counts = [len(side) for side in pair.usable]
    if min(counts) >= least:
        return ""
    return f"{counts[0]} and {counts[1]} usable runs; wanted {least} on both sides"


def _unlike(pair: Pair, is_same_work: bool, allow_env_diff: bool) -> str:
    """The first thing that must be alike on both sides and is not."""
    one, other = pair.usable
    for side, records in (("before", one), ("after", other)):
        if len({record.environment.key() for record in records}) > 1:
            return f"the runs {side} are of several environments, which are never merged"
    environments = environments_differ(one[0].environment, other[0].environment)
    if environments and not allow_env_diff:
        return f"different environments: {environments}; --allow-env-diff compares them anyway"
    work = other_work(one[0], other[0])
    if is_same_work and work:
        return f"not the same work: {work}"
    if one[0].workload.batch != other[0].workload.batch:
        return "not the same batch: seconds of a batch are compared"
    is_same_network = one[0].workload.architecture == other[0].workload.architecture
    if is_same_network and one[0].weights != other[0].weights:
        return f"different weights: {one[0].weights} and {other[0].weights}"
    if is_same_work and one[0].routing_source != other[0].routing_source:
        return f"different routing: {one[0].routing_source} and {other[0].routing_source}"
    return ""


def other_work(before: Measurement, after: Measurement) -> str:
    """In what the work of two records differs, in a few words; empty where it does not."""
    if before.subject != after.subject:
        return f"subject was {before.subject}, is {after.subject}"
    one, other = before.workload, after.workload
    for name in _SAME_WORK:
        if getattr(one, name) != getattr(other, name):
            return f"{name} was {getattr(one, name)}, is {getattr(other, name)}"
    if one.architecture != other.architecture:
        return f"architecture was {one.architecture.name}, is {other.architecture.name}"
    return "" if one.routing == other.routing else "the tokens that enter each depth differ"
