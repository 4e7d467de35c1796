import os

import pytest

from costmodel.validate import Accuracy, made
from domain.complaint import Complaint
from domain.fit import ValidationRow


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
