"""What splitting a pass by stage costs, and what the stages leave of it: the network's self-test."""

import gc
from dataclasses import dataclass

import torch

from domain.measurement import PlannedPoint
from profiler.clock import CLOCKS, STAGE_CLOCKS, DeviceKind, Laps
from profiler.latency import CalibrationKernel
from profiler.messages import SHIPPED_SOURCE
from profiler.quartets import log_ratios, quartets
from profiler.selftest import LARGEST_REST, LARGEST_SPLIT, Check, within
from profiler.source import network_of
from profiler.subjects import Subject, subject_of

WARM_PASSES = 20


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Log of split over clean seconds, two pairs each; share of each split pass left unexplained."""

    log_ratios: tuple[float, ...]
    rests: tuple[float, ...]


def splitting_checks(batch: int, pairs: int, kind: DeviceKind = "cpu") -> tuple[Check, ...]:
    """The shipped network at one batch, clean and split in turn."""
    point = PlannedPoint(
        id=f"shipped-real-b{batch}",
        architecture=network_of(SHIPPED_SOURCE)[1].architecture,
        weights="shipped",
        batch=batch,
        routing_source="real-images",
    )
    subject = subject_of(point, kind, 0)
    with torch.inference_mode(), subject.quietly():
        seen = splits_of(subject, kind, pairs)
    return (
        within(f"split by stage over clean, batch {batch}", seen.log_ratios, LARGEST_SPLIT),
        within(
            f"pass that no stage explains, batch {batch}",
            [abs(rest) for rest in seen.rests],
            LARGEST_REST,
        ),
    )


def splits_of(subject: Subject, kind: DeviceKind, pairs: int) -> Splits:
    """`pairs` pairs (an even number of them) on the batches of a subject in turn."""
    clock = CLOCKS[kind]()
    kernel, stages, laps = CalibrationKernel(kind), STAGE_CLOCKS[kind](clock), Laps(clock)
    for place in range(WARM_PASSES):
        subject.run(place)
        kernel()
    rests: list[float] = []

    def clean_s(place: int) -> float:
        kernel()
        laps.start()
        subject.run(place)
        return laps.lap().wall_s

    def split_s(place: int) -> float:
        kernel()
        laps.start()
        stages.start()
        subject.run(place, stages.mark)
        whole_s = laps.lap().wall_s
        rests.append(1.0 - sum(stages.read().values()) / whole_s)
        return whole_s

    gc.disable()
    try:
        seen = quartets(clean_s, split_s, lambda clean, _: len(clean) >= pairs - pairs % 2)
    finally:
        gc.enable()
    return Splits(log_ratios=tuple(log_ratios(*seen)), rests=tuple(rests))
