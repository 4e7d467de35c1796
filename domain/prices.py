"""What energy and clouds cost: rows of the catalogue, each with its source and date."""

from typing import Literal

from domain.record import (
    Identifier,
    NonNegative,
    Positive,
    PositiveCount,
    Record,
    Sentence,
    Unknown,
)
from domain.scenario import Money

Confidence = Literal["", "A", "B", "C"]
Contract = Literal["on-demand", "reserved-1y", "reserved-3y", "spot"]


class EnergyRow(Record):
    """Carbon and price of a country's electricity. The price is before tax, of industry."""

    iso3: str
    country: Sentence
    carbon_g_per_kwh: NonNegative
    carbon_year: PositiveCount
    carbon_source: Sentence
    price_per_kwh: Money | Unknown
    currency: str
    price_year: str
    price_note: str
    price_source: str
    confidence: Confidence


class CloudPrice(Record):
    """What one cloud instance cost per hour on a day. `device_id` where the catalogue has its GPU.

    `gpu_count` is below one for a slice of a GPU.
    """

    provider: Identifier
    instance: Sentence
    gpu: Sentence
    device_id: Identifier | None
    gpu_count: NonNegative
    gpu_memory_bytes: Positive | Unknown
    vcpus: PositiveCount | Unknown
    memory_bytes: Positive | Unknown
    region: str
    on_demand_usd_per_h: Money
    spot_usd_per_h: Money | Unknown
    reserved_1y_usd_per_h: Money | Unknown
    reserved_3y_usd_per_h: Money | Unknown
    as_of: Sentence
    source: Sentence
    licence: str
    confidence: Confidence
    notes: str


class CommitmentDiscount(Record):
    """Share off the on-demand price for committing: averages over CPU families, so estimates."""

    provider: Sentence
    one_year_no_upfront: NonNegative | Unknown
    one_year_all_upfront: NonNegative | Unknown
    three_years_no_upfront: NonNegative | Unknown
    three_years_partial_upfront: NonNegative | Unknown
    three_years_all_upfront: NonNegative | Unknown
    as_of: Sentence
    source: Sentence
    note: str


class HourlyRate(Record):
    """One way to rent one instance: what an hour costs, and whether anybody quoted that."""

    price: CloudPrice
    contract: Contract
    usd_per_h: Money
    is_estimate: bool
    how: Sentence

    @property
    def is_paid_idle(self) -> bool:
        """Whether every hour is paid, used or not."""
        return self.contract.startswith("reserved")
