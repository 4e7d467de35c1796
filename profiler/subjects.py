"""From a planned point to something that runs: the network or one of its recursions, on batches."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from domain.measurement import PlannedPoint
from domain.record import Executor, Precision
from domain.routing import RoutingDistribution
from morvit.data import normalised
from morvit.executors import EXECUTORS
from morvit.model import MoRViT, Output, Route
from morvit.votes import Orders
from profiler.clock import DeviceKind
from profiler.messages import SHIPPED_SOURCE, Source
from profiler.routings import forced_counts, rotation_of
from profiler.source import network_of, pictures_of, weights_of
from profiler.work import WorkCounter

HALF: dict[Precision, torch.dtype] = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "amp_fp16": torch.float16,
    "amp_bf16": torch.bfloat16,
}


class CannotRun(Exception):
    """A point that this profiler cannot run, and why. It becomes a record of status failed."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The whole network and the batches that it is shown in rotation, each with its routing.

    `imposed` holds the counts to force, or None where the router decides; `counts` the tokens of
    each image of the rotation, in order, that enter each recursion.
    """

    point: PlannedPoint
    model: MoRViT
    weights: str
    batches: tuple[Tensor, ...]
    imposed: tuple[Tensor | None, ...]
    counts: tuple[tuple[int, ...], ...]
    is_uniform: bool

    @property
    def builds_kernels(self) -> bool:
        """Whether a batch of another size is slow once: `morvit.executors.rows_computed` says why."""
        return self.point.precision in HALF and not self.batches[0].is_cuda

    def run(self, index: int, mark: Callable[[str], None] | None = None) -> Tensor:
        """One pass on the batch at `index` of the rotation: its logits. Call it under `quietly`."""
        return self.output(index, mark).logits

    def output(self, index: int, mark: Callable[[str], None] | None = None) -> Output:
        """All that a pass of the whole network gives."""
        place = index % len(self.batches)
        output: Output = self.model(
            self.batches[place],
            executor=self.point.executor,
            orders=self.orders(place),
            mark=mark,
        )
        return output

    def orders(self, place: int) -> Orders:
        """What overrules the router on the batch at a place of the rotation."""
        return Orders(uniform=self.is_uniform, imposed=self.imposed[place])

    def entering(self, index: int, recursion: int) -> tuple[Tensor, Route]:
        """Tokens and route of a batch as a recursion (0 is the first) finds them in the network."""
        state, route = self.model.begun(self.batches[index])
        for earlier in range(recursion):
            state, route = self.model.recurred(
                earlier,
                state,
                route,
                executor=self.point.executor,
                orders=self.orders(index),
            )
        return state, route

    def quietly(self) -> AbstractContextManager[object]:
        """The precision of the point, for passes."""
        return _autocast(self.point.precision, self.batches[0].device.type)

    @property
    def routing(self) -> RoutingDistribution:
        """The routing of all images in rotation."""
        return RoutingDistribution(tokens=self.point.architecture.tokens, counts=self.counts)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of a pass, in order."""
        recursions = range(1, self.point.architecture.recursions + 1)
        return "prologue", *(f"recursion-{number}" for number in recursions), "epilogue"

    @property
    def heaviest(self) -> int:
        """The batch of the rotation with the most tokens."""
        size = self.point.batch
        totals = [
            sum(map(self._tokens_of, self.counts[first : first + size]))
            for first in range(0, len(self.counts), size)
        ]
        return totals.index(max(totals))

    def _tokens_of(self, counts: tuple[int, ...]) -> int:
        return sum(counts)

    @torch.no_grad()
    def flop(self, executor: Executor) -> dict[str, float]:
        """FLOPs of each stage that `executor` asks for, for one batch (mean of the rotation).

        Batch by batch, with their routing imposed: what had room to be timed has room to be counted.
        """
        total: dict[str, float] = {}
        counts = torch.split(torch.tensor(self.counts), self.point.batch)
        for images, imposed in zip(self.batches, counts, strict=True):
            counter = WorkCounter()
            with counter:
                self.model(
                    images,
                    executor=executor,
                    orders=Orders(imposed=imposed if self.point.architecture.is_routed else None),
                    mark=counter.mark,
                )
            for stage, flop in counter.stages.items():
                total[stage] = total.get(stage, 0.0) + flop
        return {stage: flop / len(self.batches) for stage, flop in total.items()}


