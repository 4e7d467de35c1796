"""A purchase: what is demanded and promised, and what the fleet that delivers it costs."""

import math
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from domain.demand import Arrivals as Arrivals
from domain.demand import Demand as Demand
from domain.demand import Recording as Recording
from domain.demand import Shift as Shift
from domain.demand import Stage as Stage
from domain.device import DeviceClass
from domain.prediction import Prediction, Refusal
from domain.record import (
    Estimate,
    Executor,
    Identifier,
    NonNegative,
    Positive,
    PositiveCount,
    Precision,
    Record,
    Runtime,
    Sentence,
    Share,
    Unknown,
)

# Of all images, the share that a promise of p99 lets be late.
LATE_SHARE = 0.01

Money = Annotated[Decimal, Field(allow_inf_nan=False)]
Price = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Depreciation = Literal["straight_line", "declining_japan", "macrs"]


class Promise(Record):
    """What the fleet must hold: the 99th percentile of latency, and devices that may fail.

    `confidence` is the probability with which it must hold, given how sure the predictions are.
    """

    p99_latency_s: Positive
    spare_devices: Annotated[int, Field(ge=0, le=100_000)] = 1
    target_utilisation: Annotated[float, Field(gt=0, lt=1)] = 0.7
    confidence: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95
    availability: Annotated[float, Field(ge=0, le=0.99999)] = 0.99
    device_availability: Annotated[float, Field(ge=0.5, lt=1)] = 0.995
    batch_timeout_s: Annotated[float, Field(ge=0, le=3600)] = 0.0


class Drift(Record):
    """How far images may stray from their typical routing.

    `corruption` moves the survival of tokens towards full depth by that share of the way;
    `fallback_share` is the share of running time that the guard spends at full depth: where it is
    more than may be late, the promise must hold there too.
    """

    corruption: Share = 0.0
    fallback_share: Share = 0.0
    hold_at_full_depth: bool = False

    @property
    def is_promised_at_full_depth(self) -> bool:
        """Whether the promise must hold at full depth: asked for, or as time there is not rare."""
        return self.hold_at_full_depth or self.fallback_share > LATE_SHARE


class Site(Record):
    """Where the devices stand and what their energy costs.

    `pue_edge` is of boards, `pue_workstation` of cards in workstations; None where it is `pue`.
    """

    country: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    energy_price_per_kwh: Price
    energy_levy_per_kwh: Price = Decimal(0)
    demand_charge_per_kw_month: Price = Decimal(0)
    space_per_kw_month: Price = Decimal(0)
    pue: Annotated[float, Field(ge=1, le=10)] = 1.6
    pue_edge: Annotated[float, Field(ge=1, le=10)] | None = None
    pue_workstation: Annotated[float, Field(ge=1, le=10)] | None = None
    carbon_g_per_kwh: Annotated[float, Field(ge=0, le=2000)] | None = None
    rack_power_w: Annotated[float, Field(gt=0, le=1e6)] | None = None
    rack_units: Annotated[int, Field(ge=1, le=100)] | None = None
    racks: Annotated[int, Field(ge=1, le=100_000)] = 1
    currency_per_usd: Annotated[Decimal, Field(gt=0, allow_inf_nan=False)] = Decimal(1)
    currency_date: str = ""

    def pue_of(self, device_class: str) -> float:
        """Energy of the place over energy of the devices, by class of device."""
        own = {
            "edge": self.pue_edge,
            "pro_gpu": self.pue_workstation,
            "consumer_gpu": self.pue_workstation,
        }.get(device_class)
        return self.pue if own is None else own


class Host(Record):
    """What devices of one class sit in: how many, its price, room, power and memory.

    Its power is drawn day and night; limits that are None are not checked.
    """

    price_usd: Price = Decimal(0)
    devices_per_host: Annotated[int, Field(ge=1, le=64)] = 1
    units: Annotated[int, Field(ge=0, le=100)] = 1
    power_w: Annotated[float, Field(ge=0, le=1e5)] = 0.0
    power_limit_w: Annotated[float, Field(gt=0, le=1e5)] | None = None
    memory_gb: Annotated[float, Field(gt=0, le=1e6)] | None = None
    memory_gb_per_device: Annotated[float, Field(gt=0, le=1e5)] = 4.0


class Hosts(Record):
    """The host of each class of devices. A board of the class `edge` is its own."""

    dc_gpu: Host = Host()
    pro_gpu: Host = Host()
    consumer_gpu: Host = Host()
    edge: Host = Host()
    cpu: Host = Host()

    @classmethod
    def alike(cls, host: Host) -> Self:
        """The same host for all cards; boards stay as they are."""
        return cls(dc_gpu=host, pro_gpu=host, consumer_gpu=host, cpu=host)

    def of(self, device_class: DeviceClass) -> Host:
        """What a device of that class sits in."""
        found: Host = getattr(self, device_class)
        return found


