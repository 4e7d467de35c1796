"""`python -m scenarios.size`: from a scenario file to the fleets that keep its promise."""

import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from costmodel.asking import devices_named
from costmodel.transfer import forecast
from domain.complaint import BrokenPromise, Complaint
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.prediction import Prediction, Refusal
from domain.record import Estimate, Unknown
from domain.routing import RoutingDistribution
from domain.scenario import FleetOption, Ownership, Plan, Scenario
from domain.shell import emit, format_named, run_shell
from domain.store import results_root, save, stored_fits, write_whole
from domain.tables import Cell, rendered
from domain.units import MILLI, shown, shown_money, significant
from domain.workload import Workload
from scenarios.reading import SKELETON, read_scenario, routings_of
from scenarios.simulate import simulate
from scenarios.sizing import plan_of, service_variation

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
    shape = format_named(format)
    scenario = read_scenario(file)
    fits = stored_fits()
    devices, notes = _devices(scenario, fits, price_usd or [])
    try:
        net, routed, full = routings_of(scenario)
    except Complaint as complaint:
        raise Complaint(f"{file}: {complaint}") from complaint

    def forecasts(routing: RoutingDistribution) -> dict[str, Prediction | Refusal]:
        workload = Workload(
            architecture=net,
            batch=scenario.batch,
            precision=scenario.precision,
            runtime=scenario.runtime,
            executor=scenario.executor,
            routing=routing,
        )
        return {name: forecast(workload, device, fits) for name, device in devices.items()}

    predictions = forecasts(routed)
    plan = plan_of(scenario, predictions, forecasts(full), devices, "python -m scenarios.size")
    stored = results_root() / "plans" / f"{scenario.name}.json"
    save(plan, stored)
    simulated = _simulated(plan, predictions)
    if shape in ("table", "md"):
        lines = [*notes, *_footnotes(plan, predictions, simulated), f"stored: {stored}"]
        years = scenario.finance.horizon_years
        table = rendered([_shown_row(option, years) for option in plan.options], shape)
        emit(table + "\n" + "".join(f"- {line}\n" for line in lines), output)
    else:
        emit(rendered([_row(option, plan, simulated) for option in plan.options], shape), output)
    if not any(option.devices for option in plan.options):
        nearest = plan.options[0]
        raise BrokenPromise(
            f"{file}: no device keeps the promise of "
            f"{shown(scenario.promise.p99_latency_s, 's')}; "
            f"{nearest.device_name}: {nearest.reason}"
        )


def _init(file: Path | None) -> None:
    skeleton = SKELETON.read_bytes()
    if file is None:
        sys.stdout.write(skeleton.decode())
    elif file.exists():
        raise Complaint(f"{file} is there already; name another file")
    else:
        write_whole(file, skeleton)


def _devices(
    scenario: Scenario, fits: Sequence[Fit], prices: Sequence[str]
) -> tuple[dict[str, DeviceSpec], list[str]]:
    """The devices by the id of the catalogue, and what should be said about a choice."""
    price_of = dict(_price(each) for each in prices)
    unused = sorted(set(price_of) - set(scenario.devices))
    if unused:
        raise Complaint(f"--price-usd: {unused[0]!r} is no device of the scenario")
    devices: dict[str, DeviceSpec] = {}
    notes: list[str] = []
    for name in scenario.devices:
        for device, note in devices_named(name, fits, price_of.get(name)):
            if device.id in devices:
                raise Complaint(f"devices: {name!r} names {device.id} a second time")
            devices[device.id] = device
            notes += [note] if note and name != device.id else []
    return devices, notes


def _price(text: str) -> tuple[str, str]:
    name, separator, amount = text.partition("=")
    if not (name and separator):
        raise Complaint(f"wanted --price-usd DEVICE=AMOUNT, got {text!r}")
    return name, amount


