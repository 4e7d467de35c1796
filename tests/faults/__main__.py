"""`python -m tests.faults`: the whole campaign, a table of it, and exit 1 where a bar is missed."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from domain.complaint import Complaint
from domain.shell import emit, run_shell, say
from domain.tables import rendered
from tests.faults.disk import disk
from tests.faults.kills import kills, real_kills
from tests.faults.locks import locks
from tests.faults.mutations import mutations
from tests.faults.oom import oom
from tests.faults.readings import clocks, meters
from tests.faults.scenarios import scenarios
from tests.faults.signals import signals
from tests.faults.tally import Fault

Family = Callable[[int, int], Iterator[Fault]]

# How often each is tried where nobody says.
FAMILIES: dict[str, tuple[Family, int]] = {
    "kills": (kills, 200),
    "real-kills": (real_kills, 4),
    "signals": (signals, 50),
    "mutations": (mutations, 1000),
    "disk": (disk, 100),
    "locks": (locks, 100),
    "oom": (oom, 100),
    "meters": (meters, 10_000),
    "clocks": (clocks, 5000),
    "scenarios": (scenarios, 10_000),
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python -m tests.faults --only kills --tries 20")
def campaign(
    only: Annotated[str, typer.Option(help=f"By comma, of {', '.join(FAMILIES)}.")] = "",
    tries: Annotated[
        int | None, typer.Option(min=1, help="Of each; else as many as the bar asks.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Store the table there, as JSON.")] = None,
) -> None:
    """Put faults in, and count what survives them."""
    names = only.split(",") if only else [*FAMILIES]
    if unknown := [name for name in names if name not in FAMILIES]:
        raise Complaint(f"no family {unknown[0]!r}; there are {', '.join(FAMILIES)}")
    found: list[Fault] = []
    for name in names:
        family, usual = FAMILIES[name]
        began_s = time.monotonic()
        found += family(tries or usual, seed)
        say(f"{name}: {time.monotonic() - began_s:.0f} s")
    rows = [fault.model_dump() for fault in found]
    if output is not None:
        emit(json.dumps(rows, indent=1) + "\n", output)
    emit(rendered(rows, "table"), None)
    if not all(fault.is_met for fault in found):
        sys.exit(1)


if __name__ == "__main__":
    run_shell(app)
