"""What a person sees while points are measured: a bar on a terminal, else a line for each point."""

import sys
from contextlib import suppress
from types import TracebackType
from typing import Self

from domain.complaint import printable
from domain.measurement import Measurement
from domain.shell import say
from domain.statistics import median
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
                auto_refresh=False,  # a thread that draws would run beside what is timed
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
            with suppress(OSError):
                self._bar.stop()

    def point(self, record: Measurement, number: int, total: int) -> None:
        """A point of a run is in the journal."""
        if self._bar is not None:
            self._bar.update(self._task, completed=number, refresh=True)
        self.say(f"{number}/{total} run {record.run} {record.point}: {seen_in(record)}")

    def say(self, text: str) -> None:
        """A line, above the bar where there is one."""
        try:
            if self._bar is not None:
                self._bar.console.print(printable(text), markup=False, highlight=False)
                return
        except OSError:
            self._bar = None  # the terminal was closed; measuring goes on
        say(text)


def seen_in(record: Measurement) -> str:
    """One measurement in a few words."""
    if not record.samples_s:
        return f"{record.status}: {record.reason}"
    width = half_width(record.samples_s)
    within = "" if width is None else f" ± {width:.1%}"
    note = f" ({record.status}: {record.reason})" if record.reason else ""
    return f"{shown(median(record.samples_s), 's')}{within}, {len(record.samples_s)} samples{note}"
