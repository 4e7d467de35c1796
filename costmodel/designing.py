"""From a promise back to what keeps it: device, network, budget, batch, precision, executor. Pure.

Every way to run every network is priced at once (`grid`); what keeps the promise by its middle value
is then held against its interval, best first, until one keeps it with the wanted probability.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.grid import Asked, batches_s
from costmodel.reach import reach_of
from costmodel.transfer import NORMAL_90, forecast
from costmodel.work import Array
from domain.architecture import Architecture
from domain.card import Budget
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.prediction import Prediction, Refusal
from domain.record import Executor, Precision, Runtime, Unknown
from domain.workload import Workload

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
# What runs of a routed network on a runtime whose shapes are fixed, and where they may change.
EXECUTORS: dict[bool, tuple[Executor, ...]] = {
    True: ("capacity", "masked"),
    False: ("packed", "padded", "capacity", "masked"),
}
FIXED_SHAPES: tuple[Runtime, ...] = ("compiled", "engine", "onnxruntime", "openvino")
# Memory must suffice with this probability.
SAFE_FIT = 0.99
# Forecasts with their interval that a way of running may cost before it is given up.
MOST_FORECASTS = 6


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that may be chosen, with its budgets; without a card their accuracy is unknown."""

    architecture: Architecture
    budgets: tuple[Budget, ...]


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What is wanted of one device.

    `p99_s` is from the first image of a batch coming in to the batch being done, kept with
    probability `confidence`; `images_per_s` come in evenly, and 0 says that batches are there whole.
    """

    p99_s: float
    confidence: float = 0.9
    images_per_s: float = 0.0
    least_accuracy: float = 0.0
    price_usd: float = math.inf

    def waiting_s(self, batch: int) -> float:
        """How long the first image of a batch waits for the last."""
        return (batch - 1) / self.images_per_s if self.images_per_s else 0.0

    def allowed_s(self, batch: int) -> float:
        """What a batch may take: the rest of the promise, and no longer than the next batch comes."""
        left_s = self.p99_s - self.waiting_s(batch)
        return min(left_s, batch / self.images_per_s) if self.images_per_s else left_s


@dataclass(frozen=True, kw_only=True)
class Design:
    """One way to keep the promise: what runs, how accurate it is, and with which probability."""

    device: DeviceSpec
    network: Network
    budget: Budget
    prediction: Prediction
    p99_s: float
    probability: float

    @property
    def accuracy(self) -> float:
        """Share of test images that were right; below all shares where nobody knows."""
        return accuracy_of(self.budget)

    @property
    def price_usd(self) -> float:
        """Of the device; infinite where nobody knows."""
        return _price_usd(self.device)

    @property
    def images_per_s(self) -> float:
        """What it can take, at the end of the interval that is counted on."""
        return self.prediction.throughput_img_per_s.low


def accuracy_of(budget: Budget) -> float:
    """What designs are compared by: an accuracy that nobody knows is worse than any."""
    return -1.0 if isinstance(budget.accuracy, Unknown) else budget.accuracy.value


# What makes one design better than another, in the order of what is compared.
PREFERENCES: dict[str, Callable[[Design], tuple[float, ...]]] = {
    "accuracy": lambda each: (-each.accuracy, each.price_usd, -each.images_per_s),
    "price": lambda each: (each.price_usd, -each.accuracy, -each.images_per_s),
    "throughput": lambda each: (-each.images_per_s, -each.accuracy, each.price_usd),
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to run one network on one device, at every budget and batch."""

    device: DeviceSpec
    network: Network
    precision: Precision
    runtime: Runtime
    executor: Executor

    def workload(self, budget: Budget, batch: int) -> Workload:
        """One of its points."""
        return Workload(
            architecture=self.network.architecture,
            batch=batch,
            precision=self.precision,
            runtime=self.runtime,
            executor=self.executor,
            routing=budget.routing,
        )


