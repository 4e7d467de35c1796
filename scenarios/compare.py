"""`python -m scenarios.compare`: own boards, own servers or rent, for one demand and one promise."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from domain.catalogue import devices as catalogue_devices
from domain.choice import Choice, PeerCost, Swing, Way
from domain.complaint import BrokenPromise, Complaint
from domain.defaults import prices_assumed
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.record import Estimate, Unknown
from domain.scenario import Ownership, Scenario
from domain.shell import emit, format_named, run_shell
from domain.store import results_root, save, stored_fits
from domain.tables import Cell, Format, rendered
from domain.units import shown, shown_chance, shown_money, significant
from scenarios.candidates import Forecasts
from scenarios.choosing import Found, candidate_of, owned_ways, rented_ways
from scenarios.forecasting import devices_of, forecasts_of
from scenarios.mixing import mixed_ways
from scenarios.peers import accuracy_seen_here, peers_of
from scenarios.reading import Asked, read_asked
from scenarios.sensitivity import Drawn, Holding, drawn, holding_of, log_sd
from scenarios.sizing import plan_of
from scenarios.swings import measuring_of, swings_of

# Fleets of the catalogue whose measuring is asked about and which a tornado may switch between.
MOST_HOLDINGS = 8
# Of what was refused, so much is said in a table; JSON has all.
MOST_REFUSED = 5

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    epilog="Example: python -m scenarios.compare scenarios/library/server-room.toml --format md"
)
def compare(
    file: Annotated[Path, typer.Argument(help="Scenario, a TOML file.")],
    only_named: Annotated[
        bool, typer.Option("--only-named", help="The scenario's devices, not all of the catalogue.")
    ] = False,
    draws: Annotated[int, typer.Option(min=100, max=1_000_000, help="Monte Carlo draws.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    price_usd: Annotated[
        list[str] | None, typer.Option(help="DEVICE=AMOUNT: a price of your own; repeatable.")
    ] = None,
    format: Annotated[str, typer.Option(help="table, json, csv or md")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write there, not to stdout.")] = None,
) -> None:
    """Hold the ways to serve one demand against each other, and say how sure the order is.

    Exit 7 if no way keeps the promise. Stored under `results/plans/choices`.
    """
    shape = format_named(format)
    asked, fits = read_asked(file), stored_fits()
    named, _ = devices_of(asked.scenario, fits, price_usd or [])
    devices = named if only_named else {**catalogue_devices(), **named}
    try:
        choice = choice_of(asked, devices, fits, draws, seed)
    except Complaint as complaint:
        raise Complaint(f"{file}: {complaint}") from complaint
    stored = results_root() / "plans" / "choices" / f"{asked.scenario.name}.json"
    save(choice, stored)
    if shape == "json":
        emit(json.dumps(choice.model_dump(mode="json"), indent=1, allow_nan=False) + "\n", output)
    elif shape == "csv":
        emit(rendered([_flat(way) for way in choice.ways], shape), output)
    else:
        emit(_as_text(choice, stored, shape), output)
    if not choice.ways:
        why = "; ".join(f"{name}: {reason}" for name, reason in choice.refused[:2])
        raise BrokenPromise(f"{file}: no way keeps the promise; {why}")


def choice_of(
    asked: Asked,
    devices: Mapping[str, DeviceSpec],
    fits: Sequence[Fit],
    draws: int,
    seed: int,
) -> Choice:
    """All ways with their drawn costs, peers, tornado and what measuring is worth."""
    scenario = asked.scenario
    forecasts = forecasts_of(scenario, devices, fits)
    owned, refused = owned_ways(scenario, forecasts, devices, asked.recorded_s)
    mixed, not_mixed = mixed_ways(scenario, forecasts, devices, owned, asked.recorded_s)
    ways = [
        *owned,
        *rented_ways(scenario, forecasts, devices, asked.recorded_s),
        *mixed,
    ]
    began, began_cpu = time.perf_counter(), time.process_time()
    holdings = holdings_of(scenario, forecasts, devices)
    seen = drawn(scenario, holdings, draws, seed)
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    near = holdings[:MOST_HOLDINGS]
    return Choice(
        scenario=scenario,
        ways=tuple(ways_of(scenario, ways, draws, seed)),
        refused=(*not_mixed, *refused),
        peers=tuple(peers_of(scenario, ways, devices, fits)),
        swings=tuple(sorted(swings_of(scenario, near), key=_width, reverse=True)),
        measuring=tuple(measuring_of(scenario, near)),
        draws=draws,
        seed=seed,
        fleets_drawn=len(holdings),
        seconds_drawn=seconds,
        cpu_seconds_drawn=cpu,
        catalogue_cheapest=tuple(
            (name, seen.cheapest(name), seen.promise(name))
            for name in sorted(seen.costs, key=lambda each: -seen.cheapest(each))[:MOST_HOLDINGS]
        ),
        assumptions=(
            *asked.assumptions,
            *prices_assumed(devices[name] for name in sorted(scenario.devices) if name in devices),
        ),
        made_by="python -m scenarios.compare",
    )


def holdings_of(
    scenario: Scenario, forecasts: Mapping[str, Forecasts], devices: Mapping[str, DeviceSpec]
) -> list[Holding]:
    """Every fleet that can be owned, sized by closed form, cheapest first."""
    quick = plan_of(scenario, forecasts, devices, "quick", is_replayed=False)
    found = []
    for option in quick.options:
        if isinstance(option.ownership, Ownership) and not option.reason:
            candidate = candidate_of(scenario, forecasts[option.device_id], option.batch)
            holding = holding_of(scenario, devices[option.device_id], option, candidate)
            found += [holding] if holding is not None else []
    return found


def ways_of(scenario: Scenario, found: Sequence[Found], draws: int, seed: int) -> Iterator[Way]:
    """Ways with their drawn costs, cheapest first. What is rented moves with clouds' prices."""
    random = np.random.default_rng((seed, 1))
    bands = scenario.uncertainty
    rent = np.exp(log_sd(bands.cloud_band) * random.standard_normal(draws))
    rate = np.exp(
        log_sd(bands.currency_band)
        * random.standard_normal(draws)
        * (scenario.site.currency != "USD")
    )
    seen = [drawn(scenario, way.holdings, draws, seed) for way in found]
    costs = {
        number: sum(of.costs.values(), float(way.local) + float(way.rent - way.local) * rent * rate)
        for number, (way, of) in enumerate(zip(found, seen, strict=True))
    }
    order = sorted(range(len(found)), key=lambda number: found[number].cost.total)
    least = np.min(list(costs.values()), axis=0) if costs else np.zeros(0)
    for number in order:
        way, drawn_costs = found[number], costs[number]
        low, value, high = np.quantile(drawn_costs, [0.05, 0.5, 0.95]).tolist()
        yield Way(
            kind=way.kind,
            name=_name(way),
            device_id=way.option.device_id,
            device_name=way.option.device_name,
            devices=way.option.devices,
            batch=way.option.batch,
            p99_latency_s=_p99(way, scenario),
            promise_probability=_kept(way, seen[number]),
            total=way.cost.total,
            cost=Estimate(value=value, low=low, high=high),
            cheapest_probability=float((drawn_costs <= least).mean()),
            cheaper_than_best=float((drawn_costs < costs[order[0]]).mean()),
            equivalent_per_year=way.cost.equivalent_per_year or Decimal(0),
            per_million_images=way.cost.per_million_images,
            carbon_kg=way.cost.carbon_kg,
            is_estimate=way.rate is not None and way.rate.is_estimate,
            how=way.how,
        )


