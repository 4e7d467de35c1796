"""What the network's claims come to on this machine: packing against its ideal, and the comparison.

Everything is timed in one process, two things turn about (profiler.quartets), each pass after the
same fixed kernel. So what the machine does to one it does to the other.

packing      a routed network of imposed counts against a plain ViT as deep, one thread, CPU seconds.
             Ideal: the ViT's seconds times the routed network's share of its FLOPs.
comparison   trained networks on test images of their task, all threads, wall seconds.
"""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch

from domain.architecture import Architecture
from domain.complaint import Complaint
from domain.measurement import PlannedPoint
from domain.record import Executor
from domain.statistics import median
from morvit.data import LabelledImages, fashion_mnist, normalised
from morvit.inspection import inspection
from morvit.presets import SETTINGS, NetworkName, Task
from morvit.weights import load_checkpoint
from profiler.clock import Laps, RealClock
from profiler.contest import Row, Trained, is_as_accurate, not_measured
from profiler.latency import CalibrationKernel
from profiler.quartets import log_ratios, quartets
from profiler.selftest import median_interval
from profiler.subjects import Subject, subject_of

WIDTHS, BATCHES = (192, 384), (1, 8, 32)
SURVIVAL = (1.0, 0.6, 0.3)
# Shares of the ideal that packing must reach, by batch.
LEAST_PACKED = {1: 0.90, 8: 0.95, 32: 0.95}
LEAST_SPEED = 2.5
BATCH = 32
WARM_PASSES = 5

By = Literal["cpu", "wall"]


