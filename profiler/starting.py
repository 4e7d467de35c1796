"""How a session begins, is taken up again, and what is stored beside its journal at the end."""

import secrets
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from domain.complaint import Complaint
from domain.measurement import MeasuringPlan
from domain.shell import warn
from domain.store import (
    COMPACT_JOURNAL,
    check_free,
    load,
    results_root,
    save,
    unread_tail,
    write_trace,
)
from profiler.design import COSTS, PRIOR_LOG_SD, log_sds, minutes_up
from profiler.doctor import findings, looked
from profiler.energy import demand_of
from profiler.environment import choose_device, usable_cores
from profiler.inputs import check_same_inputs, checked_inputs
from profiler.messages import Preparation, Source, now_utc
from profiler.presence import Choice
from profiler.protocol import SETTINGS, Mode, Settings
from profiler.session import (
    JOURNAL,
    SESSION,
    Session,
    check_same,
    check_storage,
    prepared_worker,
    record_bytes,
    taken_up,
)
from profiler.supervisor import Worker
from profiler.sweep import built_in_plan, expected_plan_s, most_plan_s, reference_plan

DECIDED_IMAGES = 12
TRACED_IMAGES = 4096
Say = Callable[[str], None]
Lock = Callable[[Choice], str]


def plan_of(
    mode: Mode, plan_file: Path | None, source: Source, budget_s: float | None = None
) -> MeasuringPlan:
    """The plan in a file, else the built-in one of that mode, around the source's network.

    A budget chooses among the built-in points; of a file, nothing is left out.
    """
    if plan_file is not None:
        if budget_s is not None:
            raise Complaint(
                "--budget chooses among the built-in points; a --plan is measured whole"
            )
        return load(plan_file, MeasuringPlan, altered=warn)
    from profiler.source import network_of

    return built_in_plan(mode, network_of(source)[1].architecture, budget_s)


def reference_plan_of(mode: Mode) -> MeasuringPlan:
    """The plan of the committed reference, around the shipped network."""
    from profiler.source import network_of

    return reference_plan(network_of(Source())[1].architecture, mode)


def said_of(plan: MeasuringPlan, mode: Mode) -> Iterator[str]:
    """How long a plan takes, expected and at most, and which costs it tells from each other."""
    settings = Settings(**{**dict(SETTINGS[mode]), "runs": plan.runs})
    expected = minutes_up(expected_plan_s(plan.points, settings))
    most = minutes_up(most_plan_s(plan.points, settings))
    yield (
        f"{len(plan.points)} points, {plan.runs} runs: about {expected} min (rates of one server "
        f"core assumed), at most about {most} min where nothing disturbs"
    )
    demand = demand_of(settings)
    joules = minutes_up(plan.runs * len(plan.points) * demand.windows * demand.window_s)
    yield f"a device with an energy meter takes about {joules} min more"
    spread = log_sds(plan.points)
    told = [cost for cost in COSTS if spread[cost] <= PRIOR_LOG_SD / 2]
    rest = [cost for cost in COSTS if cost not in told]
    yield f"tells apart: {', '.join(told) or 'nothing'}; hardly: {', '.join(rest) or 'nothing'}"


