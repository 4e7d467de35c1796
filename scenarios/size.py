"""`python -m scenarios.size`: from a scenario file to the fleets that keep its promise."""

import json
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from domain.advice import advice_of
from domain.complaint import BrokenPromise, Complaint
from domain.device import DeviceSpec
from domain.locale import LANGUAGES, Language, text
from domain.prediction import Prediction, Refusal
from domain.record import Estimate, Unknown
from domain.scenario import Assumption, BreakEven, FleetOption, Ownership, Plan
from domain.shell import emit, format_named, run_shell
from domain.store import results_root, save, stored_fits, write_whole
from domain.tables import Cell, Format, rendered
from domain.units import MILLI, shown, shown_money, significant
from scenarios.cloud import against_renting
from scenarios.demand import Times, burst_of
from scenarios.forecasting import devices_of, forecasts_of
from scenarios.reading import SKELETON, read_asked
from scenarios.service import Service, service_of
from scenarios.simulate import simulate
from scenarios.sizing import Forecasts, demands_of, plan_of

SIMULATED_IMAGES = 20_000
NOT_KNOWN = "n/a"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    epilog="Example: python -m scenarios.size scenarios/library/inspection-line.toml --format csv"
)
def size(
    file: Annotated[Path | None, typer.Argument(help="Scenario, a TOML file.")] = None,
    price_usd: Annotated[
        list[str] | None, typer.Option(help="DEVICE=AMOUNT: a price of your own; repeatable.")
    ] = None,
    format: Annotated[str, typer.Option(help="table, json, csv or md")] = "table",
    advice: Annotated[str, typer.Option(help="Words instead of a table: en or ja.")] = "",
    output: Annotated[Path | None, typer.Option(help="Write there, not to stdout.")] = None,
    init: Annotated[
        bool, typer.Option("--init", help="Write a commented scenario to FILE, or print it.")
    ] = False,
) -> None:
    """Size and price a fleet of each device that a scenario names; the cheapest comes first.

    Exit 7 if nothing keeps the promise. The plan is stored under `results/plans`.
    """
    if init:
        _init(file)
        return
    if file is None:
        raise Complaint("wanted a scenario file; --init prints one to start from")
    shape, language = format_named(format), _language(advice)
    asked = read_asked(file)
    scenario, fits = asked.scenario, stored_fits()
    devices, notes = devices_of(scenario, fits, price_usd or [])
    try:
        forecasts = forecasts_of(scenario, devices, fits)
    except Complaint as complaint:
        raise Complaint(f"{file}: {complaint}") from complaint
    plan = plan_of(
        scenario,
        forecasts,
        devices,
        "python -m scenarios.size",
        asked.recorded_s,
        asked.assumptions,
    )
    plan = confirmed(plan, forecasts, devices, asked.recorded_s)
    stored = results_root() / "plans" / f"{scenario.name}.json"
    save(plan, stored)
    if language:
        said = advice_of(plan, partial(text, language=language))
        emit("".join(f"- {sentence}\n" for sentence in said), output)
    elif shape == "json":
        emit(_as_json(plan), output)
    elif shape == "csv":
        emit(rendered([_row(option, plan) for option in plan.options], shape), output)
    else:
        emit(_as_text(plan, forecasts, notes, stored, shape), output)
    if not any(option.devices for option in plan.options):
        nearest = plan.options[0]
        raise BrokenPromise(
            f"{file}: no device keeps the promise of "
            f"{shown(scenario.promise.p99_latency_s, 's')}; "
            f"{nearest.device_name}: {nearest.reason}"
        )


def confirmed(
    plan: Plan,
    forecasts: Mapping[str, Forecasts],
    devices: Mapping[str, DeviceSpec],
    recorded_s: Times | None = None,
) -> Plan:
    """The plan with its chosen fleet simulated, and every owned fleet held against renting it."""
    options = []
    for option in plan.options:
        prediction = forecasts[option.device_id].routed.get(option.batch)
        if isinstance(prediction, Prediction) and option.devices:
            changes: dict[str, object] = {
                "against": against_renting(
                    plan.scenario, option, devices[option.device_id], prediction
                )
            }
            if option == plan.chosen:
                worst = plan.scenario.routing.hold_at_full_depth
                held = forecasts[option.device_id]
                service = service_of(_predicted(held.full if worst else held.routed), option.batch)
                changes["simulated_p99_s"] = _simulated(plan, option, service, recorded_s)
            fields = {name: getattr(option, name) for name in FleetOption.model_fields}
            options.append(FleetOption(**{**fields, **changes}))
        else:
            options.append(option)
    fields = {name: getattr(plan, name) for name in Plan.model_fields}
    return Plan(**{**fields, "options": tuple(options)})


