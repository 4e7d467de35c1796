"""Ways to damage a file: of any bytes, of JSON, of lines. Each is a function of content and chance."""

import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from domain.sealing import SEAL

SPARSE_BYTES = 2 * 2**30
_HERE, _TWICE = "@@here@@", "@@twice@@"

Change = Callable[[bytes, Random], bytes]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One way. `is_edit`: what comes out may be a file that somebody could have meant.

    `is_sparse` damages are done to the file, not to its content.
    """

    name: str
    change: Change
    is_edit: bool = False
    is_sparse: bool = False


def _truncated(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(max(1, len(content)))]


def _flipped(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 5))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _block(content: bytes, random: Random) -> slice:
    begin = random.randrange(len(content))
    return slice(begin, min(len(content), begin + random.choice((1, 16, 512))))


def _zeroed(content: bytes, random: Random) -> bytes:
    place = _block(content, random)
    return content[: place.start] + bytes(place.stop - place.start) + content[place.stop :]


def _repeated(content: bytes, random: Random) -> bytes:
    place = _block(content, random)
    return content[: place.stop] + content[place.start :]


def _cut_out(content: bytes, random: Random) -> bytes:
    place = _block(content, random)
    return content[: place.start] + content[place.stop :]


ANY = tuple(
    Damage(name=name, change=change)
    for name, change in (
        ("truncated", _truncated),
        ("bits flipped", _flipped),
        ("bits flipped again", _flipped),
        ("emptied", lambda content, random: b""),
        ("garbage after", lambda content, random: content + random.randbytes(40)),
        ("garbage before", lambda content, random: random.randbytes(40) + content),
        ("all garbage", lambda content, random: random.randbytes(len(content) % 5000 + 1)),
        ("zeros inside", _zeroed),
        ("a block twice", _repeated),
        ("a block gone", _cut_out),
    )
)
SPARSE = (Damage(name="2 GB sparse", change=lambda content, random: content, is_sparse=True),)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every holder and key of a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in list(pairs):
        yield value, key
        if isinstance(part, dict | list):
            yield from _places(part)


def _put(raw: Callable[[Any], str], wanted: Callable[[Any], bool], text: bytes, r: Random) -> bytes:
    """JSON with one value replaced by a text that need be no JSON."""
    value = json.loads(text)
    places = [(holder, key) for holder, key in _places(value) if wanted(holder[key])]
    if not places:
        return text
    holder, key = r.choice(places)
    said, holder[key] = raw(holder[key]), _HERE
    return json.dumps(value).replace(f'"{_HERE}"', said).encode()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _other_type(value: Any) -> str:
    kinds = {str: "{}", list: "{}", dict: '"x"', type(None): "[[]]", bool: '"yes"'}
    return kinds.get(type(value), f'"{value}"')


def _key_twice(text: bytes, random: Random) -> bytes:
    value = json.loads(text)
    holders = [value, *(h[k] for h, k in _places(value) if isinstance(h[k], dict))]
    holder = random.choice([each for each in holders if each])
    key = random.choice([*holder])
    holder[_TWICE] = _doubled(holder[key])
    return json.dumps(value).replace(f'"{_TWICE}"', json.dumps(key)).encode()


def _doubled(value: Any) -> Any:
    return value * 2 if _is_number(value) else value


def _future(text: bytes, random: Random) -> bytes:
    value = json.loads(text)
    value["format"] = random.choice((0, 99, "2"))
    return json.dumps(value).encode()


def _unknown_key(text: bytes, random: Random) -> bytes:
    value = json.loads(text)
    value["colour"] = "blue"
    return json.dumps(value).encode()


def _key_gone(text: bytes, random: Random) -> bytes:
    value = json.loads(text)
    holder, key = random.choice([place for place in _places(value) if isinstance(place[0], dict)])
    del holder[key]
    return json.dumps(value).encode()


def _other_value(text: bytes, random: Random) -> bytes:
    return _put(lambda value: json.dumps(value * 2 + 1), _is_number, text, random)


# Name, change, and whether the outcome may be another valid record where nothing seals it.
_JSON: tuple[tuple[str, Change, bool], ...] = (
    ("future format", _future, False),
    ("unknown key", _unknown_key, False),
    ("key gone", _key_gone, True),
    ("key twice", _key_twice, False),
    ("another value", _other_value, True),
    ("wrong type", lambda t, r: _put(_other_type, lambda value: value != _HERE, t, r), False),
    ("NaN", lambda t, r: _put(lambda _: "NaN", _is_number, t, r), False),
    ("Infinity", lambda t, r: _put(lambda _: "-Infinity", _is_number, t, r), False),
    ("1e999", lambda t, r: _put(lambda _: "1e999", _is_number, t, r), False),
    ("huge number", lambda t, r: _put(lambda _: "9" * 400, _is_number, t, r), True),
    ("5,000 digits", lambda t, r: _put(lambda _: "9" * 5000, _is_number, t, r), True),
    ("deep nesting", lambda t, r: _put(lambda _: "[" * 9999 + "]" * 9999, _is_number, t, r), False),
)


def json_damages(*, is_sealed: bool) -> tuple[Damage, ...]:
    """Damages to what a JSON object says: under its seal, and without one as if by hand."""
    return tuple(
        Damage(
            name=f"{name}{'' if is_kept else ', unsealed'}",
            change=change if is_kept else _unsealed(change),
            is_edit=may_be_meant and not (is_kept and is_sealed),
        )
        for name, change, may_be_meant in _JSON
        for is_kept in ((True, False) if is_sealed else (True,))
    )


def _unsealed(change: Change) -> Change:
    def changed(text: bytes, random: Random) -> bytes:
        value = json.loads(text)
        value.pop(SEAL, None)
        return change(json.dumps(value).encode(), random)

    return changed


def _lines_changed(change: Callable[[list[bytes], int], list[bytes]]) -> Change:
    def changed(content: bytes, random: Random) -> bytes:
        lines = content.splitlines(keepends=True)
        return b"".join(change(lines, random.randrange(len(lines) - 1)))

    return changed


LINES = tuple(
    Damage(name=name, change=_lines_changed(change))
    for name, change in (
        ("lines swapped", lambda lines, i: [*lines[:i], lines[i + 1], lines[i], *lines[i + 2 :]]),
        ("a line twice", lambda lines, i: [*lines[: i + 1], *lines[i:]]),
        ("a line gone", lambda lines, i: [*lines[:i], *lines[i + 1 :]]),
        ("lines glued", lambda lines, i: [*lines[:i], lines[i].rstrip(), *lines[i + 1 :]]),
        ("carriage returns", lambda lines, i: [line[:-1] + b"\r\n" for line in lines]),
    )
)


def journal_damages() -> tuple[Damage, ...]:
    """Damages to lines and, with a checksum that fits or not, to the record of one line."""
    return (
        *LINES,
        *(
            Damage(name=f"{name} in a line{said}", change=_in_a_line(change, fits))
            for name, change, may_be_meant in _JSON
            for fits, said in ((False, ""), (True, ", checksum fits"))
            # A forgery is no fault: only a program that means it gives a checksum to these.
            if not (fits and (may_be_meant or name == "key twice"))
        ),
    )


def _in_a_line(change: Change, fits: bool) -> Change:
    def changed(content: bytes, random: Random) -> bytes:
        lines = content.splitlines(keepends=True)
        place = random.randrange(len(lines))
        head, separator, rest = lines[place].partition(b',"record":')
        body = change(rest[:-2], random)
        if fits:
            head = f'{{"line":{place + 1},"crc32":{zlib.crc32(body)}'.encode()
        lines[place] = head + separator + body + b"}\n"
        return b"".join(lines)

    return changed


def inside_archive(damage: Damage) -> Damage:
    """The same damage to what an xz archive holds."""

    def changed(content: bytes, random: Random) -> bytes:
        return lzma.compress(damage.change(lzma.decompress(content), random), preset=0)

    return Damage(name=f"{damage.name}, in the archive", change=changed, is_edit=damage.is_edit)
