"""`python -m profiler`: look, plan, measure, judge, probe, and test the profiler itself."""

from collections.abc import Callable

import typer

from domain.shell import run_shell
from profiler.commands import (
    benching,
    comparing,
    judging,
    loading,
    lockstep,
    measuring,
    probing,
    selftest,
)

# In the order that a newcomer meets them; each with an example for --help.
COMMANDS: tuple[tuple[Callable[..., None], str], ...] = (
    (judging.doctor, "doctor --format json"),
    (measuring.plan, "plan --default --write plan.json"),
    (measuring.run, "run --quick --out results/measurements/mine"),
    (measuring.resume, "resume results/measurements/mine"),
    (comparing.show, "show results/measurements/mine --by depth"),
    (comparing.compare, "compare results/measurements/before results/measurements/after"),
    (lockstep.lockstep, "lockstep batch=8 batch=8,executor=masked"),
    (judging.export, "export results/measurements/mine"),
    (probing.operators, "operators --minutes 3 --precision fp32,bf16"),
    (probing.largest_batch, "largest-batch --executor masked --limit-bytes 4000000000"),
    (loading.load, "load --scenario server --latency-ms 50"),
    (selftest.selftest, "selftest --quick"),
    (benching.bench, "bench --seconds 5"),
)

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__
)
for command, example in COMMANDS:
    app.command(epilog=f"Example: python -m profiler {example}")(command)


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