def _predicted(by_batch: Mapping[int, Prediction | Refusal]) -> dict[int, Prediction]:
    return {b: each for b, each in by_batch.items() if isinstance(each, Prediction)}


def _simulated(
    plan: Plan, option: FleetOption, service: Service, recorded_s: Times | None
) -> Estimate | Unknown:
    """p99 of the chosen fleet in simulated time, at the latency it was sized for."""
    scenario, promise = plan.scenario, plan.scenario.promise
    if scenario.demand.arrivals == "offline":
        return Unknown(reason="nobody waits for an offline answer")
    demand = max(demands_of(scenario), key=lambda each: each.peak_img_per_s)
    burst = burst_of(demand)
    if 2 * burst > SIMULATED_IMAGES:
        return Unknown(reason=f"a burst of more than {SIMULATED_IMAGES // 2:,} images is too long")
    run = simulate(
        demand,
        servers=option.servers,
        batch=option.batch,
        service_s=service.times(service.factor(promise.confidence)),
        service_variation=service.variation / option.batch,
        timeout_s=promise.batch_timeout_s,
        images=-(-SIMULATED_IMAGES // burst) * burst,
        recorded_s=recorded_s,
    )
    return run.p99_s()


def _language(name: str) -> Language | None:
    for known in LANGUAGES:
        if known == name:
            return known
    if name:
        raise Complaint(f"unknown language {name[:20]!r}; there are {', '.join(LANGUAGES)}")
    return None


def _init(file: Path | None) -> None:
    skeleton = SKELETON.read_bytes()
    if file is None:
        sys.stdout.write(skeleton.decode())
    elif file.exists():
        raise Complaint(f"{file} is there already; name another file")
    else:
        write_whole(file, skeleton)


def _as_text(
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
    if chosen is not None and chosen.against:
        text += "\n" + rendered([_against_row(each, plan) for each in chosen.against], shape)
    defaults = plan.defaults
    if defaults:
        text += f"\n{_defaults_said(plan)}:\n"
        text += rendered([_assumption_row(each) for each in defaults], shape)
    lines = [*notes, *_footnotes(plan, forecasts), f"stored: {stored}"]
    return text + "\n" + "".join(f"- {line}\n" for line in lines)


def _as_json(plan: Plan) -> str:
    """Everything a program may want: fleets, every assumption, renting."""
    said = {
        "scenario": plan.scenario.name,
        "options": [_row(option, plan) for option in plan.options],
        "against_renting": [
            {"device_id": option.device_id, **each.model_dump(mode="json")}
            for option in plan.options
            for each in option.against
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
        f"enough, each up {promise.device_availability:.2%} of it"
    ]
    if chosen is None:
        return [*lines, "no fleet both keeps the promise and has a known price"]
    simulated = chosen.simulated_p99_s
    checked = (
        simulated.reason
        if isinstance(simulated, Unknown)
        else f"{_range(simulated)} simulated, {shown(chosen.p99_latency_s, 's')} in closed form"
    )
    count = f"{chosen.devices} × {chosen.device_name}"
    if chosen.sites > 1:
        count += f" ({chosen.sites} sites)"
    kept = chosen.promise_probability
    chance = kept.reason if isinstance(kept, Unknown) else f"{kept:.1%}"
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
        "p99": shown(option.p99_latency_s, "s") if is_fleet else NOT_KNOWN,
        "replayed": NOT_KNOWN
        if isinstance(option.replayed_p99_s, Unknown)
        else shown(option.replayed_p99_s.value, "s"),
        "holds": NOT_KNOWN
        if isinstance(option.promise_probability, Unknown)
        else f"{option.promise_probability:.1%}",
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


def _row(option: FleetOption, plan: Plan) -> dict[str, Cell]:
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
        "batch": option.batch if is_fleet else None,
        "utilisation": option.utilisation if is_fleet else None,
        "p99_latency_ms": option.p99_latency_s / MILLI if is_fleet else None,
        "replayed_p99_latency_ms": None
        if isinstance(replayed, Unknown)
        else replayed.value / MILLI,
        "simulated_p99_latency_ms": None if isinstance(p99, Unknown) else p99.value / MILLI,
        "promise_probability": None if isinstance(holds, Unknown) else holds,
        "meets_full_depth": option.meets_full_depth if is_fleet else None,
        "full_depth_p99_latency_ms": None if isinstance(full_s, Unknown) else full_s / MILLI,
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


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
