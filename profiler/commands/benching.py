"""bench: the network's claims, measured side by side in one run."""

from pathlib import Path
from typing import Annotated

import typer

from domain.complaint import UNSTABLE, Complaint
from domain.shell import emit, format_named, say
from domain.tables import rendered
from profiler.commands.options import Shape


def bench(
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Of each pair of things that are shown turn about.")
    ] = 20.0,
    networks: Annotated[
        Path | None,
        typer.Option(help="Folder of trained networks and their cards; else the reference."),
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(
            help="Of accuracy, contrast, packing, throughput, compiled: these alone; the others' "
            "rows stay as the reference has them. Else all but compiled, which takes a compiler "
            "and minutes for each network."
        ),
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Replace the committed reference table.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Write the table there.")] = None,
    format: Shape = "table",
) -> None:
    """Packing against its ideal; MoR-ViT against a ViT and its controls; exit 3 where a bar is missed.

    On a machine that does nothing else. Twenty minutes or so with 20 seconds a pair.
    """
    shape = format_named(format)
    import torch

    from domain.store import reference_root, results_root, write_whole
    from profiler.benching import packing_rows, speed_rows
    from profiler.contest import (
        Row,
        accuracy_rows,
        cells_of,
        contrast_rows,
        in_order,
        parts_named,
        rows_kept,
        trained_in,
    )
    from profiler.environment import usable_cores

    asked = parts_named(parts)
    folder = networks if networks is not None else reference_root() / "networks"
    if not folder.is_dir():
        raise Complaint(f"no folder {folder} of trained networks; run `python -m morvit.train`")
    torch.set_num_threads(usable_cores())
    options = (
        f"{f' --parts {parts}' if parts else ''}{f' --networks {folder.name}' if networks else ''}"
    )
    command = f"python -m profiler bench --seconds {seconds:g}{options}"
    trained = trained_in(folder)
    rows = rows_kept(reference_root() / "bench.json", asked) if parts else []
    table, stored = b"[]", results_root() / "selftest" / "bench.json"
    found = {
        "accuracy": accuracy_rows(trained, command),
        "contrast": contrast_rows(trained, command),
        "packing": packing_rows(seconds, command),
        "throughput": speed_rows(trained, seconds, command),
        "compiled": speed_rows(trained, seconds, command, is_compiled=True),
    }
    for part in asked:
        for row in found[part]:
            rows = in_order([*rows, Row(**{**dict(row), "part": part})])
            cells = cells_of(row)
            say(f"{cells['met'] or '    '} {cells['value'] or 'n/a'} {row.bar}")
            # After every row: a bench that is cut off has shown what it has.
            table = rendered([each.model_dump(mode="json") for each in rows], "json").encode()
            write_whole(stored, table)
    if reference:
        stored = reference_root() / "bench.json"
        write_whole(stored, table)
    emit(rendered([cells_of(row) for row in rows], shape), output)
    say(f"stored {stored}")
    if any(row.met is False for row in rows):
        raise typer.Exit(UNSTABLE)