class Finance(Record):
    """How money is counted. `price_band` is the relative half-width of hardware prices."""

    horizon_years: Annotated[int, Field(ge=1, le=20)] = 3
    discount_rate: Annotated[float, Field(gt=-1, lt=1)] = 0.0
    network_price: Price = Decimal(0)
    installation: Price = Decimal(0)
    maintenance_per_year: Annotated[float, Field(ge=0, lt=1)] = 0.05
    licence_per_device_year: Price = Decimal(0)
    staff_per_year: Price = Decimal(0)
    insurance_per_year: Annotated[float, Field(ge=0, lt=1)] = 0.0
    decommissioning: Price = Decimal(0)
    residual_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    tax_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    depreciation: Depreciation = "straight_line"
    life_years: Annotated[int, Field(ge=2, le=10)] = 5
    price_band: Annotated[float, Field(ge=0, lt=1)] = 0.3
    price_date: Annotated[str, Field(max_length=80)] = ""


class CloudTerms(Record):
    """What renting costs beside the instances, and how far away they are."""

    network_s: Annotated[float, Field(ge=0, le=10)] = 0.03
    egress_gb_per_month: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    egress_usd_per_gb: Price = Decimal("0.09")
    storage_gb: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    storage_usd_per_gb_month: Price = Decimal("0.023")
    uplink_per_month: Price = Decimal(0)
    support_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    spot_interrupted_share: Annotated[float, Field(ge=0, lt=1)] = 0.05


class Uncertainty(Record):
    """How far inputs may be off, as the half-width of a 90 % interval, a share either way.

    `routing_band` is the share of the way to full depth that images may stray, 95 times of 100
    less; `measured_band` what stays open of a latency after an hour of measuring.
    """

    load_band: Annotated[float, Field(ge=0, lt=1)] = 0.2
    energy_band: Annotated[float, Field(ge=0, lt=1)] = 0.2
    currency_band: Annotated[float, Field(ge=0, lt=1)] = 0.1
    cloud_band: Annotated[float, Field(ge=0, lt=1)] = 0.2
    routing_band: Share = 0.1
    measured_band: Annotated[float, Field(ge=0, lt=1)] = 0.1


class Scenario(Record):
    """One question to the suite: which devices, how many, at what cost."""

    format: Literal[1] = 1
    name: Identifier
    title: Sentence
    model: Identifier
    precision: Precision
    runtime: Runtime
    executor: Executor
    batch: PositiveCount
    survival: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    devices: tuple[Identifier, ...]
    power_cap_w: Annotated[float, Field(gt=0, le=1e5)] | None = None
    demand: Demand
    promise: Promise
    site: Site
    routing: Drift = Drift()
    hosts: Hosts = Hosts()
    finance: Finance = Finance()
    cloud: CloudTerms = CloudTerms()
    uncertainty: Uncertainty = Uncertainty()
    stages: Annotated[tuple[Stage, ...], Field(max_length=20)] = ()

    @model_validator(mode="after")
    def _stages_follow_each_other(self) -> Self:
        years = [stage.from_year for stage in self.stages]
        if years and (years[0] != 1 or any(b <= a for a, b in pairwise(years))):
            raise ValueError(f"stages: wanted from_year rising from 1, got {years}")
        if years and years[-1] > self.finance.horizon_years:
            raise ValueError(
                f"stages: wanted from_year up to the horizon of {self.finance.horizon_years} "
                f"years, got {years[-1]}"
            )
        return self

    def demand_in(self, year: int) -> Demand:
        """The demand of a year, counted from one: its stage, then the growth up to then."""
        stage = next((each for each in reversed(self.stages) if each.from_year <= year), None)
        base = self.demand if stage is None else stage
        cameras = math.ceil(
            base.cameras * (1 + self.demand.growth_per_year) ** (year - 1) * (1 - 1e-12)
        )
        if cameras == self.demand.cameras and base.sites == self.demand.sites:
            return self.demand
        fields = {name: getattr(self.demand, name) for name in Demand.model_fields}
        return Demand(**{**fields, "cameras": min(cameras, 10**9), "sites": base.sites})


class Assumption(Record):
    """One input of a plan with its value, and where the value comes from if nobody gave it."""

    field: Sentence
    value: str
    unit: str
    is_default: bool
    source: str
    as_of: str


