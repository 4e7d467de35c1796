"""A plan as people and programs read it: tables, footnotes, JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from domain.prediction import Prediction
from domain.record import Estimate, Unknown
from domain.scenario import Assumption, BreakEven, FleetOption, Ownership, Plan
from domain.tables import Cell, Format, rendered
from domain.units import MILLI, shown, shown_chance, shown_money, significant
from scenarios.candidates import Forecasts

NOT_KNOWN = "n/a"
MOST_YEARS_SHOWN = 6


def as_text(
    plan: Plan,
    forecasts: Mapping[str, Forecasts],
    notes: Sequence[str],
    stored: Path,
    shape: Format,
) -> str:
    """The fleets, what they are held against, what was left out, and what must be said of them."""
    years = plan.scenario.finance.horizon_years
    text = rendered([_shown_row(option, years) for option in plan.options], shape)
    chosen = plan.chosen
    if chosen is not None and isinstance(chosen.ownership, Ownership):
        text += f"\n{chosen.devices} × {chosen.device_name}, what is paid when:\n"
        text += rendered(list(_paid(chosen.ownership)), shape)
    if chosen is not None and chosen.against:
        text += "\n" + rendered([_against_row(each, plan) for each in chosen.against], shape)
    defaults = plan.defaults
    if defaults:
        text += f"\n{_defaults_said(plan)}:\n"
        text += rendered([_assumption_row(each) for each in defaults], shape)
    lines = [*notes, *_footnotes(plan, forecasts), f"stored: {stored}"]
    return text + "\n" + "".join(f"- {line}\n" for line in lines)


def _paid(cost: Ownership) -> Iterator[dict[str, Cell]]:
    """Cash by line and year; lines that are nothing are left out, and named below."""
    for line in cost.lines:
        if line.amount or any(line.by_year):
            yield (
                {"line": line.name}
                | _by_year(line.by_year, cost)
                | {
                    "worth today": shown_money(line.amount, cost.currency),
                    "how": line.how,
                }
            )
    yield (
        {"line": "total"}
        | _by_year(cost.by_year, cost)
        | {
            "worth today": shown_money(cost.total, cost.currency),
            "how": f"{_bare(cost.low, cost)} to {_bare(cost.high, cost)}",
        }
    )


def _by_year(cash: Sequence[Decimal], cost: Ownership) -> dict[str, Cell]:
    """Cash today and of each year; of many years their mean."""
    today, *years = cash
    row: dict[str, Cell] = {"today": _bare(today, cost)}
    if len(years) <= MOST_YEARS_SHOWN:
        return row | {f"year {n}": _bare(each, cost) for n, each in enumerate(years, start=1)}
    return row | {"mean of a year": _bare(sum(years, Decimal(0)) / len(years), cost)}


def as_json(plan: Plan) -> str:
    """Everything a program may want: fleets, every assumption, renting."""
    said = {
        "scenario": plan.scenario.name,
        "options": [flat_row(option, plan) for option in plan.options],
        "against_renting": [
            {"device_id": option.device_id, **each.model_dump(mode="json")}
            for option in plan.options
            for each in option.against
        ],
        "lines": [
            {"device_id": option.device_id, **line.model_dump(mode="json")}
            for option in plan.options
            if isinstance(option.ownership, Ownership)
            for line in option.ownership.lines
        ],
        "defaults_used": len(plan.defaults),
        "inputs": len(plan.assumptions),
        "assumptions": [each.model_dump(mode="json") for each in plan.assumptions],
    }
    return json.dumps(said, indent=1, allow_nan=False) + "\n"


def _defaults_said(plan: Plan) -> str:
    return f"{len(plan.defaults)} of {len(plan.assumptions)} inputs are defaults"


def _assumption_row(each: Assumption) -> dict[str, Cell]:
    return {
        "default": each.field,
        "value": each.value,
        "unit": each.unit,
        "source": each.source,
        "as of": each.as_of,
    }


def _against_row(each: BreakEven, plan: Plan) -> dict[str, Cell]:
    currency = plan.scenario.site.currency

    def told(value: Decimal | Unknown, unit: str = "") -> str:
        if isinstance(value, Unknown):
            return value.reason.partition(":")[0]
        return f"{significant(float(value), 4)}{unit}"

    use = each.utilisation
    return {
        "rented instead": f"{each.instances} × {each.instance}",
        "contract": each.contract + " (estimate)" * each.is_estimate,
        "price of": each.as_of,
        "cost": shown_money(each.rented_total, currency),
        "break-even": told(each.hours, " h"),
        "years": told(each.years),
        "utilisation": use.reason.partition(":")[0]
        if isinstance(use, Unknown)
        else f"{float(use):.1%}",
        "payback, years": told(each.payback_years),
        "rate of return": "none"
        if isinstance(each.rate_of_return, Unknown)
        else f"{each.rate_of_return:.1%}",
    }


def _footnotes(plan: Plan, forecasts: Mapping[str, Forecasts]) -> list[str]:
    promise, chosen = plan.scenario.promise, plan.chosen
    lines = [
        f"sized for the latency that is kept with a probability of {promise.confidence:.0%}, "
        f"utilisation up to {promise.target_utilisation:.0%}, p99 up to "
        f"{shown(promise.p99_latency_s, 's')}; {promise.availability:.2%} of the time with devices "
        f"enough, each up {promise.device_availability:.2%} of it, and its host down with it"
    ]
    if chosen is None:
        return [*lines, "no fleet both keeps the promise and has a known price"]
    simulated = chosen.simulated_p99_s
    checked = (
        simulated.reason
        if isinstance(simulated, Unknown)
        else f"{_range(simulated)} simulated, {_shown_s(chosen.p99_latency_s)} in closed form"
    )
    count = f"{chosen.devices} × {chosen.device_name}"
    if chosen.sites > 1:
        count += f" ({chosen.sites} sites)"
    kept = chosen.promise_probability
    chance = kept.reason if isinstance(kept, Unknown) else shown_chance(kept)
    if chosen.host_places > 1:
        count += f" in {chosen.hosts} hosts of up to {chosen.devices_per_host}"
    lines.append(f"chosen: {count}, spare {chosen.spares} a site; p99: {checked}")
    lines.append(f"the promise holds with a probability of {chance}")
    if not chosen.meets_full_depth:
        lines.append("at full depth, the guard's fallback, this fleet breaks the promise")
    lines += chosen.notes
    prediction = forecasts[chosen.device_id].routed.get(chosen.batch)
    if isinstance(prediction, Prediction):
        lines += [f"{prediction.tier}: {prediction.tier_reason}", *prediction.assumptions]
    if isinstance(chosen.ownership, Ownership):
        lines += chosen.ownership.assumptions
    return lines


def _shown_row(option: FleetOption, years: int) -> dict[str, Cell]:
    cost, is_fleet = option.ownership, option.devices > 0
    row: dict[str, Cell] = {
        "device": option.device_id,
        "count": option.devices if is_fleet else NOT_KNOWN,
        "batch": option.batch if is_fleet else NOT_KNOWN,
        "utilisation": f"{option.utilisation:.1%}" if is_fleet else NOT_KNOWN,
        "p99": _shown_s(option.p99_latency_s),
        "replayed": NOT_KNOWN
        if isinstance(option.replayed_p99_s, Unknown)
        else shown(option.replayed_p99_s.value, "s"),
        "holds": NOT_KNOWN
        if isinstance(option.promise_probability, Unknown)
        else shown_chance(option.promise_probability),
        "full depth": ("kept" if option.meets_full_depth else "broken") if is_fleet else NOT_KNOWN,
        "tier": option.tier,
        f"cost of {years} years": NOT_KNOWN,
        "per million images": NOT_KNOWN,
        "reason": option.reason,
    }
    if isinstance(cost, Unknown):
        return row | {"reason": option.reason or cost.reason}
    return row | {
        f"cost of {years} years": f"{shown_money(cost.total, cost.currency)} "
        f"({_bare(cost.low, cost)} to {_bare(cost.high, cost)})",
        "per million images": NOT_KNOWN
        if isinstance(cost.per_million_images, Unknown)
        else f"{significant(float(cost.per_million_images))} {cost.currency}",
    }


def _shown_s(seconds: float | Unknown) -> str:
    return NOT_KNOWN if isinstance(seconds, Unknown) else shown(seconds, "s")


def _milli(value: float | Unknown) -> float | None:
    return None if isinstance(value, Unknown) else value / MILLI


def flat_row(option: FleetOption, plan: Plan) -> dict[str, Cell]:
    """Flat and machine-readable: units in the names, an empty cell where a reason is given."""
    cost, is_fleet = option.ownership, option.devices > 0
    owned = None if isinstance(cost, Unknown) else cost
    p99, replayed = option.simulated_p99_s, option.replayed_p99_s
    holds, full_s, peak_w = (
        option.promise_probability, option.full_depth_p99_s, option.peak_power_w,
    )  # fmt: skip
    return {
        "device_id": option.device_id,
        "device": option.device_name,
        "tier": option.tier,
        "devices": option.devices if is_fleet else None,
        "sites": option.sites if is_fleet else None,
        "servers_per_site": option.servers if is_fleet else None,
        "spares_per_site": option.spares if is_fleet else None,
        "hosts": option.hosts if is_fleet else None,
        "devices_per_host": option.devices_per_host if is_fleet else None,
        "batch": option.batch if is_fleet else None,
        "utilisation": option.utilisation if is_fleet else None,
        "p99_latency_ms": _milli(option.p99_latency_s),
        "replayed_p99_latency_ms": None
        if isinstance(replayed, Unknown)
        else replayed.value / MILLI,
        "simulated_p99_latency_ms": None if isinstance(p99, Unknown) else p99.value / MILLI,
        "promise_probability": None if isinstance(holds, Unknown) else holds,
        "meets_full_depth": option.meets_full_depth if is_fleet else None,
        "full_depth_p99_latency_ms": _milli(full_s),
        "peak_power_w": None if isinstance(peak_w, Unknown) else peak_w,
        "currency": plan.scenario.site.currency,
        "horizon_years": plan.scenario.finance.horizon_years,
        "cost": _number(owned.total) if owned else None,
        "cost_low": _number(owned.low) if owned else None,
        "cost_high": _number(owned.high) if owned else None,
        "cost_per_million_images": _number(owned.per_million_images) if owned else None,
        "cost_per_million_images_low": _number(owned.per_million_low) if owned else None,
        "cost_per_million_images_high": _number(owned.per_million_high) if owned else None,
        "equivalent_cost_per_year": _number(owned.equivalent_per_year) if owned else None,
        "carbon_kg": owned.carbon_kg if owned else None,
        "defaults": _defaults_said(plan),
        "reason": option.reason or (cost.reason if isinstance(cost, Unknown) else ""),
    }


def _bare(amount: Decimal, cost: Ownership) -> str:
    return shown_money(amount, cost.currency).removesuffix(f" {cost.currency}")


def _number(amount: Decimal | Unknown | None) -> float | None:
    return float(amount) if isinstance(amount, Decimal) else None


def _range(estimate: Estimate) -> str:
    return " ".join(
        (shown(estimate.value, "s"), f"({shown(estimate.low, 's')} to {shown(estimate.high, 's')})")
    )
