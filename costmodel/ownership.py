"""Money: what devices cost over the years, line by line, and the equations that compare costs.

Everything is a `Decimal`; physical quantities come in as floats in SI units. Cash is counted, not
charges: depreciation is tax's way of spreading a price and never enters a comparison of cash.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from itertools import accumulate, pairwise

from costmodel.cashflow import (
    CAPITAL,
    Cash,
    Flow,
    exact,
    flow,
    plain,
    tax_relief,
    widest,
    yearly_flow,
)
from costmodel.depreciation import charges_of
from costmodel.drawn import Power, power_of
from costmodel.present_value import annuity, net_present_value
from domain.currencies import smallest_unit
from domain.depreciation import source_of
from domain.device import DeviceSpec
from domain.record import Estimate, Figure, Unknown
from domain.scenario import CostLine, Finance, Host, Ownership, Site
from domain.units import HOURS_PER_YEAR, KILO, significant

MILLION = Decimal(10) ** 6
# Beyond this, an input is a slip of the keyboard; and sums would no longer be exact.
LARGEST_AMOUNT = Decimal(10) ** 20
# Significant digits of a cost per million images.
ONE_HOST = Host()
UNIT_COST = Context(prec=6, rounding=ROUND_HALF_EVEN)


def energy_price(
    *,
    power_w: float,
    pue: float,
    hours: float,
    price_per_kwh: Decimal,
    charge_per_kw: Decimal = Decimal(0),
) -> Decimal:
    """Price of `hours` at `power_w` of load: `P_kW · PUE · (hours · price + demand charge)`.

    PUE is applied once, here. `charge_per_kw` is the demand charge of the same span of time, zero
    where the tariff has none.

    >>> energy_price(power_w=1000.0, pue=1.5, hours=10.0, price_per_kwh=Decimal("0.2"))
    Decimal('3.0000')
    """
    if not (power_w >= 0 and pue >= 1 and hours >= 0):
        raise ValueError(f"wanted power, hours >= 0 and PUE >= 1, got {power_w}, {hours}, {pue}")
    load_kw = exact(power_w) / 1000 * exact(pue)
    return load_kw * (exact(hours) * price_per_kwh + charge_per_kw)


@dataclass(frozen=True, kw_only=True)
class Use:
    """One year of a fleet: devices in place over all sites, images, and how busy each is.

    `busy_share` is of all hours. Every site has as many devices, in hosts of its own.
    """

    devices: int
    images: float
    busy_share: Estimate
    sites: int = 1

    def hosts(self, host: Host) -> int:
        """Hosts of all sites."""
        return self.sites * hosts_of(-(-self.devices // self.sites), host)


def ownership_of(
    *,
    device: DeviceSpec,
    devices: int,
    images_per_year: float,
    busy_share: Estimate,
    busy_power_w: Estimate | Unknown,
    site: Site,
    finance: Finance,
    host: Host = ONE_HOST,
    years: Sequence[Use] = (),
) -> Ownership | Unknown:
    """Cost of `devices` alike over the horizon, worth of today, or the reason why nobody can say.

    `busy_share` is the share of all 8,760 hours of a year in which a device works, the mean over
    all of them, spares too; in the other hours it idles. Hardware is paid at the start of the
    year that first needs it, the rest at the end of each year, and all is discounted to today.
    Ends of intervals are taken together: no credit for chance. `years` says how fleet and use
    change; without it every year is the same.
    """
    same = Use(devices=devices, images=images_per_year, busy_share=busy_share)
    uses = tuple(years) or (same,) * finance.horizon_years
    _check(uses, finance)
    images = math.fsum(use.images for use in uses)
    if isinstance(device.price_usd, Unknown):
        return Unknown(
            reason=f"no price known for {device.name}: {device.price_usd.reason.rstrip('.')}; "
            "give one with --price-usd"
        )
    if site.currency != "USD" and not site.currency_date:
        return Unknown(
            reason=f"prices are in USD and the site counts in {site.currency}: give "
            "currency_per_usd and its currency_date"
        )
    most_devices = max(use.devices for use in uses)
    if max(*_prices(site, finance, host), Decimal(most_devices)) > LARGEST_AMOUNT:
        return Unknown(reason=f"wanted prices and devices up to {LARGEST_AMOUNT:.0E}, got more")
    power = power_of(device, busy_power_w)
    if isinstance(power, Unknown):
        return power
    with localcontext() as context:
        # Twenty digits before the point and two after it, and none lost on the way.
        context.prec = 60
        unit, rate = smallest_unit(site.currency), exact(finance.discount_rate)
        estate = _Estate(device, exact(device.price_usd.value), power, uses, site, finance, host)
        flows = list(_flows(estate))
        if max(max(map(abs, (*flow.low, *flow.high))) for flow in flows) > LARGEST_AMOUNT:
            return Unknown(
                reason=f"a line of the cost comes to more than {LARGEST_AMOUNT:.0E} "
                f"{site.currency}: check prices, discount rate and devices"
            )
        flows = [flow.rounded(unit) for flow in flows]
        relief = tax_relief(
            [flow for flow in flows if flow.name not in CAPITAL],
            [flow for flow in flows if flow.name in CAPITAL],
            finance,
            unit,
        ).rounded(unit)
        if not _in_order([*flows, relief], rate):
            # Money that is worth more later: deferred relief may outweigh what it is for.
            relief = widest(relief)
        flows.append(relief)
        worth = (net_present_value(rate, side) for each in flows for side in (each.low, each.high))
        if max(map(abs, worth)) > LARGEST_AMOUNT:
            return Unknown(
                reason=f"a line of the cost is worth more than {LARGEST_AMOUNT:.0E} "
                f"{site.currency}: check prices, discount rate and devices"
            )
        lines = tuple(each.line(rate, unit) for each in flows)
        said = (*_assumptions(estate), *power.said)
        return summed(lines, images, site, finance, said, _carbon_kg(estate))


def _in_order(flows: Sequence[Flow], rate: Decimal) -> bool:
    """Whether low ends of all cash together are worth no more than the middle, nor that than high."""
    low, middle, high = (
        sum((net_present_value(rate, getattr(flow, side)) for flow in flows), Decimal(0))
        for side in ("low", "cash", "high")
    )
    return low <= middle <= high


def summed(
    lines: Sequence[CostLine],
    images: float,
    site: Site,
    finance: Finance,
    assumptions: Sequence[str],
    carbon_kg: float | None = None,
) -> Ownership:
    """Lines with their total, what a million images cost, and the same as a yearly payment."""
    total, low, high = (
        sum((getattr(line, side) for line in lines), Decimal(0))
        for side in ("amount", "low", "high")
    )
    yearly = annuity(exact(finance.discount_rate), finance.horizon_years, total)
    return Ownership(
        currency=site.currency,
        horizon_years=finance.horizon_years,
        images=images,
        lines=tuple(lines),
        total=total,
        low=low,
        high=high,
        per_million_images=_per_million(total, images),
        per_million_low=_per_million(low, images),
        per_million_high=_per_million(high, images),
        assumptions=tuple(assumptions),
        equivalent_per_year=yearly.quantize(smallest_unit(site.currency)),
        carbon_kg=carbon_kg,
    )


@dataclass(frozen=True)
class _Estate:
    """Everything that a cost is counted from."""

    device: DeviceSpec
    price_usd: Decimal
    power: Power
    uses: tuple[Use, ...]
    site: Site
    finance: Finance
    host: Host

    @property
    def pue(self) -> float:
        return self.site.pue_of(self.device.device_class)

    @property
    def bought(self) -> tuple[int, ...]:
        """Devices bought at the start of each year."""
        return _added([use.devices for use in self.uses])

    @property
    def hosts_bought(self) -> tuple[int, ...]:
        return _added([use.hosts(self.host) for use in self.uses])

    def hosts_w(self, use: Use) -> float:
        return use.hosts(self.host) * self.host.power_w

    def mean_w(self, use: Use) -> Estimate:
        """Power of all devices and hosts, the mean over a year."""
        return _sum(self.power.mean_w(use.busy_share).scaled(use.devices), self.hosts_w(use))

    def peak_w(self, use: Use) -> Estimate:
        return _sum(self.power.peak_w.scaled(use.devices), self.hosts_w(use))


def hosts_of(devices: int, host: Host) -> int:
    """Hosts that so many devices sit in."""
    return -(-devices // host.devices_per_host)


def _added(counts: Sequence[int]) -> tuple[int, ...]:
    most = accumulate(counts, max, initial=0)
    return tuple(later - earlier for earlier, later in pairwise(most))


def _flows(estate: _Estate) -> Iterator[Flow]:
    """Every line before tax, at full precision. A line that is zero is shown, not hidden."""
    site, finance, uses = estate.site, estate.finance, estate.uses
    device, currency, years = estate.device, site.currency, finance.horizon_years
    band, nothing = exact(finance.price_band), Decimal(0)
    span = f"{years} years"
    span += f", discounted at {exact(finance.discount_rate):.4g} a year" * bool(
        finance.discount_rate
    )

    def bought(counts: Sequence[int], usd: Decimal) -> Cash:
        return (*(count * usd * site.currency_per_usd for count in counts), nothing)

    hardware = bought(estate.bought, estate.price_usd)
    hosts = bought(estate.hosts_bought, estate.host.price_usd)
    count = _counted(estate.bought)
    yield flow(
        "hardware", f"{count} × {device.name} at {plain(estate.price_usd)} USD", hardware, band
    )
    yield flow(
        "host",
        f"{_counted(estate.hosts_bought)} × {plain(estate.host.price_usd)} USD, one for "
        f"{estate.host.devices_per_host} devices",
        hosts,
        band,
    )
    for name, once in (("network", finance.network_price), ("installation", finance.installation)):
        yield flow(name, f"{plain(once)} {currency} once", (once, *(nothing,) * years))

    means = [estate.mean_w(use) for use in uses]
    peaks = [estate.peak_w(use) for use in uses]
    mean_kw = significant(sum(each.value for each in means) / len(means) / KILO)
    peak_kw = significant(max(each.value for each in peaks) / KILO)
    for name, tariff in (
        ("energy", site.energy_price_per_kwh), ("energy-levy", site.energy_levy_per_kwh),
    ):  # fmt: skip
        a_watt = energy_price(
            power_w=1.0, pue=estate.pue, hours=HOURS_PER_YEAR, price_per_kwh=tariff
        )
        how = f"{mean_kw} kW, idle included, × PUE {estate.pue:g} × 8,760 h × {plain(tariff)} "
        how += f"{currency}/kWh × {span}"
        yield _of_watts(name, how, means, a_watt)
    for name, charge in (
        ("demand-charge", site.demand_charge_per_kw_month), ("space", site.space_per_kw_month),
    ):  # fmt: skip
        pue = estate.pue if name == "demand-charge" else 1.0
        a_watt = energy_price(
            power_w=1.0, pue=pue, hours=0.0, price_per_kwh=nothing, charge_per_kw=12 * charge
        )
        how = f"{peak_kw} kW busy{f' × PUE {pue:g}' * (pue != 1)} × 12 months × {plain(charge)} "
        yield _of_watts(name, how + f"{currency}/kW × {span}", peaks, a_watt)

    in_place = list(accumulate(map(sum, zip(hardware, hosts, strict=True))))[:years]
    for name, share in (
        ("maintenance", finance.maintenance_per_year), ("insurance", finance.insurance_per_year),
    ):  # fmt: skip
        how = f"{exact(share):.4g} of hardware and host a year × {span}"
        yield flow(name, how, (nothing, *(each * exact(share) for each in in_place)), band)
    owned = list(accumulate(estate.bought))
    yield yearly_flow(
        "licence",
        f"{plain(finance.licence_per_device_year)} {currency} a device and year × {span}",
        [each * finance.licence_per_device_year for each in owned],
    )
    wages = finance.staff_per_year
    yield yearly_flow("staff", f"{plain(wages)} {currency} a year × {span}", [wages] * years)
    cleared = finance.decommissioning
    how = f"{plain(cleared)} {currency} once, after {years} years"
    yield flow("decommissioning", how, (*(nothing,) * years, cleared))
    resold = exact(finance.residual_share)
    how = f"{resold:.4g} of hardware and host, sold after {span}"
    yield flow("residual", how, (*(nothing,) * years, -resold * in_place[-1]), band)


def _of_watts(name: str, how: str, watts: Sequence[Estimate], a_watt: Decimal) -> Flow:
    ends = [tuple(map(exact, (each.value, each.low, each.high))) for each in watts]
    cash, low, high = ((Decimal(0), *(end[side] * a_watt for end in ends)) for side in range(3))
    return Flow(name=name, how=how, cash=cash, low=low, high=high)


def _counted(bought: Sequence[int]) -> str:
    return " + ".join(str(count) for count in bought if count) or "0"


def _check(uses: Sequence[Use], finance: Finance) -> None:
    if len(uses) != finance.horizon_years:
        raise ValueError(f"wanted {finance.horizon_years} years of use, got {len(uses)}")
    for use in uses:
        if use.devices < 0 or not any(each.devices for each in uses):
            raise ValueError(f"wanted one device at least, got {use.devices}")
        if not 0 <= use.busy_share.value <= 1:
            raise ValueError(f"wanted a busy share between 0 and 1, got {use.busy_share.value}")
        if not 0 <= use.images * finance.horizon_years < math.inf:
            raise ValueError(f"wanted images a year of zero or more, got {use.images}")
    if finance.tax_rate:
        charges_of(finance.depreciation, Decimal(1000), finance.life_years, Decimal(1))


def _prices(site: Site, finance: Finance, host: Host) -> Iterator[Decimal]:
    for noun in (site, finance, host):
        for name in type(noun).model_fields:
            value = getattr(noun, name)
            if isinstance(value, Decimal):
                yield value


def _carbon_kg(estate: _Estate) -> float | None:
    """Location-based carbon of the energy, of the grid's yearly mean."""
    grams = estate.site.carbon_g_per_kwh
    if grams is None:
        return None
    kwh = sum(estate.mean_w(use).value for use in estate.uses) / KILO * HOURS_PER_YEAR * estate.pue
    return kwh * grams / KILO


