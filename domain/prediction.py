"""What a workload will take on a device: parts, whole, interval and tier."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from domain.record import (
    Estimate,
    Identifier,
    NonNegative,
    Positive,
    Record,
    Sentence,
    Tier,
    Unknown,
)
from domain.workload import Workload

Bound = Literal["compute", "memory", "host"]


class OperatorCost(Record):
    """One operator class in one stage, summed over its layers; seconds for the whole batch."""

    stage: str
    name: str
    flop: NonNegative
    bytes_moved: NonNegative
    calls: NonNegative
    latency_s: NonNegative
    bound: Bound


class Prediction(Record):
    """Latency, throughput, memory and energy of one batch, with what they are made of."""

    format: Literal[1] = 1
    workload: Workload
    device_id: str
    device_name: str
    tier: Tier
    tier_reason: Sentence
    latency_s: Estimate
    throughput_img_per_s: Estimate
    peak_memory_bytes: Estimate | Unknown
    energy_j_per_image: Estimate | Unknown
    power_w: Estimate | Unknown
    fits_in_memory: Annotated[float, Field(ge=0, le=1)] | Unknown
    operators: tuple[OperatorCost, ...]
    bound: Bound
    fit_name: str
    is_extrapolated: bool = False
    assumptions: tuple[Sentence, ...] = ()

    @model_validator(mode="after")
    def _parts_add_up(self) -> Self:
        parts_s = math.fsum(operator.latency_s for operator in self.operators)
        if not math.isclose(parts_s, self.latency_s.value, rel_tol=1e-9):
            raise ValueError(
                f"the operators take {parts_s} s, the whole says {self.latency_s.value} s"
            )
        return self

    @property
    def stages_s(self) -> dict[str, float]:
        """Seconds per stage, in the order of the network."""
        seconds: dict[str, float] = {}
        for operator in self.operators:
            seconds[operator.stage] = seconds.get(operator.stage, 0.0) + operator.latency_s
        return seconds


class Refusal(Record):
    """No number, and why: the workload or the device lies outside what the model knows."""

    device_id: str
    reason: Sentence


class Answer(Record):
    """What was once said to one question: an interval with its tier, or the reason for none.

    `question` is the workload's key; `measured_s` what a batch took where somebody measured it.
    """

    name: Identifier
    question: Identifier
    latency_s: Estimate | None = None
    tier: Tier | None = None
    reason: str = ""
    measured_s: Positive | None = None


class Answers(Record):
    """Answers of one state of the model, to hold the next against."""

    format: Literal[1] = 1
    answers: tuple[Answer, ...]
