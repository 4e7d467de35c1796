"""What was learned from measurements: coefficients, their covariance, and what they rest on."""

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from domain.measurement import Environment, Rates
from domain.record import (
    Count,
    Estimate,
    Identifier,
    NonNegative,
    Positive,
    PositiveCount,
    Record,
    Runtime,
    Sentence,
    Tier,
)


class Coefficient(Record):
    """One positive physical coefficient. `log_sd` is the posterior spread of its logarithm.

    `is_identified`: the data narrowed it to half of the prior's spread or less; otherwise it is
    little more than the prior. `prior_log_sd` is that spread before the data.
    """

    name: Identifier
    value: Annotated[float, Field(ge=1e-15, le=1e15)]
    unit: str
    log_sd: Annotated[float, Field(ge=0)]
    is_identified: bool
    prior_log_sd: Positive | None = None


class Discrepancy(Record):
    """What neighbours of a workload took beside the equations: a process's points and weights.

    `points` are in the order of `features`; `weights` one a point. `log_sd` says how far each point
    was believed; without it the process says what it expects, not how sure it is.
    """

    features: tuple[Identifier, ...]
    points: Annotated[
        tuple[tuple[Annotated[float, Field(ge=-1e3, le=1e3)], ...], ...], Field(min_length=1)
    ]
    weights: tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...]
    log_sd: tuple[Annotated[float, Field(gt=0, le=10)], ...] = ()

    @model_validator(mode="after")
    def _one_row_a_weight(self) -> Self:
        if len(self.points) != len(self.weights):
            raise ValueError(
                f"wanted one weight a point, got {len(self.points)} and {len(self.weights)}"
            )
        if self.log_sd and len(self.log_sd) != len(self.points):
            raise ValueError(
                f"wanted one spread a point or none, got {len(self.points)} and {len(self.log_sd)}"
            )
        if any(len(row) != len(self.features) for row in self.points):
            raise ValueError(f"wanted {len(self.features)} numbers in every point")
        return self


class Fit(Record):
    """Coefficients of one machine, published device or class, one runtime; says what it rests on.

    `covariance` is of the logarithms, in the order of `coefficients`. `residual_log_sd` is the
    spread left over between the model and a workload; `scale` what held-out points missed over the
    spread that the fit itself promised there, where it was asked. `device_log_sd` is the spread between devices of the
    class, which a prediction for an unseen device carries in addition; `rates_log_sd` what it carries where the
    device's rates are a data sheet's and the fit's shares are of what fixed kernels reached; `drift_log_sd` how far a
    shared machine's own speed wanders from run to run. `routed_points` counts the timings that it rests on in
    which tokens left on the way. `software` is that which it speaks for, today's where it is empty; `taken_with`
    names what its timings were taken with where none of them was.
    """

    format: Literal[1, 2] = 2
    name: Identifier
    device_id: str
    scope: Literal["machine", "timed", "device", "class"]
    device_class: str
    families: tuple[str, ...] = ()
    runtime: Runtime
    software: Annotated[str, Field(max_length=40)] = ""
    taken_with: tuple[str, ...] = ()
    precisions: tuple[str, ...]
    environment: Environment | None = None
    rates: Rates | None = None
    coefficients: tuple[Coefficient, ...]
    covariance: tuple[tuple[Annotated[float, Field(ge=-1e4, le=1e4)], ...], ...]
    residual_log_sd: Positive
    scale: Annotated[float, Field(gt=0, le=100)] | None = None
    device_log_sd: Annotated[float, Field(ge=0)] = 0.0
    rates_log_sd: Annotated[float, Field(ge=0)] = 0.0
    noise_log_sd: Annotated[float, Field(ge=0)] = 0.0
    drift_log_sd: Annotated[float, Field(ge=0)] = 0.0
    discrepancy: Discrepancy | None = None
    points: PositiveCount
    routed_points: Count = 0
    measurements: tuple[str, ...]
    provenance: Sentence
    taken_on: Annotated[str, Field(pattern=r"^(\d{4}-\d{2}-\d{2})?$")] = ""
    made_by: Sentence
    domain: tuple[tuple[str, float, float], ...] = ()

    @property
    def threads(self) -> int:
        """Threads of the machine that it was made on; one where it is of no machine."""
        return 1 if self.environment is None else self.environment.threads

    @model_validator(mode="after")
    def _square(self) -> Self:
        size = len(self.coefficients)
        if len(self.covariance) != size or any(len(row) != size for row in self.covariance):
            raise ValueError(f"wanted a {size}x{size} covariance, one row a coefficient")
        names = [coefficient.name for coefficient in self.coefficients]
        if len(set(names)) != size:
            raise ValueError(f"wanted each coefficient once, got {names}")
        if any(row[number] < 0 for number, row in enumerate(self.covariance)):
            raise ValueError("wanted variances of zero or more on the diagonal of the covariance")
        # An edited covariance would give some predictions a negative variance.
        matrix = np.array(self.covariance, dtype=float).reshape(size, size)
        if not np.allclose(matrix, matrix.T, rtol=1e-6, atol=1e-9):
            raise ValueError("wanted a symmetric covariance")
        if size and np.linalg.eigvalsh(matrix).min() < -1e-6 * max(1.0, np.abs(matrix).max()):
            raise ValueError("wanted a covariance without negative variances in any direction")
        for name, low, high in self.domain:
            if not 0 < low <= high:
                raise ValueError(f"wanted 0 < low <= high for {name}, got {low} and {high}")
        return self


class HeldOut(Record):
    """One prediction beside what was measured, by a fit that had not seen that point."""

    split: Identifier
    point: Identifier
    quantity: Identifier
    predicted: Estimate
    measured: Positive


class ValidationRow(Record):
    """Accuracy of one split: relative errors, coverage of the 90 % intervals, and the noise.

    `noise_floor` is the median repeat-to-repeat difference of the same points; None where each
    point was seen once only.
    """

    split: Identifier
    quantity: Identifier
    tier: Tier
    n: PositiveCount
    median_abs_error: NonNegative
    p90_abs_error: NonNegative
    signed_error: float
    coverage_90: Annotated[float, Field(ge=0, le=1)]
    half_width: NonNegative
    noise_floor: NonNegative | None


class Validation(Record):
    """The accuracy table and the pairs behind it."""

    format: Literal[1] = 1
    rows: tuple[ValidationRow, ...]
    pairs: tuple[HeldOut, ...]
