"""`python -m costmodel.design`: what keeps a promise: device, network, budget, batch, precision."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, cast

import typer

from costmodel.asking import capped, devices_named, precision_for
from costmodel.designing import (
    PREFERENCES,
    Design,
    Miss,
    Network,
    Promise,
    designs_of,
)
from costmodel.offers import interval
from domain.card import Budget, BudgetCard
from domain.catalogue import check_precision, check_runtime, devices, model_named
from domain.complaint import BrokenPromise, Complaint, CorruptFile
from domain.defaults import prices_assumed
from domain.designs import DesignedDevice, Designs, MissingDevice, Preference, Wanted
from domain.device import DeviceSpec
from domain.record import Estimate, Precision, Unknown
from domain.routing import routing_of_budget
from domain.shell import emit, format_named, run_shell
from domain.store import committed_cards, load, save, stored_fits
from domain.tables import Cell, rendered
from domain.units import MILLI, shown_chance

UNMEASURED_BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python -m costmodel.design --device orin-nano-super --p99-ms 30")
def design(
    p99_ms: Annotated[float, typer.Option(help="What a batch may take, waiting for it included.")],
    device: Annotated[str, typer.Option(help="Catalogue ids by comma, or 'all'.")] = "all",
    price_usd: Annotated[
        float | None, typer.Option(help="The most that a device may cost.")
    ] = None,
    images_per_s: Annotated[
        float, typer.Option(help="Images that come in evenly; 0: batches are there whole.")
    ] = 0.0,
    least_accuracy: Annotated[
        float, typer.Option(help="Share of test images that must be right.")
    ] = 0.0,
    confidence: Annotated[float, typer.Option(help="Probability that the promise holds.")] = 0.9,
    power_cap_w: Annotated[
        float | None, typer.Option(help="Watts that each device is held to.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint cards (.json) or presets by comma; default: the committed."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="By comma; default: fp32 on a CPU, fp16 elsewhere.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="eager, compiled, engine, … by comma.")] = "eager",
    prefer: Annotated[str, typer.Option(help=", ".join(PREFERENCES))] = "accuracy",
    top: Annotated[int, typer.Option(help="The most devices that are listed.")] = 10,
    format: Annotated[str, typer.Option(help="table, json, csv or md")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write the table there.")] = None,
    designs: Annotated[
        Path | None, typer.Option(help="Also store the answer whole, as JSON, for the report.")
    ] = None,
) -> None:
    """Find what keeps a promise, with the accuracy that the network's budgets gave on test images.

    One row a device, the best first. Exit code 7 where nothing keeps it.
    """
    shape = format_named(format)
    promise = _promise(p99_ms, confidence, images_per_s, least_accuracy, price_usd)
    if prefer not in PREFERENCES:
        raise Complaint(f"wanted --prefer {', '.join(PREFERENCES)}, got {prefer!r}")
    if output is not None and designs is not None and output.resolve() == designs.resolve():
        raise Complaint(f"--output and --designs both name {output}; name two files")
    if top < 1:
        raise Complaint(f"wanted --top from 1, got {top}")
    networks, notes = _networks(model)
    fits = stored_fits()
    names = list(devices()) if device == "all" else [each.strip() for each in device.split(",")]
    wanted = [devices_named(name, fits, None)[0] for name in names]
    specs = [each for each, _ in capped(wanted, power_cap_w)]
    asked = None if precision is None else [check_precision(p) for p in precision.split(",")]

    def precisions(spec: DeviceSpec) -> Sequence[Precision]:
        return [precision_for(None, spec)] if asked is None else asked

    runtimes = [check_runtime(name) for name in runtime.split(",")]
    chosen, missed = designs_of(specs, networks, precisions, runtimes, promise, fits, prefer)
    if designs is not None:
        save(_stored(chosen, missed, notes, promise, prefer, power_cap_w), designs)
    if not chosen:
        raise BrokenPromise(_nothing(missed, promise))
    rows = [_row(each, is_shown=shape == "table") for each in chosen[:top]]
    text = rendered(rows, shape)
    if shape == "table":
        said = _footnotes(chosen, chosen[:top], missed, notes, promise)
        text = "\n".join([text.rstrip(), *said, ""])
    emit(text, output)


def _promise(
    p99_ms: float, confidence: float, rate: float, accuracy: float, price: float | None
) -> Promise:
    # NaN fails every comparison.
    for name, value, low, high in (
        ("--p99-ms", p99_ms, 1e-3, 1e7),
        ("--confidence", confidence, 0.5, 0.9999),
        ("--images-per-s", rate, 0.0, 1e9),
        ("--least-accuracy", accuracy, 0.0, 1.0),
        ("--price-usd", 1.0 if price is None else price, 1e-9, 1e9),
    ):
        if not low <= value <= high:
            raise Complaint(f"wanted {name} from {low:g} to {high:g}, got {value}")
    return Promise(
        p99_s=p99_ms * MILLI,
        confidence=confidence,
        images_per_s=rate,
        least_accuracy=accuracy,
        price_usd=math.inf if price is None else price,
    )


def _networks(asked: str | None) -> tuple[list[Network], list[str]]:
    """Networks that may be chosen and what should be said about their accuracy.

    Raises Complaint where their accuracies are of different images: those cannot be compared.
    """
    named = [] if asked is None else [each.strip() for each in asked.split(",")]
    if asked is None:
        cards = list(committed_cards(with_weights=True))
        if not cards:
            raise Complaint("no network is committed: name a card or a preset with --model")
    else:
        cards = [load(Path(name), BudgetCard) for name in named if name.endswith(".json")]
    nets = [network_of(card) for card in cards]
    data = dict.fromkeys(card.data for card in cards)
    if len(data) > 1:
        raise Complaint(
            "accuracies of different images cannot be compared: " + "; ".join(data) + "; name the "
            "cards of one task with --model"
        )
    notes = [f"accuracy: {each}, with its exact 90 % interval" for each in data]
    for name in named:
        if not name.endswith(".json"):
            nets.append(_without_card(name))
            notes.append(f"{name} has no card: its accuracy is unknown at every budget")
    return nets, notes


def network_of(card: BudgetCard) -> Network:
    """The network of a card. Raises CorruptFile where none of its budgets can be run today."""
    budgets = card.budgets
    if not budgets:
        raise CorruptFile(
            f"the card of {card.architecture.name} has no budget that routes as it was measured; "
            "train or evaluate it anew with `python -m morvit.train`"
        )
    return Network(architecture=card.architecture, budgets=budgets)


def _without_card(name: str) -> Network:
    net = model_named(name, None)
    shares = UNMEASURED_BUDGETS if net.is_routed else (1.0,)
    unknown = Unknown(reason=f"{name} has no card")
    budgets = tuple(
        Budget(name=f"{share:g}", routing=routing_of_budget(share, net), accuracy=unknown)
        for share in shares
    )
    return Network(architecture=net, budgets=budgets)


def _stored(
    chosen: Sequence[Design],
    missed: Sequence[Miss],
    notes: Sequence[str],
    promise: Promise,
    prefer: str,
    power_cap_w: float | None,
) -> Designs:
    return Designs(
        wanted=Wanted(
            p99_s=promise.p99_s,
            confidence=promise.confidence,
            images_per_s=promise.images_per_s,
            least_accuracy=promise.least_accuracy,
            price_usd=None if math.isinf(promise.price_usd) else promise.price_usd,
            power_cap_w=power_cap_w,
            prefer=cast(Preference, prefer),
        ),
        devices=tuple(
            DesignedDevice(
                device_id=each.device.id,
                price_usd=each.device.price_usd
                if isinstance(each.device.price_usd, Unknown)
                else each.device.price_usd.value,
                price_source=_price_told(each.device)[0],
                price_as_of=_price_told(each.device)[1],
                budget=each.budget.name,
                accuracy=each.budget.accuracy,
                prediction=each.prediction,
                p99_s=_p99_s(each),
                probability=each.probability,
            )
            for each in chosen
        ),
        missing=tuple(
            MissingDevice(device_id=each.device_id, reason=each.reason) for each in missed
        ),
        notes=tuple(notes),
    )


def _price_told(device: DeviceSpec) -> tuple[str, str]:
    """Where its price comes from, and the date; both empty where it has none."""
    for said in prices_assumed([device]):
        return said.source, said.as_of
    return "", ""


def _p99_s(found: Design) -> Estimate:
    latency = found.prediction.latency_s
    waiting_s = found.p99_s - latency.value
    return Estimate(**{side: getattr(latency, side) + waiting_s for side in SIDES.values()})


def _row(found: Design, *, is_shown: bool) -> dict[str, Cell]:
    answer, budget = found.prediction, found.budget
    work, accuracy = answer.workload, budget.accuracy
    p99_s = _p99_s(found)
    price = None if math.isinf(found.price_usd) else found.price_usd
    source, as_of = _price_told(found.device)
    if is_shown:
        right = (
            "n/a"
            if isinstance(accuracy, Unknown)
            else (f"{accuracy.value:.1%} ({accuracy.low:.1%}–{accuracy.high:.1%})")
        )
        return {
            "device": found.device.id,
            "USD": price,
            "price of": as_of,
            "model": work.architecture.name,
            "budget": budget.name,
            "batch": work.batch,
            "runs as": " ".join(
                [work.precision, work.runtime]
                + ([work.executor] if work.architecture.is_routed else [])
            ),
            "accuracy": right,
            "p99": interval(p99_s, "s"),
            "holds": shown_chance(found.probability),
            "images/s": interval(answer.throughput_img_per_s, ""),
            "tier": answer.tier,
        }
    is_known = not isinstance(accuracy, Unknown)
    return {
        "device_id": found.device.id,
        "price_usd": price,
        "price_source": source,
        "price_as_of": as_of,
        "model": work.architecture.name,
        "budget": budget.name,
        "mean_depth": work.routing.mean_depth,
        "survival": ",".join(f"{share:.4g}" for share in work.routing.survival),
        "batch_size": work.batch,
        "precision_id": work.precision,
        "runtime_id": work.runtime,
        "executor": work.executor,
        **{
            f"accuracy{end}": getattr(accuracy, side) if is_known else None
            for end, side in SIDES.items()
        },
        **{f"p99_ms{end}": getattr(p99_s, side) / MILLI for end, side in SIDES.items()},
        "probability": found.probability,
        **{
            f"throughput_img_per_s{end}": getattr(answer.throughput_img_per_s, side)
            for end, side in SIDES.items()
        },
        "peak_memory_bytes": None
        if isinstance(answer.peak_memory_bytes, Unknown)
        else answer.peak_memory_bytes.value,
        "energy_j_per_image": None
        if isinstance(answer.energy_j_per_image, Unknown)
        else answer.energy_j_per_image.value,
        "tier": answer.tier,
        "tier_reason": answer.tier_reason,
        "assumptions": "; ".join(answer.assumptions),
    }


SIDES = {"": "value", "_low": "low", "_high": "high"}


def _footnotes(
    chosen: Sequence[Design],
    listed: Sequence[Design],
    missed: Sequence[Miss],
    notes: Sequence[str],
    promise: Promise,
) -> Iterator[str]:
    yield "Intervals are 90 %. holds: probability that a batch keeps the promise."
    yield from (f"- {note}" for note in notes)
    if any(each.prediction.workload.precision != "fp32" for each in chosen):
        yield "- accuracy was measured in fp32; half precision is taken to give the same"
    if promise.images_per_s:
        yield "- images come in evenly; where they come at random, size with scenarios.size"
    else:
        yield "- batches are there whole: --images-per-s counts the waiting for them"
    lines = {f"{each.prediction.tier}: {each.prediction.tier_reason}": None for each in chosen[:1]}
    lines |= dict.fromkeys(chosen[0].prediction.assumptions)
    yield from (f"- {chosen[0].device.id}: {line}" for line in lines)
    for each in listed:
        source, _ = _price_told(each.device)
        if source:
            yield f"- price of {each.device.id}: {source}"
    yield from (
        f"- {each.device_id} does not do: {each.reason}" for each in missed if not each.is_too_dear
    )
    dear = [each.device_id for each in missed if each.is_too_dear]
    if dear:
        yield f"- too dear, or without a price: {', '.join(dear)}"


def _nothing(missed: Sequence[Miss], promise: Promise) -> str:
    nearest = max(missed, key=lambda each: each.probability)
    return (
        f"nothing keeps {promise.p99_s / MILLI:g} ms with {promise.confidence:.0%} on "
        f"{len(missed)} devices; nearest: {nearest.device_id}: {nearest.reason}"
    )


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
