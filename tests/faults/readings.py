"""Readings that make no sense: of energy meters (R5) and of clocks (R10).

A meter gives joules above zero or a reason, never 0 J and never NaN. A clock gives samples, or an error
that becomes the status of the point; no JSON ever holds NaN.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import accumulate, chain, repeat
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.complaint import ALL_FAILED, Complaint
from domain.measurement import Measurement
from domain.record import Record, Unknown
from domain.tables import rendered
from profiler.clock import ScriptedClock
from profiler.comparison import Terms, compared
from profiler.joules import Demand, Poll, energy_of
from profiler.progress import seen_in
from profiler.protocol import SETTINGS, Timings, inner_loop, is_steady, sample, warm_up
from profiler.summary import summary
from tests.domain.strategies import toy_measurement
from tests.faults.tally import Fault, Tally

ABSENT = Unknown(reason="this reading failed")
DEMAND = Demand(window_s=0.5, windows=2, ticks=5)

_senseless = st.sampled_from(
    [0.0, -0.0, -1.0, -1e300, math.nan, math.inf, -math.inf, 5e-324, 1e300, 1.7e308, ABSENT]
)
_kinds = st.sampled_from(["one value", "all from there", "backwards", "stuck", "nothing wrong"])


@st.composite
def traces(draw: st.DrawFn) -> list[Poll]:
    """Polls of a device that draws 200 W, then something goes wrong with counter, power or clock."""
    count = draw(st.integers(min_value=0, max_value=60))
    gap_s = draw(st.sampled_from([0.05, 0.1, 0.3]))
    polls = []
    for number in range(count):
        at_s = number * gap_s
        polls.append(
            {"at_s": at_s, "passes": 10 * number, "total_j": 200.0 * at_s, "power_w": 200.0}
        )
    for _ in range(draw(st.integers(min_value=0, max_value=3)) if count else 0):
        _spoil(draw, polls)
    return [Poll(**poll) for poll in polls]  # type: ignore[arg-type]


def _spoil(draw: st.DrawFn, polls: list[dict[str, Any]]) -> None:
    place = draw(st.integers(min_value=0, max_value=len(polls) - 1))
    field = draw(st.sampled_from(["total_j", "power_w", "at_s"]))
    wrong = draw(_senseless)
    if field == "at_s" and isinstance(wrong, Unknown):
        wrong = math.nan
    match draw(_kinds):
        case "one value":
            polls[place][field] = wrong
        case "all from there":
            for poll in polls[place:]:
                poll[field] = wrong
        case "backwards":
            for poll in polls[place:]:
                if not isinstance(poll[field], Unknown):
                    poll[field] -= 1000.0
        case "stuck":
            for poll in polls[place:]:
                poll[field] = polls[place][field]


def meters(tries: int, seed_: int) -> Iterator[Fault]:
    """So many traces of a meter."""
    tally = Tally("senseless meter readings")
    answers = {"joules": 0, "reasons": 0}

    def law(trace: list[Poll]) -> None:
        kind = "cpu" if len(trace) % 2 else "cuda"
        found = energy_of(trace, DEMAND, kind, ABSENT)  # type: ignore[arg-type]
        is_figure = isinstance(found.energy_j, float)
        answers["joules" if is_figure else "reasons"] += 1
        if isinstance(found.energy_j, float):
            assert math.isfinite(found.energy_j), found.energy_j
            assert found.energy_j > 0, found.energy_j
        for record in (found.energy, found.energy_j):
            if isinstance(record, Record):
                _is_plain(record.model_dump(mode="json"))

    _examined(law, traces(), tries, seed_, tally)
    yield tally.result(f"{answers['joules']} gave joules, {answers['reasons']} a reason")


_steps = st.one_of(
    st.floats(min_value=1e-5, max_value=0.2),
    st.sampled_from([0.0, -0.01, -5.0, math.nan, math.inf, 1e-300, 1e300, 1e18]),
)
_lap_lists = st.lists(st.floats(min_value=1e-5, max_value=0.2), min_size=1, max_size=60)


@st.composite
def scripts(draw: st.DrawFn) -> list[float]:
    """Readings of a clock that ticks well but for a few steps, or always alike."""
    steps = draw(_lap_lists) if draw(st.booleans()) else [draw(_steps)] * 60
    for _ in range(draw(st.integers(min_value=0, max_value=3))):
        steps[draw(st.integers(min_value=0, max_value=len(steps) - 1))] = draw(_steps)
    return list(accumulate(steps, initial=0.0))


_tiny_or_huge = st.sampled_from([5e-324, 1e-300, 1e-9, 1.0, 1.0, 1.0, 1e9, 1e300, 1.7e308])
_samples = st.one_of(
    st.lists(_tiny_or_huge, min_size=1, max_size=8),
    st.builds(lambda value, count: [value] * count, _tiny_or_huge, st.integers(1, 40)),
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=0, max_size=8),
)


def clocks(tries: int, seed_: int) -> Iterator[Fault]:
    """So many scripts of a clock, and so many sets of samples."""
    tally = Tally("senseless clocks")
    _examined(_measured_by, scripts(), tries // 2, seed_, tally)
    yield tally.result()
    tally = Tally("senseless samples")
    cases = st.lists(_samples, min_size=4, max_size=8)
    _examined(_judged, cases, tries - tries // 2, seed_, tally)
    yield tally.result()
    tally = Tally("no valid point")
    tally.count(_all_failed())
    yield tally.result("exit status 5")


def _measured_by(readings: list[float]) -> None:
    """A clock's readings become samples above zero, or an error that a worker makes a status of."""
    # A real clock goes on for ever; this one goes on at a pace that ends every loop.
    last = readings[-1] if math.isfinite(readings[-1]) else 0.0
    clock = ScriptedClock(chain(readings, accumulate(repeat(0.05, 5000), initial=last + 0.05)))
    settings_ = SETTINGS["quick"]
    seen: Timings | None = None
    with suppress(ValueError):
        warmup = warm_up(lambda: None, 3, lambda: None, clock, settings_)
        assert all(each > 0 for each in warmup.samples_s)
        inner = min(inner_loop(warmup, settings_), 4)
        seen = sample(lambda: None, lambda: None, 3, inner, clock, settings_)
    if seen is not None:
        # NaN and infinities are the record's to refuse.
        with suppress(ValidationError):
            _is_plain(_record(seen.samples_s).model_dump(mode="json"))


