import csv
import io
import json

from hypothesis import given
from hypothesis import strategies as st

from domain.tables import Row, rendered

cells = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=12))
rows_ = st.lists(st.fixed_dictionaries({"device": cells, "latency_s": cells}), min_size=1)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


@given(rows_)
def test_json_gives_the_rows_back(rows):
    assert json.loads(rendered(rows, "json")) == rows


@given(rows_)
def test_csv_holds_a_line_for_each_row_and_no_cell_that_a_spreadsheet_would_run(rows):
    header, *lines = csv.reader(io.StringIO(rendered(rows, "csv"), newline=""))
    assert header == [*rows[0]]
    assert len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        for column, cell in zip(header, line, strict=True):
            if isinstance(row[column], str):
                assert not cell.startswith(FORMULA)


def test_csv_formula_cells_are_quoted_and_numbers_are_left_alone():
    rows: list[Row] = [{"a": "=1+1", "b": -2.5}, {"a": "＝cmd", "b": 3}]
    assert rendered(rows, "csv") == "a,b\n'=1+1,-2.5\n'＝cmd,3\n"


@given(rows_, st.sampled_from(["table", "csv", "md"]))
def test_no_text_can_drive_a_terminal(rows, format):
    text = rendered(rows, format)
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_control_characters_are_shown_as_question_marks():
    assert "a?[31mb" in rendered([{"device": "a\x1b[31mb"}], "csv")


@given(rows_)
def test_tables_for_people_have_one_line_a_row(rows):
    assert rendered(rows, "table").count("\n") == len(rows) + 2
    assert rendered(rows, "md").count("\n") == len(rows) + 2


def test_wide_letters_take_two_columns():
    assert rendered([{"a": "電力", "b": "x"}, {"a": "abc", "b": "y"}], "table") == (
        "a     b\n----  -\n電力  x\nabc   y\n"
    )


def test_a_bar_does_not_split_a_markdown_cell():
    assert rendered([{"a": "x|y"}], "md") == "| a |\n|---|\n| x\\|y |\n"


def test_no_rows_are_rendered_without_complaint():
    for format in ("table", "json", "csv", "md"):
        assert rendered([], format).endswith("\n")
