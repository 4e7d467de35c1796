import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain import complaint
from domain.complaint import Complaint, first_error, nearest, printable
from domain.record import Estimate, Figure


@given(st.text())
def test_what_is_printed_can_not_drive_a_terminal(text):
    assert all(letter.isprintable() or letter == "\n" for letter in printable(text))
    assert printable(printable(text)) == printable(text)
    assert len(printable(text)) == len(text)


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "a\x9bb", "\u202egnp.exe", "a\rb", "\x00"])
def test_sequences_that_terminals_obey_are_broken(text):
    assert "?" in printable(text)


def test_ordinary_text_is_printed_as_it_is():
    assert printable("消費電力 12 W × 2\nµs") == "消費電力 12 W × 2\nµs"


def test_the_nearest_names_come_first_and_a_far_one_gives_the_list():
    assert nearest("rtx409o", ["l4", "rtx4090", "rtx3090"]).startswith("nearest: rtx4090")
    assert nearest("zzzz", ["b", "a"]) == "known: a, b"


def test_every_kind_of_complaint_has_an_exit_code_of_its_own():
    kinds: list[type[Complaint]] = [Complaint, *Complaint.__subclasses__()]
    codes = {kind.exit_code for kind in kinds}
    assert len(codes) == len(kinds)
    assert not codes & {complaint.OK, complaint.BUG, complaint.TIMED_OUT, complaint.INTERRUPTED}


def test_the_first_error_says_where_and_what_came():
    with pytest.raises(ValidationError) as caught:
        Figure(value="x", source="s", read_on="2026-11-23", confidence="A")
    assert first_error(caught.value).startswith("value: ")
    assert "got 'x'" in first_error(caught.value)
    with pytest.raises(ValidationError) as caught:
        Estimate(value=3.0, low=1.0, high=2.0)
    assert first_error(caught.value) == "wanted low <= value <= high, got 1.0 <= 3.0 <= 2.0"
