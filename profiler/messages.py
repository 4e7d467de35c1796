"""What the parent and a worker tell each other: one JSON line each way. No torch here."""

from datetime import UTC, datetime
from typing import Literal

from domain.measurement import Environment, Measurement, PlannedPoint, Rates, Status
from domain.record import Identifier, PositiveCount, Record
from domain.routing import RoutingDistribution
from domain.workload import Workload
from profiler.presence import Choice, Gpu
from profiler.protocol import Settings
from profiler.routings import presumed_routing


class Source(Record):
    """A checkpoint and a folder of `class/name.png` images; empty means what is shipped."""

    checkpoint: str = ""
    images: str = ""


SHIPPED_SOURCE = Source()


class Preparation(Record):
    """First line to a worker: on what it measures; whether the rates are wanted.

    `locked_clocks` says to what the parent holds a GPU's clocks, empty for as deployed.
    `memory_limit_bytes` is what the worker may take: of its own data on a CPU, libraries included;
    of the device on a GPU.
    """

    kind: Literal["cpu", "cuda"]
    gpu_name: str = ""
    gpu_uuid: str = ""
    threads: PositiveCount
    wants_rates: bool = False
    source: Source = SHIPPED_SOURCE
    memory_limit_bytes: PositiveCount | None = None
    locked_clocks: str = ""

    @property
    def choice(self) -> Choice:
        """The device that was chosen."""
        gpu = Gpu(index=0, name=self.gpu_name, uuid=self.gpu_uuid) if self.gpu_name else None
        return Choice(kind=self.kind, gpu=gpu)


class Prepared(Record):
    """The worker's answer: where it is, or why it cannot measure."""

    environment: Environment | None = None
    rates: Rates | None = None
    complaint: str = ""


class Task(Record):
    """Every further line: one point of one run. The answer is a Measurement."""

    point: PlannedPoint
    run: PositiveCount
    session: Identifier
    seed: int
    settings: Settings
    environment: Environment
    rates: Rates


def workload_of(point: PlannedPoint, routing: RoutingDistribution) -> Workload:
    """What a point runs, under the routing that it had."""
    return Workload(
        architecture=point.architecture,
        batch=point.batch,
        precision=point.precision,
        runtime=point.runtime,
        executor=point.executor,
        routing=routing,
    )


def failed(task: Task, status: Status, reason: str) -> Measurement:
    """The record of a point that gave no number, and why."""
    point = task.point
    return Measurement(
        point=point.id,
        run=task.run,
        session=task.session,
        taken_at=now_utc(),
        workload=workload_of(point, presumed_routing(point, task.seed)),
        subject=point.subject,
        weights=f"{point.weights}, not run",
        routing_source=point.routing_source,
        environment=task.environment,
        rates=task.rates,
        status=status,
        reason=" ".join(reason.split())[:600] or "no reason was given",
        seed=task.seed,
    )


def now_utc() -> str:
    """The time of day, for a record."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