def packing_rows(seconds: float, command: str, batches: Sequence[int] = BATCHES) -> Iterator[Row]:
    """Packing and masking against the ideal; the dense network's rate beside them. One thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for width in WIDTHS:
            for batch in batches:
                yield from _packing(width, batch, seconds, command)
    finally:
        torch.set_num_threads(threads)


def _packing(width: int, batch: int, seconds: float, command: str) -> Iterator[Row]:
    dense = subject_of(_plain(width, batch), "cpu", 0)
    dense_flop = sum(dense.flop("packed").values())
    executors: tuple[Executor, ...] = ("packed", "masked")
    for executor in executors:
        subject = subject_of(_routed(width, batch, executor), "cpu", 0)
        # The ideal does no more than what the router asks for, whatever the executor does.
        share = sum(subject.flop("packed").values()) / dense_flop
        survival = ", ".join(f"{each:.2f}" for each in subject.routing.survival)
        where = f"survival ({survival}), width {width}, batch {batch}"
        ones, others = turn_about(dense, subject, seconds, "cpu")
        values = [math.log(share) - ratio for ratio in log_ratios(ones, others)]
        seen = median_interval(values)
        value, low, high = (math.exp(each) for each in (seen.value, seen.low, seen.high))
        wanted = LEAST_PACKED.get(batch)
        is_judged = executor == "packed" and wanted is not None
        bar = f"{executor} over the FLOPs-proportional ideal"
        yield Row(
            bar=f"{bar}{f' >= {wanted}' if is_judged else ''}, {where}",
            value=value,
            low=low,
            high=high,
            unit="share of the ideal",
            seed="0",
            command=command,
            met=low >= wanted if is_judged and wanted is not None else None,
        )
        if executor == "packed":
            rate = dense_flop / median(ones)
            yield Row(
                bar=f"dense rate beside it, width {width}, batch {batch}",
                value=rate / 1e9,
                low=dense_flop / max(ones) / 1e9,
                high=dense_flop / min(ones) / 1e9,
                unit="GFLOP/s of one core, median and range",
                seed="0",
                command=command,
            )


def turn_about(
    one: Subject, other: Subject, seconds: float, by: By
) -> tuple[list[float], list[float]]:
    """Seconds of passes of the two, each after the same fixed kernel, for so many seconds in all."""
    laps, kernel = Laps(RealClock()), CalibrationKernel("cpu")

    def timed(subject: Subject) -> Callable[[int], float]:
        def pass_s(place: int) -> float:
            kernel()
            laps.start()
            with subject.quietly():
                subject.run(place)
            lap = laps.lap()
            return lap.cpu_s if by == "cpu" else lap.wall_s

        return pass_s

    def is_over(ones: Sequence[float], others: Sequence[float]) -> bool:
        return laps.elapsed_s - began_s > seconds and len(ones) >= 12

    with torch.inference_mode():
        first, second = timed(one), timed(other)
        for place in range(WARM_PASSES):
            first(place)
            second(place)
        gc.collect()
        gc.disable()
        began_s = laps.elapsed_s
        try:
            return quartets(first, second, is_over)
        finally:
            gc.enable()


def _architecture(width: int, layers: tuple[int, int, int], recursions: int) -> Architecture:
    before, shared, after = layers
    return Architecture(
        name=f"bench-w{width}",
        image_size=224,
        patch_size=16,
        channels=3,
        classes=1000,
        width=width,
        heads=width // 64,
        mlp_width=4 * width,
        layers_before=before,
        shared_layers=shared,
        recursions=recursions,
        layers_after=after,
    )


def _routed(width: int, batch: int, executor: Executor) -> PlannedPoint:
    return PlannedPoint(
        id=f"routed-w{width}-b{batch}-{executor}",
        architecture=_architecture(width, (1, 3, 1), 3),
        weights="random",
        batch=batch,
        executor=executor,
        routing_source="forced-distribution",
        survival=SURVIVAL,
        spread=0.25,
    )


def _plain(width: int, batch: int) -> PlannedPoint:
    return PlannedPoint(
        id=f"plain-w{width}-b{batch}",
        architecture=_architecture(width, (0, 11, 0), 1),
        weights="random",
        batch=batch,
        routing_source="none",
    )


def speed_rows(
    trained: Sequence[Trained], seconds: float, command: str, *, is_compiled: bool = False
) -> Iterator[Row]:
    """Throughput of each network over that of the plain ViT of its task, at batch 32, all threads.

    Eager, or with both compiled whole: what has the same shapes for every image, weights frozen.
    """
    for task in SETTINGS:
        networks = {each.network: each for each in trained if each.task == task and each.checkpoint}
        if "vit" not in networks or "morvit" not in networks:
            if task == "inspection":
                yield not_measured(
                    f"throughput of morvit over vit >= {LEAST_SPEED}, {task}", command
                )
            continue
        images, as_accurate = _test_images(task), is_as_accurate(trained, task)
        backend = _compiled if is_compiled else _as_it_is
        plain = backend(_subject(networks["vit"], images, "packed"))
        for name, each in networks.items():
            for executor in _executors(name, is_compiled):
                subject = backend(_subject(each, images, executor))
                ones, others = turn_about(plain, subject, seconds, "wall")
                seen = median_interval([-ratio for ratio in log_ratios(ones, others)])
                value, low, high = (math.exp(x) for x in (seen.value, seen.low, seen.high))
                # The best executor where every image keeps as many tokens, which top-k does.
                is_judged = (name, executor, task) == ("morvit", "capacity", "inspection")
                wanted = f" >= {LEAST_SPEED} at its accuracy" if is_judged else ""
                yield Row(
                    bar=f"throughput of {name} ({executor}{', compiled' if is_compiled else ''}) over "
                    f"vit{wanted}, {task}, batch {BATCH}, {BATCH / median(others):.0f} images/s",
                    value=value,
                    low=low,
                    high=high,
                    unit="ratio",
                    seed=subject.point.id.rpartition("-")[2],
                    command=command,
                    met=(low >= LEAST_SPEED and as_accurate) if is_judged else None,
                )


def _as_it_is(subject: Subject) -> Subject:
    return subject


def _compiled(subject: Subject) -> Subject:
    # Frozen weights are laid out for the products beforehand; without that compiling lost here.
    from torch._inductor import config

    compiled = Subject(**{**vars(subject), "model": torch.compile(subject.model)})
    with config.patch(freezing=True), torch.inference_mode():
        compiled.run(0)
    return compiled


def _executors(network: NetworkName, is_compiled: bool) -> tuple[Executor, ...]:
    if network not in ("morvit", "random"):
        return ("packed",)
    return ("capacity",) if is_compiled else ("capacity", "packed", "padded", "masked")


def _test_images(task: Task) -> LabelledImages:
    if task == "fashion-mnist":
        return fashion_mnist("test")
    return inspection("test", 2 * BATCH, seed=1).labelled


def _subject(trained: Trained, images: LabelledImages, executor: Executor) -> Subject:
    if trained.checkpoint is None:
        raise Complaint(f"no checkpoint of {trained.network} on {trained.task}")
    model, card = load_checkpoint(trained.checkpoint)
    network = card.architecture
    # A network without routing, or one that is never told to route, goes everywhere.
    is_uniform = trained.network in ("vit", "shallow", "recursive")
    point = PlannedPoint(
        id=f"{trained.network}-{trained.task}-{card.seed}",
        architecture=network,
        weights="shipped",
        batch=BATCH,
        executor=executor,
        routing_source="none" if is_uniform else "real-images",
    )
    batches = tuple(
        normalised(part).contiguous() for part in torch.split(images.images[: 2 * BATCH], BATCH)
    )
    return Subject(
        point=point,
        model=model,
        weights=card.weights_sha256,
        batches=batches,
        imposed=(None,) * len(batches),
        counts=((network.tokens,) * network.recursions,) * (2 * BATCH),
        is_uniform=is_uniform,
    )
