"""A command in this process: what it wrote where, and how it ended."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

import pytest


@dataclass(frozen=True)
class Run:
    returncode: int
    stdout: str
    stderr: str


def run(main, *arguments):
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["command", *map(str, arguments)]),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Run(ended.value.code or 0, stdout.getvalue(), stderr.getvalue())
