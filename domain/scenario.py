"""A purchase: what is demanded and promised, and what the fleet that delivers it costs."""

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from domain.prediction import Prediction, Refusal
from domain.record import (
    Executor,
    Identifier,
    NonNegative,
    Positive,
    PositiveCount,
    Precision,
    Record,
    Runtime,
    Sentence,
    Unknown,
)

Money = Annotated[Decimal, Field(allow_inf_nan=False)]
Arrivals = Literal["takt", "poisson"]


class Demand(Record):
    """Images that arrive: every camera fires once in `period_s`, in step or at random."""

    cameras: Annotated[int, Field(ge=1, le=10**9)]
    period_s: Annotated[float, Field(gt=0, le=1e8)]
    arrivals: Arrivals
    hours_per_day: Annotated[float, Field(gt=0, le=24)] = 24.0
    days_per_year: Annotated[float, Field(gt=0, le=366)] = 365.0

    @property
    def peak_img_per_s(self) -> float:
        """Arrival rate while the line runs."""
        return self.cameras / self.period_s

    @property
    def images_per_year(self) -> float:
        """Images in a year of shifts."""
        return self.peak_img_per_s * 3600.0 * self.hours_per_day * self.days_per_year


class Promise(Record):
    """What the fleet must hold: the 99th percentile of latency, and devices that may fail."""

    p99_latency_s: Positive
    spare_devices: Annotated[int, Field(ge=0, le=100_000)] = 1
    target_utilisation: Annotated[float, Field(gt=0, lt=1)] = 0.7


class Site(Record):
    """Where the devices stand and what their energy costs."""

    country: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    energy_price_per_kwh: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
    pue: Annotated[float, Field(ge=1)] = 1.6
    currency_per_usd: Annotated[Decimal, Field(gt=0, allow_inf_nan=False)] = Decimal(1)
    currency_date: str = ""


class Finance(Record):
    """How money is counted. `price_band` is the relative half-width of hardware prices."""

    horizon_years: Annotated[int, Field(ge=1, le=20)] = 3
    discount_rate: Annotated[float, Field(gt=-1, lt=1)] = 0.0
    host_price_usd: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] = Decimal(0)
    maintenance_per_year: Annotated[float, Field(ge=0, lt=1)] = 0.05
    residual_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    staff_per_year: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] = Decimal(0)
    price_band: Annotated[float, Field(ge=0, lt=1)] = 0.3


class Scenario(Record):
    """One question to the suite: which devices, how many, at what cost."""

    format: Literal[1] = 1
    name: Identifier
    title: Sentence
    model: Identifier
    precision: Precision
    runtime: Runtime
    executor: Executor
    batch: PositiveCount
    survival: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    devices: tuple[Identifier, ...]
    demand: Demand
    promise: Promise
    site: Site
    finance: Finance = Finance()


class CostLine(Record):
    """One line of money over the horizon, in the scenario's currency; `low` and `high` bound it."""

    name: Identifier
    amount: Money
    low: Money
    high: Money
    how: Sentence


class Ownership(Record):
    """Cost over the horizon: lines add up to the total, to the last digit."""

    currency: str
    horizon_years: PositiveCount
    images: NonNegative
    lines: tuple[CostLine, ...]
    total: Money
    low: Money
    high: Money
    per_million_images: Money | Unknown
    per_million_low: Money | Unknown
    per_million_high: Money | Unknown
    assumptions: tuple[Sentence, ...] = ()

    @model_validator(mode="after")
    def _lines_add_up(self) -> Self:
        for side in ("amount", "low", "high"):
            lines = sum((getattr(line, side) for line in self.lines), Decimal(0))
            whole = self.total if side == "amount" else getattr(self, side)
            if lines != whole:
                raise ValueError(f"the lines add up to {lines} ({side}), the total says {whole}")
        return self


class FleetOption(Record):
    """One device type that could serve the scenario, or the reason why it can not."""

    device_id: str
    device_name: str
    devices: Annotated[int, Field(ge=0)]
    utilisation: NonNegative
    p99_latency_s: NonNegative
    meets_full_depth: bool
    tier: str
    ownership: Ownership | Unknown
    reason: str = ""


class Plan(Record):
    """The answer to a scenario: options, cheapest first; refused devices last."""

    format: Literal[1] = 1
    scenario: Scenario
    options: tuple[FleetOption, ...]
    made_by: Sentence

    @property
    def chosen(self) -> FleetOption | None:
        """The cheapest fleet that keeps the promise, if there is one."""
        for option in self.options:
            if isinstance(option.ownership, Ownership) and not option.reason:
                return option
        return None


class Offer(Record):
    """One device of the catalogue for one workload: what it will take and what owning it costs."""

    device_id: Identifier
    prediction: Prediction | Refusal
    ownership: Ownership | Unknown


class Offers(Record):
    """The catalogue, predicted for one model and routing."""

    format: Literal[1] = 1
    model: Identifier
    routing: Sentence
    offers: tuple[Offer, ...]
