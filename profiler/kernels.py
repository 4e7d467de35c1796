"""The operators themselves, as the network calls them, and the worker that times them.

Operands come in four sets that take turns, all of them apart: inputs differ from call to call, and a
weight comes back at every fourth product, as in a layer whose block is repeated (it has four). So
the cache is as warm as in the network: what four sets leave in it stays, what they overflow is gone.
The call through Python and torch's dispatcher is in the time, as it is in the network's.
"""

import gc
import sys
from collections.abc import Callable
from functools import partial
from itertools import cycle

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from domain.complaint import Complaint
from domain.measurement import Status
from domain.microbenchmark import OperatorClass, OperatorPoint, OperatorTiming
from domain.statistics import relative_spread
from morvit.attention import mixed
from profiler.clock import CLOCKS, DeviceKind
from profiler.conditions import Judgement, Watch, judged, spare_cores
from profiler.latency import CalibrationKernel
from profiler.lookout import LARGEST_UNREST
from profiler.messages import Preparation, now_utc
from profiler.microbench import OperatorTask, untimed
from profiler.operators import PRECISIONS_OF, work_of
from profiler.protocol import Settings, Timings, inner_loop, sample, warm_up
from profiler.subjects import allow_tf32, dtype_of
from profiler.worker import answering, failure_of

SETS = 4
# Of the time of a point: to get warm, and to be measured.
WARM_SHARE, MEASURED_SHARE = 0.2, 0.8

Call = Callable[[], object]


