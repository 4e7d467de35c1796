"""One device, one workload: prediction and ownership side by side, and the row that shows them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from costmodel.ownership import ownership_of
from costmodel.transfer import forecast
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.prediction import Refusal
from domain.record import Estimate, Unknown
from domain.scenario import Finance, Offer, Ownership, Site
from domain.tables import Cell
from domain.units import HOURS_PER_YEAR, MILLI, SECONDS_PER_HOUR, shown, significant
from domain.workload import Workload

# A Jetson at the line has no server room around it; a server room in a factory is far from the
# hyperscalers' 1.1 (Uptime Institute survey mean 1.54 in 2025; factories 1.6 to 2.0).
PUE_OF_CLASS = {"edge": 1.1}
PUE_ELSEWHERE = 1.6


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What ownership is reckoned with: energy, PUE (None: by device class), duty, years."""

    energy_usd_per_kwh: Decimal
    energy_source: str
    pue: float | None
    duty: float
    finance: Finance

    def site_of(self, device: DeviceSpec) -> Site:
        """Where the device stands."""
        by_class = PUE_OF_CLASS.get(device.device_class, PUE_ELSEWHERE)
        return Site(
            country="WLD",
            currency="USD",
            energy_price_per_kwh=self.energy_usd_per_kwh,
            pue=by_class if self.pue is None else self.pue,
        )


def offer_of(workload: Workload, device: DeviceSpec, fits: Sequence[Fit], terms: Terms) -> Offer:
    """What `workload` takes on one `device` that is busy `terms.duty` of the time, and its cost."""
    prediction = forecast(workload, device, fits)
    if isinstance(prediction, Refusal):
        return Offer(
            device_id=device.id, prediction=prediction, ownership=Unknown(reason=prediction.reason)
        )
    owned = ownership_of(
        device=device,
        devices=1,
        images_per_year=images_per_year(prediction.throughput_img_per_s.value, terms.duty),
        busy_share=Estimate(value=terms.duty, low=terms.duty, high=terms.duty),
        busy_power_w=prediction.power_w,
        site=terms.site_of(device),
        finance=terms.finance,
    )
    if isinstance(owned, Ownership):
        owned = _with_throughput(owned, prediction.throughput_img_per_s)
    return Offer(device_id=device.id, prediction=prediction, ownership=owned)


def images_per_year(throughput_img_per_s: float, duty: float) -> float:
    """Images that a device delivers when it is busy `duty` of the hours.

    >>> images_per_year(1.0, 0.5)
    15768000.0
    """
    return throughput_img_per_s * duty * HOURS_PER_YEAR * SECONDS_PER_HOUR


def _with_throughput(owned: Ownership, throughput: Estimate) -> Ownership:
    """Cost per million images with the throughput's interval joined to the cost's, in log space."""
    unit = owned.per_million_images
    if isinstance(unit, Unknown) or owned.total <= 0 or owned.low <= 0:
        return owned
    down = math.hypot(
        math.log(owned.total / owned.low), math.log(throughput.high / throughput.value)
    )
    up = math.hypot(math.log(owned.high / owned.total), math.log(throughput.value / throughput.low))
    return _rebuilt(
        owned,
        per_million_low=unit * Decimal(repr(math.exp(-down))),
        per_million_high=unit * Decimal(repr(math.exp(up))),
    )


def _rebuilt(owned: Ownership, **changes: Decimal) -> Ownership:
    fields = {name: getattr(owned, name) for name in Ownership.model_fields}
    return Ownership(**{**fields, **changes})


