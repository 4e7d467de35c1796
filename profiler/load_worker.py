"""The child that serves queries: one network on one device, a clock, and images in rotation.

The images are on the device already and a pass takes the next ones in rotation, as everywhere in
this profiler; an image's copy to a GPU, decoding and the network are not in a latency.
"""

import gc
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from domain.loadtest import LoadResult, LoadScenario
from domain.measurement import PlannedPoint, Status
from domain.routing import RoutingDistribution
from domain.statistics import relative_spread
from profiler.clock import CLOCKS, Clock, DeviceKind, Laps
from profiler.conditions import Watch, judged, spare_cores
from profiler.latency import CalibrationKernel
from profiler.load import Cut, Served, poisson_arrivals_s, served, streamed
from profiler.load_evidence import most_late
from profiler.loading import MOST_QUERIES, LoadTask, failed_load
from profiler.lookout import LARGEST_UNREST
from profiler.messages import Preparation, Source, now_utc, workload_of
from profiler.protocol import warm_up
from profiler.subjects import Subject, subject_of
from profiler.telemetry import Meter
from profiler.throttling import ClockWatch
from profiler.worker import answering, failure_of, meter_of

KERNELS, SERVICE_BATCHES, MOST_SERVICE_S = 12, 32, 3.0
# How long the server may go on after the last query was due before the rest is given up.
PATIENCE, PATIENCE_S = 0.5, 10.0


class DeployedServer:
    """The network on its device; seconds since `begin`, which also forgets what was served."""

    def __init__(
        self, subject: Subject, kind: DeviceKind, images_per_query: int, most: int
    ) -> None:
        pool = torch.cat(subject.batches)
        self.distinct = len(pool)
        # Doubled over the end of the rotation, so that every batch is a slice of it.
        self._images = pool[torch.arange(self.distinct + most) % self.distinct]
        self._subject = subject
        self._per_query = images_per_query
        self._clock = CLOCKS[kind]()
        self._counts = self._images.new_zeros(0)
        self._began_s = 0.0

    def begin(self, queries: int) -> None:
        """Start the time, with room for what so many queries will be routed."""
        images = queries * self._per_query
        recursions = self._subject.point.architecture.recursions
        self._counts = torch.empty(
            images, recursions, dtype=torch.int32, device=self._images.device
        )
        self._began_s = self._clock.now_s()

    def now_s(self) -> float:
        """Wall time since `begin`."""
        return self._clock.host_s() - self._began_s

    def wait_until(self, when_s: float) -> None:
        """Sleep, as a server without work does; what it wakes late is part of the latency."""
        time.sleep(max(0.0, when_s - self.now_s()))

    def run(self, first: int, count: int) -> float:
        """Answer queries; gives when the device had done so."""
        begin, size = first * self._per_query, count * self._per_query
        output = self._subject.model(
            self._batch(begin, size), executor=self._subject.point.executor
        )
        done_s = self._clock.now_s() - self._began_s
        self._counts[begin : begin + size] = output.counts
        return done_s

    def full(self, index: int, size: int) -> None:
        """A pass on the full batch `index` of the rotation, outside of any trial."""
        self._subject.model(self._batch(index * size, size), executor=self._subject.point.executor)
        self._clock.now_s()

    def routed(self, images: int) -> tuple[RoutingDistribution, int]:
        """Counts of the distinct images served, and how many later servings differed from them."""
        counts = self._counts[:images].cpu()
        first = counts[: self.distinct]
        again = first[torch.arange(images) % len(first)]
        tokens = self._subject.point.architecture.tokens
        return (
            RoutingDistribution(tokens=tokens, counts=tuple(map(tuple, first.tolist()))),
            int((counts != again).any(dim=1).sum()),
        )

    def _batch(self, begin: int, size: int) -> Tensor:
        place = begin % self.distinct
        return self._images[place : place + size]


def main() -> int:
    """Run trials until the parent closes the pipe."""
    return answering(
        lambda line, preparation: _answer(LoadTask.model_validate_json(line), preparation)
    )


def _answer(task: LoadTask, preparation: Preparation) -> LoadResult:
    try:
        return trial(task, preparation.kind, meter_of(preparation), preparation.source)
    except Exception as error:  # whatever a trial dies of is its result; the next one goes on
        return failed_load(task, *failure_of(error))


