"""Tables of the catalogue and the plan: what each device will take, and what owning it costs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import get_args

from domain.prediction import Prediction, Refusal
from domain.record import Estimate, Tier, Unknown
from domain.scenario import BreakEven, FleetOption, Offer, Offers, Ownership, Plan
from domain.units import shown, shown_chance, shown_money, significant
from reports.cells import Cell, Table, between, bounded, estimate, figure, percent, unit_price
from reports.contents import Say


def numbered(offers: Offers) -> tuple[tuple[int, Offer], ...]:
    """Offers with the number that table and chart give them: cheapest first, refused last."""
    return tuple(enumerate(sorted(offers.offers, key=_price_order), start=1))


@dataclass(frozen=True, kw_only=True)
class Priced:
    """An offer that a chart of cost against latency can show, with its number in the table."""

    number: int
    prediction: Prediction
    cost: Estimate
    price: str
    currency: str


def priced(offers: Offers) -> Iterator[Priced]:
    """Offers whose latency and cost of a million images are known and positive, cheapest first."""
    for number, offer in numbered(offers):
        prediction, owned = offer.prediction, offer.ownership
        if isinstance(prediction, Refusal) or isinstance(owned, Unknown):
            continue
        amount, low, high = (
            owned.per_million_images, owned.per_million_low, owned.per_million_high,
        )  # fmt: skip
        if isinstance(amount, Unknown) or isinstance(low, Unknown) or isinstance(high, Unknown):
            continue
        if low > 0 and prediction.latency_s.low > 0:
            yield Priced(
                number=number,
                prediction=prediction,
                cost=Estimate(value=float(amount), low=float(low), high=float(high)),
                price=unit_price(amount, owned.currency),
                currency=owned.currency,
            )


def offers_table(offers: Offers, say: Say) -> Table:
    """What each device will take, and what owning it costs."""
    names = (
        "number", "device", "tier", "batch", "latency", "throughput", "memory", "fits", "energy",
        "per_million",
    )  # fmt: skip
    years = sorted(
        {
            offer.ownership.horizon_years
            for offer in offers.offers
            if isinstance(offer.ownership, Ownership)
        }
    )
    total = say("catalogue.total", years=", ".join(str(each) for each in years) or "?")
    return Table(
        id="table-offers",
        caption=say("catalogue.table"),
        columns=(*(say(f"catalogue.{name}") for name in names), total),
        rows=tuple(_offer_row(number, offer, say) for number, offer in numbered(offers)),
    )


def fleets_table(plan: Plan, say: Say) -> Table:
    """The fleets that a plan compares."""
    names = ("fleet", "utilisation", "p99", "holds", "full_depth", "total")
    return Table(
        id="table-fleets",
        caption=say("plan.table"),
        columns=(
            say("catalogue.device"),
            say("catalogue.tier"),
            *(say(f"plan.{name}") for name in names),
            say("catalogue.per_million"),
            say("plan.reason"),
        ),
        rows=tuple(_fleet_row(option, say) for option in plan.options),
    )


def lines_table(option: FleetOption, ownership: Ownership, say: Say) -> Table:
    """The cost of one fleet, line by line."""
    currency = ownership.currency
    lines = tuple(
        (
            Cell(say(f"line.{line.name}")),
            bounded(line.amount, line.low, line.high, currency, say),
            Cell(line.how),
        )
        for line in ownership.lines
    )
    total = (
        Cell(say("plan.total")),
        bounded(ownership.total, ownership.low, ownership.high, currency, say),
        Cell(""),
    )
    return Table(
        id="table-lines",
        caption=say("plan.lines_of", device=option.device_name, years=str(ownership.horizon_years)),
        columns=tuple(say(f"plan.{name}") for name in ("line", "amount", "how")),
        rows=(*lines, total),
        total_rows=1,
    )


def cash_table(ownership: Ownership, say: Say) -> Table:
    """Cash by line and year: today, then at each year's end. Empty lines are left out."""
    currency = ownership.currency
    moving = [line for line in ownership.lines if any(line.by_year)]

    def row(name: str, amounts: Sequence[Decimal]) -> tuple[Cell, ...]:
        shares = (*amounts, sum(amounts, Decimal(0)))
        return (Cell(name), *(Cell(shown_money(each, currency)) for each in shares))

    years = (say("plan.year", number=str(year)) for year in range(1, ownership.horizon_years + 1))
    return Table(
        id="table-cash",
        caption=say("plan.cash", currency=currency),
        columns=(say("plan.line"), say("plan.today"), *years, say("plan.total")),
        rows=(
            *(row(say(f"line.{line.name}"), line.by_year) for line in moving),
            row(say("plan.total"), ownership.by_year),
        ),
        total_rows=1,
    )


def against_table(option: FleetOption, currency: str, say: Say) -> Table:
    """Owning the fleet against renting as many of its devices, contract by contract."""
    names = ("rented", "contract", "as_of", "amount", "hours", "use", "payback", "return")
    return Table(
        id="table-against",
        caption=say("plan.against"),
        columns=tuple(say(f"plan.{name}") for name in names),
        rows=tuple(_against_row(each, currency, say) for each in option.against),
    )


