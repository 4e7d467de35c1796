"""The section of designs: from a promise back to what keeps it."""

from collections.abc import Iterator

from domain.designs import DesignedDevice, Designs
from domain.record import Estimate, Unknown
from domain.units import shown, shown_chance, significant
from reports.blocks import Block, Paragraph, Sentences, Sheet, absence_of, source_of
from reports.cells import Cell, Table, between, estimate, figure, percent
from reports.contents import Absent, ReportContents, Say

COLUMNS = (
    "device", "price", "network", "runs_as", "batch", "accuracy", "p99", "holds", "throughput",
    "energy", "tier",
)  # fmt: skip


def designed(contents: ReportContents, say: Say) -> Iterator[Block]:
    """What was promised, what keeps it, what does not."""
    part = contents.designs
    if isinstance(part, Absent):
        yield absence_of(part, "designs", say)
        return
    designs = part.value
    yield source_of(part, say)
    yield Paragraph(_promise(designs, say))
    if designs.devices:
        yield Sheet(_devices_table(designs, say))
    else:
        yield Paragraph(say("designs.nothing"), tone="warning")
    if designs.missing:
        yield Sheet(_missing_table(designs, say))
    said = [*designs.notes, *(line for each in designs.devices for line in _assumptions(each))]
    if said:
        yield Sentences(say("catalogue.assumptions"), tuple(dict.fromkeys(said)))


def _promise(designs: Designs, say: Say) -> str:
    wanted = designs.wanted
    words = [
        say(
            "designs.promise",
            p99=shown(wanted.p99_s, "s"),
            confidence=percent(wanted.confidence),
            prefer=say(f"designs.prefer_{wanted.prefer}"),
        )
    ]
    if wanted.images_per_s:
        words.append(say("designs.rate", rate=significant(wanted.images_per_s)))
    if wanted.least_accuracy:
        words.append(say("designs.least_accuracy", accuracy=percent(wanted.least_accuracy)))
    if wanted.price_usd is not None:
        words.append(say("designs.most_price", price=f"{wanted.price_usd:,.0f}"))
    if wanted.power_cap_w is not None:
        words.append(say("designs.cap", cap=shown(wanted.power_cap_w, "W")))
    return " ".join(words)


def _devices_table(designs: Designs, say: Say) -> Table:
    return Table(
        id="table-designs",
        caption=say("designs.table"),
        columns=tuple(say(f"designs.{name}") for name in COLUMNS),
        rows=tuple(_row(each, say) for each in designs.devices),
    )


def _row(each: DesignedDevice, say: Say) -> tuple[Cell, ...]:
    prediction = each.prediction
    work = prediction.workload
    net = work.architecture
    runs_as = f"{work.precision} {work.runtime}"
    return (
        Cell(prediction.device_name),
        _price(each, say),
        Cell(net.name, interval=say("designs.budget", budget=each.budget) if net.is_routed else ""),
        Cell(runs_as, interval=work.executor if net.is_routed else ""),
        Cell(str(work.batch)),
        _accuracy(each.accuracy, say),
        estimate(each.p99_s, "s", say),
        Cell(shown_chance(each.probability)),
        estimate(prediction.throughput_img_per_s, "img/s", say),
        figure(prediction.energy_j_per_image, "J", say),
        Cell(say(f"tier.{prediction.tier}"), remark=prediction.tier_reason, badge=prediction.tier),
    )


def _price(each: DesignedDevice, say: Say) -> Cell:
    price = each.price_usd
    if isinstance(price, Unknown):
        return Cell(say("page.not_offered"), remark=price.reason)
    return Cell(f"{price:,.0f} USD", interval=each.price_as_of, remark=each.price_source)


def _accuracy(accuracy: Estimate | Unknown, say: Say) -> Cell:
    if isinstance(accuracy, Unknown):
        return Cell(say("page.not_offered"), remark=accuracy.reason)
    ends = between(percent(accuracy.low), percent(accuracy.high), say)
    return Cell(percent(accuracy.value), interval=ends)


def _missing_table(designs: Designs, say: Say) -> Table:
    return Table(
        id="table-missing",
        caption=say("designs.missing"),
        columns=(say("designs.device"), say("designs.reason")),
        rows=tuple((Cell(each.device_id), Cell(each.reason)) for each in designs.missing),
    )


def _assumptions(each: DesignedDevice) -> Iterator[str]:
    yield from (f"{each.device_id}: {line}" for line in each.prediction.assumptions)
