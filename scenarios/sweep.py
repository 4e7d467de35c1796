"""`python -m scenarios.sweep`: a whole design space, drawn cell by cell through flat memory.

Devices × batches × precisions × executors × routings are cells; each is drawn over prices, sites
and worlds into one Parquet file, written whole or not at all. What is there is not drawn again.
"""

import hashlib
import json
import math
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
import typer

from costmodel.unitcost import unit_cost
from domain.catalogue import check_executor, check_precision
from domain.catalogue import devices as catalogue_devices
from domain.complaint import AllFailed, Complaint, CorruptFile
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.scenario import Drift, Ownership, Scenario, Site
from domain.shell import emit, format_named, run_shell, say
from domain.store import results_root, stored_fits, write_whole
from domain.tables import Cell as TableCell
from domain.tables import rendered
from domain.units import KILO, shown, significant
from scenarios.choosing import candidate_of
from scenarios.forecasting import devices_of, forecasts_of
from scenarios.partition import MOST_DRAWS, SUMMARY, Axes, Cell, Summary, drawn, front_of
from scenarios.reading import read_asked
from scenarios.sensitivity import (
    HALF_NORMAL_95,
    PRICES_APART,
    PRICES_TOGETHER,
    Holding,
    holding_of,
    log_sd,
)
from scenarios.sizing import Forecasts, option_of

MANIFEST = "sweep.json"
MOST_CELLS, MOST_ON_AN_AXIS = 1_000_000, 100
# Cells under way for each worker: enough to keep it busy, few enough for flat memory.
AHEAD = 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Drawing = Callable[[Sequence[Cell], Axes], Iterator[tuple[Cell, bytes]]]


@app.command(
    epilog="Example: python -m scenarios.sweep scenarios/library/server-room.toml --draws 20000"
)
def sweep(
    file: Annotated[Path, typer.Argument(help="Scenario, a TOML file.")],
    all_devices: Annotated[
        bool, typer.Option("--all-devices", help="The whole catalogue, not the scenario's.")
    ] = False,
    precisions: Annotated[str, typer.Option(help="Such as fp16,fp32; else the scenario's.")] = "",
    executors: Annotated[str, typer.Option(help="Such as packed,masked.")] = "",
    routings: Annotated[
        str, typer.Option(help="Shares of the way to full depth, such as 0,0.25,1.")
    ] = "0,0.25,1",
    prices: Annotated[str, typer.Option(help="Factors of hardware's price.")] = "0.7,1,1.3",
    energy_prices: Annotated[
        str, typer.Option(help="Of one kWh in the site's currency; else the scenario's.")
    ] = "",
    draws: Annotated[int, typer.Option(min=1, max=MOST_DRAWS, help="Of each cell.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes on this machine.")] = 1,
    cluster: Annotated[
        str, typer.Option(help="Address of a Dask scheduler of your own, tcp://host:port.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder; else results/plans/sweeps/NAME.")
    ] = None,
    format: Annotated[str, typer.Option(help="table, json, csv or md")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write there, not to stdout.")] = None,
) -> None:
    """Draw every cell of a design space and print its Pareto front: cost, latency, promise.

    Resumable: run it again. The same seed gives the same rows, with any number of workers.
    """
    shape = format_named(format)
    asked, fits = read_asked(file), stored_fits()
    scenario = asked.scenario
    named, _ = devices_of(scenario, fits)
    axes = _axes(scenario, _numbers("--prices", prices, most=1000.0), draws, seed)
    energies = _energies(scenario, energy_prices)
    variants = [
        (check_precision(precision), check_executor(executor), routing)
        for precision in _named(precisions or scenario.precision)
        for executor in _named(executors or scenario.executor)
        for routing in _numbers("--routings", routings, most=1.0)
    ]
    folder = out or results_root() / "plans" / "sweeps" / scenario.name
    devices = {**catalogue_devices(), **named} if all_devices else named
    cells, refused = cells_of(scenario, devices, fits, variants, energies)
    if not cells:
        raise AllFailed(f"{file}: no cell has a fleet and a price; {next(iter(refused), 'none')}")
    spec = _spec_of(cells, axes)
    _claim(folder, spec, scenario, len(cells))
    began, done = time.perf_counter(), {path.stem for path in folder.glob("*.parquet")}
    missing = [cell for cell in cells if cell.name not in done]
    drawing = on_cluster(cluster) if cluster else on_this_machine(workers)
    for number, (cell, content) in enumerate(drawing(missing, axes), start=1):
        write_whole(folder / f"{cell.name}.parquet", content)
        if number % 50 == 0:
            say(f"{len(done) + number} of {len(cells)} cells")
    seconds = time.perf_counter() - began
    summaries = [each for cell in cells for each in read_summaries(folder, cell)]
    rows = len(missing) * len(axes.prices) * len(energies) * axes.draws
    front = list(front_rows(cells, summaries, axes, energies))
    emit(rendered(front, shape), output)
    say(
        f"{rows:,} rows of {len(missing)} cells in {seconds:.1f} s"
        + (f", {rows / seconds / 1e6:.1f} million a second" if rows else "")
        + f"; {len(cells)} cells, {len(refused)} refused; peak memory "
        f"{shown(_peak_bytes(), 'B')}; {folder}"
    )


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
    hosts = 0 if device.device_class == "edge" else option.hosts
    fields = {name: getattr(site, name) for name in Site.model_fields}
    host_price = float(scenario.finance.host_price_usd)
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
        servers_and_spares=option.servers + option.spares,
        p99_s=option.p99_latency_s,
        capital=(option.devices * holding.price_usd + option.hosts * host_price) * in_currency,
        idle_w=holding.power.idle_w.value,
        busy_w=holding.power.peak_w.value,
        own_w=hosts * holding.host.power_w,
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


def on_this_machine(workers: int) -> Drawing:
    """Cells drawn in this process, or in so many of their own."""

    def alone(cells: Sequence[Cell], axes: Axes) -> Iterator[tuple[Cell, bytes]]:
        for cell in cells:
            yield cell, drawn(cell, axes)[0]

    def together(cells: Sequence[Cell], axes: Axes) -> Iterator[tuple[Cell, bytes]]:
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawned) as pool:
            waiting = iter(cells)
            under_way: dict[Future[bytes], Cell] = {}
            while True:
                while len(under_way) < AHEAD * workers and (cell := next(waiting, None)):
                    under_way[pool.submit(content_of, cell, axes)] = cell
                if not under_way:
                    return
                finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield under_way.pop(future), future.result()

    return alone if workers == 1 else together


