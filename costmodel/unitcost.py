"""Cost of ownership as a sum of a few products, so that a million draws cost no more than one.

The same cash as `costmodel.ownership`, in floats and before rounding: every line is proportional to
the price of what is bought, to watts, to devices, or to nothing.
"""

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from costmodel.depreciation import charges_of
from domain.scenario import Finance, Site
from domain.units import HOURS_PER_YEAR, KILO

MONTHS = 12
# Depreciation is counted on this much, so that whole units of money do not show.
LARGE = Decimal(10) ** 9

Amounts = float | NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class UnitCost:
    """Worth of today, over the horizon and after tax, in the site's currency.

    Of one unit of money of hardware and host bought today; of one watt of the year's mean, and of
    the levy in it; of one watt at the busiest; of one device (licences); and of what is fixed.
    """

    per_capital: float
    per_mean_w: float
    per_peak_w: float
    per_device: float
    fixed: float

    def total(
        self, *, devices: Amounts, capital: Amounts, mean_w: Amounts, peak_w: Amounts
    ) -> Amounts:
        """Cost of a fleet that is the same in all years; amounts of all its devices together."""
        return (
            self.per_capital * capital
            + self.per_mean_w * mean_w
            + self.per_peak_w * peak_w
            + self.per_device * devices
            + self.fixed
        )


def unit_cost(site: Site, finance: Finance, device_class: str) -> UnitCost:
    """The factors of a site and its finance for one class of devices."""
    years, rate, net = finance.horizon_years, finance.discount_rate, 1 - finance.tax_rate
    worth = [(1 + rate) ** -year for year in range(years + 1)]
    yearly, at_end = sum(worth[1:]), worth[-1]
    bought = 1 - finance.tax_rate * _written_off(finance, worth)
    kept_up = (finance.maintenance_per_year + finance.insurance_per_year) * yearly * net
    resold = finance.residual_share * at_end * net
    pue = site.pue_of(device_class)
    energy = float(site.energy_price_per_kwh + site.energy_levy_per_kwh)
    demand = float(site.demand_charge_per_kw_month) * pue + float(site.space_per_kw_month)
    once = float(finance.network_price + finance.installation) * bought
    return UnitCost(
        per_capital=bought + kept_up - resold,
        per_mean_w=pue * HOURS_PER_YEAR / KILO * energy * yearly * net,
        per_peak_w=MONTHS / KILO * demand * yearly * net,
        per_device=float(finance.licence_per_device_year) * yearly * net,
        fixed=once
        + float(finance.staff_per_year) * yearly * net
        + float(finance.decommissioning) * at_end * net,
    )


def _written_off(finance: Finance, worth: list[float]) -> float:
    """What the deductions of one unit of money bought today are worth, before the rate of tax."""
    if not finance.tax_rate:
        return 0.0
    charges = charges_of(finance.depreciation, LARGE, finance.life_years, Decimal(1))
    in_time = [float(charge / LARGE) for charge in charges[: finance.horizon_years]]
    deducted = sum(share * worth[year] for year, share in enumerate(in_time, start=1))
    return deducted + (1 - sum(in_time)) * worth[-1]
