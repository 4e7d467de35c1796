"""`python -m scenarios.sweep`: a whole design space, drawn cell by cell through flat memory.

Devices × batches × precisions × executors × routings are cells; each is drawn over prices, sites
and worlds, part by part, into Parquet files that are written whole or not at all. What is there is
not drawn again.
"""

import hashlib
import json
import math
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer

from domain.catalogue import check_executor, check_precision
from domain.catalogue import devices as catalogue_devices
from domain.complaint import AllFailed, Complaint
from domain.scenario import Scenario
from domain.shell import emit, format_named, run_shell, say
from domain.store import results_root, stored_fits, write_whole
from domain.tables import Cell as TableCell
from domain.tables import rendered
from domain.units import KILO, shown, significant
from scenarios.cells import cells_of
from scenarios.drawing import on_cluster, on_this_machine
from scenarios.forecasting import devices_of
from scenarios.partition import MOST_DRAWS, MOST_PAIRS, Axes, Cell, Summary, front_of
from scenarios.reading import read_asked
from scenarios.sensitivity import HALF_NORMAL_95, PRICES_APART, PRICES_TOGETHER, log_sd
from scenarios.sweepfiles import claim, missing_of, path_of, read_summaries

MOST_ON_AN_AXIS = 100

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


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
    # Arrow's own pools keep what they once had; the system's gives it back.
    pa.set_memory_pool(pa.system_memory_pool())
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
    if len(axes.prices) * len(energies) > MOST_PAIRS:
        raise Complaint(f"wanted up to {MOST_PAIRS} pairs of price and energy price, got more")
    cells, refused = cells_of(scenario, devices, fits, variants, energies)
    if not cells:
        raise AllFailed(f"{file}: no cell has a fleet and a price; {next(iter(refused), 'none')}")
    spec = _spec_of(cells, axes)
    claim(folder, spec, scenario, len(cells))
    began, missing = time.perf_counter(), missing_of(folder, cells, axes)
    drawing = on_cluster(cluster) if cluster else on_this_machine(workers)
    for number, (part, content) in enumerate(drawing(missing, axes), start=1):
        write_whole(path_of(folder, part), content)
        if number % 50 == 0:
            say(f"{number} of {len(missing)} parts")
    seconds = time.perf_counter() - began
    summaries = [each for cell in cells for each in read_summaries(folder, cell, axes)]
    pairs = len(axes.prices) * len(energies)
    rows = pairs * sum(part.stop - part.start for _, part in missing)
    front = list(front_rows(cells, summaries, axes, energies))
    emit(rendered(front, shape), output)
    say(
        f"{rows:,} rows of {len({cell.name for cell, _ in missing})} cells in {seconds:.1f} s"
        + (f", {rows / seconds / 1e6:.1f} million a second" if rows else "")
        + f"; {len(cells)} cells, {len(refused)} refused; peak memory "
        f"{shown(_peak_bytes(), 'B')}; {folder}"
    )


def front_rows(
    cells: Sequence[Cell], summaries: Sequence[Summary], axes: Axes, energies: Sequence[Decimal]
) -> Iterator[dict[str, TableCell]]:
    """Cells that no other beats in median cost, p99 and promise at once, by price and site."""
    cell_of = {cell.name: cell for cell in cells}
    for p, price in enumerate(axes.prices):
        for s, energy in enumerate(energies):
            here = [each for each in summaries if (each.price, each.site) == (p, s)]
            points = np.array(
                [[each.median, cell_of[each.cell].p99_s or 0.0, 1 - each.holds] for each in here]
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
                    "p99_latency_ms": None
                    if cell.p99_s is None
                    else float(significant(cell.p99_s * KILO, 4).replace(",", "")),
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


def _peak_bytes() -> float:
    """Most memory that this process held; its workers have their own."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