def _simulated(plan: Plan, predictions: Mapping[str, Prediction | Refusal]) -> Estimate | Unknown:
    """p99 of the chosen fleet in simulated time, at the latency it was sized for."""
    option, scenario = plan.chosen, plan.scenario
    prediction = predictions.get(option.device_id) if option else None
    if option is None or not isinstance(prediction, Prediction):
        return Unknown(reason="no fleet was chosen")
    cameras = scenario.demand.cameras
    if scenario.demand.arrivals == "takt" and cameras > SIMULATED_IMAGES:
        return Unknown(reason=f"a burst of more than {SIMULATED_IMAGES:,} images takes too long")
    bursts = -(-SIMULATED_IMAGES // cameras)
    run = simulate(
        scenario.demand,
        servers=option.devices - scenario.promise.spare_devices,
        batch=scenario.batch,
        service_s=prediction.latency_s.high,
        service_variation=service_variation(prediction) / scenario.batch,
        images=bursts * cameras if scenario.demand.arrivals == "takt" else SIMULATED_IMAGES,
    )
    return run.p99_s()


def _footnotes(
    plan: Plan, predictions: Mapping[str, Prediction | Refusal], simulated: Estimate | Unknown
) -> list[str]:
    promise, chosen = plan.scenario.promise, plan.chosen
    lines = [
        f"sized for the upper end of the 90 % latency interval, utilisation up to "
        f"{promise.target_utilisation:.0%}, p99 up to {shown(promise.p99_latency_s, 's')}; the "
        f"count includes spare devices: {promise.spare_devices}"
    ]
    if chosen is None:
        return [*lines, "no fleet both keeps the promise and has a known price"]
    checked = (
        simulated.reason
        if isinstance(simulated, Unknown)
        else f"{_range(simulated)} simulated, {shown(chosen.p99_latency_s, 's')} in closed form"
    )
    lines.append(f"chosen: {chosen.devices} × {chosen.device_name}; p99: {checked}")
    if not chosen.meets_full_depth:
        lines.append("at full depth, the guard's fallback, this fleet breaks the promise")
    prediction = predictions[chosen.device_id]
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
        "utilisation": f"{option.utilisation:.1%}" if is_fleet else NOT_KNOWN,
        "p99": shown(option.p99_latency_s, "s") if is_fleet else NOT_KNOWN,
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


def _row(option: FleetOption, plan: Plan, simulated: Estimate | Unknown) -> dict[str, Cell]:
    """Flat and machine-readable: units in the names, an empty cell where a reason is given."""
    cost, is_fleet = option.ownership, option.devices > 0
    owned = None if isinstance(cost, Unknown) else cost
    p99 = simulated if option == plan.chosen and isinstance(simulated, Estimate) else None
    return {
        "device_id": option.device_id,
        "device": option.device_name,
        "tier": option.tier,
        "devices": option.devices if is_fleet else None,
        "spare_devices": plan.scenario.promise.spare_devices if is_fleet else None,
        "utilisation": option.utilisation if is_fleet else None,
        "p99_latency_ms": option.p99_latency_s / MILLI if is_fleet else None,
        "simulated_p99_latency_ms": p99.value / MILLI if p99 else None,
        "meets_full_depth": option.meets_full_depth if is_fleet else None,
        "currency": plan.scenario.site.currency,
        "horizon_years": plan.scenario.finance.horizon_years,
        "cost": _number(owned.total) if owned else None,
        "cost_low": _number(owned.low) if owned else None,
        "cost_high": _number(owned.high) if owned else None,
        "cost_per_million_images": _number(owned.per_million_images) if owned else None,
        "cost_per_million_images_low": _number(owned.per_million_low) if owned else None,
        "cost_per_million_images_high": _number(owned.per_million_high) if owned else None,
        "reason": option.reason or (cost.reason if isinstance(cost, Unknown) else ""),
    }


def _bare(amount: Decimal, cost: Ownership) -> str:
    return shown_money(amount, cost.currency).removesuffix(f" {cost.currency}")


def _number(amount: Decimal | Unknown) -> float | None:
    return None if isinstance(amount, Unknown) else float(amount)


def _range(estimate: Estimate) -> str:
    return " ".join(
        (shown(estimate.value, "s"), f"({shown(estimate.low, 's')} to {shown(estimate.high, 's')})")
    )


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
