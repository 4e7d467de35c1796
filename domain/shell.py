"""The edge of every command: where its text goes, and how it ends."""

import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from domain.complaint import (
    INTERRUPTED,
    OK,
    STORAGE,
    USAGE,
    Complaint,
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
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    elif output.exists() and not output.is_file():
        output.write_bytes(text.encode())
    else:
        write_whole(output.resolve(), text.encode())


def warn(text: str) -> None:
    """A sentence to stderr that ends nothing; nothing for an empty one."""
    if text:
        sys.stderr.write(printable(f"warning: {_one_line(text)}\n"))


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
        print(printable(f"error: {_one_line(complaint)}"), file=sys.stderr)  # noqa: T201
        sys.exit(complaint.exit_code)
    except ValidationError as error:
        print(printable(f"error: {first_error(error)}"), file=sys.stderr)  # noqa: T201
        sys.exit(USAGE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader has enough; nothing is left to flush into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(OK)
    except OSError as error:
        print(printable(f"error: {error.strerror}: {error.filename or 'output'}"), file=sys.stderr)  # noqa: T201
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(STORAGE)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
