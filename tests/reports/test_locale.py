import string

import pytest

from domain.locale import LANGUAGES, strings, text


def _fields(words: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(words) if name}


def test_all_languages_have_the_same_keys():
    for language in LANGUAGES:
        assert strings(language).keys() == strings("en").keys()


@pytest.mark.parametrize("key", sorted(strings("en")))
def test_all_languages_want_the_same_values(key):
    for language in LANGUAGES:
        words = strings(language)[key]
        assert _fields(words) == _fields(strings("en")[key])
        assert words.strip()
        assert words.isprintable()


def test_a_missing_key_is_an_error():
    with pytest.raises(KeyError):
        text("page.nothing", "en")


def test_a_missing_value_is_an_error():
    with pytest.raises(KeyError):
        text("page.subtitle", "ja")


def test_values_are_not_read_as_patterns():
    assert text("page.subtitle", "en", made_at="{0.__class__}") == "Report made {0.__class__}"