def content_of(cell: Cell, axes: Axes) -> bytes:
    """The Parquet of one cell; a function of its own, so that another process can find it."""
    return drawn(cell, axes)[0]


def on_cluster(address: str) -> Drawing:
    """Cells drawn by the workers of a Dask cluster; a lost worker's cells are drawn again.

    Raises Complaint where dask is not installed or no scheduler answers.
    """
    if not address.startswith(("tcp://", "tls://")):
        raise Complaint(f"wanted --cluster tcp://host:port, got {address[:60]!r}")
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise Complaint(
            "--cluster needs dask, which is not installed: pip install 'morsizer[scale]'"
        ) from None

    def together(cells: Sequence[Cell], axes: Axes) -> Iterator[tuple[Cell, bytes]]:
        try:
            client = Client(address, timeout=10)
        except (OSError, TimeoutError) as error:
            raise Complaint(f"no Dask scheduler answers at {address}: {error}") from error
        with client:
            by_name = {cell.name: cell for cell in cells}
            waiting = iter(cells)
            ahead = AHEAD * max(1, len(client.scheduler_info()["workers"]))

            def sent(cell: Cell) -> Any:
                return client.submit(content_of, cell, axes, key=f"sweep-{cell.name}", pure=True)

            some = [sent(cell) for cell in islice(waiting, ahead)]
            arriving = as_completed(some, with_results=True)
            for future, content in arriving:
                yield by_name[future.key.removeprefix("sweep-")], content
                future.release()
                if cell := next(waiting, None):
                    arriving.add(sent(cell))

    return together


