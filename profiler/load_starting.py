"""How a load test begins: the device, the network, its folder and a worker that is ready."""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from domain.complaint import Complaint
from domain.loadtest import Batching, LatencyPromise, LoadScenario, LoadSeeds
from domain.measurement import PlannedPoint
from domain.record import Executor, Precision
from domain.store import results_root, save
from profiler.doctor import findings, looked
from profiler.environment import choose_device, usable_cores
from profiler.loading import (
    LEAST_SECONDS,
    LOAD_JOURNAL,
    LOAD_WORKER,
    MOST_QUERIES,
    LoadSession,
)
from profiler.messages import Preparation, Source, now_utc
from profiler.protocol import SETTINGS
from profiler.routings import DISTINCT_IMAGES
from profiler.session import SESSION, check_storage, prepared_worker
from profiler.starting import source_commit
from profiler.supervisor import Worker

# Of one query in the journal; and how many a search of unknown rates is presumed to make.
BYTES_PER_QUERY, QUERIES_OF_SEARCH = 48, 200_000


def started_load(
    *,
    scenario: LoadScenario,
    device: str,
    threads: int | None,
    source: Source,
    executor: Executor,
    precision: Precision,
    images_per_query: int,
    batching: Batching,
    seconds: float,
    rate_per_s: float | None,
    promise: LatencyPromise | None,
    seed: int,
    out: Path | None,
    say: Callable[[str], None],
) -> tuple[LoadSession, Path, Worker]:
    """A new load test in its folder, and its worker. Raises Complaint for what cannot be tested."""
    from profiler.source import network_of, pictures_of

    if rate_per_s is not None and rate_per_s * seconds > MOST_QUERIES:
        raise Complaint(
            f"wanted {MOST_QUERIES} queries at most, got {rate_per_s:g} per second for "
            f"{seconds:g} s; shorten --seconds"
        )
    choice = choose_device(device)
    card = network_of(source)[1]
    network = card.architecture
    pictures = pictures_of(source, network.image_size, network.channels)
    began = datetime.now(UTC)
    id = f"{began:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    folder = out if out is not None else results_root() / "loads" / id
    if (folder / LOAD_JOURNAL).exists() or (folder / SESSION).exists():
        raise Complaint(f"{folder} already holds a session; name another --out")
    queries = QUERIES_OF_SEARCH if rate_per_s is None else rate_per_s * seconds
    check_storage(folder, int(queries * BYTES_PER_QUERY))
    found = findings(looked(threads))
    for finding in found:
        if finding.level != "PASS":
            say(f"{finding.level} {finding.subject}: {finding.found}; {finding.cure}")
    if seconds < LEAST_SECONDS:
        say(f"{seconds:g} s are fewer than {LEAST_SECONDS:g}; the records say so")
    if len(pictures.images) < DISTINCT_IMAGES:
        say(f"{len(pictures.images)} distinct images; wanted {DISTINCT_IMAGES}, or caches flatter")
    preparation = Preparation(
        kind=choice.kind,
        gpu_name=choice.gpu.name if choice.gpu else "",
        gpu_uuid=choice.gpu.uuid if choice.gpu else "",
        threads=threads or usable_cores(),
        wants_rates=True,
        source=source,
    )
    most = batching.most_batch * images_per_query
    point = PlannedPoint(
        id=f"{scenario}-b{most}",
        architecture=network,
        weights="shipped",
        batch=most,
        precision=precision,
        executor=executor,
        routing_source="real-images",
    )
    worker, environment, rates = prepared_worker(preparation, LOAD_WORKER)
    assert rates is not None
    session = LoadSession(
        id=id,
        started_at=now_utc(),
        scenario=scenario,
        point=point,
        seeds=LoadSeeds(arrivals=seed, images=seed),
        images_per_query=images_per_query,
        batching=batching,
        seconds=seconds,
        rate_per_s=rate_per_s,
        promise=promise,
        settings=SETTINGS["quick" if seconds < LEAST_SECONDS else "default"],
        preparation=preparation,
        environment=environment,
        rates=rates,
        findings=found,
        source_commit=source_commit(),
        weights_sha256=card.weights_sha256,
    )
    try:
        save(session, folder / SESSION)
    except BaseException:
        worker.end()
        raise
    return session, folder, worker
