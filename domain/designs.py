"""What was designed for a promise, and why nothing else does: an answer as it is stored."""

from typing import Literal

from domain.prediction import Prediction
from domain.record import (
    Estimate,
    Identifier,
    NonNegative,
    Positive,
    Record,
    Sentence,
    Share,
    Unknown,
)

Preference = Literal["accuracy", "price", "throughput"]


class Wanted(Record):
    """The promise: `p99_s` of a batch, waiting for its images included, with that probability.

    `images_per_s` come in evenly, and 0 says that batches are there whole. `price_usd` is the most that
    a device may cost, `power_cap_w` what it is held to; None where nobody asked.
    """

    p99_s: Positive
    confidence: Share
    images_per_s: NonNegative
    least_accuracy: Share
    price_usd: Positive | None = None
    power_cap_w: Positive | None = None
    prefer: Preference


class DesignedDevice(Record):
    """The best that one device does: what runs, how accurate it is, and how surely it is in time.

    `price_source` and `price_as_of` are empty where there is no price.
    """

    device_id: Identifier
    price_usd: Positive | Unknown
    price_source: str = ""
    price_as_of: str = ""
    budget: Sentence
    accuracy: Estimate | Unknown
    prediction: Prediction
    p99_s: Estimate
    probability: Share


class MissingDevice(Record):
    """A device that keeps the promise in no way, and why."""

    device_id: Identifier
    reason: Sentence


class Designs(Record):
    """The devices that keep a promise, best first, and the others."""

    format: Literal[1] = 1
    wanted: Wanted
    devices: tuple[DesignedDevice, ...]
    missing: tuple[MissingDevice, ...] = ()
    notes: tuple[Sentence, ...] = ()
    made_by: Sentence = "python -m costmodel.design"
