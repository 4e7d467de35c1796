"""compare, show: what two sessions say of each other, and what one says."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domain.complaint import UNSTABLE, Complaint
from domain.shell import emit, format_named, say, warn
from domain.tables import Cell, Format, rendered
from profiler.commands.options import (
    FailOn,
    Level,
    Margin,
    SameWithin,
    Shape,
    checked_fail_on,
)

if TYPE_CHECKING:
    from domain.comparison import Comparisons
    from domain.measurement import Measurement
    from domain.record import Estimate
    from profiler.likeness import Pair

SIDE = "A folder that `run` wrote, or a journal; FOLDER:POINT for one of its points."


def compare(
    before: Annotated[str, typer.Argument(help=SIDE)],
    after: Annotated[str, typer.Argument(help="The same, later or changed.")],
    allow_env_diff: Annotated[
        bool, typer.Option("--allow-env-diff", help="Compare across machines or software; said.")
    ] = False,
    margin: Margin = 0.02,
    same_within: SameWithin = 0.05,
    level: Level = 0.97,
    fail_on: FailOn = "nothing",
    format: Shape = "table",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A file in place of stdout.")
    ] = None,
) -> None:
    """SAME, FASTER, SLOWER, AMBIGUOUS or INVALID for every point of two sessions, with evidence."""
    shape = format_named(format)
    fails_on_slower = checked_fail_on(fail_on)
    from profiler.comparison import Terms, compared, compared_points
    from profiler.likeness import matched

    terms = Terms(
        margin=margin, same_within=same_within, level=level, allow_env_diff=allow_env_diff
    )
    (one, point), (other, other_point) = _side(before), _side(after)
    if bool(point) != bool(other_point):
        raise Complaint(f"wanted a point on both sides or on none, got {before} and {after}")
    pairs: tuple[Pair, ...] = ()
    if point:
        result = compared_points(
            _points_in(one, point), _points_in(other, other_point), (point, other_point), terms
        )
    else:
        pairs = matched(one, other)
        result = compared(one, other, terms, (before, after))
    emit(verdicts_shown(result, shape), output)
    for line in _closing(result, pairs):
        say(line)
    verdicts = {each.verdict for each in result.points}
    if verdicts == {"INVALID"} or (fails_on_slower and "SLOWER" in verdicts):
        raise typer.Exit(UNSTABLE)


def show(
    folder: Annotated[Path, typer.Argument(help="The folder that `run` wrote, or a journal.")],
    by: Annotated[str, typer.Option(help="point, or depth.")] = "point",
    format: Shape = "table",
) -> None:
    """What was measured: a row for each point, or for each depth of each point."""
    shape = format_named(format)
    if by not in ("point", "depth"):
        raise Complaint(f"wanted --by point or depth, got {by!r}")
    from domain.store import newest_journal, read_journal, unread_tail
    from profiler.summary import by_depth, by_point, warnings_of

    path = newest_journal(folder)
    records = read_journal(path)
    warn(unread_tail(path))
    if by == "depth":
        emit(rendered(by_depth(records), shape), None)
        return
    emit(rendered(by_point(records, shape), shape), None)
    for warning in warnings_of(by_point(records, "json")):
        warn(warning)


def _side(named: str) -> "tuple[tuple[Measurement, ...], str]":
    """The records of one side, and its point where one was named."""
    from domain.store import newest_journal, read_journal, unread_tail

    folder, colon, point = named.rpartition(":")
    if not colon or Path(named).exists():
        folder, point = named, ""
    path = newest_journal(Path(folder))
    records = read_journal(path)
    warn(unread_tail(path))
    return records, point


def _points_in(records: "tuple[Measurement, ...]", point: str) -> "tuple[Measurement, ...]":
    """The records, of which some must be of `point`."""
    from domain.complaint import nearest

    names = {record.point for record in records}
    if point not in names:
        raise Complaint(f"no point {point!r} there; {nearest(point, names)}")
    return records


def verdicts_shown(result: "Comparisons", shape: Format) -> str:
    """The verdicts as a table; as JSON all of them with their terms."""
    if shape == "json":
        return json.dumps(result.model_dump(mode="json"), indent=1) + "\n"
    return rendered(_verdict_rows(result, shape), shape)


def _verdict_rows(result: "Comparisons", shape: Format) -> list[dict[str, Cell]]:
    def shown(ratio: "Estimate | None", bound: str) -> Cell:
        if ratio is None:
            return None
        change: float = getattr(ratio, bound) - 1
        return change if shape == "csv" else f"{change:+.1%}"

    return [
        {
            "point": each.point,
            "verdict": each.verdict,
            "change": shown(each.ratio, "value"),
            "low": shown(each.ratio, "low"),
            "high": shown(each.ratio, "high"),
            "runs": f"{each.runs_before}/{each.runs_after}",
            "evidence": each.evidence,
        }
        for each in result.points
    ]


def _closing(result: "Comparisons", pairs: "tuple[Pair, ...]") -> list[str]:
    """What all points together say: verdicts, how well times repeat, what could be found."""
    from collections import Counter

    from profiler.comparison import findable, repeatability

    counts = Counter(each.verdict for each in result.points)
    said = [", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))]
    for precise, which in ((False, "points"), (True, "points precise in every run")):
        seen = repeatability(result, pairs, precise=precise) if pairs else None
        if seen is not None:
            said.append(
                f"|difference| over {seen.points} {which}: median {seen.median:.1%}, "
                f"p95 {seen.p95:.1%} (by the clock alone {seen.clock_median:.1%}, "
                f"{seen.clock_p95:.1%})"
            )
    least = findable(result)
    if least is not None:
        said.append(
            f"so many runs, so noisy, find a slowdown of {least:.1%} nine times in ten; the "
            f"intervals are at {result.level:.0%}, so of points that are the same about "
            f"{1 - result.level:.0%} are called different"
        )
    return said