def started(
    *,
    device: str,
    mode: Mode,
    plan_file: Path | None,
    budget_s: float | None = None,
    out: Path | None,
    seed: int,
    threads: int | None,
    source: Source,
    say: Say,
    lock: Lock = lambda _: "",
) -> tuple[Session, Path, Worker]:
    """A new session in its folder, and the worker that already measured the machine's rates.

    `lock` locks the clocks of the chosen device and says to what, empty for not at all.
    """
    choice = choose_device(device)
    plan = plan_of(mode, plan_file, source, budget_s)
    began = datetime.now(UTC)
    id = f"{began:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    folder = out if out is not None else results_root() / "measurements" / id
    if any((folder / name).exists() for name in (JOURNAL, COMPACT_JOURNAL, SESSION)):
        raise Complaint(
            f"{folder} already holds a session; go on with `python -m profiler resume {folder}` or "
            f"name another --out"
        )
    weights, images = checked_inputs(plan, source)
    settings = SETTINGS[mode]
    check_storage(folder, plan.runs * len(plan.points) * record_bytes(settings))
    found = findings(looked(threads))
    for finding in found:
        if finding.level != "PASS":
            say(f"{finding.level} {finding.subject}: {finding.found}; {finding.cure}")
    preparation = Preparation(
        kind=choice.kind,
        gpu_name=choice.gpu.name if choice.gpu else "",
        gpu_uuid=choice.gpu.uuid if choice.gpu else "",
        threads=threads or usable_cores(),
        wants_rates=True,
        source=source,
        locked_clocks=lock(choice),
    )
    if settings.relaxed:
        say(f"{mode}: minimum counts relaxed; the records say so")
    for line in said_of(plan, mode):
        say(line)
    worker, environment, rates = prepared_worker(preparation)
    assert rates is not None
    session = Session(
        id=id,
        started_at=now_utc(),
        mode=mode,
        settings=settings,
        seed=seed,
        plan=plan,
        preparation=preparation,
        environment=environment,
        rates=rates,
        findings=found,
        source_commit=source_commit(),
        weights_sha256=weights,
        images_sha256=images,
    )
    try:
        save(session, folder / SESSION)
    except BaseException:
        worker.end()
        raise
    return session, folder, worker


def resumed(
    folder: Path, say: Say, lock: Callable[[Preparation], object] = lambda _: ""
) -> tuple[Session, Worker | None]:
    """A session to go on with: the same plan and seed, rates of today.

    Raises Complaint in another environment. Without anything left to do there is no worker.
    """
    if (folder / COMPACT_JOURNAL).exists() and not (folder / JOURNAL).exists():
        raise Complaint(
            f"{folder} holds a compact journal, which nothing is added to; start a new session with "
            f"`python -m profiler run`"
        )
    check_free(folder / JOURNAL)  # before a worker starts beside the one that measures there
    session, records = taken_up(folder)
    if (folder / JOURNAL).exists() and (damage := unread_tail(folder / JOURNAL)):
        say(f"{damage}; they are kept in {JOURNAL}.torn and measured again")
    left = session.plan.runs * len(session.plan.points) - len(records)
    say(f"{len(records)} measured, {left} left")
    # Of a finished session, too: what the network decides is stored beside its journal again.
    weights, images = checked_inputs(session.plan, session.preparation.source)
    check_same_inputs("checkpoint", session.weights_sha256, weights)
    check_same_inputs("image folder", session.images_sha256, images)
    if left == 0:
        return session, None
    check_storage(folder, left * record_bytes(session.effective))
    lock(session.preparation)
    worker, environment, rates = prepared_worker(session.preparation)
    try:
        check_same(session.environment, environment)
    except Complaint:
        worker.end()
        raise
    assert rates is not None
    return Session(**{**dict(session), "rates": rates}), worker


def store_beside(folder: Path, source: Source) -> None:
    """Store what the network decides on its images: routing, and some to look at."""
    from domain.complaint import CorruptFile
    from morvit.trace import decisions_of, routing_of
    from profiler.source import network_of, pictures_of, weights_of

    try:
        model, card = network_of(source)
        net = card.architecture
        seen = pictures_of(source, net.image_size, net.channels)
    except CorruptFile:
        return  # a plan of random weights needs no checkpoint, and the doctor said that it lacks
    write_trace(routing_of(model, seen.images[:TRACED_IMAGES]), folder / "routing.parquet")
    few = slice(DECIDED_IMAGES)
    decided = decisions_of(
        model,
        seen.images[few],
        seen.labels[few],
        seen.names,
        weights_of(source, card),
        card.classes,
    )
    save(decided, folder / "decisions.json")


def source_commit() -> str:
    """Commit of this checkout and whether it was changed since; unknown outside one."""
    root = Path(__file__).resolve().parent.parent
    try:
        commit, status = (
            subprocess.run(  # noqa: S603 - fixed arguments
                ["git", "-C", str(root), *arguments],  # noqa: S607 - the user's git
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}{' with changes' if status else ''}"