class Pool:
    """Random numbers to cut operands from, each operand at a place of its own in memory."""

    def __init__(self, precision_of: OperatorPoint, kind: DeviceKind, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._values = torch.randn(2**16 + 7, generator=generator).numpy()
        self._generator = generator
        self._dtype = dtype_of(precision_of.precision)
        self._kind = kind

    def operand(self, *shape: int) -> Tensor:
        """A matrix of its own, small enough that products stay finite."""
        start = int(torch.randint(1, 2**16, (), generator=self._generator))
        filled = torch.empty(shape)
        # By numpy, in this thread: waking torch's threads for each operand took longer than filling.
        scaled = np.roll(self._values, start) / np.float32(shape[-1] ** 0.5)
        np.copyto(filled.numpy(), np.resize(scaled, shape))
        return filled.to(self._kind, self._dtype)

    def places(self, rows: int, kept: int) -> Tensor:
        """Which rows go on: some of all, in order, as the packed executor has them."""
        order = torch.randperm(rows, generator=self._generator)[:kept]
        return order.sort().values.to(self._kind)


def _gemm(point: OperatorPoint, pool: Pool) -> Call:
    """A linear layer without bias: rows times the transposed weight."""
    rows = pool.operand(point.rows, point.width)
    weight = pool.operand(point.out_width, point.width)
    return partial(functional.linear, rows, weight)


def _attention(point: OperatorPoint, pool: Pool) -> Call:
    """Attention within each image; q, k and v are views of one projection, as in a layer."""
    projected = pool.operand(point.images, point.rows, 3 * point.width)
    queries, keys, values = projected.view(*projected.shape[:2], 3, point.heads, -1).unbind(-3)
    return partial(mixed, queries, keys, values)


def _elementwise(point: OperatorPoint, pool: Pool) -> Call:
    """Layer norm with scale and shift, then GELU (erf), then the input added: three calls."""
    rows = pool.operand(point.rows, point.width)
    scale, shift = pool.operand(point.width), pool.operand(point.width)

    def call() -> Tensor:
        normal = functional.layer_norm(rows, (point.width,), scale, shift)
        return functional.gelu(normal) + rows

    return call


def _gather(point: OperatorPoint, pool: Pool) -> Call:
    """Rows taken out into a matrix of their own."""
    rows, places = pool.operand(point.rows, point.width), pool.places(point.rows, point.out_rows)
    return partial(rows.index_select, 0, places)


def _scatter(point: OperatorPoint, pool: Pool) -> Call:
    """Rows put back into a copy of the matrix."""
    rows, places = pool.operand(point.rows, point.width), pool.places(point.rows, point.out_rows)
    return partial(rows.index_copy, 0, places, pool.operand(point.out_rows, point.width))


CALLS: dict[OperatorClass, Callable[[OperatorPoint, Pool], Call]] = {
    "gemm": _gemm,
    "attention": _attention,
    "elementwise": _elementwise,
    "gather": _gather,
    "scatter": _scatter,
}


def calls_of(point: OperatorPoint, kind: DeviceKind, seed: int) -> tuple[Call, ...]:
    """The operator on each set of operands. Raises Complaint for a precision it has none of."""
    if point.precision not in PRECISIONS_OF[kind]:
        raise Complaint(
            f"an operator alone is not run in {point.precision} on {kind}; there are "
            f"{', '.join(PRECISIONS_OF[kind])}"
        )
    allow_tf32(point.precision == "tf32")
    pool = Pool(point, kind, seed)
    return tuple(CALLS[point.operator](point, pool) for _ in range(SETS))


@torch.inference_mode()
def timed(task: OperatorTask, kind: DeviceKind) -> OperatorTiming:
    """One run of one operator: warm up, then samples for its share of the time."""
    settings = _settings(task.share_s)
    calls = calls_of(task.point, kind, task.seed)
    turns = cycle(calls)
    kernel = CalibrationKernel(kind)
    clock = CLOCKS[kind]()

    def call() -> None:
        next(turns)()

    kernel()
    gc.disable()
    watch = Watch()
    try:
        warmup = warm_up(call, SETS, call, clock, settings)
        timings = sample(call, kernel, SETS, inner_loop(warmup, settings), clock, settings)
    finally:
        gc.enable()
    seen = watch.seen()
    spare = spare_cores(kind, task.environment.threads)
    status, reason = _verdict(timings, judged(seen, len(watch.cores), spare))
    work = work_of(task.point)
    return OperatorTiming(
        point=task.point,
        run=task.run,
        session=task.session,
        taken_at=now_utc(),
        environment=task.environment,
        rates=task.rates,
        status=status,
        reason=reason,
        flop=work.flop,
        bytes_moved=work.bytes_moved,
        samples_s=tuple(timings.samples_s),
        cpu_samples_s=tuple(timings.cpu_samples_s),
        calibration_s=tuple(timings.calibration_s),
        conditions=seen,
        seed=task.seed,
    )


def _settings(share_s: float) -> Settings:
    """The protocol of a point that has so much time: all of it is used, whatever the spread."""
    return Settings(
        mode="quick",
        runs=1,
        least_warmups=SETS,
        least_warmup_s=0.25 * WARM_SHARE * share_s,
        most_warmup_s=WARM_SHARE * share_s,
        least_samples=1,
        least_s=MEASURED_SHARE * share_s,
        most_s=MEASURED_SHARE * share_s,
        half_width=0.01,
        least_pairs=1,
        most_pairs_s=1.0,
        energy_s=1.0,
        timeout_s=60.0,
        relaxed=True,
    )


def _verdict(timings: Timings, judgement: Judgement) -> tuple[Status, str]:
    """Status and reason; a reason beside `ok` is a note."""
    if judgement.causes:
        return "contended", "; ".join(judgement.causes)
    unrest = relative_spread(timings.calibration_s)
    if unrest > LARGEST_UNREST:
        return "unstable", f"the calibration kernel spread by {unrest:.0%} (IQR over median)"
    return "ok", "; ".join(judgement.notes)


def _answer(line: str, preparation: Preparation) -> OperatorTiming:
    task = OperatorTask.model_validate_json(line)
    try:
        return timed(task, preparation.kind)
    except Exception as error:  # whatever an operator dies of is its result; the next one goes on
        return untimed(task, *failure_of(error))


if __name__ == "__main__":
    sys.exit(answering(_answer))
