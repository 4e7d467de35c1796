"""Options that several commands share, and the line on stderr that all of them speak through."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domain.complaint import Complaint, printable

if TYPE_CHECKING:
    from profiler.protocol import Mode

Quick = Annotated[bool, typer.Option("--quick", help="Minutes: a dozen points, 3 runs.")]
Default = Annotated[bool, typer.Option("--default", help="An hour or two: 40 points, 5 runs.")]
Rigorous = Annotated[bool, typer.Option("--rigorous", help="A day: 58 points, 10 runs.")]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="A MeasuringPlan as JSON.")]
Shape = Annotated[str, typer.Option("--format", help="table, json, csv or md")]


def mode_of(quick: bool, default: bool, rigorous: bool) -> "Mode":
    """The one mode that was asked for; quick where none was."""
    if quick + default + rigorous > 1:
        raise Complaint("wanted one of --quick, --default and --rigorous, got several")
    return "rigorous" if rigorous else "default" if default else "quick"


def say(text: str) -> None:
    """A line for the person, never mixed with data."""
    sys.stderr.write(printable(text) + "\n")