def _judged(runs: list[list[float]]) -> None:
    """Samples are refused, or give a row and a verdict of plain numbers."""
    records = []
    for number, samples in enumerate(runs, start=1):
        with suppress(ValidationError):
            records.append(_record(samples, number))
    if not records:
        return
    json.loads(rendered([summary(records)], "json"), parse_constant=_refused)
    for record in records:
        assert seen_in(record)
        is_steady(record.samples_s) if len(record.samples_s) > 1 else None
    half = len(records) // 2
    if half:
        verdicts = compared(records[:half], records[half:], Terms(least_runs=2))
        _is_plain(verdicts.model_dump(mode="json"))


def _record(samples: Any, run: int = 1) -> Measurement:
    kernel = (1e-3,) * len(samples)
    fields = {"samples_s": tuple(samples), "calibration_s": kernel, "run": run}
    return Measurement(**{**dict(toy_measurement()), **fields})


def _all_failed() -> str:
    import tempfile
    from pathlib import Path

    from profiler.session import Stop, measure
    from tests.profiler.networks import session
    from tests.profiler.test_session import FAKE

    with tempfile.TemporaryDirectory() as name:
        try:
            measure(
                session("failed-1"), Path(name), stop=Stop(), report=lambda *_: None, command=FAKE
            )
        except Complaint as complaint:
            return "" if complaint.exit_code == ALL_FAILED else f"exit {complaint.exit_code}"
    return "a session without one valid point ended well"


def _is_plain(value: Any) -> None:
    json.loads(json.dumps(value, allow_nan=False), parse_constant=_refused)


def _refused(name: str) -> None:
    raise AssertionError(f"{name} in JSON")


def _examined(
    law: Callable[[Any], None],
    cases: st.SearchStrategy[Any],
    tries: int,
    seed_: int,
    tally: Tally,
) -> None:
    """Count each example that hypothesis draws; the first that breaks the law ends it."""

    @seed(seed_)
    @settings(
        max_examples=tries,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def examined(case: Any) -> None:
        law(case)
        tally.count()

    try:
        examined()
    except Exception as error:
        tally.count(f"{type(error).__name__}: {str(error)[:200]}", lost=1)
