"""One table, four shapes: for people, JSON, CSV, Markdown. Text in it can do no harm there."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal

from domain.complaint import printable

_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?")

Format = Literal["table", "json", "csv", "md"]
Cell = str | float | int | bool | None
Row = Mapping[str, Cell]


def rendered(rows: Sequence[Row], format: Format) -> str:
    """`rows`, alike in their columns, as text that ends in a newline.

    >>> print(rendered([{"device": "l4", "latency_ms": 2.5}], "md"), end="")
    | device | latency_ms |
    |---|---|
    | l4 | 2.5 |
    """
    return _RENDERERS[format](rows)


def _as_json(rows: Sequence[Row]) -> str:
    return json.dumps([dict(row) for row in rows], indent=1, allow_nan=False) + "\n"


def _as_csv(rows: Sequence[Row]) -> str:
    columns = list(rows[0]) if rows else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_csv_cell(column) for column in columns])
    writer.writerows([_csv_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def _csv_cell(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    # A spreadsheet runs cells that begin like a formula (CWE-1236), in full width too.
    begins_formula = cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"))
    return "'" * (begins_formula and not _NUMBER.fullmatch(cell)) + printable(cell)


def _as_markdown(rows: Sequence[Row]) -> str:
    columns = list(rows[0]) if rows else []
    cells: list[list[Cell]] = [[*columns], *([row.get(name) for name in columns] for row in rows)]
    lines = [
        "| " + " | ".join(_text(cell).replace("|", "\\|") for cell in line) + " |" for line in cells
    ]
    lines.insert(1, "|" + "---|" * len(columns))
    return "\n".join(lines) + "\n"


def _as_table(rows: Sequence[Row]) -> str:
    columns = list(rows[0]) if rows else []
    cells = [[*columns], *([_text(row.get(name)) for name in columns] for row in rows)]
    widths = [max(_columns_of(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "  ".join(
            text + " " * (width - _columns_of(text))
            for text, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines) + "\n"


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return printable(str(cell)).replace("\n", " ")


def _columns_of(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


_RENDERERS = {"table": _as_table, "json": _as_json, "csv": _as_csv, "md": _as_markdown}
