"""What devices of each class sit in where nobody said: the catalogue's hosts, with their sources."""

import json
import tomllib
from functools import cache
from typing import Literal, get_args

from domain.catalogue import FOLDER
from domain.columns import text_of
from domain.device import DeviceClass
from domain.record import Record, Sentence
from domain.scenario import Host, Hosts

CLASSES: tuple[DeviceClass, ...] = get_args(DeviceClass)


class HostFigure(Record):
    """One figure of a host with its unit, source, date and confidence."""

    value: int | float
    unit: Sentence
    source: Sentence
    as_of: Sentence
    confidence: Literal["A", "B", "C"]


@cache
def usual_hosts() -> dict[DeviceClass, dict[str, HostFigure]]:
    """Of each class of devices, the fields of a host that the catalogue knows."""
    blocks = tomllib.loads(text_of(FOLDER / "hosts.toml"))
    return {
        name: {
            field: HostFigure.model_validate_json(json.dumps(block))
            for field, block in blocks[name].items()
        }
        for name in CLASSES
    }


def hosts_as_usual() -> Hosts:
    """The catalogue's host of every class."""
    return Hosts(
        **{
            name: Host.model_validate_json(
                json.dumps({field: figure.value for field, figure in figures.items()})
            )
            for name, figures in usual_hosts().items()
        }
    )
