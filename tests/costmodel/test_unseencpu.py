"""One measured CPU from others: what they share carries over, what the target knows of itself does not."""

import pytest

from costmodel.calibration import fit_machine
from costmodel.points import usable_points
from costmodel.unseencpu import unseen_cpu_rows
from domain.measurement import DepthRecord, Environment, Measurement
from tests.costmodel.machines import ENVIRONMENT, journal_of, logs_of, with_values

OTHER = Environment(**{**dict(ENVIRONMENT), "device_name": "Another CPU"})
FASTER = 1.5


def better_than_its_rates(run: Measurement) -> Measurement:
    """The same rates on a machine that does everything in less time."""
    return Measurement(
        **{
            **dict(run),
            "environment": OTHER,
            "samples_s": tuple(each / FASTER for each in run.samples_s),
            "depths": tuple(
                DepthRecord(
                    **{**dict(depth), "samples_s": tuple(s / FASTER for s in depth.samples_s)}
                )
                for depth in run.depths
            ),
        }
    )


@pytest.fixture(scope="module")
def journals():
    one = journal_of(noise=0.01)
    return {"one": one, "other": [better_than_its_rates(run) for run in one]}


@pytest.fixture(scope="module")
def fits(journals):
    return {name: fit_machine(journal, "test") for name, journal in journals.items()}


def test_another_cpu_is_predicted_by_its_rates_and_better_after_four_timings(journals, fits):
    machines = {name: usable_points(journal) for name, journal in journals.items()}
    pairs, rows = unseen_cpu_rows(machines, fits, draws=3)
    named = {row.split: row for row in rows}
    assert set(named) == {
        f"unseen-cpu-fp32{timed}.{name}" for name in machines for timed in ("", "-4")
    }
    for name in machines:
        blind, timed = named[f"unseen-cpu-fp32.{name}"], named[f"unseen-cpu-fp32-4.{name}"]
        assert (blind.tier, timed.tier) == ("spec-only", "calibrated")
        assert blind.n == len(machines[name])
        assert timed.n == blind.n - 4
        # That it does more than its rates say is what the first misses, and what timings tell.
        assert timed.median_abs_error < blind.median_abs_error / 3
        assert timed.half_width < blind.half_width / 2
        assert blind.coverage_90 == 1.0
    assert {pair.split for pair in pairs} == {f"unseen-cpu-fp32.{name}" for name in machines}


def test_what_a_machine_knows_of_itself_says_nothing_of_it(journals, fits):
    machines = {"one": usable_points(journals["one"])}
    spoilt = with_values(fits["one"], logs_of(fits["one"]) + 1.0)
    told = [
        unseen_cpu_rows(machines, {"one": own, "other": fits["other"]}, draws=1)
        for own in (fits["one"], spoilt)
    ]
    assert told[0] == told[1]


def test_a_machine_alone_is_judged_by_nobody(journals, fits):
    machines = {"one": usable_points(journals["one"])}
    assert unseen_cpu_rows(machines, {"one": fits["one"]}) == ([], [])
