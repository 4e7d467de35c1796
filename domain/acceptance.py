"""What a delivered machine must show, and what it showed."""

from typing import Literal

from domain.architecture import Architecture
from domain.record import (
    Count,
    Estimate,
    Executor,
    Identifier,
    Positive,
    PositiveCount,
    Precision,
    Record,
    Runtime,
    Sentence,
)

# disturbed: the machine was not free, so nothing follows; invalid: not measured, or something else.
Verdict = Literal["pass", "fail", "disturbed", "invalid"]


class PromisedPoint(Record):
    """One point of the kit's plan, and the seconds of a batch that were promised for it.

    It passes where its median is at most `limit_s`, the end of the interval that the fleet was
    sized for; `promised_s` is the whole interval.
    """

    point: Identifier
    batch: PositiveCount
    is_full_depth: bool
    promised_s: Estimate
    limit_s: Positive


class AcceptanceTerms(Record):
    """The terms of a delivery: which machine, which network, which points, which fleet."""

    format: Literal[1] = 1
    plan: Identifier
    device_id: Identifier
    device_name: Sentence
    model: Architecture
    precision: Precision
    executor: Executor
    measured_runtime: Runtime
    planned_runtime: Runtime
    servers: Count
    batch: PositiveCount
    power_cap_w: Positive | None = None
    points: tuple[PromisedPoint, ...]
    promised: Sentence
    made_by: Sentence


class PointVerdict(Record):
    """One point as it was measured on the delivered machine."""

    point: Identifier
    verdict: Verdict
    promised_s: Estimate
    measured_s: Estimate | None
    why: Sentence


class AcceptanceVerdict(Record):
    """Whether the machine is what was promised, point by point; and the fleet that follows."""

    format: Literal[1] = 1
    terms: AcceptanceTerms
    points: tuple[PointVerdict, ...]
    verdict: Verdict
    fleet: Sentence
    machine: Sentence
