"""What would change the answer: the tornado, and what an hour of measuring is worth."""

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

import numpy as np

from costmodel.cashflow import exact
from domain.choice import MeasuringWorth, Swing
from domain.currencies import smallest_unit
from domain.record import Unknown
from domain.scenario import Scenario
from scenarios.cloud import cheapest_rates
from scenarios.sensitivity import Holding, known_saving, resized, still
from scenarios.service import NORMAL_90


def swings_of(scenario: Scenario, holdings: Sequence[Holding]) -> Iterator[Swing]:
    """The tornado: the cheapest of the fleets, re-sized, at both ends of each input alone."""
    if not holdings:
        return
    bands, currency = scenario.uncertainty, scenario.site.currency
    ends: list[tuple[str, str, float, float]] = [
        (
            "price of hardware",
            "hardware",
            -scenario.finance.price_band,
            scenario.finance.price_band,
        ),
        ("price of energy", "energy", -bands.energy_band, bands.energy_band),
        ("demand", "load", -bands.load_band, bands.load_band),
        ("routing strays to full depth", "stray", 0.0, bands.routing_band),
    ]
    if currency != "USD":
        ends.append(("exchange rate", "currency", -bands.currency_band, bands.currency_band))
    for name, field, low, high in ends:
        sides = []
        for end in (low, high):
            factor = end if field == "stray" else 1 + end if end > 0 else 1 / (1 - end)
            sides.append((f"{end:+.0%}", _cheapest_at(holdings, {field: factor})))
        yield _swing(name, sides, currency)
    spread = {id(each): each.candidate.promised.log_sd for each in holdings}
    yield _swing(
        "latency, both ends of the 90 % interval",
        [
            (label, _cheapest_at(holdings, {}, {key: sign * sd for key, sd in spread.items()}))
            for label, sign in (("low end", -NORMAL_90), ("high end", NORMAL_90))
        ],
        currency,
    )


def _cheapest_at(
    holdings: Sequence[Holding],
    factors: Mapping[str, float],
    log_latency: Mapping[int, float] | None = None,
) -> tuple[int, float] | None:
    """Devices and cost of the cheapest fleet, re-sized, in a world where only that is off."""
    found: list[tuple[float, int]] = []
    for holding in holdings:
        latency = math.exp((log_latency or {}).get(id(holding), 0.0))
        strayed = 1 + factors.get("stray", 0.0) * (holding.strain - 1)
        servers = resized(holding, latency=latency * strayed, load=factors.get("load", 1.0))
        if servers is not None:
            cost = holding.cost(still(1, **factors), np.array([latency]), servers)
            devices = holding.option.sites * int(holding.with_spares(servers))
            found.append((float(cost[0]), devices))
    if not found:
        return None
    total, devices = min(found)
    return devices, total


def _swing(
    name: str, sides: Sequence[tuple[str, tuple[int, float] | None]], currency: str
) -> Swing:
    (low_label, low), (high_label, high) = sides
    none = Unknown(reason="no fleet of these keeps the promise there")

    def money(side: tuple[int, float] | None) -> Decimal | Unknown:
        return none if side is None else rounded(side[1], currency)

    return Swing(
        name=name,
        low_input=low_label,
        high_input=high_label,
        low_total=money(low),
        high_total=money(high),
        low_devices=low[0] if low else 0,
        high_devices=high[0] if high else 0,
    )


def rounded(amount: float, currency: str) -> Decimal:
    """A float as money."""
    return exact(amount).quantize(smallest_unit(currency))


def measuring_of(scenario: Scenario, holdings: Sequence[Holding]) -> Iterator[MeasuringWorth]:
    """What an hour on each device is expected to save, most first.

    All by closed form: the fleet of today's prediction against the one of the true latency.
    """
    currency, now = scenario.site.currency, {}
    for holding in holdings:
        servers = resized(holding)
        if servers is not None:
            cost = holding.cost(still(), np.ones(1), servers)
            now[holding.option.device_id] = float(cost[0])
    if not now:
        return
    least = min(now.values())
    worth: list[MeasuringWorth] = []
    for holding in holdings:
        name = holding.option.device_id
        others = [cost for other, cost in now.items() if other != name]
        saved, _ = known_saving(
            holding, min(others, default=math.inf), least, scenario.uncertainty.measured_band
        )
        rate = cheapest_rates(name).get("on-demand")
        rent: Decimal | Unknown = Unknown(reason="no cloud of the catalogue rents it: borrow one")
        if rate is not None:
            rent = rounded(float(rate.usd_per_h * scenario.site.currency_per_usd), currency)
        if math.isfinite(saved):
            worth.append(
                MeasuringWorth(
                    device_id=name,
                    saved=rounded(max(saved, 0.0), currency),
                    rent=rent,
                    why=f"sized today for {holding.candidate.promised.factor(scenario.promise.confidence):.2f} "
                    "times its likely latency; measured, for what it is",
                )
            )
    yield from sorted(worth, key=lambda each: -each.saved)
