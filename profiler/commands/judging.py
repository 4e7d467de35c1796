"""doctor, export: what the machine and the records are worth."""

from pathlib import Path
from typing import Annotated

import typer

from domain.complaint import NO_DEVICE
from domain.shell import emit, format_named
from domain.tables import rendered
from profiler.commands.options import Shape


def doctor(
    threads: Annotated[int | None, typer.Option(min=1, max=1024)] = None, format: Shape = "table"
) -> None:
    """What could spoil a measurement here, and the cure; exit 4 where nothing can be measured."""
    shape = format_named(format)
    from profiler.doctor import findings, looked

    found = findings(looked(threads))
    emit(rendered([finding.model_dump() for finding in found], shape), None)
    if any(finding.level == "FAIL" for finding in found):
        raise typer.Exit(NO_DEVICE)


def export(
    folder: Annotated[Path, typer.Argument(help="The folder that `run` wrote.")],
) -> None:
    """The journal as Parquet, for analysis, with checksums."""
    from profiler.export import exported

    emit("".join(f"{path}\n" for path in exported(folder)), None)
