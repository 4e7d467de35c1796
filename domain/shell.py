"""The edge of every command: where its text goes, and how it ends."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO, get_args

from pydantic import ValidationError

from domain.complaint import (
    INTERRUPTED,
    OK,
    STORAGE,
    USAGE,
    Complaint,
    StorageFailed,
    first_error,
    printable,
)
from domain.store import write_whole
from domain.tables import Format


def format_named(name: str) -> Format:
    """The table shape called `name`."""
    for known in get_args(Format):
        if known == name:
            return known  # type: ignore[no-any-return]
    raise Complaint(f"unknown format {name!r}; there are {', '.join(get_args(Format))}")


def emit(text: str, output: Path | None) -> None:
    """Text to stdout, or whole to a file; a device or pipe is written to, not replaced."""
    if output is not None and (output.is_file() or not output.exists()):
        write_whole(output.resolve(), text.encode())
        return
    try:
        if output is None:
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            output.write_bytes(text.encode())
    except BrokenPipeError:
        raise
    except OSError as error:
        if output is None:
            _let_go(sys.stdout)
        raise StorageFailed(
            f"cannot write {output or 'to stdout'} ({len(text.encode())} bytes): {error.strerror}"
        ) from error


def say(text: str) -> None:
    """A line on stderr for the person, never mixed with data; nobody need be there to read it."""
    try:
        sys.stderr.write(printable(text) + "\n")
        sys.stderr.flush()
    except OSError:  # a terminal that was closed, a log on a full disk
        _let_go(sys.stderr)


def warn(text: str) -> None:
    """A sentence to stderr that ends nothing; nothing for an empty one."""
    if text:
        say(f"warning: {_one_line(text)}")


def _let_go(stream: TextIO) -> None:
    """What is left to write to `stream` goes nowhere, or Python would end with status 120."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        stream.flush()


def run_shell(command: Callable[[], object]) -> None:
    """Run a command; a complaint becomes one line on stderr and its exit code.

    A validation error is the user's input, refused by the noun it was meant to be.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        command()
    except Complaint as complaint:
        say(f"error: {_one_line(complaint)}")
        sys.exit(complaint.exit_code)
    except ValidationError as error:
        say(f"error: {_one_line(first_error(error))}")
        sys.exit(USAGE)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader has enough; nothing is left to flush into the closed pipe.
        _let_go(sys.stdout)
        sys.exit(OK)
    except OSError as error:
        say(f"error: {error.strerror or error}: {error.filename or 'output'}")
        _let_go(sys.stdout)
        sys.exit(STORAGE)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
