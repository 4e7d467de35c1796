"""The gate of continuous integration, and that it blocks what it should and nothing else."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.gating import BARS, answers_of, bar_of, compared, rows_compared
from costmodel.validate import rows_of
from domain.catalogue import devices, published
from domain.fit import Fit
from domain.prediction import Answer, Answers
from domain.record import Estimate
from domain.store import load, reference_root

FITS = [load(path, Fit) for path in sorted((reference_root() / "fits").glob("*.json"))]


def answer(name="q", question="same", value=1.0, width=1.2, measured=None, reason=""):
    latency = Estimate(value=value, low=value / width, high=value * width)
    return Answer(
        name=name, question=question, latency_s=None if reason else latency,
        tier=None if reason else "spec-only", reason=reason, measured_s=measured,
    )  # fmt: skip


def test_nothing_that_was_answered_fails_today():
    committed = load(reference_root() / "answers.json", Answers).answers
    seen = compared(committed, list(answers_of(published(), devices(), FITS)))
    assert not seen.failures, seen.failures
    assert not seen.unasked, "questions changed: `python -m costmodel.gate --update`"
    assert len(seen.drift) > 100


@given(st.floats(0.1, 10), st.floats(1.01, 3), st.floats(0.1, 10))
def test_what_is_as_it_was_never_fails(value, width, measured):
    for seen in (None, measured):
        same = answer(value=value, width=width, measured=seen)
        found = compared([same], [same])
        assert not found.failures
        assert found.drift == {"q": 0.0}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (answer(), answer(reason="no fit"), "refused"),
        (answer(measured=1.0), answer(value=2.0, measured=1.0), "holds no more"),
        (answer(), answer(value=2.0), "takes"),
    ],
)
def test_what_worked_and_fails_is_blocked(old, new, said):
    (failure,) = compared([old], [new]).failures
    assert said in failure


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (answer(), answer(value=1.1)),
        (answer(reason="no fit"), answer()),
        (answer(reason="no fit"), answer(reason="another")),
        (answer(value=2.0, measured=1.0), answer(value=3.0, measured=1.0)),
        (answer(measured=1.0), answer(value=1.05, measured=1.0)),
    ],
)
def test_drift_and_what_never_worked_are_not_blocked(old, new):
    assert not compared([old], [new]).failures


def test_another_question_under_the_same_name_is_not_compared():
    found = compared([answer(), answer(name="gone")], [answer(question="other", reason="x")])
    assert found.unasked == ("q", "gone")
    assert not found.failures


def test_a_bar_that_was_met_and_is_missed_is_blocked_and_one_that_was_missed_is_not():
    rows = rows_of(reference_root() / "validation.json")
    assert not rows_compared(rows, rows).failures
    met = next(r for r in rows if (r.split, r.quantity) == ("cpu-configuration.zen3", "latency"))
    bar = bar_of(met)
    assert bar is not None
    assert not bar.misses(met)
    worse = met.model_copy(update={"median_abs_error": 0.5})
    (failure,) = rows_compared([met], [worse]).failures
    assert "median" in failure
    assert not rows_compared([worse], [worse]).failures
    (gone,) = rows_compared([met], []).failures
    assert "was judged and is not" in gone
    # Every bar has a row that it judges, of one measured machine at least.
    assert set(BARS) <= {(row.split.partition(".")[0], row.quantity) for row in rows}


def test_the_command_says_what_moved_and_refuses_what_is_no_table(tmp_path):
    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "costmodel.gate", *arguments],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = command("--against", str(reference_root() / "validation.json"))
    assert done.returncode == 0, done.stderr
    assert "predictions" in done.stdout
    assert "accuracy" in done.stdout
    wrong = tmp_path / "table.json"
    wrong.write_text('[{"split": 3}]')
    assert command("--against", str(wrong)).returncode == 6
    assert command("--force").returncode == 2
