"""Every heading and standing sentence of what people read, in English and Japanese."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal, get_args

Language = Literal["en", "ja"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

_FOLDER = Path(__file__).resolve().parent / "catalogue" / "locale"


def text(key: str, /, language: Language, **values: str) -> str:
    """The string `key` in `language`, each `{name}` in it filled from `values`.

    Raises KeyError for a key that the language lacks, or a value that the string wants.

    >>> text("stage.recursion", "en", number="2")
    'recursion 2'
    """
    return strings(language)[key].format(**values)


@cache
def strings(language: Language) -> dict[str, str]:
    """Every string of a language by its key, `table.name`."""
    with (_FOLDER / f"{language}.toml").open("rb") as file:
        tables = tomllib.load(file)
    return {
        f"{table}.{name}": string
        for table, names in tables.items()
        for name, string in names.items()
    }