class CostLine(Record):
    """One line of money over the horizon, in the scenario's currency; `low` and `high` bound it.

    `amount` is worth of today, `by_year` the cash that moves: today, then at each year's end.
    """

    name: Identifier
    amount: Money
    low: Money
    high: Money
    how: Sentence
    by_year: tuple[Money, ...] = ()


class Ownership(Record):
    """Cost over the horizon: lines add up to the total, to the last digit."""

    currency: str
    horizon_years: PositiveCount
    images: NonNegative
    lines: tuple[CostLine, ...]
    total: Money
    low: Money
    high: Money
    per_million_images: Money | Unknown
    per_million_low: Money | Unknown
    per_million_high: Money | Unknown
    assumptions: tuple[Sentence, ...] = ()
    equivalent_per_year: Money | None = None
    carbon_kg: NonNegative | None = None

    @property
    def by_year(self) -> tuple[Decimal, ...]:
        """Cash that moves today and at each year's end, over all lines."""
        years = [line.by_year for line in self.lines if line.by_year]
        return tuple(sum(each, Decimal(0)) for each in zip(*years, strict=True))

    @model_validator(mode="after")
    def _lines_add_up(self) -> Self:
        for side in ("amount", "low", "high"):
            lines = sum((getattr(line, side) for line in self.lines), Decimal(0))
            whole = self.total if side == "amount" else getattr(self, side)
            if lines != whole:
                raise ValueError(f"the lines add up to {lines} ({side}), the total says {whole}")
        return self


class BreakEven(Record):
    """Owning one fleet against renting another that delivers the same, with the same spares.

    `hours` and `years` are of use until both have cost the same, `utilisation` the share of all
    hours from which on owning is the cheaper. Amortisation is in none of them.
    """

    contract: Sentence
    instance: Sentence
    instances: PositiveCount
    as_of: Sentence
    is_estimate: bool
    rented_total: Money
    hours: Money | Unknown
    years: Money | Unknown
    utilisation: Money | Unknown
    payback_years: Money | Unknown
    net_present_value: Money
    rate_of_return: float | Unknown


class FleetOption(Record):
    """One device type that could serve the scenario, or the reason why it can not.

    `host_places` is how many devices its host could hold, `devices_per_host` how many it is to
    hold at most: a host fails with all of them. `servers_by_year` are those of a site, spares
    aside, in each year of the horizon; `servers` those of the busiest.
    """

    device_id: str
    device_name: str
    devices: Annotated[int, Field(ge=0)]
    utilisation: NonNegative
    p99_latency_s: NonNegative | Unknown
    meets_full_depth: bool
    tier: str
    ownership: Ownership | Unknown
    reason: str = ""
    batch: int = 0
    sites: int = 1
    servers: int = 0
    spares: int = 0
    hosts: int = 0
    devices_per_host: int = 1
    host_places: int = 1
    peak_power_w: NonNegative | Unknown = 0.0
    full_depth_p99_s: NonNegative | Unknown = Unknown(reason="not asked")
    promise_probability: Share | Unknown = Unknown(reason="not asked")
    replayed_p99_s: Estimate | Unknown = Unknown(reason="not replayed")
    simulated_p99_s: Estimate | Unknown = Unknown(reason="not simulated")
    batch_limit_s: NonNegative = 0.0
    device_class: DeviceClass | None = None
    servers_by_year: tuple[PositiveCount, ...] = ()
    against: tuple[BreakEven, ...] = ()
    notes: tuple[Sentence, ...] = ()

    @property
    def seen_p99_s(self) -> float | Unknown:
        """As followed image by image; by closed form where it was not."""
        replayed = self.replayed_p99_s
        return self.p99_latency_s if isinstance(replayed, Unknown) else replayed.value


class Plan(Record):
    """The answer to a scenario: options, cheapest first; refused devices last."""

    format: Literal[1] = 1
    scenario: Scenario
    options: tuple[FleetOption, ...]
    made_by: Sentence
    assumptions: tuple[Assumption, ...] = ()

    @property
    def defaults(self) -> tuple[Assumption, ...]:
        """Inputs that nobody gave."""
        return tuple(each for each in self.assumptions if each.is_default)

    @property
    def chosen(self) -> FleetOption | None:
        """The cheapest fleet that keeps the promise, if there is one."""
        for option in self.options:
            if isinstance(option.ownership, Ownership) and not option.reason:
                return option
        return None


class Offer(Record):
    """One device of the catalogue for one workload: what it will take and what owning it costs."""

    device_id: Identifier
    prediction: Prediction | Refusal
    ownership: Ownership | Unknown


class Offers(Record):
    """The catalogue, predicted for one model and routing."""

    format: Literal[1] = 1
    model: Identifier
    routing: Sentence
    offers: tuple[Offer, ...]
