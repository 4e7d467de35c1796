"""What is demanded: images that arrive at a site, by shift, and how that changes over the years."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from domain.record import NonNegative, Positive, PositiveCount, Record, Sentence

Arrivals = Literal["takt", "poisson", "trace", "offline"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
DAYS_PER_YEAR, DAYS_PER_WEEK = 365.0, 7.0


class Shift(Record):
    """Hours of the week in which images arrive, at a share of the full rate.

    `end_hour` at or before `start_hour` is of the next day.

    >>> Shift(days=("mon", "tue"), start_hour=22.0, end_hour=6.0).hours_per_week
    16.0
    """

    days: Annotated[tuple[Weekday, ...], Field(min_length=1, max_length=7)]
    start_hour: Annotated[float, Field(ge=0, lt=24)]
    end_hour: Annotated[float, Field(gt=0, le=24)]
    load: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _days_are_named_once(self) -> Self:
        if len(set(self.days)) != len(self.days):
            raise ValueError(f"wanted each day once, got {', '.join(self.days)}")
        return self

    @property
    def hours_per_week(self) -> float:
        """Hours of this shift in a week."""
        hours = self.end_hour - self.start_hour
        return len(self.days) * (hours if hours > 0 else hours + 24.0)

    @property
    def spans(self) -> Iterator[tuple[int, float, float]]:
        """Each stretch within one day: day of the week (Monday is 0), first and last hour."""
        for day in map(WEEKDAYS.index, self.days):
            if self.end_hour > self.start_hour:
                yield day, self.start_hour, self.end_hour
            else:
                yield day, self.start_hour, 24.0
                yield (day + 1) % len(WEEKDAYS), 0.0, self.end_hour


class Recording(Record):
    """What a recorded trace of arrivals says of itself; the times stay in their file."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    images: Annotated[int, Field(ge=2)]
    span_s: Positive
    gap_variation: NonNegative
    largest_burst: PositiveCount


class Demand(Record):
    """Images that arrive at one site: every camera fires once in `period_s`.

    In step (takt), at random (poisson), as recorded (trace), or whenever there is room (offline).
    No hour of the week is in two shifts: whether loads would add up there, nobody said.
    """

    cameras: Annotated[int, Field(ge=1, le=10**9)]
    period_s: Annotated[float, Field(gt=0, le=1e8)]
    arrivals: Arrivals
    sites: Annotated[int, Field(ge=1, le=10**6)] = 1
    peak_factor: Annotated[float, Field(ge=1, le=1000)] = 1.0
    hours_per_day: Annotated[float, Field(gt=0, le=24)] = 24.0
    days_per_year: Annotated[float, Field(gt=0, le=366)] = 365.0
    shifts: Annotated[tuple[Shift, ...], Field(max_length=50)] = ()
    closed_days_per_year: Annotated[float, Field(ge=0, lt=365)] = 0.0
    growth_per_year: Annotated[float, Field(ge=0, le=10)] = 0.0
    trace: Annotated[str, Field(max_length=1000)] = ""
    recording: Recording | None = None

    @model_validator(mode="after")
    def _is_one_kind_of_demand(self) -> Self:
        if (self.arrivals == "trace") != bool(self.trace):
            raise ValueError('trace: wanted a file with arrivals = "trace", and with no other')
        if self.peak_factor != 1 and self.arrivals != "poisson":
            raise ValueError(
                f"peak_factor: only random arrivals have one, got {self.peak_factor} with "
                f"{self.arrivals}"
            )
        if self.closed_days_per_year and not self.shifts:
            raise ValueError("closed_days_per_year: wanted shifts; without them, days_per_year")
        twice = _twice(self.shifts)
        if twice is not None:
            raise ValueError(
                f"shifts: wanted each hour in one of them, got {twice} in two; end one where the "
                "next begins"
            )
        return self

    @property
    def peak_img_per_s(self) -> float:
        """Arrival rate of one site at its busiest."""
        return self.cameras / self.period_s * self.peak_factor

    @property
    def running_hours_per_year(self) -> float:
        """Hours in which images arrive, at whatever load."""
        return sum(hours for hours, _ in self.hours_at_load)

    @property
    def full_load_hours_per_year(self) -> float:
        """Hours at the full mean rate that would give the same number of images."""
        return sum(hours * load for hours, load in self.hours_at_load)

    @property
    def hours_at_load(self) -> tuple[tuple[float, float], ...]:
        """Hours a year with their share of the full rate."""
        if not self.shifts:
            return ((self.hours_per_day * self.days_per_year, 1.0),)
        weeks = (DAYS_PER_YEAR - self.closed_days_per_year) / DAYS_PER_WEEK
        return tuple((shift.hours_per_week * weeks, shift.load) for shift in self.shifts)

    @property
    def images_per_year(self) -> float:
        """Images of all sites in the first year."""
        return self.sites * self.cameras / self.period_s * 3600.0 * self.full_load_hours_per_year


def _twice(shifts: Sequence[Shift]) -> str | None:
    """The first stretch of the week that is in two shifts, or in one twice."""
    spans = sorted(span for shift in shifts for span in shift.spans)
    for (day, _, end), (next_day, start, next_end) in pairwise(spans):
        if day == next_day and start < end:
            return f"{WEEKDAYS[day]} from {start:g} to {min(end, next_end):g}"
    return None


class Stage(Record):
    """Cameras and sites from the start of a year on: a proof of concept, a pilot, the roll-out."""

    name: Sentence
    from_year: Annotated[int, Field(ge=1, le=20)]
    cameras: Annotated[int, Field(ge=1, le=10**9)]
    sites: Annotated[int, Field(ge=1, le=10**6)] = 1
