"""What goes wrong for a user: one sentence, and the exit code that says its kind."""

import difflib
from collections.abc import Iterable

from pydantic import ValidationError

OK, BUG, USAGE, UNSTABLE, NO_DEVICE, ALL_FAILED, CORRUPT, BROKEN_PROMISE, STORAGE = range(9)
TIMED_OUT, INTERRUPTED = 124, 130


class Complaint(Exception):
    """Something that the user can mend; the message says what was wanted, what came, what to do."""

    exit_code = USAGE


class NoDevice(Complaint):
    """The device asked for is not in this machine."""

    exit_code = NO_DEVICE


class AllFailed(Complaint):
    """Not one point could be measured."""

    exit_code = ALL_FAILED


class CorruptFile(Complaint):
    """A file is damaged, hostile, or not what its name says."""

    exit_code = CORRUPT


class BrokenPromise(Complaint):
    """Nothing meets the promise or the budget."""

    exit_code = BROKEN_PROMISE


class StorageFailed(Complaint):
    """The disk refused."""

    exit_code = STORAGE


def nearest(name: str, known: Iterable[str], count: int = 4) -> str:
    """The known names that look most like `name`, for the end of a sentence.

    >>> nearest("a10o", ["a100", "h100", "l4"])
    'nearest: a100, h100'
    """
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=count, cutoff=0.45)
    return "nearest: " + ", ".join(close) if close else "known: " + ", ".join(sorted(names)[:12])


def first_error(error: ValidationError) -> str:
    """The first thing that pydantic found, as one line: where, what was wanted, what came."""
    found = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in found["loc"])
    message = found["msg"].removeprefix("Value error, ")
    came = "" if found["type"] == "value_error" else f", got {str(found.get('input'))[:60]!r}"
    return f"{where + ': ' if where else ''}{message}{came}"


def printable(text: str) -> str:
    r"""`text` without the control characters that could drive a terminal.

    >>> printable("a\x1b[31mb")
    'a?[31mb'
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
