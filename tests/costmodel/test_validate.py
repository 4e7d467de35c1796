import math
import os

import pytest

from costmodel import fit as fit_command
from costmodel import validate
from costmodel.calibration import DEVIATIONS, beliefs_at
from costmodel.hierarchy import beliefs_from
from costmodel.latency import prior
from costmodel.points import usable_points
from costmodel.validate import Accuracy, fit_of, made
from domain.complaint import Complaint
from domain.fit import Fit, ValidationRow
from domain.store import (
    COMPACT_JOURNAL,
    FIRST_SWEEP,
    REFERENCE_FIT,
    SWEEP_AGAIN,
    alone_fits,
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
    assert list(sweeps) == ["zen3", "skylake", "xeon6", "zen4"]
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


class Heard(Exception):
    """The beliefs that a fit was to be made with."""


def hear(points, beliefs=None):
    """In place of a fit: what it would believe, and of what."""
    raise Heard(beliefs)


def by_others(name):
    """Beliefs of the two committed machines that are not `name`, by their fits on one thread alone."""
    own = next(iter(points_of(name).values()))[0].environment.machine_id
    fits = [each for each in alone_fits() if each.device_id != own]
    return beliefs_from([each for each in fits if each.environment.threads == 1])


def points_of(name):
    """All points of a committed machine."""
    runs = [read_journal(path / COMPACT_JOURNAL) for path in reference_sweeps()[name]]
    return usable_points(run for sweep in runs for run in sweep)


def test_every_committed_machine_was_fitted_alone_by_the_wide_prior():
    alone = alone_fits()
    machines = {
        next(iter(points_of(name).values()))[0].environment.machine_id
        for name in reference_sweeps()
    }
    assert {each.device_id for each in alone} == machines
    for each in alone:
        assert each.precisions == ("fp32",)
        assert "as other CPUs say" not in each.provenance
        at = {"half": 0.0, "threads": math.log2(each.environment.threads)}
        believed = beliefs_at(at, prior("cpu"), DEVIATIONS)
        assert {c.name: c.prior_log_sd for c in each.coefficients} == {
            name: log_sd for name, (_, log_sd) in believed.items()
        }


@pytest.mark.parametrize("name", ["zen4", "xeon6"])
def test_a_machine_is_judged_by_what_the_others_say_each_by_itself(monkeypatch, name):
    monkeypatch.setattr(validate, "held_out_predictions", hear)
    with pytest.raises(Heard) as heard:
        validate.machine_accuracy(name)
    assert heard.value.args == (by_others(name),)
    monkeypatch.setattr(validate, "machine_pairs", hear)
    with pytest.raises(Heard) as heard:
        validate.own_accuracy([run for runs in points_of(name).values() for run in runs], None)
    assert heard.value.args == (by_others(name),)


def test_of_two_machines_in_a_journal_the_one_that_is_fitted_does_not_speak_for_itself(monkeypatch):
    monkeypatch.setattr(
        fit_command, "fit_machines", lambda runs, made_by, beliefs: hear(runs, beliefs)
    )
    mixed = [run for name in ("zen3", "zen4") for runs in points_of(name).values() for run in runs]
    with pytest.raises(Heard) as heard:
        fit_command._fits_of(mixed, "test")
    assert heard.value.args == (by_others("zen4"),)
