"""`python -m costmodel.speed`: latency predictions a second of one core, vectorised over workloads."""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from costmodel.asking import devices_named, precision_for
from costmodel.grid import Asked, batches_s
from costmodel.reach import reach_of
from domain.architecture import Architecture
from domain.catalogue import check_executor, model_named
from domain.complaint import Complaint
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.prediction import Refusal
from domain.routing import RoutingDistribution
from domain.shell import emit, format_named, run_shell
from domain.store import stored_fits
from domain.tables import Cell, rendered
from domain.workload import Workload

SEED, LARGEST_BATCH, MOST_WORKLOADS = 5, 64, 10_000_000
MODELS = "morvit-tiny,morvit-small,morvit-inspection,vit_small_patch16_224"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python -m costmodel.speed --device l4")
def speed(
    device: Annotated[str, typer.Option(help="Catalogue id, alias, or 'cpu' (measured).")] = "l4",
    models: Annotated[str, typer.Option(help="Presets or timm names, by comma.")] = MODELS,
    executor: Annotated[str, typer.Option(help="packed, masked, padded")] = "packed",
    workloads: Annotated[int, typer.Option(help="Predictions a network.")] = 200_000,
    images: Annotated[
        int, typer.Option(help="Images of a batch that differ; 0: of 1 to 64 that are alike.")
    ] = 0,
    format: Annotated[str, typer.Option(help="table, json, csv or md")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write the table there.")] = None,
) -> None:
    """Price random batches with random routing; seconds are of this process, not of the clock."""
    shape = format_named(format)
    if not 1 <= workloads <= MOST_WORKLOADS:
        raise Complaint(f"wanted --workloads from 1 to {MOST_WORKLOADS:,}, got {workloads}")
    most = MOST_WORKLOADS // workloads
    if not 0 <= images <= most:
        raise Complaint(f"wanted --images from 0 to {most:,} with so many workloads, got {images}")
    fits = stored_fits()
    spec = devices_named(device, fits, None)[0][0]
    nets = [model_named(name.strip(), None) for name in models.split(",")]
    rows = [_timed(net, spec, fits, executor, workloads, images) for net in nets]
    emit(rendered(rows, shape), output)


def _timed(
    net: Architecture,
    device: DeviceSpec,
    fits: tuple[Fit, ...],
    executor: str,
    count: int,
    images: int,
) -> dict[str, Cell]:
    workload = Workload(
        architecture=net,
        batch=1,
        precision=precision_for(None, device),
        executor=check_executor(executor),
        routing=RoutingDistribution.full(net.tokens, net.recursions),
    )
    reach = reach_of(workload, device, fits)
    if isinstance(reach, Refusal):
        raise Complaint(reach.reason)
    asked = Asked.of(workload, reach)
    random = np.random.default_rng(SEED)
    drawn = random.integers(1, LARGEST_BATCH + 1, size=count)
    batch = np.full(count, images) if images else drawn
    shape = (count, images or 1, net.recursions)
    # Sorted downwards: tokens never come back.
    counts = -np.sort(-random.integers(1, net.tokens + 1, size=shape), axis=2)
    started_s = time.process_time()
    batches_s(asked, counts, batch)
    seconds = time.process_time() - started_s
    return {
        "model": net.name,
        "device_id": device.id,
        "fit": reach.fit.name,
        "neighbours": 0 if asked.discrepancy is None else len(asked.discrepancy.points),
        "workloads": count,
        "images_that_differ": images,
        "predictions_per_core_second": round(count / seconds),
    }


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