@dataclass(frozen=True, kw_only=True)
class RecursionAlone(Subject):
    """One recursion of the network without the rest: vote, executor and block.

    `batches` are the tokens that enter it in the whole network, caught once for each batch, and
    `routes` what was decided before; the moved tokens are written into `leaving`, as the network
    writes them into its state. Images and other stages take neither time nor memory here; the
    weights of the whole network stay loaded.
    """

    recursion: int
    routes: tuple[Route, ...]
    leaving: tuple[Tensor, ...]

    @property
    def stages(self) -> tuple[str, ...]:
        """The one stage."""
        return (self.point.subject,)

    def run(self, index: int, mark: Callable[[str], None] | None = None) -> Tensor:
        """One pass on the batch at `index` of the rotation: the tokens that leave the recursion."""
        place = index % len(self.batches)
        state, _ = self.model.recurred(
            self.recursion,
            self.batches[place],
            self.routes[place],
            executor=self.point.executor,
            orders=self.orders(place),
            into=self.leaving[place],
        )
        if mark is not None:
            mark(self.point.subject)
        return state

    @torch.no_grad()
    def flop(self, executor: Executor) -> dict[str, float]:
        """FLOPs that `executor` asks for in this stage, for one batch (mean of the rotation)."""
        counter = WorkCounter()
        device = self.batches[0].device
        counts = torch.split(torch.tensor(self.counts, device=device), self.point.batch)
        is_routed = self.point.architecture.is_routed
        with counter:
            for state, route, imposed in zip(self.batches, self.routes, counts, strict=True):
                self.model.recurred(
                    self.recursion,
                    state,
                    route,
                    executor=executor,
                    orders=Orders(imposed=imposed if is_routed else None),
                )
        counter.mark(self.point.subject)
        return {stage: flop / len(self.batches) for stage, flop in counter.stages.items()}

    def _tokens_of(self, counts: tuple[int, ...]) -> int:
        return counts[self.recursion]


def subject_of(
    point: PlannedPoint,
    kind: DeviceKind,
    seed: int,
    source: Source = SHIPPED_SOURCE,
) -> Subject:
    """The point, ready to run. Raises CannotRun where this profiler has no way to."""
    whole = _network_of(point, kind, seed, source)
    if point.subject == "network":
        return whole
    return _alone(whole, int(point.subject.removeprefix("recursion-")) - 1)


@torch.inference_mode()
def _alone(whole: Subject, recursion: int) -> RecursionAlone:
    """A recursion with what enters it, as the whole network hands it over."""
    with whole.quietly():
        caught = [whole.entering(index, recursion) for index in range(len(whole.batches))]
    states, routes = zip(*caught, strict=True)
    # Written in place, in inference and out of it.
    with torch.inference_mode(False):
        leaving = tuple(state.clone() for state in states)
    return RecursionAlone(
        **{
            **vars(whole),
            "weights": f"{whole.weights}; {whole.point.subject} alone",
            "batches": states,
            "recursion": recursion,
            "routes": routes,
            "leaving": leaving,
        }
    )


def _network_of(point: PlannedPoint, kind: DeviceKind, seed: int, source: Source) -> Subject:
    _refuse_what_is_not_run(point, kind)
    device = torch.device(kind)
    allow_tf32(point.precision == "tf32")
    model, weights = _network(point, seed, source)
    # A copy: `to` changes a network in place, and the next point wants the checkpoint's own weights.
    model = deepcopy(model).to(device=device, dtype=dtype_of(point.precision)).eval()
    rotation = rotation_of(point.batch)
    images, origin = _images(point, rotation * point.batch, seed, source)
    images = images.to(device=device, dtype=dtype_of(point.precision))
    # Storages of their own: a view would keep all images of the rotation in the batch's memory.
    batches = tuple(batch.clone() for batch in torch.split(images, point.batch))
    network = point.architecture
    imposed: tuple[Tensor | None, ...] = (None,) * rotation
    counts: tuple[tuple[int, ...], ...] = ((network.tokens,) * network.recursions,) * len(images)
    if point.survival is not None and network.is_routed:
        counts = forced_counts(point, len(images), seed)
        imposed = tuple(torch.split(torch.tensor(counts, device=device), point.batch))
    subject = Subject(
        point=point,
        model=model,
        weights=f"{weights}; {origin}",
        batches=batches,
        imposed=imposed,
        counts=counts,
        is_uniform=point.routing_source == "none",
    )
    if point.routing_source == "real-images":
        return Subject(**{**vars(subject), "counts": _counts_seen(subject, batches=rotation)})
    if _counts_seen(subject, batches=1) != counts[: point.batch]:
        raise RuntimeError("the network does not route as it was told to")
    return subject


