"""doctor, export: what the machine and the records are worth."""

from pathlib import Path
from typing import Annotated

import typer

from domain.complaint import NO_DEVICE, Complaint
from domain.shell import emit, format_named, warn
from domain.tables import rendered
from profiler.commands.options import Shape


def doctor(
    folder: Annotated[
        Path | None, typer.Argument(help="Where to look for what killed runs left; else results.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024)] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put right what killed runs left, and stop.")
    ] = False,
    format: Shape = "table",
) -> None:
    """What could spoil a measurement here, and the cure; exit 4 where nothing can be measured."""
    shape = format_named(format)
    from domain.store import results_root
    from profiler.doctor import findings, looked
    from profiler.repair import left_behind, repaired

    where = folder or results_root()
    if repair:
        emit(rendered([finding.model_dump() for finding in repaired(where)], shape), None)
        return
    left = left_behind(where) if folder or where.is_dir() else ()
    found = (*findings(looked(threads)), *left)
    emit(rendered([finding.model_dump() for finding in found], shape), None)
    if any(finding.level == "FAIL" for finding in found):
        raise typer.Exit(NO_DEVICE)


def export(
    folder: Annotated[Path, typer.Argument(help="The folder that `run` wrote.")],
    compact: Annotated[
        bool,
        typer.Option(
            "--compact", help="The journal as an xz archive instead, a fifth of its size."
        ),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check what was exported, against its checksums.")
    ] = False,
) -> None:
    """The journal as Parquet, for analysis, with checksums."""
    if compact and verify:
        raise Complaint("wanted one of --compact and --verify, got both")
    if verify:
        from profiler.export import verified

        emit("".join(f"{path}: whole\n" for path in verified(folder)), None)
        return
    if compact:
        from profiler.packing import packed

        emit(f"{packed(folder)}\n", None)
        return
    from domain.store import journal_in, unread_tail
    from profiler.export import exported

    written = exported(folder)
    warn(unread_tail(journal_in(folder)))
    emit("".join(f"{path}\n" for path in written), None)
