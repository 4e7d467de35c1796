"""The cells of a sweep: fleets sized for every device, batch, precision, executor and routing."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from costmodel.unitcost import unit_cost
from domain.complaint import Complaint
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.record import Unknown
from domain.scenario import Drift, Ownership, Scenario, Site
from scenarios.candidates import Forecasts
from scenarios.choosing import candidate_of
from scenarios.forecasting import forecasts_of
from scenarios.partition import Cell
from scenarios.sensitivity import Holding, holding_of
from scenarios.sizing import option_of

MOST_CELLS = 1_000_000


def cells_of(
    scenario: Scenario,
    devices: Mapping[str, DeviceSpec],
    fits: Sequence[Fit],
    variants: Sequence[tuple[str, str, float]],
    energies: Sequence[Decimal],
) -> tuple[list[Cell], list[str]]:
    """Every cell whose fleet keeps the promise at a known price, and why others are none."""
    cells: list[Cell] = []
    refused: list[str] = []
    number_of = {name: number for number, name in enumerate(sorted(devices))}
    if len(variants) * len(devices) * scenario.batch.bit_length() > MOST_CELLS:
        raise Complaint(f"wanted up to {MOST_CELLS:,} cells, got more: shorten an axis")
    for precision, executor, routing in variants:
        fields = {name: getattr(scenario, name) for name in Scenario.model_fields}
        drift = {name: getattr(scenario.routing, name) for name in Drift.model_fields}
        variant = Scenario(
            **{
                **fields,
                "precision": precision,
                "executor": executor,
                "routing": Drift(**{**drift, "corruption": routing}),
            }
        )
        for name, forecasts in forecasts_of(variant, devices, fits).items():
            for batch in forecasts.routed:
                label = f"{name}-b{batch}-{precision}-{executor}-r{routing:g}"
                alone = Forecasts(
                    routed={b: each for b, each in forecasts.routed.items() if b == batch},
                    full={b: each for b, each in forecasts.full.items() if b == batch},
                )
                option = option_of(variant, devices[name], alone, is_replayed=False)
                if option.reason or not isinstance(option.ownership, Ownership):
                    why = option.reason or getattr(option.ownership, "reason", "")
                    refused.append(f"{label}: {why}")
                    continue
                candidate = candidate_of(variant, alone, batch)
                holding = holding_of(variant, devices[name], option, candidate)
                assert holding is not None, "a priced fleet has a price and a power"
                cells.append(_cell(label, number_of[name], routing, holding, energies))
    return cells, refused


def _cell(
    label: str, number: int, routing: float, holding: Holding, energies: Sequence[Decimal]
) -> Cell:
    scenario, option, device = holding.scenario, holding.option, holding.device
    site = scenario.site
    fields = {name: getattr(site, name) for name in Site.model_fields}
    host_price = float(holding.host.price_usd)
    in_currency = float(site.currency_per_usd)
    units = [
        unit_cost(
            Site(**{**fields, "energy_price_per_kwh": price}),
            scenario.finance,
            device.device_class,
        )
        for price in energies
    ]
    loads, bearable = holding.bearable
    return Cell(
        name=label,
        device_id=device.id,
        device_number=number,
        batch=option.batch,
        precision=scenario.precision,
        executor=scenario.executor,
        routing=routing,
        devices=option.devices,
        servers_and_spares=holding.per_site,
        p99_s=None if isinstance(option.p99_latency_s, Unknown) else option.p99_latency_s,
        capital=(option.devices * holding.price_usd + option.hosts * host_price) * in_currency,
        idle_w=holding.power.idle_w.value,
        busy_w=holding.power.peak_w.value,
        own_w=option.hosts * holding.host.power_w,
        erlang=holding.erlang,
        strain=holding.strain,
        log_sd=holding.candidate.promised.log_sd,
        loads=loads,
        bearable=bearable,
        sites=tuple(
            (
                unit.per_capital,
                unit.per_mean_w,
                unit.per_peak_w,
                unit.fixed + unit.per_device * option.devices,
            )
            for unit in units
        ),
    )