def _sum(estimate: Estimate, constant: float) -> Estimate:
    return Estimate(
        value=estimate.value + constant,
        low=estimate.low + constant,
        high=estimate.high + constant,
        level=estimate.level,
    )


def _per_million(cost: Decimal, images: float) -> Decimal | Unknown:
    if images == 0:
        return Unknown(reason="no images are delivered, so none has a cost")
    return UNIT_COST.plus(cost / exact(images) * MILLION) if cost else Decimal(0)


def _assumptions(estate: _Estate) -> Iterator[str]:
    """Every input of the cost in words with its value; what nobody gave is called a default."""
    device, site, finance = estate.device, estate.site, estate.finance
    price = device.price_usd
    assert isinstance(price, Figure), "checked before: nothing is priced without one"

    def given(shown: str, noun: Site | Finance, field: str) -> str:
        return shown if field in noun.model_fields_set else f"{shown} (default)"

    basis = ", ".join(part for part in (device.price_basis, device.price_date) if part)
    band = given(f"±{finance.price_band:.0%}", finance, "price_band")
    years = given(f"{finance.horizon_years} years", finance, "horizon_years")
    rate = given(f"{finance.discount_rate:.2%} a year", finance, "discount_rate")
    wages = f"{plain(finance.staff_per_year)} {site.currency} a year"
    kept_up = f"{finance.maintenance_per_year:.2%} of hardware and host a year"
    resold = f"{finance.residual_share:.2%} of hardware and host"
    board = device.device_class == "edge"
    used = "pue" if estate.pue == site.pue else "pue_edge" if board else "pue_workstation"
    levy = f" and {plain(site.energy_levy_per_kwh)} of levy" * bool(site.energy_levy_per_kwh)
    charge = site.demand_charge_per_kw_month
    demanded = (
        f"a demand charge of {plain(charge)} a kW and month" if charge else "no demand charge"
    )
    yield (
        f"price of {device.name}: {price.value:,g} USD{f' ({basis})' if basis else ''}, confidence "
        f"{price.confidence}, {band}"
    )
    yield (
        f"{years}, discounted at {rate}: hardware is paid when it is first needed, the rest at "
        "each year's end"
    )
    yield (
        f"{max(use.devices for use in estate.uses)} powered at all 8,760 hours of a year, spares "
        f"too; PUE {given(f'{estate.pue:g}', site, used)}, applied once; energy at "
        f"{plain(site.energy_price_per_kwh)} {site.currency}/kWh{levy}, {demanded}"
    )
    host = estate.host
    yield (
        f"hosts of {host.devices_per_host} devices at {plain(host.price_usd)} USD, "
        f"{host.power_w:g} W each day and night; staff {given(wages, finance, 'staff_per_year')}"
    )
    yield f"maintenance {given(kept_up, finance, 'maintenance_per_year')}"
    yield f"residual value {given(resold, finance, 'residual_share')}"
    if site.currency != "USD":
        yield f"1 USD = {plain(site.currency_per_usd)} {site.currency} ({site.currency_date[:80]})"
    if finance.tax_rate:
        yield (
            f"after tax at {finance.tax_rate:.1%}: {finance.depreciation} over "
            f"{finance.life_years} years {source_of(finance.depreciation)}".rstrip()
        )
    else:
        yield "before tax; no depreciation is counted, and no interest on loans"
    absent = [
        name
        for name, amount in (
            ("space", site.space_per_kw_month), ("network", finance.network_price),
            ("installation", finance.installation), ("licences", finance.licence_per_device_year),
            ("insurance", finance.insurance_per_year), ("removal", finance.decommissioning),
        )
        if not amount
    ]  # fmt: skip
    if absent:
        yield f"nothing was given, so nothing is counted, for {', '.join(absent)}"