def row_of(offer: Offer, *, note: str = "") -> dict[str, Cell]:
    """Flat and machine-readable: units in the names, an empty cell where a reason is given."""
    prediction, ownership = offer.prediction, offer.ownership
    row: dict[str, Cell] = {"device_id": offer.device_id}
    if isinstance(prediction, Refusal):
        return row | {"tier": "refused", "reason": prediction.reason, "note": note}
    work = prediction.workload
    row |= {
        "model": work.architecture.name,
        "batch_size": work.batch,
        "precision_id": work.precision,
        "runtime_id": work.runtime,
        "executor": work.executor,
        "tier": prediction.tier,
    }
    row |= _columns("latency_ms", prediction.latency_s, MILLI)
    row |= _columns("throughput_img_per_s", prediction.throughput_img_per_s, 1.0)
    row |= _columns("peak_memory_bytes", prediction.peak_memory_bytes, 1.0)
    row |= _columns("energy_j_per_image", prediction.energy_j_per_image, 1.0)
    row |= {name: _number(value) for name, value in _amounts(ownership).items()}
    row["ownership_years"] = None if isinstance(ownership, Unknown) else ownership.horizon_years
    missing = [
        f"{name}: {value.reason}"
        for name, value in (
            ("energy", prediction.energy_j_per_image),
            ("memory", prediction.peak_memory_bytes),
            ("cost", ownership),
        )
        if isinstance(value, Unknown)
    ]
    row |= {
        "fits_in_memory": None
        if isinstance(prediction.fits_in_memory, Unknown)
        else round(prediction.fits_in_memory, 4),
        "bound": prediction.bound,
        "tier_reason": prediction.tier_reason,
        "reason": "; ".join(missing),
        "assumptions": "; ".join((*prediction.assumptions, *_cost_assumptions(ownership))),
        "note": note,
    }
    return row


def shown_row(offer: Offer) -> dict[str, Cell]:
    """The same for people: value and interval in one cell."""
    prediction, ownership = offer.prediction, offer.ownership
    if isinstance(prediction, Refusal):
        return {"device": offer.device_id, "tier": "refused", "latency": prediction.reason}
    amounts = list(_amounts(ownership).values())
    return {
        "device": offer.device_id,
        "batch": prediction.workload.batch,
        "tier": prediction.tier,
        "latency": interval(prediction.latency_s, "s"),
        "images/s": interval(prediction.throughput_img_per_s, ""),
        "peak memory": interval(prediction.peak_memory_bytes, "B"),
        "energy/image": interval(prediction.energy_j_per_image, "J"),
        "USD/million images": _money(*amounts[:3]),
        "USD to own": _money(*amounts[3:]),
    }


def interval(estimate: Estimate | Unknown, unit: str) -> str:
    """Value (low–high) with its unit, or n/a; the reason stands in the notes."""
    if isinstance(estimate, Unknown):
        return "n/a"
    low, high = shown(estimate.low, unit), shown(estimate.high, unit)
    return f"{shown(estimate.value, unit)} ({low}–{high})"


def _cost_assumptions(ownership: Ownership | Unknown) -> tuple[str, ...]:
    return () if isinstance(ownership, Unknown) else ownership.assumptions


Amount = Decimal | Unknown | None


def _amounts(ownership: Ownership | Unknown) -> dict[str, Amount]:
    field_of = {
        "cost_per_million_usd": "per_million_images",
        "cost_per_million_usd_low": "per_million_low",
        "cost_per_million_usd_high": "per_million_high",
        "ownership_usd": "total",
        "ownership_usd_low": "low",
        "ownership_usd_high": "high",
    }
    return {name: getattr(ownership, field, None) for name, field in field_of.items()}


def _money(value: Amount, low: Amount, high: Amount) -> str:
    known = [float(each) for each in (value, low, high) if isinstance(each, Decimal)]
    if len(known) < 3:
        return "n/a"
    middle, least, most = (significant(each) for each in known)
    return f"{middle} ({least}–{most})"


def _columns(name: str, estimate: Estimate | Unknown, unit: float) -> dict[str, Cell]:
    if isinstance(estimate, Unknown):
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {
        name: estimate.value / unit,
        f"{name}_low": estimate.low / unit,
        f"{name}_high": estimate.high / unit,
    }


def _number(value: Amount) -> float | None:
    return float(value) if isinstance(value, Decimal) else None
