"""One operator alone: what it was asked, how much work that is, and how long it took."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from domain.measurement import Conditions, Environment, Rates, Samples, Status
from domain.record import (
    Identifier,
    NonNegative,
    PositiveCount,
    Precision,
    Record,
    Unknown,
)

OperatorClass = Literal["gemm", "attention", "elementwise", "gather", "scatter"]


class OperatorPoint(Record):
    """One operator of one size.

    `gemm` is (rows, width) times (width, out_width); `attention` is over `images` of `rows` tokens
    each, `heads` heads of `width / heads` channels; `elementwise`, `gather` and `scatter` take a
    (rows, width) matrix, gather and scatter `out_rows` of its rows.
    """

    id: Identifier
    operator: OperatorClass
    precision: Precision
    rows: PositiveCount
    width: PositiveCount
    out_width: PositiveCount = 1
    out_rows: PositiveCount = 1
    images: PositiveCount = 1
    heads: PositiveCount = 1

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got {self.width}, {self.heads}")
        if self.out_rows > self.rows:
            raise ValueError(f"wanted out_rows of rows at most, got {self.out_rows}, {self.rows}")
        return self


class OperatorTiming(Record):
    """One run of one operator: raw samples, with the work that they did."""

    format: Literal[1] = 1
    point: OperatorPoint
    run: PositiveCount
    session: Identifier
    taken_at: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
    environment: Environment
    rates: Rates
    status: Status
    reason: str = ""
    flop: NonNegative
    bytes_moved: NonNegative
    samples_s: Samples = ()
    cpu_samples_s: Samples = ()
    calibration_s: Samples = ()
    conditions: Conditions | Unknown = Unknown(reason="the operator was not run")
    seed: int = 0

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if self.status in ("ok", "unstable") and not self.samples_s:
            raise ValueError(f"status {self.status} wants samples, got none")
        if self.status != "ok" and not self.reason:
            raise ValueError(f"status {self.status} wants a reason, got none")
        return self
