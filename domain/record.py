"""What every stored noun is made of: strict frozen records, identifiers, estimates and reasons."""

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]
Identifier = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._+-]{0,127}$")]
Sentence = Annotated[str, Field(min_length=1, max_length=2000)]

Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8", "amp_fp16", "amp_bf16"]
Runtime = Literal["eager", "compiled", "onnxruntime", "openvino", "engine"]
Executor = Literal["masked", "padded", "packed", "capacity"]
Tier = Literal["measured", "calibrated", "anchored", "spec-only"]


class Record(BaseModel):
    """What may be stored: nothing unknown, coerced, infinite, or changed later."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, defer_build=True
    )

    def key(self) -> str:
        """Sixteen hexadecimal digits that change when any stored field changes.

        >>> Unknown(reason="no meter").key() == Unknown(reason="no meter").key()
        True
        """
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Unknown(Record):
    """A quantity nobody could give, and why. Never stored as zero."""

    reason: Sentence


class Figure(Record):
    """One number of the catalogue with its origin.

    `confidence`: A checked against the vendor or a licensed source, B partly checked, C estimated
    or recalled.
    """

    value: Positive
    source: Sentence
    read_on: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    confidence: Literal["A", "B", "C"]


class Estimate(Record):
    """A value with its interval; `low` and `high` bound the middle `level` of belief.

    >>> Estimate(value=2.0, low=1.0, high=4.0).scaled(10.0).high
    40.0
    """

    value: float
    low: float
    high: float
    level: Annotated[float, Field(gt=0, lt=1)] = 0.9

    @model_validator(mode="after")
    def _value_inside(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(
                f"wanted low <= value <= high, got {self.low} <= {self.value} <= {self.high}"
            )
        return self

    def scaled(self, factor: float) -> "Estimate":
        """The same estimate in a unit `factor` times smaller; `factor` is positive."""
        return Estimate(
            value=self.value * factor,
            low=self.low * factor,
            high=self.high * factor,
            level=self.level,
        )

    def inverse_of(self, numerator: float) -> "Estimate":
        """`numerator` over this estimate: latency to throughput. All bounds must be positive."""
        return Estimate(
            value=numerator / self.value,
            low=numerator / self.high,
            high=numerator / self.low,
            level=self.level,
        )
