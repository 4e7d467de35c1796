"""JSON that carries the checksum of its own meaning, and a parser that lets nothing pass twice."""

import hashlib
import json
from typing import Any, NoReturn

SEAL = "file_sha256"


def sealed(text: str) -> str:
    r"""A JSON object, written over several lines, with the checksum of what it says as last key.

    >>> print(sealed('{\n "batch": 8\n}'))
    {
     "batch": 8,
     "file_sha256": "423bc80cd37ac94d5410ce1ef2337a2bcde1dcde6ddbb51fa847c628b69c7325"
    }
    """
    assert text.endswith("\n}")
    return f'{text[:-2]},\n "{SEAL}": "{_digest_of(parsed(text))}"\n}}'


def opened(content: bytes) -> tuple[bytes, bool]:
    """A JSON text without its seal, and whether the seal fits; one without a seal does.

    Layout and order of keys are not sealed, what they say is. Raises ValueError for what is no JSON,
    names a key twice, holds NaN or an infinity, or is nested too deeply.
    """
    try:
        value = parsed(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict) or SEAL not in value:
        return content, True
    seal = value.pop(SEAL)
    return json.dumps(value).encode(), seal == _digest_of(value)


def parsed(text: str) -> Any:
    """What a JSON text says. Raises ValueError where a key is named twice or a number is none."""
    return json.loads(text, object_pairs_hook=_each_key_once, parse_constant=_no_number)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it names the key {twice[:60]!r} twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _digest_of(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