def trial(task: LoadTask, kind: DeviceKind, meter: Meter, source: Source) -> LoadResult:
    """One trial of one scenario. Raises CannotRun, or what torch raises."""
    subject = _deployed(task.pool, kind, task.seeds.images, source)
    clock, kernel = CLOCKS[kind](), CalibrationKernel(kind)
    most = task.most_images
    server = DeployedServer(subject, kind, task.images_per_query, most)
    show = _Rotation(server, most)
    with torch.inference_mode(), subject.quietly():
        warmup = warm_up(
            show.next,
            -(-server.distinct // most),
            show.first,
            clock,
            task.settings,
            each=subject.builds_kernels,
        )
        before = _kernel_s(kernel, clock)
        service = _laps_s(show.next, clock, SERVICE_BATCHES)
        clocks = ClockWatch(meter, clock, kind)
        clocks.look()
        gc.collect()
        gc.disable()
        watch = Watch()
        try:
            seen = _SCENARIOS[task.scenario](task, server, service)
        finally:
            conditions = watch.seen()
            gc.enable()
        clocks.look()
        slowdown = clocks.slowdown()
        after = _kernel_s(kernel, clock)
    calibration = (*before, *after)
    judgement = judged(conditions, len(watch.cores), spare_cores(kind, torch.get_num_threads()))
    status, reason = _status(calibration, slowdown.causes, judgement.causes)
    notes = [*filter(None, [reason]), *slowdown.notes, *judgement.notes]
    if not warmup.is_steady:
        notes.append("the warm-up was cut before it was steady")
    count = sum(seen.batch_queries)
    routing, rerouted = server.routed(count * task.images_per_query)
    return LoadResult(
        session=task.session,
        trial=task.trial,
        taken_at=now_utc(),
        scenario=task.scenario,
        workload=workload_of(task.point, routing),
        weights=subject.weights,
        routing_source=task.point.routing_source,
        environment=task.environment,
        rates=task.rates,
        status=status,
        reason="; ".join(notes),
        seeds=task.seeds,
        asked_per_s=task.rate_per_s,
        batching=task.batching,
        images_per_query=task.images_per_query,
        arrivals_s=_stored(seen.arrivals_s),
        batch_queries=tuple(seen.batch_queries),
        started_s=_stored(seen.started_s),
        done_s=_stored(seen.done_s),
        service_s=tuple(service),
        calibration_s=calibration,
        rerouted=rerouted,
        relaxed=task.relaxed,
        conditions=conditions,
    )


def _stream(task: LoadTask, server: DeployedServer, service_s: list[float]) -> Served:
    server.begin(MOST_QUERIES // task.images_per_query)
    return streamed(server, task.seconds, MOST_QUERIES // task.images_per_query)


def _server(task: LoadTask, server: DeployedServer, service_s: list[float]) -> Served:
    assert task.rate_per_s is not None
    arrivals = poisson_arrivals_s(task.rate_per_s, task.queries, task.seeds.arrivals)
    cut = Cut(at_s=arrivals[-1] * (1 + PATIENCE) + PATIENCE_S)
    if task.promise is not None and task.stops_when_broken:
        allowed = max(0, most_late(task.queries, task.promise.share))
        cut = Cut(at_s=cut.at_s, latency_s=task.promise.latency_s, most_late=allowed)
    server.begin(len(arrivals))
    return served(arrivals, task.batching, server, cut)


def _offline(task: LoadTask, server: DeployedServer, service_s: list[float]) -> Served:
    batches = max(1, round(task.seconds * len(service_s) / sum(service_s)))
    samples = min(batches * task.most_images, MOST_QUERIES)
    server.begin(samples)
    return served((0.0,) * samples, task.batching, server)


Serve = Callable[[LoadTask, DeployedServer, list[float]], Served]
_SCENARIOS: dict[LoadScenario, Serve] = {
    "single-stream": _stream,
    "multi-stream": _stream,
    "server": _server,
    "offline": _offline,
}


class _Rotation:
    """Full batches in turn, outside of any trial."""

    def __init__(self, server: DeployedServer, size: int) -> None:
        self._server = server
        self._size = size
        self._index = 0

    def next(self) -> None:
        self._server.full(self._index, self._size)
        self._index += 1

    def first(self) -> None:
        self._server.full(0, self._size)


@lru_cache(maxsize=1)
def _deployed(pool: PlannedPoint, kind: DeviceKind, seed: int, source: Source) -> Subject:
    """The network with its images, kept from trial to trial."""
    return subject_of(pool, kind, seed, source)


def _status(
    calibration_s: Sequence[float], slowed: Sequence[str], disturbed: Sequence[str]
) -> tuple[Status, str]:
    """Status and its reason; no reason beside `ok`."""
    if slowed:
        return "throttled", f"the device slowed down: {', '.join(slowed)}"
    if disturbed:
        return "contended", "; ".join(disturbed)
    unrest = relative_spread(calibration_s)
    if unrest > LARGEST_UNREST:
        return "unstable", f"the calibration kernel spread by {unrest:.0%} (IQR over median)"
    return "ok", ""


def _kernel_s(kernel: CalibrationKernel, clock: Clock) -> list[float]:
    kernel()
    return _laps_s(kernel, clock, KERNELS)


def _laps_s(run: Callable[[], object], clock: Clock, most: int) -> list[float]:
    """Seconds of each of so many runs; fewer, but two, where they take long."""
    laps = Laps(clock)
    seconds: list[float] = []
    while len(seconds) < most and (laps.elapsed_s < MOST_SERVICE_S or len(seconds) < 2):
        run()
        seconds.append(laps.lap().wall_s)
    return seconds


def _stored(seconds: Sequence[float]) -> tuple[float, ...]:
    """To the nanosecond, the resolution of the clock: rounding keeps the order of time."""
    return tuple(round(each, 9) for each in seconds)


if __name__ == "__main__":
    sys.exit(main())