def _name(way: Found) -> str:
    if way.rate is None:
        return f"own {way.option.device_id}"
    if way.holdings:
        return f"own and rent {way.option.device_id}"
    return f"rent {way.option.device_id}, {way.rate.contract}"


def _p99(way: Found, scenario: Scenario) -> float | Unknown:
    seen, there_s = way.option.seen_p99_s, 0.0 if way.holdings else scenario.cloud.network_s
    return seen if isinstance(seen, Unknown) else there_s + seen


def _kept(way: Found, seen: Drawn) -> float | Unknown:
    """That every part keeps its promise; what is rented is not drawn, so as it was sized."""
    if not way.rent:
        return float(np.prod(list(seen.held.values()), axis=0).mean())
    return way.option.promise_probability


def _width(swing: Swing) -> float:
    ends = [swing.low_total, swing.high_total]
    known = [float(each) for each in ends if isinstance(each, Decimal)]
    return abs(known[1] - known[0]) if len(known) == 2 else math.inf


def _as_text(choice: Choice, stored: Path, shape: Format) -> str:
    currency = choice.scenario.site.currency
    parts = [rendered([_way_row(way, currency) for way in choice.ways], shape)]
    if choice.peers:
        parts.append(rendered([_peer_row(peer, currency) for peer in choice.peers], shape))
    if choice.swings:
        parts.append(rendered([_swing_row(each, currency) for each in choice.swings], shape))
    if choice.measuring:
        rows = [
            {
                "an hour on": each.device_id,
                "expected saving": shown_money(each.saved, currency),
                "its rent": "n/a"
                if isinstance(each.rent, Unknown)
                else shown_money(each.rent, currency),
                "why": each.why,
            }
            for each in choice.measuring
        ]
        parts.append(rendered(rows, shape))
    cheapest = [
        {
            "owned": name,
            "P(cheapest to own)": shown_chance(cheap),
            "P(promise holds)": shown_chance(kept),
        }
        for name, cheap, kept in choice.catalogue_cheapest
    ]
    parts.append(rendered(cheapest, shape) if cheapest else "")
    defaults = [each for each in choice.assumptions if each.is_default]
    lines = [
        f"{choice.draws:,} draws of {choice.fleets_drawn} owned fleets in "
        f"{choice.seconds_drawn:.2f} s ({choice.cpu_seconds_drawn:.2f} s of a core), seed "
        f"{choice.seed}",
        f"{len(defaults)} of {len(choice.assumptions)} inputs are defaults; the plan of "
        "`python -m scenarios.size` lists them",
        "same promise, same spares, same people; the network to the cloud and back is in its p99",
        "the same accuracy is not shown: a saving counts only where your own images say so"
        + (f"; seen here, {seen}" if (seen := accuracy_seen_here()) else ""),
        *(f"refused: {name}: {reason}" for name, reason in choice.refused[:MOST_REFUSED]),
        f"stored: {stored}",
    ]
    return "\n".join(part for part in parts if part) + "\n" + "".join(f"- {x}\n" for x in lines)


