"""The same fleet, rented: break-even of owning against each contract that a cloud offers."""

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal

from costmodel.cashflow import exact
from costmodel.drawn import power_of
from costmodel.ownership import energy_price
from costmodel.renting import break_even, devices_in, instances_of, rates_for, rent_of
from domain.catalogue import cloud_prices, commitment_discounts
from domain.device import DeviceSpec
from domain.prediction import Prediction
from domain.prices import Contract, HourlyRate
from domain.record import Unknown
from domain.scenario import BreakEven, Demand, FleetOption, Ownership, Scenario
from domain.units import HOURS_PER_YEAR
from scenarios.demand import load_share
from scenarios.placing import devices_to_rent
from scenarios.pricing import demands_of


def cheapest_rates(device_id: str) -> dict[Contract, HourlyRate]:
    """Of each contract the cheapest offer per device and hour, whoever makes it."""
    found: dict[Contract, HourlyRate] = {}
    for rate in rates_for(device_id, cloud_prices(), commitment_discounts()):
        found.setdefault(rate.contract, rate)
    return found


def rented(
    scenario: Scenario,
    rate: HourlyRate,
    devices: Sequence[int],
    images: float,
    hours: Sequence[float] = (),
) -> Ownership | Unknown:
    """What renting so many devices a year costs, in `hours` or all that the scenario runs."""
    hours = hours or [hours_of(each) for each in demands_of(scenario)]
    return rent_of(
        rate,
        devices=devices,
        running_hours=hours,
        images=images,
        site=scenario.site,
        finance=scenario.finance,
        cloud=scenario.cloud,
    )


def against_renting(
    scenario: Scenario, option: FleetOption, device: DeviceSpec, prediction: Prediction
) -> tuple[BreakEven, ...]:
    """Owning the option's fleet against renting the same device, with spares that keep as much."""
    if not isinstance(option.ownership, Ownership):
        return ()
    return tuple(_against(scenario, option, option.ownership, device, prediction))


def _against(
    scenario: Scenario,
    option: FleetOption,
    owned: Ownership,
    device: DeviceSpec,
    prediction: Prediction,
) -> Iterator[BreakEven]:
    demands = demands_of(scenario)
    hours = sum(map(hours_of, demands)) / len(demands)
    for rate in cheapest_rates(option.device_id).values():
        counts = rented_by_year(scenario, rate, option)
        rent = rented(scenario, rate, counts, owned.images)
        if isinstance(rent, Ownership):
            yield break_even(
                owned,
                rent,
                rate,
                instances_of(rate, max(counts)),
                hours,
                busy_energy(scenario, option, device, prediction),
                scenario.finance.discount_rate,
            )


def rented_by_year(scenario: Scenario, rate: HourlyRate, option: FleetOption) -> list[int]:
    """Devices to rent in each year for what the option's fleet serves in it, and no more."""
    demands = demands_of(scenario)
    servers = option.servers_by_year or (option.servers,) * len(demands)
    return [
        to_rent(scenario, rate, count, demand.sites)
        for count, demand in zip(servers, demands, strict=True)
    ]


def to_rent(scenario: Scenario, rate: HourlyRate, servers: int, sites: int) -> int:
    """Devices to rent for so many that serve at each site: an instance fails with all of its own.

    All sites share one place. Of spot instances more, for those that are interrupted.
    """
    up = 1 - scenario.cloud.spot_interrupted_share if rate.contract == "spot" else 1.0
    return math.ceil(devices_to_rent(servers, sites, scenario.promise, devices_in(rate)) / up)


def hours_of(demand: Demand) -> float:
    """Hours of a year in which images arrive; a leap year counts as all."""
    return min(demand.running_hours_per_year, HOURS_PER_YEAR)


def busy_energy(
    scenario: Scenario, option: FleetOption, device: DeviceSpec, prediction: Prediction
) -> Decimal:
    """What a year's work costs in energy beyond idling, for the whole fleet, after tax."""
    power, site = power_of(device, prediction.power_w), scenario.site
    if isinstance(power, Unknown):
        return Decimal(0)
    extra_w = power.peak_w.value - power.idle_w.value
    # Spares idle: the utilisation is that of the devices that serve.
    at_work = option.sites * option.servers
    before_tax = energy_price(
        power_w=extra_w * at_work * option.utilisation * load_share(scenario.demand),
        pue=site.pue_of(device.device_class),
        hours=HOURS_PER_YEAR,
        price_per_kwh=site.energy_price_per_kwh + site.energy_levy_per_kwh,
    )
    return before_tax * (1 - exact(scenario.finance.tax_rate))
