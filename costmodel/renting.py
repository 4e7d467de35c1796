"""Renting instead of owning: what an hour costs under each contract, and when owning wins."""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, localcontext

from costmodel.cashflow import (
    CAPITAL,
    Flow,
    exact,
    plain,
    tax_relief,
    yearly_flow,
)
from costmodel.ownership import summed
from costmodel.present_value import (
    break_even_hours,
    break_even_utilisation,
    net_present_value,
    payback_years,
    rate_of_return,
)
from domain.currencies import smallest_unit
from domain.prices import CloudPrice, CommitmentDiscount, Contract, HourlyRate
from domain.record import Unknown
from domain.scenario import BreakEven, CloudTerms, CostLine, Finance, Ownership, Site
from domain.units import HOURS_PER_YEAR

# Rows kept for reproducing a source, or from before a cut of prices: no offer of today.
OUT_OF_DATE = ("HISTORICAL", "PRE-CUT")
HOURS = exact(HOURS_PER_YEAR)
MONTHS = 12
# What grows with the hours rented; people, lines and storage are paid however few they are.
BY_THE_HOUR = frozenset({"compute", "unused-devices", "support"})


def rates_for(
    device_id: str,
    prices: Sequence[CloudPrice],
    discounts: Sequence[CommitmentDiscount],
) -> tuple[HourlyRate, ...]:
    """Every way to rent `device_id` by whole devices, cheapest per device and hour first.

    A reserved price that nobody published is the on-demand price less the provider's mean
    discount, and called an estimate.
    """
    discount_of = {each.provider: each for each in discounts}
    found = [
        rate
        for price in prices
        if price.device_id == device_id
        and price.gpu_count >= 1
        and price.on_demand_usd_per_h > 0
        and not any(mark in price.notes for mark in OUT_OF_DATE)
        for rate in _contracts(price, discount_of.get(price.provider))
    ]
    return tuple(sorted(found, key=lambda rate: rate.usd_per_h / exact(rate.price.gpu_count)))


def _contracts(price: CloudPrice, discount: CommitmentDiscount | None) -> Iterator[HourlyRate]:
    whose = f"{price.instance} {price.region}".strip()
    dated = f"{whose}, {price.as_of}, {price.source}"
    yield HourlyRate(
        price=price,
        contract="on-demand",
        usd_per_h=price.on_demand_usd_per_h,
        is_estimate=False,
        how=dated,
    )
    if not isinstance(price.spot_usd_per_h, Unknown):
        yield HourlyRate(
            price=price,
            contract="spot",
            usd_per_h=price.spot_usd_per_h,
            is_estimate=False,
            how=f"{dated}; may be taken away at any time",
        )
    one_year = discount.one_year_no_upfront if discount else None
    three_years = discount.three_years_no_upfront if discount else None
    committed: tuple[tuple[Contract, Decimal | Unknown, float | Unknown | None], ...] = (
        ("reserved-1y", price.reserved_1y_usd_per_h, one_year),
        ("reserved-3y", price.reserved_3y_usd_per_h, three_years),
    )
    for contract, quoted, share in committed:
        if not isinstance(quoted, Unknown):
            yield HourlyRate(
                price=price, contract=contract, usd_per_h=quoted, is_estimate=False, how=dated
            )
        elif discount is not None and isinstance(share, float):
            yield HourlyRate(
                price=price,
                contract=contract,
                usd_per_h=price.on_demand_usd_per_h * (1 - exact(share)),
                is_estimate=True,
                how=f"{dated}; estimate: less {share:.0%}, {discount.note} ({discount.as_of})",
            )