def _way_row(way: Way, currency: str) -> dict[str, Cell]:
    cost = way.cost
    return {
        "way": way.kind,
        "fleet": way.how,
        "p99": "n/a" if isinstance(way.p99_latency_s, Unknown) else shown(way.p99_latency_s, "s"),
        "promise holds": "n/a"
        if isinstance(way.promise_probability, Unknown)
        else shown_chance(way.promise_probability),
        "cost": shown_money(way.total, currency),
        "90 %": "n/a"
        if isinstance(cost, Unknown)
        else f"{significant(cost.low)} to {significant(cost.high)}",
        "P(cheapest)": "n/a"
        if isinstance(way.cheapest_probability, Unknown)
        else shown_chance(way.cheapest_probability),
        "a year": shown_money(way.equivalent_per_year, currency),
        "per million": "n/a"
        if isinstance(way.per_million_images, Unknown)
        else f"{significant(float(way.per_million_images))} {currency}",
        "CO2": "n/a" if way.carbon_kg is None else f"{significant(way.carbon_kg)} kg",
    }


def _peer_row(peer: PeerCost, currency: str) -> dict[str, Cell]:
    def money(amount: Decimal | Unknown) -> str:
        return amount.reason if isinstance(amount, Unknown) else shown_money(amount, currency)

    return {
        "instead of MoR-ViT": f"{peer.name} ({peer.how})",
        "fleet": f"{peer.devices} × {peer.device_name}" if peer.devices else "none",
        "cost": money(peer.total),
        "MoR-ViT saves": "n/a" if isinstance(peer.saved, Unknown) else money(peer.saved),
        "its accuracy": peer.accuracy,
    }


def _swing_row(swing: Swing, currency: str) -> dict[str, Cell]:
    def told(label: str, amount: Decimal | Unknown, devices: int) -> str:
        if isinstance(amount, Unknown):
            return f"{label}: {amount.reason}"
        return f"{label}: {shown_money(amount, currency)}, {devices} devices"

    return {
        "what may be off": swing.name,
        "low": told(swing.low_input, swing.low_total, swing.low_devices),
        "high": told(swing.high_input, swing.high_total, swing.high_devices),
    }


def _flat(way: Way) -> dict[str, Cell]:
    row: dict[str, Cell] = {}
    for name, value in way.model_dump(mode="json").items():
        if name == "cost":
            ends = value if "low" in value else {}
            row |= {f"cost_{end}": ends.get(end) for end in ("value", "low", "high")}
        else:
            row[name] = None if isinstance(value, dict) else value
    return row


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