def ways_of(
    device: DeviceSpec,
    networks: Sequence[Network],
    precisions: Sequence[Precision],
    runtimes: Sequence[Runtime],
) -> Iterator[Way]:
    """Every way to run `networks` on `device`; shapes that change want a runtime that lets them."""
    for network in networks:
        is_routed = network.architecture.is_routed
        for precision in precisions:
            for runtime in runtimes:
                for executor in EXECUTORS[runtime in FIXED_SHAPES] if is_routed else ("masked",):
                    yield Way(
                        device=device, network=network, precision=precision, runtime=runtime,
                        executor=executor,
                    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Miss:
    """Why one way does not do, and the probability with which it would keep the promise."""

    device_id: str
    reason: str
    probability: float = 0.0
    is_too_dear: bool = False


def design_of(way: Way, promise: Promise, fits: Sequence[Fit], prefer: str) -> Design | Miss:
    """The best point of one way that keeps the promise; or why none does."""
    net, promised = way.network, promise.least_accuracy
    budgets = [each for each in net.budgets if accuracy_of(each) >= promised or not promised]
    if not budgets:
        best = max(accuracy_of(each) for each in net.budgets)
        known = f"is right in {best:.1%} of images at most" if best >= 0 else "has no card"
        return _miss(way, f"{net.architecture.name} {known}, wanted {promised:.1%}")
    points = [(budget, batch) for budget in budgets for batch in BATCHES]
    first = way.workload(*points[0])
    reach = reach_of(first, way.device, fits)
    if isinstance(reach, Refusal):
        return _miss(way, reach.reason)
    # A budget gives images as many tokens, or nearly: their mean stands for all.
    counts = np.array([[np.mean(budget.routing.counts, axis=0).round()] for budget, _ in points])
    sizes = np.array([batch for _, batch in points])
    seconds = batches_s(Asked.of(first, reach), counts.astype(int), sizes)
    allowed = np.array([promise.allowed_s(batch) for _, batch in points])
    rank = {
        "throughput": lambda at: (seconds[at] / sizes[at], -accuracy_of(points[at][0])),
    }.get(prefer, lambda at: (-accuracy_of(points[at][0]), seconds[at] / sizes[at]))
    order = sorted(np.flatnonzero(seconds <= allowed), key=rank)
    return _first_kept(way, promise, fits, [points[at] for at in order]) or _miss(
        way, _too_slow(seconds, allowed, points, promise)
    )


def _first_kept(
    way: Way, promise: Promise, fits: Sequence[Fit], points: Sequence[tuple[Budget, int]]
) -> Design | Miss | None:
    """The first of `points` whose interval keeps the promise too; a batch too risky, no larger one.

    None where there is none to try.
    """
    nearest: Miss | None = None
    tried = 0
    risky: dict[str, int] = {}
    for budget, batch in points:
        if batch >= risky.get(budget.name, batch + 1):
            continue
        if tried == MOST_FORECASTS:
            break
        tried += 1
        answer = forecast(way.workload(budget, batch), way.device, fits)
        if isinstance(answer, Refusal):
            nearest = nearest or _miss(way, answer.reason)
            risky[budget.name] = batch
            continue
        probability = kept(answer, promise.allowed_s(batch))
        if not isinstance(answer.fits_in_memory, Unknown) and answer.fits_in_memory < SAFE_FIT:
            nearest = nearest or _miss(way, f"batch {batch} may not fit in memory")
        elif probability >= promise.confidence:
            return Design(
                device=way.device, network=way.network, budget=budget, prediction=answer,
                p99_s=answer.latency_s.value + promise.waiting_s(batch), probability=probability,
            )  # fmt: skip
        elif nearest is None or probability > nearest.probability:
            said = f"keeps it with a probability of {probability:.0%} only (batch {batch})"
            nearest = Miss(device_id=way.device.id, reason=said, probability=probability)
        risky[budget.name] = batch
    return nearest


def kept(prediction: Prediction, allowed_s: float) -> float:
    """P(a batch takes no longer than `allowed_s`), its seconds being log-normal."""
    if allowed_s <= 0:
        return 0.0
    latency = prediction.latency_s
    log_sd = math.log(latency.high / latency.value) / NORMAL_90
    return 0.5 * (1 + math.erf(math.log(allowed_s / latency.value) / log_sd / math.sqrt(2)))


def _too_slow(
    seconds: Array, allowed: Array, points: Sequence[tuple[Budget, int]], promise: Promise
) -> str:
    at = int(np.argmin(seconds / np.maximum(allowed, 1e-12)))
    budget, batch = points[at]
    rate = f" at {promise.images_per_s:g} images/s" if promise.images_per_s else ""
    return (
        f"takes {seconds[at] * 1e3:.3g} ms for a batch of {batch} at budget {budget.name}{rate}, "
        f"{max(allowed[at], 0.0) * 1e3:.3g} ms are left for it"
    )


def _miss(way: Way, reason: str) -> Miss:
    return Miss(device_id=way.device.id, reason=reason)


def designs_of(
    devices: Sequence[DeviceSpec],
    networks: Sequence[Network],
    precisions: Callable[[DeviceSpec], Sequence[Precision]],
    runtimes: Sequence[Runtime],
    promise: Promise,
    fits: Sequence[Fit],
    prefer: str = "accuracy",
) -> tuple[list[Design], list[Miss]]:
    """The best design of each device, best first, and why the other devices do not do."""
    chosen: list[Design] = []
    missed: list[Miss] = []
    for device in devices:
        if promise.price_usd < math.inf and _price_usd(device) > promise.price_usd:
            reason = _too_dear(device, promise)
            missed.append(Miss(device_id=device.id, reason=reason, is_too_dear=True))
            continue
        found = [
            design_of(way, promise, fits, prefer)
            for way in ways_of(device, networks, precisions(device), runtimes)
        ]
        kept_ones = [each for each in found if isinstance(each, Design)]
        if kept_ones:
            chosen.append(min(kept_ones, key=PREFERENCES[prefer]))
        else:
            missed.append(max((e for e in found if isinstance(e, Miss)), key=_nearness))
    return sorted(chosen, key=PREFERENCES[prefer]), missed


def _nearness(miss: Miss) -> float:
    return miss.probability


def _price_usd(device: DeviceSpec) -> float:
    return math.inf if isinstance(device.price_usd, Unknown) else device.price_usd.value


def _too_dear(device: DeviceSpec, promise: Promise) -> str:
    if isinstance(device.price_usd, Unknown):
        return f"no price is known: {device.price_usd.reason}"
    return f"costs {device.price_usd.value:,.0f} USD, {promise.price_usd:,.0f} USD is the most"