def _against_row(each: BreakEven, currency: str, say: Say) -> tuple[Cell, ...]:
    def told(value: Decimal | Unknown, unit: str) -> Cell:
        if isinstance(value, Unknown):
            return Cell(say("page.not_offered"), remark=value.reason)
        return Cell(f"{significant(float(value), 4)} {unit}".strip())

    use, rate = each.utilisation, each.rate_of_return
    contract = say("plan.estimate", contract=each.contract) if each.is_estimate else each.contract
    return (
        Cell(f"{each.instances} × {each.instance}"),
        Cell(contract),
        Cell(each.as_of),
        Cell(shown_money(each.rented_total, currency)),
        told(each.hours, "h"),
        told(use, "") if isinstance(use, Unknown) else Cell(percent(float(use))),
        told(each.payback_years, ""),
        told(rate, "") if isinstance(rate, Unknown) else Cell(percent(rate)),
    )


def defaults_table(plan: Plan, say: Say) -> Table:
    """Every input that nobody gave, with where its value comes from."""
    names = ("input", "value", "unit", "source", "dated")
    return Table(
        id="table-defaults",
        caption=say("plan.defaults", count=str(len(plan.defaults)), all=str(len(plan.assumptions))),
        columns=tuple(say(f"plan.{name}") for name in names),
        rows=tuple(
            tuple(map(Cell, (each.field, each.value, each.unit, each.source, each.as_of)))
            for each in plan.defaults
        ),
    )


def _offer_row(number: int, offer: Offer, say: Say) -> tuple[Cell, ...]:
    prediction = offer.prediction
    if isinstance(prediction, Refusal):
        return (
            Cell(str(number)),
            Cell(offer.device_id),
            Cell(say("tier.refused"), badge="refused"),
            Cell(say("catalogue.refused", reason=prediction.reason), span=8),
        )
    return (
        Cell(str(number)),
        Cell(prediction.device_name),
        Cell(say(f"tier.{prediction.tier}"), remark=prediction.tier_reason, badge=prediction.tier),
        Cell(
            str(prediction.workload.batch),
            interval=f"{prediction.workload.precision} {prediction.workload.runtime}",
        ),
        estimate(prediction.latency_s, "s", say),
        estimate(prediction.throughput_img_per_s, "img/s", say),
        figure(prediction.peak_memory_bytes, "B", say),
        _share(prediction),
        figure(prediction.energy_j_per_image, "J", say),
        *_cost_cells(offer.ownership, say),
    )


def _cost_cells(ownership: Ownership | Unknown, say: Say) -> tuple[Cell, Cell]:
    if isinstance(ownership, Unknown):
        unknown = Cell(say("page.not_offered"), remark=ownership.reason)
        return unknown, unknown
    return (
        _per_million(ownership, say),
        bounded(ownership.total, ownership.low, ownership.high, ownership.currency, say),
    )


def _per_million(ownership: Ownership, say: Say) -> Cell:
    value, low, high = (
        ownership.per_million_images, ownership.per_million_low, ownership.per_million_high,
    )  # fmt: skip
    if isinstance(value, Unknown):
        return Cell(say("page.not_offered"), remark=value.reason)
    ends = between(unit_price(low, ownership.currency), unit_price(high, ownership.currency), say)
    price = unit_price(value, ownership.currency)
    if isinstance(low, Unknown) or isinstance(high, Unknown):
        return Cell(price, remark=ends)
    return Cell(price, interval=ends)


def _fleet_row(option: FleetOption, say: Say) -> tuple[Cell, ...]:
    total, per_million = Cell(say("page.not_offered")), Cell(say("page.not_offered"))
    reason = option.reason
    if isinstance(option.ownership, Unknown):
        reason = reason or option.ownership.reason
    else:
        per_million, total = _cost_cells(option.ownership, say)
    is_tier = option.tier in (*get_args(Tier), "refused")
    return (
        Cell(option.device_name),
        Cell(say(f"tier.{option.tier}"), badge=option.tier) if is_tier else Cell(option.tier),
        *_load_cells(option, say),
        total,
        per_million,
        Cell(reason),
    )


def _load_cells(option: FleetOption, say: Say) -> tuple[Cell, ...]:
    if not option.devices:
        # No fleet, no load: zeros here would read as measured.
        return (Cell(say("page.not_offered")),) * 5
    likely, seen, holds = (
        option.p99_latency_s, option.replayed_p99_s, option.promise_probability,
    )  # fmt: skip
    return (
        Cell(str(option.devices)),
        Cell(percent(option.utilisation)),
        Cell(say("page.not_offered"), remark=likely.reason)
        if isinstance(likely, Unknown)
        else Cell(
            shown(likely, "s"), interval="" if isinstance(seen, Unknown) else shown(seen.value, "s")
        ),
        Cell(say("page.not_offered"), remark=holds.reason)
        if isinstance(holds, Unknown)
        else Cell(shown_chance(holds)),
        Cell(say("plan.yes" if option.meets_full_depth else "plan.no")),
    )


def _share(prediction: Prediction) -> Cell:
    share = prediction.fits_in_memory
    return Cell(share.reason) if isinstance(share, Unknown) else Cell(shown_chance(share))


def _price_order(offer: Offer) -> tuple[int, Decimal]:
    if isinstance(offer.prediction, Refusal):
        return 2, Decimal(0)
    if isinstance(offer.ownership, Unknown):
        return 1, Decimal(0)
    price = offer.ownership.per_million_images
    return (1, Decimal(0)) if isinstance(price, Unknown) else (0, price)
