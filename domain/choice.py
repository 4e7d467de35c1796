"""What there is to choose from: ways to serve one demand, how sure their costs are, what decides."""

from typing import Literal

from domain.record import Count, Estimate, Identifier, NonNegative, Record, Sentence, Share, Unknown
from domain.scenario import Assumption, Money, Scenario

WayKind = Literal["edge", "on-premises", "cloud", "mixed"]


class Way(Record):
    """One way to serve the demand with the same promise and the same spares.

    `cost` is drawn: 90 % of what prices, load, energy, routing and predictions may make of it.
    """

    kind: WayKind
    name: Sentence
    device_id: Identifier
    device_name: Sentence
    devices: Count
    batch: Count
    p99_latency_s: NonNegative | Unknown
    promise_probability: Share | Unknown
    total: Money
    cost: Estimate | Unknown
    cheapest_probability: Share | Unknown
    cheaper_than_best: Share | Unknown
    equivalent_per_year: Money
    per_million_images: Money | Unknown
    carbon_kg: NonNegative | None
    is_estimate: bool
    how: Sentence


class PeerCost(Record):
    """The cheapest fleet for another network on the same demand: what adaptive depth is worth.

    `accuracy` says what is known of it, with its source: money alone does not make it a peer.
    """

    name: Sentence
    how: Sentence
    device_name: str
    devices: Count
    total: Money | Unknown
    saved: Money | Unknown
    accuracy: str = ""


class Swing(Record):
    """What the cheapest fleet costs at both ends of one input, others in the middle."""

    name: Sentence
    low_input: str
    high_input: str
    low_total: Money | Unknown
    high_total: Money | Unknown
    low_devices: Count
    high_devices: Count


class MeasuringWorth(Record):
    """What an hour on a device is expected to save, before and after its rent."""

    device_id: Identifier
    saved: Money
    rent: Money | Unknown
    why: Sentence


class Choice(Record):
    """The answer of `python -m scenarios.compare`."""

    format: Literal[1] = 1
    scenario: Scenario
    ways: tuple[Way, ...]
    refused: tuple[tuple[str, str], ...]
    peers: tuple[PeerCost, ...]
    swings: tuple[Swing, ...]
    measuring: tuple[MeasuringWorth, ...]
    draws: Count
    seed: Count
    fleets_drawn: Count = 0
    seconds_drawn: NonNegative
    cpu_seconds_drawn: NonNegative = 0.0
    catalogue_cheapest: tuple[tuple[str, Share, Share], ...]
    assumptions: tuple[Assumption, ...]
    made_by: Sentence
