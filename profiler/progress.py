"""What a person sees while points are measured: a bar on a terminal, else a line for each point."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from domain.complaint import printable
from domain.measurement import Measurement
from domain.record import Unknown
from domain.statistics import median, median_of_runs
from domain.tables import Cell
from domain.units import shown
from profiler.protocol import half_width
from profiler.session import Session


class Progress:
    """Reports points on stderr. Use it in a `with` block."""

    def __init__(self, session: Session) -> None:
        import rich.console
        import rich.progress

        self._total = session.plan.runs * len(session.plan.points)
        self._bar: rich.progress.Progress | None = None
        if sys.stderr.isatty():
            self._bar = rich.progress.Progress(
                *rich.progress.Progress.get_default_columns(),
                rich.progress.TimeElapsedColumn(),
                console=rich.console.Console(stderr=True),
            )
            self._task = self._bar.add_task("measuring", total=self._total)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def point(self, record: Measurement, number: int, total: int) -> None:
        """A point of a run is in the journal."""
        text = f"{number}/{total} run {record.run} {record.point}: {seen_in(record)}"
        if self._bar is None:
            self.say(text)
        else:
            self._bar.update(self._task, completed=number)
            self.say(text)

    def say(self, text: str) -> None:
        """A line, above the bar where there is one."""
        if self._bar is None:
            sys.stderr.write(printable(text) + "\n")
            sys.stderr.flush()
        else:
            self._bar.console.print(printable(text), markup=False, highlight=False)


def seen_in(record: Measurement) -> str:
    """One measurement in a few words."""
    if not record.samples_s:
        return f"{record.status}: {record.reason}"
    width = half_width(record.samples_s)
    within = "" if width is None else f" ± {width:.1%}"
    note = f" ({record.status}: {record.reason})" if record.reason else ""
    return f"{shown(median(record.samples_s), 's')}{within}, {len(record.samples_s)} samples{note}"


def summary(runs: Sequence[Measurement]) -> dict[str, Cell]:
    """All runs of one point as a row: the median of run medians with its interval over runs."""
    usable = [record for record in runs if record.is_usable]
    first = runs[0]
    row: dict[str, Cell] = {
        "point": first.point,
        "batch": first.workload.batch,
        "executor": first.workload.executor,
        "runs": len(usable),
        "status": " ".join(dict.fromkeys(record.status for record in runs)),
        "latency_ms": None,
        "low_ms": None,
        "high_ms": None,
        "images_per_s": None,
        "mean_depth": None,
        "peak_mb": None,
    }
    if usable:
        value, low, high = median_of_runs([record.samples_s for record in usable])
        peaks = [each.peak_bytes for each in usable if not isinstance(each.peak_bytes, Unknown)]
        row |= {
            "latency_ms": value * 1e3,
            "low_ms": low * 1e3,
            "high_ms": high * 1e3,
            "images_per_s": first.workload.batch / value,
            "mean_depth": usable[0].workload.routing.mean_depth,
            "peak_mb": max(peaks) / 1e6 if peaks else None,
        }
    return row
