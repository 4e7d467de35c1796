"""`python -m costmodel.predict`: what a model takes on a device, and what owning it costs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from costmodel.asking import (
    batches_of,
    capped,
    devices_named,
    precision_for,
    routing_named,
    terms_of,
)
from costmodel.csvtable import CSV_COLUMNS, predicted_rows
from costmodel.offers import Terms, offer_of, row_of, shown_row
from costmodel.own import (
    ANCHOR_COLUMNS,
    ANCHOR_FORM,
    TORCH,
    checked_torch,
    device_from,
    fits_with,
    timing_from,
    timings_from,
    write_skeleton,
)
from costmodel.telling import comparison, explanation, worth_told
from domain.catalogue import (
    check_executor,
    check_runtime,
    devices,
    model_named,
    plain_vits,
    presets,
)
from domain.complaint import (
    UNSTABLE,
    Complaint,
)
from domain.device import DeviceSpec
from domain.prediction import Prediction, Refusal
from domain.record import Unknown
from domain.scenario import Offer, Offers, Ownership
from domain.shell import emit, format_named, run_shell
from domain.store import save, stored_fits
from domain.tables import Cell, rendered
from domain.workload import Workload, attention_of_torch, timm_states

LARGEST_IMAGE = 16_384
DEFAULT_BATCHES = "1,8,32"
# What is explained or compared where no batch is named.
COMPARED_BATCH, MOST_COMPARED, MOST_TIMINGS = 8, 64, 16

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python -m costmodel.predict --device jetson-orin --routing 1,0.6,0.3")
def predict(
    device: Annotated[
        str, typer.Option(help="Catalogue id, alias, 'cpu' (measured), or 'all'.")
    ] = "cpu",
    model: Annotated[str, typer.Option(help="MoR-ViT preset or timm name.")] = "morvit-small",
    routing: Annotated[
        str | None, typer.Option(help="1,0.6,0.3 | mean=0.3 | full | trace.parquet")
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes, by comma.")] = DEFAULT_BATCHES,
    precision: Annotated[
        str | None, typer.Option(help="Default: fp32 on a CPU, fp16 elsewhere.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="eager, compiled, engine, …")] = "eager",
    executor: Annotated[str, typer.Option(help="packed, masked, padded, capacity")] = "packed",
    image_size: Annotated[int | None, typer.Option(help="Pixels a side.")] = None,
    from_csv: Annotated[
        Path | None, typer.Option(help=f"Predict a table with columns {', '.join(CSV_COLUMNS)}.")
    ] = None,
    device_file: Annotated[
        Path | None, typer.Option(help="A device of your own, in TOML, instead of --device.")
    ] = None,
    write_device_skeleton: Annotated[
        Path | None, typer.Option(help="Write a --device-file to fill in, and stop.")
    ] = None,
    anchor: Annotated[
        list[str] | None, typer.Option(help=f"A timing on that device: {ANCHOR_FORM}; repeatable.")
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(
            help=f"Timings as CSV: {', '.join(ANCHOR_COLUMNS)}; img_size, kept and {TORCH}, if need be."
        ),
    ] = None,
    torch_version: Annotated[
        str | None,
        typer.Option(help="torch that runs, where it is older than 2: its attention is not fused."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of a measured CPU; default: the most.")
    ] = None,
    power_cap_w: Annotated[
        float | None,
        typer.Option(help="Watts that each device is held to; the clock falls for it."),
    ] = None,
    price_usd: Annotated[str | None, typer.Option(help="Price of the device.")] = None,
    energy_usd_per_kwh: Annotated[str | None, typer.Option(help="Price of energy.")] = None,
    pue: Annotated[float | None, typer.Option(help="Default: 1.1 at the edge, else 1.6.")] = None,
    duty: Annotated[float, typer.Option(help="Share of all hours that the device is busy.")] = 0.5,
    years: Annotated[int, typer.Option(help="Years of ownership.")] = 3,
    format: Annotated[str, typer.Option(help="table, json, csv or md")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write there, not to stdout.")] = None,
    offers: Annotated[
        Path | None, typer.Option(help="Also store the predictions whole, as JSON.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Time by depth and operator, its bound, what-ifs.")
    ] = False,
    worth: Annotated[
        int | None, typer.Option(help="Which so many timings would narrow the interval most.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="With --worth: a plan for `python -m profiler run --plan`.")
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="Devices by comma: rank, and P(one beats the next).")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit 3 if anything is extrapolated.")] = False,
    list_devices: Annotated[bool, typer.Option("--list-devices", help="List and stop.")] = False,
    list_models: Annotated[bool, typer.Option("--list-models", help="List and stop.")] = False,
) -> None:
    """Predict latency, throughput, memory, energy and cost, each with a 90 % interval and a tier."""
    shape = format_named(format)
    if list_devices or list_models:
        emit(rendered(list(_listed_devices() if list_devices else _listed_models()), shape), output)
        return
    if write_device_skeleton is not None:
        write_skeleton(write_device_skeleton)
        return
    if output is not None and offers is not None and output.resolve() == offers.resolve():
        raise Complaint(f"--output and --offers both name {output}; name two files")
    if image_size is not None and not 1 <= image_size <= LARGEST_IMAGE:
        raise Complaint(f"wanted --image-size from 1 to {LARGEST_IMAGE}, got {image_size}")
    fits = stored_fits()
    if device_file is None:
        wanted = devices_named(device, fits, price_usd, threads)
    elif device != "cpu" or price_usd is not None or threads is not None:
        raise Complaint(
            "--device-file says all of a device: leave out --device, --price-usd, --threads"
        )
    else:
        own = device_from(device_file)
        wanted = [(own, f"device: {own.id}, {own.name}, as {device_file.name} describes it")]
    torch = checked_torch(torch_version)
    timings = [timing_from(text, torch) for text in anchor or ()]
    timings += [] if anchors is None else timings_from(anchors, torch)
    if timings and len(wanted) != 1:
        raise Complaint("--anchor is of one device: name it with --device or --device-file")
    if timings:
        fits = fits_with(timings, wanted[0][0], fits)
    if from_csv is not None:
        if power_cap_w is not None:
            raise Complaint("--power-cap-w is not for --from-csv: ask for each device by --device")
        # A table comes back as a table: CSV unless another shape is asked for.
        mine = {each.id: each for each, _ in wanted} if device_file is not None else {}
        rows = predicted_rows(from_csv, fits, routing, check_executor(executor), mine, torch)
        emit(rendered(rows, "csv" if shape == "table" else shape), output)
        return
    net = model_named(model, image_size)
    travelled, routing_note = routing_named(routing, net)
    terms = terms_of(energy_usd_per_kwh, pue, duty, years)
    # Timings of a user's own are of the device as it comes.
    wanted = capped(wanted, power_cap_w)
    batches = batches_of(batch)

    def asked(each: DeviceSpec, size: int) -> Workload:
        return Workload(
            architecture=net,
            batch=size,
            precision=precision_for(precision, each),
            runtime=check_runtime(runtime),
            executor=check_executor(executor),
            states=timm_states(net),
            attention=attention_of_torch(torch, check_runtime(runtime)),
            routing=travelled,
        )

    if compare is not None:
        names = [each for each in compare.split(",") if each.strip()]
        found_named = [devices_named(each.strip(), fits, None)[0] for each in names]
        named = [each for each, _ in capped(found_named, power_cap_w)]
        if not 2 <= len(named) <= MOST_COMPARED or len({each.id for each in named}) < len(named):
            raise Complaint(f"--compare wants from two to {MOST_COMPARED} devices, got {compare!r}")
        if len(batches) != 1 and batch != DEFAULT_BATCHES:
            raise Complaint(f"--compare is at one batch: name one with --batch, got {batch}")
        size = batches[0] if len(batches) == 1 else COMPARED_BATCH
        pairs = [(asked(each, size), each) for each in named]
        emit(comparison(pairs, fits, shape), output)
        return
    if worth is not None:
        if len(wanted) != 1 or not 1 <= worth <= MOST_TIMINGS:
            raise Complaint(f"--worth wants one device and from 1 to {MOST_TIMINGS} timings")
        one = batches[0] if batch != DEFAULT_BATCHES else COMPARED_BATCH
        emit(worth_told(asked(wanted[0][0], one), wanted[0][0], fits, worth, plan, shape), output)
        return
    if plan is not None:
        raise Complaint("--plan is what --worth writes: say how many timings with --worth 4")
    if explain:
        if len(wanted) != 1:
            raise Complaint("--explain is of one device: name it with --device")
        one = batches[0] if batch != DEFAULT_BATCHES else COMPARED_BATCH
        emit(explanation(asked(wanted[0][0], one), wanted[0][0], fits, shape), output)
        return
    found = [
        offer_of(
            asked(each, size),
            each,
            fits,
            terms,
        )
        for each, _ in wanted
        for size in batches
    ]
    refused = [each.prediction for each in found if isinstance(each.prediction, Refusal)]
    if len(refused) == len(found):
        raise Complaint(refused[0].reason)
    notes = [note for _, note in wanted if note]
    if offers is not None:
        save(Offers(model=net.name, routing=routing_note, offers=tuple(found)), offers)
    if shape == "table":
        text = "\n".join(
            [
                *notes,
                f"model: {net.name}; routing: {routing_note}",
                "",
                rendered(_filled([shown_row(offer) for offer in found]), shape),
                *_footnotes(found, terms),
            ]
        )
        emit(text + "\n", output)
    else:
        emit(
            rendered(_filled([row_of(offer, note="; ".join(notes)) for offer in found]), shape),
            output,
        )
    if strict and any(
        isinstance(each.prediction, Prediction) and each.prediction.is_extrapolated
        for each in found
    ):
        raise typer.Exit(UNSTABLE)


def _filled(rows: Sequence[Mapping[str, Cell]]) -> list[dict[str, Cell]]:
    """Rows with the same columns, in the order of first appearance in the fullest row."""
    widest = max(range(len(rows)), key=lambda number: len(rows[number]))
    columns = list(rows[widest])
    columns += [name for row in rows for name in row if name not in columns]
    return [{name: row.get(name) for name in dict.fromkeys(columns)} for row in rows]


def _footnotes(found: Sequence[Offer], terms: Terms) -> Iterator[str]:
    yield "Intervals are 90 %. n/a: see the notes below."
    yield (
        f"Ownership: one device, busy {terms.duty:.0%} of all hours; energy "
        f"{terms.energy_usd_per_kwh} USD/kWh ({terms.energy_source}); hardware price "
        f"±{terms.finance.price_band:.0%}; host, staff and space not included."
    )
    lines: dict[str, None] = {}
    for offer in found:
        prediction, ownership = offer.prediction, offer.ownership
        if isinstance(prediction, Prediction):
            lines[f"{prediction.tier}: {prediction.tier_reason}"] = None
            lines |= dict.fromkeys(prediction.assumptions)
            # One device's price has its source and date; of a whole catalogue, the JSON tells.
            if len({each.device_id for each in found}) == 1 and isinstance(ownership, Ownership):
                lines |= dict.fromkeys(ownership.assumptions)
            for value in (prediction.energy_j_per_image, prediction.peak_memory_bytes, ownership):
                if isinstance(value, Unknown):
                    lines[f"{prediction.device_id}: {value.reason}"] = None
    yield from (f"- {line}" for line in lines)


def _listed_devices() -> Iterator[dict[str, Cell]]:
    for device in devices().values():
        yield {
            "id": device.id,
            "name": device.name,
            "class": device.device_class,
            "precisions": " ".join(device.precisions),
            "price_usd": None if isinstance(device.price_usd, Unknown) else device.price_usd.value,
        }


def _listed_models() -> Iterator[dict[str, Cell]]:
    for net in (*presets().values(), *plain_vits().values()):
        yield {
            "model": net.name,
            "parameters": net.parameters,
            "tokens": net.tokens,
            "width": net.width,
            "effective_depth": net.effective_depth,
            "recursions": net.recursions,
        }


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