def read_summaries(folder: Path, cell: Cell) -> list[Summary]:
    """What a cell's file says of itself. Raises CorruptFile where it is not that cell's."""
    path = folder / f"{cell.name}.parquet"
    try:
        metadata = pq.read_schema(path).metadata or {}
        said = json.loads(metadata[SUMMARY])
        summaries = [Summary(**each) for each in said["summaries"]]
        is_of_cell = said["cell"] == json.loads(json.dumps(asdict(cell)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{path} is no cell of a sweep: {error}; delete it") from error
    if not is_of_cell:
        raise CorruptFile(f"{path} is of another sweep; delete it, or name another --out")
    return summaries


def front_rows(
    cells: Sequence[Cell], summaries: Sequence[Summary], axes: Axes, energies: Sequence[Decimal]
) -> Iterator[dict[str, TableCell]]:
    """Cells that no other beats in median cost, p99 and promise at once, by price and site."""
    cell_of = {cell.name: cell for cell in cells}
    for p, price in enumerate(axes.prices):
        for s, energy in enumerate(energies):
            here = [each for each in summaries if (each.price, each.site) == (p, s)]
            points = np.array(
                [[each.median, cell_of[each.cell].p99_s, 1 - each.holds] for each in here]
            )
            kept = [each for each, is_kept in zip(here, front_of(points), strict=True) if is_kept]
            for each in sorted(kept, key=lambda summary: summary.median):
                cell = cell_of[each.cell]
                yield {
                    "price_factor": price,
                    "energy_price": float(energy),
                    "device_id": cell.device_id,
                    "devices": cell.devices,
                    "batch": cell.batch,
                    "precision": cell.precision,
                    "executor": cell.executor,
                    "routing": cell.routing,
                    "p99_latency_ms": float(significant(cell.p99_s * KILO, 4).replace(",", "")),
                    "promise_probability": round(each.holds, 4),
                    "cost_low": each.low,
                    "cost": each.median,
                    "cost_high": each.high,
                }


def _axes(scenario: Scenario, prices: Sequence[float], draws: int, seed: int) -> Axes:
    bands, price_sd = scenario.uncertainty, log_sd(scenario.finance.price_band)
    return Axes(
        prices=tuple(prices),
        draws=draws,
        seed=seed,
        load_sd=log_sd(bands.load_band),
        price_sd=PRICES_TOGETHER * price_sd,
        own_price_sd=PRICES_APART * price_sd,
        energy_sd=log_sd(bands.energy_band),
        currency_sd=log_sd(bands.currency_band) * (scenario.site.currency != "USD"),
        stray_sd=bands.routing_band / HALF_NORMAL_95,
    )


def _energies(scenario: Scenario, text: str) -> list[Decimal]:
    if not text:
        return [scenario.site.energy_price_per_kwh]
    try:
        found = [Decimal(part) for part in text.split(",")]
    except InvalidOperation:
        found = []
    if not found or not all(each.is_finite() and 0 <= each <= 10**9 for each in found):
        raise Complaint(f"wanted --energy-prices like 15,25.28, got {text[:60]!r}")
    return _few("--energy-prices", found)


def _numbers(option: str, text: str, most: float) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(math.isfinite(each) and 0 <= each <= most for each in found):
        raise Complaint(f"wanted {option} of 0 to {most:g} like 0.5,1, got {text[:60]!r}")
    return _few(option, found)


def _named(text: str) -> list[str]:
    return _few("axis", [part.strip() for part in text.split(",")])


def _few(option: str, found: list[Any]) -> list[Any]:
    if len(found) > MOST_ON_AN_AXIS or len(set(found)) != len(found):
        raise Complaint(f"wanted {option} with up to {MOST_ON_AN_AXIS} values, each once")
    return found


def _spec_of(cells: Sequence[Cell], axes: Axes) -> str:
    said = json.dumps([[asdict(cell) for cell in cells], asdict(axes)], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _claim(folder: Path, spec: str, scenario: Scenario, cells: int) -> None:
    """The folder is of this sweep alone: rows of two would be taken for those of one."""
    manifest = folder / MANIFEST
    said = {"format": 1, "spec": spec, "scenario": scenario.name, "cells": cells}
    if not manifest.exists():
        if folder.is_dir() and any(folder.glob("*.parquet")):
            raise Complaint(f"{folder} has rows but no {MANIFEST}; name another --out")
        write_whole(manifest, (json.dumps(said, indent=1) + "\n").encode())
        return
    try:
        before = json.loads(manifest.read_bytes()[:10_000])
        is_same = isinstance(before, dict) and before.get("spec") == spec
    except ValueError as error:
        raise CorruptFile(f"{manifest} is no JSON: {error}") from error
    if not is_same:
        raise Complaint(
            f"{folder} holds another sweep (other devices, axes, seed or fits); name another --out"
        )


def _peak_bytes() -> float:
    """Most memory that this process held; its workers have their own."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
