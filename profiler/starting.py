"""How a session begins, is taken up again, and what is stored beside its journal at the end."""

import math
import secrets
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from domain.complaint import Complaint
from domain.measurement import MeasuringPlan
from domain.store import load, results_root, save, write_trace
from profiler.doctor import findings, looked
from profiler.environment import choose_device, usable_cores
from profiler.messages import Preparation, Source, now_utc
from profiler.protocol import SETTINGS, Mode
from profiler.session import (
    JOURNAL,
    SESSION,
    Session,
    check_same,
    check_storage,
    prepared_worker,
    taken_up,
)
from profiler.supervisor import Worker
from profiler.sweep import built_in_plan, estimated_s

DECIDED_IMAGES = 12
TRACED_IMAGES = 4096
Say = Callable[[str], None]


def plan_of(mode: Mode, plan_file: Path | None, source: Source) -> MeasuringPlan:
    """The plan in a file, else the built-in one of that mode, around the source's network."""
    if plan_file is not None:
        return load(plan_file, MeasuringPlan)
    from profiler.source import network_of

    return built_in_plan(mode, network_of(source)[1].architecture)


def started(
    *,
    device: str,
    mode: Mode,
    plan_file: Path | None,
    out: Path | None,
    seed: int,
    threads: int | None,
    source: Source,
    say: Say,
) -> tuple[Session, Path, Worker]:
    """A new session in its folder, and the worker that already measured the machine's rates."""
    choice = choose_device(device)
    plan = plan_of(mode, plan_file, source)
    began = datetime.now(UTC)
    id = f"{began:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    folder = out if out is not None else results_root() / "measurements" / id
    if (folder / JOURNAL).exists() or (folder / SESSION).exists():
        raise Complaint(
            f"{folder} already holds a session; go on with `python -m profiler resume {folder}` or "
            f"name another --out"
        )
    weights = _checked_inputs(plan, source)
    check_storage(folder, plan.runs * len(plan.points))
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
    )
    settings = SETTINGS[mode]
    if settings.relaxed:
        say(f"{mode}: minimum counts relaxed; the records say so")
    minutes = math.ceil(estimated_s(plan, mode) / 60)
    say(f"{len(plan.points)} points, {plan.runs} runs, at most about {minutes} min")
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
        source_commit=_source_commit(),
        weights_sha256=weights,
    )
    try:
        save(session, folder / SESSION)
    except BaseException:
        worker.end()
        raise
    return session, folder, worker


def _checked_inputs(plan: MeasuringPlan, source: Source) -> str:
    """Checksum of the weights, empty where no point wants any.

    A checkpoint or an image that cannot be read stops the session before it begins.
    """
    from profiler.source import network_of, pictures_of

    if source.images:
        for net in {point.architecture.key(): point.architecture for point in plan.points}.values():
            pictures_of(source, net.image_size, net.channels)
    if not source.checkpoint and all(point.weights == "random" for point in plan.points):
        return ""
    return network_of(source)[1].weights_sha256


def resumed(folder: Path, say: Say) -> tuple[Session, Worker | None]:
    """A session to go on with: the same plan and seed, rates of today.

    Raises Complaint in another environment. Without anything left to do there is no worker.
    """
    session, records = taken_up(folder)
    left = session.plan.runs * len(session.plan.points) - len(records)
    say(f"{len(records)} measured, {left} left")
    if left == 0:
        return session, None
    weights = _checked_inputs(session.plan, session.preparation.source)
    if weights != session.weights_sha256:
        raise Complaint(
            f"the checkpoint is another than the one this session began with (sha256 "
            f"{weights[:16] or 'none'}, was {session.weights_sha256[:16] or 'none'}); start a new "
            f"session with `python -m profiler run`"
        )
    check_storage(folder, left)
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


def _source_commit() -> str:
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
