"""Money: what devices cost over the years, line by line, and the equations that compare costs.

Everything is a `Decimal`; physical quantities come in as floats in SI units. Cash is counted, not
charges: depreciation is tax's way of spreading a price and never enters a comparison of cash.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from itertools import pairwise

from domain.device import DeviceSpec
from domain.record import Estimate, Figure, Unknown
from domain.scenario import CostLine, Finance, Ownership, Site
from domain.units import HOURS_PER_YEAR, significant

MILLION = Decimal(10) ** 6
# Beyond this, an input is a slip of the keyboard; and sums would no longer be exact.
LARGEST_AMOUNT = Decimal(10) ** 20
# Idle watts of confidence C are estimates that nobody measured: half as much again either way.
UNMEASURED_IDLE_BAND = 0.5
# Significant digits of a cost per million images.
UNIT_COST = Context(prec=6, rounding=ROUND_HALF_EVEN)


def annuity(rate: Decimal, periods: int, present: Decimal) -> Decimal:
    """The payment at the end of each of `periods` that is worth `present` today at `rate` a period.

    `PMT = PV / Σ (1 + r)^−t`: the usual `PV·r / (1 − (1 + r)^−n)`, without its hole at r = 0
    (Hamilton 2010, the model behind Hennessy & Patterson's figures 6.13 and 6.14).

    >>> annuity(Decimal(0), 4, Decimal(100))
    Decimal('25')
    """
    return present / annuity_factor(rate, periods)


def annuity_factor(rate: Decimal, periods: int) -> Decimal:
    """What one unit of money at the end of each of `periods` is worth today: `Σ (1 + r)^−t`.

    >>> annuity_factor(Decimal(0), 3)
    Decimal('3')
    """
    if periods < 1:
        raise ValueError(f"wanted one period at least, got {periods}")
    return net_present_value(rate, [Decimal(0), *[Decimal(1)] * periods])


def net_present_value(rate: Decimal, cash: Sequence[Decimal]) -> Decimal:
    """Worth today of `cash[t]` at the end of period t, the first today: `Σ cash_t / (1 + r)^t`.

    >>> net_present_value(Decimal("0.1"), [Decimal(-100), Decimal(110)])
    Decimal('0')
    """
    if rate <= -1:
        raise ValueError(f"wanted a rate above -1, got {rate}")
    return sum((each / (1 + rate) ** t for t, each in enumerate(cash)), Decimal(0))


def internal_rate(cash: Sequence[Decimal]) -> float | None:
    """The rate at which `cash` is worth nothing today, or None where there is no such rate.

    Looked for between −99 % and 9,900 %; of several roots the one nearest to zero is given.

    >>> internal_rate([Decimal(-100), Decimal(110)]), internal_rate([Decimal(5), Decimal(5)])
    (0.1, None)
    """
    flowing = [t for t, each in enumerate(cash) if each]
    if not flowing:
        return None
    # A later start scales the worth, and leaves its roots.
    amounts = cash[flowing[0] : flowing[-1] + 1]
    largest = max(abs(each) for each in amounts)
    shares = [float(each / largest) for each in amounts]

    def worth(log_growth: float) -> float:
        # Scaled by a positive factor that keeps every power at one or below.
        first = max(0.0, -log_growth) * (len(shares) - 1)
        return math.fsum(
            share * math.exp(-t * log_growth - first) for t, share in enumerate(shares)
        )

    edge, steps = math.log(100.0), 2000
    grid = [edge * step / steps for step in range(-steps, steps + 1)]
    roots = [
        _bisected(worth, low, high)
        for (low, below), (high, above) in pairwise((point, worth(point)) for point in grid)
        if below * above < 0 or below == 0
    ]
    if not roots:
        return None
    return round(math.expm1(min(roots, key=abs)), 12)


def break_even_hours(
    capex: Decimal, rented_per_h: Decimal, running_per_h: Decimal
) -> Decimal | Unknown:
    """Hours of use after which buying has cost as much as renting: `capex / (rented − running)`.

    `running_per_h` is cash only. An amortisation of `capex` in it would count the price twice, so
    there is no parameter for one (Lenovo Press LP2225, 2025).

    >>> break_even_hours(Decimal(100), Decimal(3), Decimal(1))
    Decimal('50')
    """
    if capex < 0 or rented_per_h < 0 or running_per_h < 0:
        raise ValueError(
            f"wanted costs of zero or more, got {capex}, {rented_per_h} and {running_per_h}"
        )
    if not capex:
        return Decimal(0)
    if rented_per_h <= running_per_h:
        return Unknown(
            reason=f"never: an hour rented costs {rented_per_h}, running one's own {running_per_h}"
        )
    return capex / (rented_per_h - running_per_h)


def straight_line(
    cost: Decimal, years: int, residual: Decimal = Decimal(0), unit: Decimal = Decimal(1)
) -> tuple[Decimal, ...]:
    """Equal yearly charges in whole `unit`s that sum to `cost − residual`.

    >>> straight_line(Decimal(100), 3)
    (Decimal('33'), Decimal('34'), Decimal('33'))
    """
    if years < 1 or not 0 <= residual <= cost:
        raise ValueError(
            f"wanted a year or more and 0 <= residual <= cost, got {years}, {residual} and {cost}"
        )
    written_off = [((cost - residual) * year / years).quantize(unit) for year in range(years)]
    written_off.append(cost - residual)
    return tuple(later - earlier for earlier, later in pairwise(written_off))


def declining_balance_japan(
    cost: int, years: int, rate: Decimal, revised_rate: Decimal, guarantee_rate: Decimal
) -> tuple[int, ...]:
    """Yearly charges in yen of Japan's 200 % declining balance (NTA Tax Answer No. 2106).

    `floor(book · rate)`, and from the year in which that is below `cost · guarantee_rate` on
    `floor(book at that point · revised_rate)`. One yen of memo value stays on the books.
    """
    rates = (rate, revised_rate, guarantee_rate)
    if cost < 1 or years < 1 or not all(0 < each <= 1 for each in rates):
        raise ValueError(
            f"wanted a cost and a life of one or more and rates above 0 up to 1, got {cost} yen, "
            f"{years} years, {', '.join(map(str, rates))}"
        )
    charges: list[int] = []
    book, level = cost, None
    for _ in range(years):
        charge = level if level is not None else int(book * rate)
        if level is None and charge < cost * guarantee_rate:
            charge = level = int(book * revised_rate)
        charges.append(min(charge, book - 1))
        book -= charges[-1]
    return tuple(charges)


def average_power_w(idle_w: float, busy_w: float, busy_share: float) -> float:
    """Mean power of a device that is busy a share of the time: `P_idle + u · (P_busy − P_idle)`.

    >>> average_power_w(10.0, 110.0, 0.5)
    60.0
    """
    return idle_w + busy_share * (busy_w - idle_w)


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
    load_kw = _decimal(power_w) / 1000 * _decimal(pue)
    return load_kw * (_decimal(hours) * price_per_kwh + charge_per_kw)


def ownership_of(
    *,
    device: DeviceSpec,
    devices: int,
    images_per_year: float,
    busy_share: Estimate,
    busy_power_w: Estimate | Unknown,
    site: Site,
    finance: Finance,
) -> Ownership | Unknown:
    """Cost of `devices` alike over the horizon, worth of today, or the reason why nobody can say.

    `busy_share` is the share of all 8,760 hours of a year in which a device works, the mean over
    all of them, spares too; in the other hours it idles. Hardware is paid today, the rest at the
    end of each year, and both are discounted to today. Ends of intervals are taken together: no
    credit for chance.
    """
    if devices < 1:
        raise ValueError(f"wanted one device at least, got {devices}")
    if not 0 <= busy_share.value <= 1:
        raise ValueError(f"wanted a busy share between 0 and 1, got {busy_share.value}")
    images = images_per_year * finance.horizon_years
    if not 0 <= images < math.inf:
        raise ValueError(f"wanted images a year of zero or more, got {images_per_year}")
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
    given = [site.energy_price_per_kwh, finance.host_price_usd, finance.staff_per_year]
    if max(*given, site.currency_per_usd, Decimal(devices)) > LARGEST_AMOUNT:
        return Unknown(reason=f"wanted prices and devices up to {LARGEST_AMOUNT:.0E}, got more")
    power = _power_of(device, busy_share, busy_power_w)
    if isinstance(power, Unknown):
        return power
    power_w, said = power
    with localcontext() as context:
        # Twenty digits before the point and two after it, and none lost on the way.
        context.prec = 60
        lines = tuple(_lines(device, device.price_usd, devices, power_w, site, finance))
        largest = max(max(abs(line.low), abs(line.high)) for line in lines)
        if largest > LARGEST_AMOUNT:
            return Unknown(
                reason=f"a line of the cost comes to {largest:.3E} {site.currency}: check prices, "
                "discount rate and devices"
            )
        lines = tuple(_rounded(line, _smallest(site.currency)) for line in lines)
        total, low, high = (
            sum((getattr(line, side) for line in lines), Decimal(0))
            for side in ("amount", "low", "high")
        )
        return Ownership(
            currency=site.currency,
            horizon_years=finance.horizon_years,
            images=images,
            lines=lines,
            total=total,
            low=low,
            high=high,
            per_million_images=_per_million(total, images),
            per_million_low=_per_million(low, images),
            per_million_high=_per_million(high, images),
            assumptions=(*_assumptions(device, device.price_usd, devices, site, finance), *said),
        )


def _lines(
    device: DeviceSpec, price: Figure, devices: int, power_w: Estimate, site: Site, finance: Finance
) -> Iterator[CostLine]:
    """Every line at full precision. A line that is zero is shown, not hidden."""
    rate, years = _decimal(finance.discount_rate), finance.horizon_years
    yearly, at_end = annuity_factor(rate, years), (1 + rate) ** -years
    band = _decimal(finance.price_band)
    hardware = devices * _decimal(price.value) * site.currency_per_usd
    host = devices * finance.host_price_usd * site.currency_per_usd
    kept_up, resold = map(_decimal, (finance.maintenance_per_year, finance.residual_share))
    tariff = site.energy_price_per_kwh
    a_watt = energy_price(power_w=1.0, pue=site.pue, hours=HOURS_PER_YEAR, price_per_kwh=tariff)
    energy, energy_low, energy_high = (
        devices * a_watt * yearly * _decimal(watts)
        for watts in (power_w.value, power_w.low, power_w.high)
    )
    span = f"{years} years" + (f", discounted at {rate:.4g} a year" if rate else "")
    how = f"{devices} × {device.name} at {_plain(_decimal(price.value))} USD"
    yield _line("hardware", hardware, how, band)
    how = f"{devices} × {_plain(finance.host_price_usd)} USD, a host for each device"
    yield _line("host", host, how, band)
    how = f"{devices} × {significant(power_w.value)} W, idle included, × PUE {site.pue:g} × "
    how += f"8,760 h × {_plain(tariff)} {site.currency}/kWh × {span}"
    yield CostLine(name="energy", amount=energy, low=energy_low, high=energy_high, how=how)
    how = f"{kept_up:.4g} of hardware and host a year × {span}"
    yield _line("maintenance", (hardware + host) * kept_up * yearly, how, band)
    how = f"{_plain(finance.staff_per_year)} {site.currency} a year × {span}"
    yield _line("staff", finance.staff_per_year * yearly, how, Decimal(0))
    how = f"{resold:.4g} of hardware and host, sold after {span}"
    yield _line("residual", -(hardware + host) * resold * at_end, how, band)


def _line(name: str, amount: Decimal, how: str, band: Decimal) -> CostLine:
    low, high = sorted((amount * (1 - band), amount * (1 + band)))
    return CostLine(name=name, amount=amount, low=low, high=high, how=how)


def _rounded(line: CostLine, unit: Decimal) -> CostLine:
    """The line in whole `unit`s; each side on its own, so that a sum of lines is exact."""
    amount, low, high = (each.quantize(unit) for each in (line.amount, line.low, line.high))
    return CostLine(name=line.name, amount=amount, low=low, high=high, how=line.how)


def _smallest(currency: str) -> Decimal:
    return Decimal(1) if currency == "JPY" else Decimal("0.01")


def _per_million(cost: Decimal, images: float) -> Decimal | Unknown:
    if images == 0:
        return Unknown(reason="no images are delivered, so none has a cost")
    return UNIT_COST.plus(cost / _decimal(images) * MILLION) if cost else Decimal(0)


def _power_of(
    device: DeviceSpec, busy_share: Estimate, busy_w: Estimate | Unknown
) -> tuple[Estimate, tuple[str, ...]] | Unknown:
    """Mean power of one device over all hours, and what had to be assumed for it."""
    said: list[str] = []
    idle, limit = device.idle_w, device.power_limit_w
    if isinstance(busy_w, Unknown):
        if isinstance(limit, Unknown):
            return Unknown(
                reason=f"no energy cost for {device.name}: its busy power is unknown "
                f"({busy_w.reason.rstrip('.')}), and so is its power limit"
            )
        least = 0.0 if isinstance(idle, Unknown) else min(idle.value, limit.value)
        busy_w = Estimate(value=(least + limit.value) / 2, low=least, high=limit.value)
        said.append(f"busy power is unknown: taken between {least:g} W and {limit.value:g} W")
    if isinstance(idle, Unknown):
        idle_w = Estimate(value=busy_w.value / 2, low=0.0, high=busy_w.high)
        said.append("idle power is unknown: taken between 0 W and busy power")
    else:
        band = UNMEASURED_IDLE_BAND if idle.confidence == "C" else 0.0
        idle_w = Estimate(
            value=idle.value, low=idle.value * (1 - band), high=idle.value * (1 + band)
        )
        said += [f"idle power is an estimate: {idle.value:g} W ±{band:.0%}"] if band else []
    shares = (busy_share.value, max(0.0, busy_share.low), min(1.0, busy_share.high))
    ends = ((idle_w.value, busy_w.value), (idle_w.low, busy_w.low), (idle_w.high, busy_w.high))
    value, low, high = (
        average_power_w(rest, max(rest, busy), share)
        for (rest, busy), share in zip(ends, shares, strict=True)
    )
    return Estimate(value=value, low=low, high=high), tuple(said)


def _assumptions(
    device: DeviceSpec, price: Figure, devices: int, site: Site, finance: Finance
) -> Iterator[str]:
    """Every input of the cost in words with its value; what nobody gave is called a default."""

    def given(shown: str, noun: Site | Finance, field: str) -> str:
        return shown if field in noun.model_fields_set else f"{shown} (default)"

    basis = ", ".join(part for part in (device.price_basis, device.price_date) if part)
    band = given(f"±{finance.price_band:.0%}", finance, "price_band")
    years = given(f"{finance.horizon_years} years", finance, "horizon_years")
    rate = given(f"{finance.discount_rate:.2%} a year", finance, "discount_rate")
    host = given(f"{_plain(finance.host_price_usd)} USD a device", finance, "host_price_usd")
    wages = f"{_plain(finance.staff_per_year)} {site.currency} a year"
    kept_up = f"{finance.maintenance_per_year:.2%} of hardware and host a year"
    resold = f"{finance.residual_share:.2%} of hardware and host"
    yield (
        f"price of {device.name}: {price.value:,g} USD{f' ({basis})' if basis else ''}, confidence "
        f"{price.confidence}, {band}"
    )
    yield f"{years}, discounted at {rate}: hardware is paid today, the rest at each year's end"
    yield (
        f"{devices} powered at all 8,760 hours of a year, spares too; PUE "
        f"{given(f'{site.pue:g}', site, 'pue')}, applied once; energy at "
        f"{_plain(site.energy_price_per_kwh)} {site.currency}/kWh, without demand charge"
    )
    yield f"host {host}; staff {given(wages, finance, 'staff_per_year')}"
    yield f"maintenance {given(kept_up, finance, 'maintenance_per_year')}"
    yield f"residual value {given(resold, finance, 'residual_share')}"
    if site.currency != "USD":
        yield f"1 USD = {_plain(site.currency_per_usd)} {site.currency} ({site.currency_date[:80]})"
    yield "not included: space, network, installation, licences, taxes, depreciation, loans"


def _bisected(worth: Callable[[float], float], low: float, high: float) -> float:
    """Where `worth` changes its sign between `low` and `high`."""
    start = worth(low)
    if start == 0:
        return low
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if worth(middle) * start > 0 else (low, middle)
    return (low + high) / 2


def _decimal(value: float) -> Decimal:
    """The number as it is written, not its binary neighbour."""
    return Decimal(repr(float(value)))


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():,f}" if amount else "0"
