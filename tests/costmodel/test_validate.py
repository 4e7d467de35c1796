import os

import pytest

from costmodel.points import usable_points
from costmodel.validate import Accuracy, fit_of, made
from domain.complaint import Complaint
from domain.fit import Fit, ValidationRow
from domain.store import (
    FIRST_SWEEP,
    REFERENCE_FIT,
    SWEEP_AGAIN,
    load,
    read_journal,
    reference_fits,
    reference_journal,
    reference_root,
    reference_sweeps,
)


def row(split: str) -> ValidationRow:
    return ValidationRow(
        split=split,
        quantity=str(os.getpid()),
        tier="calibrated",
        n=1,
        median_abs_error=0.0,
        p90_abs_error=0.0,
        signed_error=0.0,
        coverage_90=1.0,
        half_width=0.0,
        noise_floor=None,
    )


def first() -> Accuracy:
    return [], [row("first")]


def second() -> Accuracy:
    return [], [row("second")]


def refused() -> Accuracy:
    raise Complaint("too few points")


def ended() -> Accuracy:
    os._exit(9)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_parts_keep_their_order_whoever_makes_them(workers):
    found = made([first, second, first], workers)
    assert [rows[0].split for _, rows in found] == ["first", "second", "first"]
    makers = {rows[0].quantity for _, rows in found}
    assert (str(os.getpid()) in makers) == (workers == 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_complaint_comes_out_of_a_process_as_it_is(workers):
    with pytest.raises(Complaint, match="too few points"):
        made([first, refused], workers)


def test_a_process_that_was_ended_is_a_sentence():
    with pytest.raises(Complaint, match=r"ended from outside.*--workers 1"):
        made([first, ended], workers=2)


def test_the_committed_machines_come_by_name_and_have_two_occasions_and_one_thread():
    sweeps = reference_sweeps()
    assert list(sweeps) == ["zen3", "xeon6", "zen4"]
    assert reference_journal().parent == sweeps["zen3"][2]
    for folders in sweeps.values():
        assert {"1-a", FIRST_SWEEP, SWEEP_AGAIN} <= {folder.name for folder in folders}


def test_a_machine_is_spoken_for_by_its_own_fit_of_most_threads_in_fp32():
    points = usable_points(read_journal(reference_journal()))
    fit = fit_of(points, reference_fits())
    # What a report shows beside that machine's journal.
    assert fit == load(reference_root() / REFERENCE_FIT, Fit)
    assert fit.environment is not None
    assert (fit.environment.threads, fit.precisions) == (2, ("fp32",))
    assert fit.device_id == next(iter(points.values()))[0].environment.machine_id
    with pytest.raises(Complaint, match="no committed fit of cpu-"):
        fit_of(points, [each for each in reference_fits() if each.device_id != fit.device_id])
