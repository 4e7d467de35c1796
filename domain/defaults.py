"""What a scenario left out: every input with its value, and the source of those nobody gave."""

import json
import tomllib
from collections.abc import Collection, Iterable, Iterator
from decimal import Decimal
from functools import cache

from domain.catalogue import FOLDER, resolve_device
from domain.columns import text_of
from domain.complaint import Complaint
from domain.device import DeviceClass, DeviceSpec
from domain.hosts import usual_hosts
from domain.record import Record, Sentence, Unknown
from domain.scenario import Assumption, Host, Scenario

# Parts of a scenario whose fields may be left out.
PARTS = ("demand", "promise", "routing", "site", "finance", "cloud", "uncertainty")
# Fields that have a default but are no quantity that a plan rests on.
# The source of a price that was given on the command line; the unit of one that is of a module.
GIVEN_PRICE, USD_A_MODULE = "--price-usd", "USD a module"
NO_QUANTITY = frozenset({"demand.shifts", "demand.trace", "demand.recording", "site.currency_date"})


class Origin(Record):
    """The unit of a field, and the source of its default."""

    unit: str
    source: Sentence
    as_of: Sentence


@cache
def origins() -> dict[str, Origin]:
    """Of every field that a scenario file may leave out."""
    blocks = tomllib.loads(text_of(FOLDER / "defaults.toml"))
    return {field: Origin.model_validate_json(json.dumps(block)) for field, block in blocks.items()}


def assumptions_of(scenario: Scenario, given: Collection[str]) -> tuple[Assumption, ...]:
    """Every quantity that may be left out; the fields in `given`, as `part.field`, were not.

    A field that says nothing in this scenario (hours beside a shift calendar) is left out.
    """
    return tuple(_assumptions(scenario, given))


def _assumptions(scenario: Scenario, given: Collection[str]) -> Iterator[Assumption]:
    for part in PARTS:
        noun = getattr(scenario, part)
        for name in type(noun).model_fields:
            key = f"{part}.{name}"
            if key not in origins() or _is_idle(scenario, key):
                continue
            origin = origins()[key]
            is_default = key not in given
            yield Assumption(
                field=key,
                value=_shown(getattr(noun, name)),
                unit=origin.unit,
                is_default=is_default,
                source=origin.source if is_default else "given",
                as_of=origin.as_of if is_default else "",
            )
    for device_class in _classes(scenario):
        yield from _hosts(scenario.hosts.of(device_class), device_class, given)


def _classes(scenario: Scenario) -> list[DeviceClass]:
    """Classes of the devices that a scenario names; a measured machine is a CPU."""
    found: dict[DeviceClass, None] = {}
    for name in scenario.devices:
        try:
            found[resolve_device(name).device.device_class] = None
        except Complaint:
            found["cpu"] = None
    return list(found)


def _hosts(host: Host, device_class: DeviceClass, given: Collection[str]) -> Iterator[Assumption]:
    usual = usual_hosts()[device_class]
    for name in Host.model_fields:
        figure, value = usual.get(name), getattr(host, name)
        is_default = f"hosts.{device_class}.{name}" not in given and (
            device_class == "edge" or f"host.{name}" not in given
        )
        if figure is None and device_class == "edge":
            continue
        origin = origins()[f"host.{name}"]
        source, as_of = (origin.source, origin.as_of) if figure is None else (
            f"{figure.source} (confidence {figure.confidence})", figure.as_of,
        )  # fmt: skip
        yield Assumption(
            field=f"hosts.{device_class}.{name}",
            value=_shown(value),
            unit=origin.unit,
            is_default=is_default,
            source=source if is_default else "given",
            as_of=as_of if is_default else "",
        )


def prices_assumed(devices: Iterable[DeviceSpec]) -> Iterator[Assumption]:
    """The price of each device with what it is of and from when; where nobody gave one, a default.

    A module's price has no carrier board, case and power supply in it: its unit and source say so.
    """
    for device in devices:
        price = device.price_usd
        if isinstance(price, Unknown):
            continue
        is_default, is_module = price.source != GIVEN_PRICE, _is_module(device)
        basis = f"{device.price_basis}; " if device.price_basis else ""
        extra = "; carrier board, case and power supply come on top: get a quote"
        yield Assumption(
            field=f"devices.{device.id}.price_usd",
            value=_shown(price.value),
            unit=USD_A_MODULE if is_module and is_default else "USD a device",
            is_default=is_default,
            source=f"{basis}{price.source} (confidence {price.confidence}){extra * is_module}"
            if is_default
            else "given",
            as_of=(device.price_date or price.read_on) if is_default else "",
        )


def _is_module(device: DeviceSpec) -> bool:
    """Whether the price is of a bare module; development kits bring board and power supply."""
    return "module" in device.form_factor and "kit" not in device.price_basis


def _is_idle(scenario: Scenario, key: str) -> bool:
    if scenario.demand.shifts:
        return key in ("demand.hours_per_day", "demand.days_per_year")
    return key == "demand.closed_days_per_year" or (
        key == "site.currency_per_usd" and scenario.site.currency == "USD"
    )


def _shown(value: object) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return f"{value.normalize():f}" if value else "0"
    return f"{value:g}" if isinstance(value, float) else str(value) or "not given"
