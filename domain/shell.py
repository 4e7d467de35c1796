"""The edge of every command: where its text goes, and how it ends."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from domain.complaint import (
    INTERRUPTED,
    OK,
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
    """Text to stdout, or whole to a file."""
    if output is None:
        sys.stdout.write(text)
    else:
        write_whole(output, text.encode())


def run_shell(command: Callable[[], object]) -> None:
    """Run a command; a complaint becomes one line on stderr and its exit code.

    A validation error is the user's input, refused by the noun it was meant to be.
    """
    try:
        command()
    except Complaint as complaint:
        print(printable(f"error: {complaint}"), file=sys.stderr)  # noqa: T201
        sys.exit(complaint.exit_code)
    except ValidationError as error:
        print(printable(f"error: {first_error(error)}"), file=sys.stderr)  # noqa: T201
        sys.exit(USAGE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(OK)
