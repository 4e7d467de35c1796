"""Tables of the tax authorities that spread a price over years, as the catalogue has them."""

import json
import tomllib
from decimal import Decimal
from functools import cache
from typing import Annotated

from pydantic import Field

from domain.catalogue import FOLDER
from domain.columns import text_of
from domain.record import Record, Sentence

Text = Annotated[str, Field(pattern=r"^\d{1,3}\.\d{1,6}$")]


class JapanRates(Record):
    """Of one statutory life: the yearly rate, the one after the switch, and when to switch."""

    rate: Decimal
    revised_rate: Decimal
    guarantee_rate: Decimal


class _Declining(Record):
    source: Sentence
    read_on: Sentence
    confidence: Sentence
    rates: dict[str, tuple[Text, Text, Text]]


class _Percent(Record):
    source: Sentence
    read_on: Sentence
    confidence: Sentence
    percent: dict[str, tuple[Text, ...]]


class _Tables(Record):
    declining_japan: _Declining
    macrs: _Percent


def japan_rates() -> dict[int, JapanRates]:
    """Rates of the 200 % declining balance by statutory life in years."""
    rows = _tables().declining_japan.rates
    return {
        int(life): JapanRates(
            rate=Decimal(rate), revised_rate=Decimal(revised), guarantee_rate=Decimal(guarantee)
        )
        for life, (rate, revised, guarantee) in rows.items()
    }


def macrs_percent() -> dict[int, tuple[Decimal, ...]]:
    """Percent of cost by tax year, half-year convention, by class of property in years."""
    rows = _tables().macrs.percent
    return {int(life): tuple(map(Decimal, row)) for life, row in rows.items()}


def source_of(method: str) -> str:
    """Where a method's table comes from; empty for straight line, which needs none."""
    table = getattr(_tables(), method, None)
    return f"{table.source}, read {table.read_on}" if table else ""


@cache
def _tables() -> _Tables:
    # Through JSON text: strict records take tuples from there.
    return _Tables.model_validate_json(
        json.dumps(tomllib.loads(text_of(FOLDER / "depreciation.toml")))
    )
