"""Cash of one line by year, what bounds it, what tax gives back of it, and its worth today."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from costmodel.depreciation import charges_of
from costmodel.present_value import net_present_value
from domain.record import Estimate
from domain.scenario import CostLine, Finance

# Lines that are bought rather than used up.
CAPITAL = frozenset({"hardware", "host", "network", "installation"})

Cash = tuple[Decimal, ...]


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Cash of one line today and at each year's end, with what bounds it."""

    name: str
    how: str
    cash: Cash
    low: Cash
    high: Cash

    def rounded(self, unit: Decimal) -> "Flow":
        """The same in whole `unit`s: what is paid is whole, so sums of it are exact."""
        cash, low, high = (
            tuple(each.quantize(unit) for each in side) for side in (self.cash, self.low, self.high)
        )
        return Flow(name=self.name, how=self.how, cash=cash, low=low, high=high)

    def line(self, rate: Decimal, unit: Decimal) -> CostLine:
        """The line of cost that this cash is worth today."""
        amount, low, high = (
            net_present_value(rate, side).quantize(unit)
            for side in (self.cash, self.low, self.high)
        )
        return CostLine(
            name=self.name, amount=amount, low=low, high=high, how=self.how, by_year=self.cash
        )


def flow(name: str, how: str, cash: Cash, band: Decimal = Decimal(0)) -> Flow:
    """Cash that may be off by the share `band` either way."""
    ends = tuple(tuple(sorted((each * (1 - band), each * (1 + band)))) for each in cash)
    low, high = (tuple(end[side] for end in ends) for side in (0, 1))
    return Flow(name=name, how=how, cash=cash, low=low, high=high)


def yearly_flow(name: str, how: str, yearly: Sequence[Estimate | Decimal]) -> Flow:
    """Cash at each year's end, nothing today."""
    ends = [
        (each, each, each)
        if isinstance(each, Decimal)
        else tuple(map(exact, (each.value, each.low, each.high)))
        for each in yearly
    ]
    cash, low, high = ((Decimal(0), *(end[side] for end in ends)) for side in range(3))
    return Flow(name=name, how=how, cash=cash, low=low, high=high)


def tax_relief(
    running: Sequence[Flow], capital: Sequence[Flow], finance: Finance, unit: Decimal
) -> Flow:
    """What deductions save in tax: running costs at once, capital as it is depreciated.

    Its `low` goes with the low ends of the costs, so it saves least there: relief and costs move
    together.
    What is still on the books at the end is written off then, against what it is sold for.
    """
    rate, years = exact(finance.tax_rate), finance.horizon_years

    def relief(side: str) -> Cash:
        deducted = [Decimal(0)] * (years + 1)
        if not rate:
            return tuple(deducted)
        for each in running:
            for t, amount in enumerate(getattr(each, side)):
                deducted[t] += amount
        bought = [
            sum((getattr(each, side)[t] for each in capital), Decimal(0)) for t in range(years)
        ]
        for start, cost in enumerate(bought):
            left = cost
            charges = charges_of(finance.depreciation, cost, finance.life_years, unit)
            for t, charge in enumerate(charges[: years - start], start=start + 1):
                deducted[t] += charge
                left -= charge
            deducted[years] += left
        return tuple(-rate * each for each in deducted)

    how = f"{rate:.4g} of running costs and of depreciation ({finance.depreciation})"
    how += f" over {finance.life_years} years" if rate else ", none: before tax"
    return Flow(
        name="tax-relief", how=how, cash=relief("cash"), low=relief("low"), high=relief("high")
    )


def widest(flow: Flow) -> Flow:
    """The same with its ends in order, whichever costs they belong to."""
    sides = list(zip(flow.low, flow.cash, flow.high, strict=True))
    low, high = (tuple(pick(ends) for ends in sides) for pick in (min, max))
    return Flow(name=flow.name, how=flow.how, cash=flow.cash, low=low, high=high)


def exact(value: float) -> Decimal:
    """The number as it is written, not its binary neighbour."""
    return Decimal(repr(float(value)))


def plain(amount: Decimal) -> str:
    """An amount without needless zeros."""
    return f"{amount.normalize():,f}" if amount else "0"