def instances_of(rate: HourlyRate, devices: int) -> int:
    """Whole instances that have so many devices: what can not be rented singly is paid for."""
    return -(-devices // devices_in(rate))


def devices_in(rate: HourlyRate) -> int:
    """Devices of one instance, which fail together; of a slice of a GPU one."""
    return max(1, int(rate.price.gpu_count))


def rent_of(
    rate: HourlyRate,
    *,
    devices: Sequence[int],
    running_hours: Sequence[float],
    images: float,
    site: Site,
    finance: Finance,
    cloud: CloudTerms,
) -> Ownership | Unknown:
    """Cost of renting so many `devices` in each year for the hours in which images arrive.

    Idle hours that a reservation pays for, and devices that come along in an instance but are not
    needed, are lines of their own. The people are the same as with machines of one's own.
    """
    if site.currency != "USD" and not site.currency_date:
        return Unknown(
            reason=f"prices are in USD and the site counts in {site.currency}: give "
            "currency_per_usd and its currency_date"
        )
    with localcontext() as context:
        context.prec = 60
        unit = smallest_unit(site.currency)
        flows = [
            each.rounded(unit)
            for each in _flows(rate, devices, running_hours, site, finance, cloud)
        ]
        flows.append(tax_relief(flows, [], finance, unit).rounded(unit))
        lines = [each.line(exact(finance.discount_rate), unit) for each in flows]
        label = " (an estimate)" if rate.is_estimate else ""
        said = (
            f"{rate.contract}{label}: {plain(rate.usd_per_h)} USD/h; {rate.how}",
            f"{max(devices)} devices in {instances_of(rate, max(devices))} instances of "
            f"{rate.price.gpu_count:g}; network {cloud.network_s * 1000:g} ms there and back",
            f"egress {cloud.egress_gb_per_month:g} GB a month, storage {cloud.storage_gb:g} GB, "
            f"support {cloud.support_share:.0%} of compute",
        )
        return summed(lines, images, site, finance, said)


def _flows(
    rate: HourlyRate,
    devices: Sequence[int],
    running_hours: Sequence[float],
    site: Site,
    finance: Finance,
    cloud: CloudTerms,
) -> Iterator[Flow]:
    hourly = rate.usd_per_h * site.currency_per_usd
    per_device = hourly / exact(max(1.0, rate.price.gpu_count))
    counts = [instances_of(rate, count) for count in devices]
    used = [exact(min(hours, HOURS_PER_YEAR)) for hours in running_hours]
    compute = [n * per_device * hours for n, hours in zip(devices, used, strict=True)]
    rented = [n * hourly * hours for n, hours in zip(counts, used, strict=True)]
    unneeded = [all_of - needed for all_of, needed in zip(rented, compute, strict=True)]
    idle = [
        n * hourly * (HOURS - hours) * rate.is_paid_idle
        for n, hours in zip(counts, used, strict=True)
    ]
    price = f"{plain(rate.usd_per_h)} USD/h an instance"
    whole = f"{max(devices)} of {rate.price.gpu_count:g} devices an instance"
    yield yearly_flow("compute", f"{price}, in hours of use, {whole}", compute)
    yield yearly_flow("unused-devices", "devices that come in an instance, not needed", unneeded)
    yield yearly_flow("idle-hours", "hours that a reservation pays for, not used", idle)
    years, usd = finance.horizon_years, site.currency_per_usd
    egress = MONTHS * exact(cloud.egress_gb_per_month) * cloud.egress_usd_per_gb * usd
    storage = MONTHS * exact(cloud.storage_gb) * cloud.storage_usd_per_gb_month * usd
    yield yearly_flow(
        "egress",
        f"{cloud.egress_gb_per_month:g} GB a month at {plain(cloud.egress_usd_per_gb)} USD",
        [egress] * years,
    )
    yield yearly_flow(
        "storage",
        f"{cloud.storage_gb:g} GB at {plain(cloud.storage_usd_per_gb_month)} USD a month",
        [storage] * years,
    )
    yield yearly_flow(
        "uplink",
        f"{plain(cloud.uplink_per_month)} {site.currency} a month",
        [MONTHS * cloud.uplink_per_month] * years,
    )
    support = [
        (needed + other + unused) * exact(cloud.support_share)
        for needed, other, unused in zip(compute, unneeded, idle, strict=True)
    ]
    yield yearly_flow("support", f"{cloud.support_share:.4g} of compute", support)
    wages = finance.staff_per_year
    how = f"{plain(wages)} {site.currency} a year, the same people as on premises"
    yield yearly_flow("staff", how, [wages] * years)


def break_even(
    owned: Ownership,
    rented: Ownership,
    rate: HourlyRate,
    instances: int,
    running_hours_per_year: float,
    busy_energy: Decimal = Decimal(0),
    discount_rate: float = 0.0,
) -> BreakEven:
    """Owning `owned` against renting `rented`, over the same years.

    Running costs are cash: what is depreciated is in none of them. `busy_energy` is the part of a
    year's running cost, after tax, that an idle fleet would not have. Of a reservation, paid
    whether used or not, hours are hours of the calendar. At another utilisation only what is rented
    by the hour changes: the people, the same on both sides, cost as much.
    """
    with localcontext() as context:
        context.prec = 60
        years = owned.horizon_years
        hours = HOURS if rate.is_paid_idle else max(exact(running_hours_per_year), Decimal(1))
        bought = _cash(line for line in owned.lines if line.name in CAPITAL)
        run = _cash(line for line in owned.lines if line.name not in CAPITAL | {"residual"})
        paid = sum(rented.by_year, Decimal(0))
        running_h, rented_h = max(run, Decimal(0)) / years / hours, paid / years / hours
        until = break_even_hours(bought, rented_h, running_h)
        cash = [theirs - ours for ours, theirs in zip(owned.by_year, rented.by_year, strict=True)]
        worth = net_present_value(exact(discount_rate), cash)
        yearly = owned.equivalent_per_year or Decimal(0)
        if rate.is_paid_idle:
            use: Decimal | Unknown = Unknown(
                reason="both are paid, used or not: owning costs "
                f"{yearly:,.0f} {owned.currency} a year, renting {paid / years:,.0f}"
            )
        else:
            by_the_hour = _share_by_the_hour(rented)
            anyway = (1 - by_the_hour) * paid / years
            use = break_even_utilisation(
                max(yearly - busy_energy - anyway, Decimal(0)),
                HOURS,
                by_the_hour * rented_h,
                busy_energy / hours,
            )
        return BreakEven(
            contract=rate.contract,
            instance=f"{rate.price.provider} {rate.price.instance}",
            instances=instances,
            as_of=rate.price.as_of,
            is_estimate=rate.is_estimate,
            rented_total=rented.total,
            hours=_short(until),
            years=_short(until if isinstance(until, Unknown) else until / hours),
            utilisation=_short(use),
            payback_years=_short(payback_years(cash)),
            net_present_value=worth.quantize(smallest_unit(owned.currency)),
            rate_of_return=rate_of_return(cash),
        )


def _share_by_the_hour(rented: Ownership) -> Decimal:
    """Of what renting costs, the share that grows with its hours; tax takes of all alike."""
    before_tax = [line for line in rented.lines if line.name != "tax-relief"]
    whole = _cash(before_tax)
    hourly = _cash(line for line in before_tax if line.name in BY_THE_HOUR)
    return hourly / whole if whole else Decimal(1)


def _cash(lines: Iterable[CostLine]) -> Decimal:
    return sum((amount for line in lines for amount in line.by_year), Decimal(0))


def _short(value: Decimal | Unknown) -> Decimal | Unknown:
    return value if isinstance(value, Unknown) else Decimal(f"{value:.6g}")
