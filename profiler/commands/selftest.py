"""selftest: whether the profiler's own figures can be trusted on this machine."""

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domain.complaint import INTERRUPTED, UNSTABLE
from domain.shell import emit, format_named, say
from domain.tables import rendered
from profiler.commands.options import Shape

if TYPE_CHECKING:
    from domain.lockstep import LockstepRun
    from domain.measurement import Measurement
    from profiler.selftest import Check
    from profiler.session import Session

# Seconds of the harness, pairs at batch 1 and 32, synthetic pairs, real pairs and their runs.
FULL, SHORT = (10.0, 1000, 1000, 200, 20, 5), (1.0, 60, 10, 20, 3, 3)


def selftest(
    quick: Annotated[
        bool, typer.Option("--quick", help="Two minutes, to see that it works; else about twenty.")
    ] = False,
    journal: Annotated[
        Path | None, typer.Option(help="Whose noise to replay; else the newest journal.")
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Replace the committed reference self-test.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Write the table there.")] = None,
    format: Shape = "table",
) -> None:
    """Measure the profiler itself: overhead, false alarms, interference; exit 3 where a check fails.

    On a machine that does nothing else.
    """
    shape = format_named(format)
    import torch

    from domain.store import newest_journal, read_journal, reference_root, results_root, save
    from profiler.environment import usable_cores
    from profiler.latency import CalibrationKernel
    from profiler.lockstep_trials import real_checks, replayed_checks
    from profiler.messages import now_utc
    from profiler.selftest import (
        SelfTest,
        aa_check,
        harness_checks,
        interference_checks,
        noise_checks,
        rows_of,
        swap_checks,
    )
    from profiler.splitting import splitting_checks
    from profiler.starting import source_commit

    harness_s, ones, large, synthetic, pairs, runs = SHORT if quick else FULL
    id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    folder = results_root() / "selftest" / id
    noise = newest_journal(journal)
    checks: list[Check] = []

    def told(*seen: "Check") -> None:
        for check in seen:
            say(f"{'PASS' if check.passed else 'FAIL'} {check.name}")
        checks.extend(seen)

    torch.set_num_threads(usable_cores())
    with torch.inference_mode():
        told(*harness_checks(CalibrationKernel("cpu"), harness_s))
    told(*splitting_checks(1, ones), *splitting_checks(32, large))
    session = _session(id, pairs, runs)
    told(*interference_checks(session.rates))
    turns = _turns(session, folder)
    told(*real_checks(turns), *replayed_checks(turns, synthetic))
    alike = _measured(session, folder)
    told(aa_check(alike)[0])
    told(*swap_checks(alike, synthetic))
    told(*noise_checks(lambda: read_journal(noise), synthetic))
    tested = SelfTest(
        taken_at=now_utc(),
        is_quick=quick,
        environment=session.environment,
        source_commit=source_commit(),
        checks=tuple(checks),
    )
    stored = reference_root() / "selftest.json" if reference else folder / "selftest.json"
    save(tested, stored)
    emit(rendered(rows_of(tested), shape), output)
    say(f"stored {stored}")
    if not tested.has_passed:
        raise typer.Exit(UNSTABLE)


def _session(id: str, pairs: int, runs: int) -> "Session":
    """A session of A/A pairs on the CPU, with the rates of now."""
    from profiler.environment import usable_cores
    from profiler.messages import Preparation, now_utc
    from profiler.protocol import SETTINGS
    from profiler.selftest import aa_plan
    from profiler.session import Session, prepared_worker

    preparation = Preparation(kind="cpu", threads=usable_cores(), wants_rates=True)
    worker, environment, rates = prepared_worker(preparation)
    worker.end()
    assert rates is not None
    return Session(
        id=id,
        started_at=now_utc(),
        mode="quick",
        settings=SETTINGS["quick"],
        seed=0,
        plan=aa_plan(pairs, runs),
        preparation=preparation,
        environment=environment,
        rates=rates,
    )


def _turns(session: "Session", folder: Path) -> "tuple[LockstepRun, ...]":
    """Pairs in lockstep, run now: each point against itself, and against itself slowed down."""
    from profiler.lockstep import JOURNAL, Contest, contested
    from profiler.lockstep_trials import SHORT_TURNS, trial_pairs
    from profiler.session import Stop

    contest = Contest(
        session=session.id,
        pairs=trial_pairs(session.plan),
        settings=SHORT_TURNS,
        seed=session.seed,
        preparation=session.preparation,
        environment=session.environment,
    )
    with Stop(say) as stop:
        records = contested(contest, folder / JOURNAL, stop=stop, report=_said_where_lost)
    if stop.is_asked:
        say("stopped; nothing was concluded")
        raise typer.Exit(INTERRUPTED)
    return records


def _said_where_lost(record: "LockstepRun") -> None:
    if not record.is_usable:
        say(f"run {record.run} {record.after.id}: {record.status} {record.reason}")


def _measured(session: "Session", folder: Path) -> "tuple[Measurement, ...]":
    """The records of a session, run now; exit 130 where a person stopped it."""
    from domain.store import save
    from profiler.session import SESSION, Stop, measure

    save(session, folder / SESSION)

    def report(record: "Measurement", number: int, total: int) -> None:
        if number % 20 == 0 or number == total or not record.is_usable:
            say(f"{number}/{total} {record.point}: {record.status} {record.reason}")

    with Stop(say) as stop:
        records = measure(session, folder, stop=stop, report=report)
    if stop.is_asked:
        say("stopped; nothing was concluded")
        raise typer.Exit(INTERRUPTED)
    return records
