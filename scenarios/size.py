"""`python -m scenarios.size`: from a scenario file to the fleets that keep its promise."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from domain.advice import advice_of
from domain.complaint import BrokenPromise, Complaint
from domain.defaults import prices_assumed
from domain.device import DeviceSpec
from domain.locale import LANGUAGES, Language, text
from domain.prediction import Prediction, Refusal
from domain.record import Estimate, Unknown
from domain.scenario import FleetOption, Plan
from domain.shell import emit, format_named, run_shell
from domain.store import results_root, save, stored_fits, write_whole
from domain.tables import rendered
from domain.units import shown
from scenarios.candidates import Forecasts
from scenarios.cloud import against_renting
from scenarios.demand import Times, burst_of
from scenarios.forecasting import devices_of, forecasts_of
from scenarios.pricing import demands_of
from scenarios.reading import SKELETON, read_asked
from scenarios.service import Service, service_of
from scenarios.simulate import simulate
from scenarios.sizing import plan_of
from scenarios.telling import as_json, as_text, flat_row

SIMULATED_IMAGES = 20_000

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
        (*asked.assumptions, *prices_assumed(devices.values())),
    )
    plan = confirmed(plan, forecasts, devices, asked.recorded_s)
    stored = results_root() / "plans" / f"{scenario.name}.json"
    save(plan, stored)
    if language:
        said = advice_of(plan, partial(text, language=language))
        emit("".join(f"- {sentence}\n" for sentence in said), output)
    elif shape == "json":
        emit(as_json(plan), output)
    elif shape == "csv":
        emit(rendered([flat_row(option, plan) for option in plan.options], shape), output)
    else:
        emit(as_text(plan, forecasts, notes, stored, shape), output)
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
                worst = plan.scenario.routing.is_promised_at_full_depth
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


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
