"""What bounds a fleet beside its load: hosts and racks."""

from domain.device import DeviceSpec
from domain.record import Unknown
from domain.scenario import Host, Site
from domain.units import shown


def host_within(host: Host, device: DeviceSpec) -> Host | str:
    """The host with no more devices than its power and memory bear, or why it bears none."""
    limit = device.most_w
    most = host.devices_per_host
    if host.power_limit_w is not None:
        if isinstance(limit, Unknown):
            return f"the host's power limit can not be checked: {limit.reason}"
        most = min(most, int((host.power_limit_w - host.power_w) / limit))
        if most < 1:
            return (
                f"a host of {host.power_limit_w:g} W does not bear {device.name} with its "
                f"{limit:g} W"
            )
    if host.memory_gb is not None:
        most = min(most, int(host.memory_gb / host.memory_gb_per_device))
        if most < 1:
            return (
                f"a host of {host.memory_gb:g} GB has no room for the "
                f"{host.memory_gb_per_device:g} GB that each device needs"
            )
    return filled_with(host, most)


def filled_with(host: Host, devices: int) -> Host:
    """The host with no more than so many devices in it."""
    fields = {name: getattr(host, name) for name in Host.model_fields}
    return Host(**{**fields, "devices_per_host": devices})


def racks_exceeded(devices: int, hosts: int, device: DeviceSpec, host: Host, site: Site) -> str:
    """Why so many devices do not fit into the racks of one site; empty where they do.

    Boards of the class `edge` stand at the line, not in a rack.
    """
    if device.device_class == "edge":
        return ""
    units = hosts * host.units
    if site.rack_units is not None and units > site.racks * site.rack_units:
        return f"{hosts} hosts take {units} U, {site.racks} × {site.rack_units} U of rack are there"
    if site.rack_power_w is None:
        return ""
    most = device.most_w
    if isinstance(most, Unknown):
        return f"the racks' power limit can not be checked: {most.reason}"
    power_w = devices * most + hosts * host.power_w
    if power_w > site.racks * site.rack_power_w:
        return (
            f"{devices} devices and their hosts draw up to {shown(power_w, 'W')}, the racks give "
            f"{site.racks} × {shown(site.rack_power_w, 'W')}"
        )
    return ""
