"""`python -m reports`: one offline HTML file. Also the door of the console script `morsizer`."""

import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer

from domain.complaint import Complaint, nearest, printable
from domain.locale import Language
from domain.shell import run_shell

# A word of the console script, and the module that `python -m` runs for it.
COMMANDS = {
    "report": "reports",
    "profile": "profiler",
    "fit": "costmodel.fit",
    "predict": "costmodel.predict",
    "validate": "costmodel.validate",
    "size": "scenarios.size",
    "compare": "scenarios.compare",
    "sweep": "scenarios.sweep",
    "accept": "scenarios.accept",
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python -m reports --language ja --output report.html")
def report(
    session: Annotated[
        Path | None, typer.Option(help="Folder of one session; without it, the newest.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Where to write; without it, results/reports/<session>.html."),
    ] = None,
    language: Annotated[Language, typer.Option(help="Language of the report.")] = "en",
) -> None:
    """Write one offline HTML report of what was measured, predicted and priced.

    Shows the newest results, or the committed reference where there are none, and says which. The
    path is printed on stdout.
    """
    from datetime import UTC, datetime

    from domain.store import results_root, write_whole
    from reports.contents import Absent
    from reports.gather import contents_of
    from reports.report import html_of

    now = datetime.now(UTC)
    contents = contents_of(session, made_at=f"{now:%Y-%m-%d %H:%M} UTC")
    name = f"{now:%Y%m%dT%H%M%SZ}"
    if not isinstance(contents.measurements, Absent) and not contents.measurements.is_reference:
        name = contents.measurements.value[0].session
    path = output or results_root() / "reports" / f"{name}.html"
    write_whole(path, html_of(contents, language).encode())
    for part in contents.parts.values():
        if isinstance(part, Absent) and part.complaint:
            typer.echo(printable(f"warning: {part.complaint}"), err=True)
    typer.echo(path)


def main() -> None:
    """The console script: the first word names a command, the rest is for that command."""
    run_shell(_dispatched)


def _dispatched() -> None:
    word, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if word in ("-h", "--help"):
        typer.echo("Usage: morsizer COMMAND [OPTIONS]\n\nCommands (each has its own --help):")
        for name, module in COMMANDS.items():
            typer.echo(f"  {name:10} python -m {module}")
        return
    if word not in COMMANDS:
        raise Complaint(f"no command {word!r}; {nearest(word, COMMANDS)}")
    module = COMMANDS[word]
    sys.argv = [f"morsizer {word}", *rest]
    if word == "report":
        app(prog_name=sys.argv[0])
    elif importlib.util.find_spec(module) is None:
        raise Complaint(f"{module} is not installed here, so `morsizer {word}` can not run")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run_shell(app)
