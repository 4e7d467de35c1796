"""The one door to predictions: every device of a scenario at every batch that is worth a try."""

from collections.abc import Mapping, Sequence

from costmodel.asking import devices_named
from costmodel.transfer import forecast
from domain.architecture import Architecture
from domain.complaint import Complaint
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.prediction import Prediction, Refusal
from domain.routing import RoutingDistribution
from domain.scenario import Scenario
from domain.workload import Workload, timm_states
from scenarios.candidates import Forecasts
from scenarios.reading import routings_of


def batches_of(largest: int) -> tuple[int, ...]:
    """Batches worth a try: powers of two up to the largest, and the largest itself.

    >>> batches_of(6)
    (1, 2, 4, 6)
    """
    powers = [2**k for k in range(largest.bit_length()) if 2**k < largest]
    return (*powers, largest)


def forecasts_of(
    scenario: Scenario,
    devices: Mapping[str, DeviceSpec],
    fits: Sequence[Fit],
    of: tuple[Architecture, RoutingDistribution, RoutingDistribution] | None = None,
) -> dict[str, Forecasts]:
    """Predictions of each device by batch, as routed and with all tokens everywhere.

    `of` is another network than the scenario's, with its two routings.
    """
    net, routed, full = of or routings_of(scenario)

    def by_batch(
        device: DeviceSpec, routing: RoutingDistribution
    ) -> dict[int, Prediction | Refusal]:
        return {
            batch: forecast(
                Workload(
                    architecture=net,
                    batch=batch,
                    precision=scenario.precision,
                    runtime=scenario.runtime,
                    executor=scenario.executor,
                    states=timm_states(net),
                    routing=routing,
                ),
                device,
                fits,
            )
            for batch in batches_of(scenario.batch)
        }

    return {
        name: Forecasts(routed=by_batch(device, routed), full=by_batch(device, full))
        for name, device in devices.items()
    }


def devices_of(
    scenario: Scenario, fits: Sequence[Fit], prices: Sequence[str] = ()
) -> tuple[dict[str, DeviceSpec], list[str]]:
    """The devices by the id of the catalogue, and what should be said about a choice.

    `prices` are of one's own, as DEVICE=AMOUNT in USD.
    """
    price_of = dict(_price(each) for each in prices)
    unused = sorted(set(price_of) - set(scenario.devices))
    if unused:
        raise Complaint(f"--price-usd: {unused[0]!r} is no device of the scenario")
    devices: dict[str, DeviceSpec] = {}
    notes: list[str] = []
    for name in scenario.devices:
        for device, note in devices_named(name, fits, price_of.get(name)):
            if device.id in devices:
                raise Complaint(f"devices: {name!r} names {device.id} a second time")
            devices[device.id] = device.held_to(scenario.power_cap_w)
            notes += [note] if note and name != device.id else []
    return devices, notes


def _price(text: str) -> tuple[str, str]:
    name, separator, amount = text.partition("=")
    if not (name and separator):
        raise Complaint(f"wanted --price-usd DEVICE=AMOUNT, got {text!r}")
    return name, amount
