"""Options that several commands share, and the line on stderr that all of them speak through."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domain.complaint import Complaint

if TYPE_CHECKING:
    from domain.record import Executor
    from profiler.protocol import Mode

Quick = Annotated[bool, typer.Option("--quick", help="Minutes: 14 points, 3 runs.")]
Brief = Annotated[
    bool, typer.Option("--brief", help="Twelve minutes: 44 points, 5 short runs; large plans.")
]
Default = Annotated[bool, typer.Option("--default", help="An hour or two: 44 points, 5 runs.")]
Rigorous = Annotated[
    bool, typer.Option("--rigorous", help="Ten hours or more: 62 points, 10 runs.")
]
Budget = Annotated[
    float | None,
    typer.Option(
        "--budget",
        min=0.1,
        max=1e5,
        help="Minutes: the most telling built-in points that fit, at the mode's settings.",
    ),
]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="A MeasuringPlan as JSON.")]
Shape = Annotated[str, typer.Option("--format", help="table, json, csv or md")]

Margin = Annotated[
    float, typer.Option(min=0, max=1, help="Differences up to this are never called one.")
]
SameWithin = Annotated[
    float, typer.Option(min=1e-4, max=1, help="SAME rules out differences beyond this.")
]
Level = Annotated[float, typer.Option(min=0.5, max=0.9999, help="Confidence of every interval.")]
FailOn = Annotated[str, typer.Option(help="`slower`: exit 3 where any point is SLOWER.")]


def checked_fail_on(value: str) -> bool:
    """Whether a SLOWER fails the command. Raises Complaint for anything else than asked or not."""
    if value not in ("nothing", "slower"):
        raise Complaint(f"wanted --fail-on nothing or slower, got {value!r}")
    return value == "slower"


def built_executor(name: str) -> "Executor":
    """The executor of that name. Raises Complaint where it is not built."""
    from morvit.executors import EXECUTORS

    for known in EXECUTORS:
        if known == name:
            return known
    raise Complaint(f"executor {name!r} is not built; there are {', '.join(EXECUTORS)}")


def mode_of(
    quick: bool, brief: bool, default: bool, rigorous: bool, otherwise: "Mode" = "quick"
) -> "Mode":
    """The one mode that was asked for; `otherwise` where none was."""
    asked: dict[Mode, bool] = {
        "quick": quick,
        "brief": brief,
        "default": default,
        "rigorous": rigorous,
    }
    chosen = [mode for mode, is_asked in asked.items() if is_asked]
    if len(chosen) > 1:
        raise Complaint("wanted one of --quick, --brief, --default and --rigorous, got several")
    return chosen[0] if chosen else otherwise