@torch.inference_mode()
def _counts_seen(subject: Subject, batches: int) -> tuple[tuple[int, ...], ...]:
    """Counts of the images of the first `batches`, as the network says."""
    seen = []
    with subject.quietly():
        for index in range(batches):
            output = subject.output(index)
            if not bool(output.logits.isfinite().all()):
                raise CannotRun("the network gives logits that are not numbers")
            seen.append(output.counts.cpu())
    return tuple(map(tuple, torch.cat(seen).tolist()))


def _refuse_what_is_not_run(point: PlannedPoint, kind: DeviceKind) -> None:
    if point.runtime != "eager":
        raise CannotRun(f"runtime {point.runtime} is not measured here; use eager")
    if point.executor not in EXECUTORS:
        raise CannotRun(f"executor {point.executor} is not built; there are {', '.join(EXECUTORS)}")
    if point.precision == "int8":
        raise CannotRun("int8 is not measured here; use fp32 or bf16")
    if kind == "cpu" and point.precision in ("tf32", "fp16", "amp_fp16"):
        raise CannotRun(f"a CPU does not run {point.precision} at speed; use fp32 or bf16")
    if point.routing_source == "replayed-trace":
        raise CannotRun("a plan names no trace to replay; use forced-distribution")


def _network(point: PlannedPoint, seed: int, source: Source) -> tuple[MoRViT, str]:
    if point.weights == "shipped":
        model, card = network_of(source)
        if card.architecture != point.architecture:
            raise CannotRun(
                f"the checkpoint is a {card.architecture.name} of another shape than "
                f"{point.architecture.name}; use random weights"
            )
        return model, weights_of(source, card)
    torch.manual_seed(seed)
    try:
        return MoRViT(point.architecture), f"random, seed {seed}"
    except ValueError as error:
        raise CannotRun(str(error)) from error


def _images(point: PlannedPoint, count: int, seed: int, source: Source) -> tuple[Tensor, str]:
    """`count` images in a seeded order, made to fit the network; and how that was done."""
    side, channels = point.architecture.image_size, point.architecture.channels
    pictures = pictures_of(source, side, channels)
    stored = pictures.images
    order = torch.randperm(len(stored), generator=torch.Generator().manual_seed(seed))
    chosen = normalised(stored[order[torch.arange(count) % len(order)]])
    said = [f"{min(count, len(stored))} {pictures.origin}"]
    if side != chosen.shape[-1]:
        said.append(f"resized from {chosen.shape[-1]} to {side} pixels")
        chosen = functional.interpolate(
            chosen, size=(side, side), mode="bilinear", align_corners=False, antialias=True
        )
    if channels != chosen.shape[1]:
        said.append(f"grey repeated to {channels} channels")
        chosen = chosen[:, :1].repeat(1, channels, 1, 1)
    return chosen.contiguous(), ", ".join(said)


def dtype_of(precision: Precision) -> torch.dtype:
    """What weights and inputs are stored in; autocast keeps them in fp32."""
    return HALF[precision] if precision in ("fp16", "bf16") else torch.float32


def _autocast(precision: Precision, kind: str) -> AbstractContextManager[object]:
    if precision.startswith("amp_"):
        return torch.autocast(kind, dtype=HALF[precision])
    return nullcontext()


def allow_tf32(allowed: bool) -> None:
    """Whether fp32 products of a GPU may be rounded to tf32."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
