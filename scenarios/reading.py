"""A scenario from a TOML file: whole and valid, or one sentence that names file and field."""

import json
import tomllib
from pathlib import Path

from pydantic import ValidationError

from domain.architecture import Architecture
from domain.catalogue import model_named
from domain.complaint import Complaint, CorruptFile, first_error
from domain.routing import RoutingDistribution
from domain.scenario import Scenario
from domain.store import read_limited

LARGEST_SCENARIO_BYTES = 2**20
LIBRARY = Path(__file__).parent / "library"
SKELETON = LIBRARY / "inspection-line.toml"
# Beyond these, a number is a slip of the keyboard.
MOST_CAMERAS, LARGEST_BATCH = 10**9, 10**6


def read_scenario(path: Path) -> Scenario:
    """The scenario of a file. Raises CorruptFile for no TOML, Complaint for a wrong field."""
    content = read_limited(path, LARGEST_SCENARIO_BYTES)
    try:
        # Through JSON text: lists become tuples there, and floats become Decimals digit by digit.
        fields = json.dumps(tomllib.loads(content.decode()), default=str)
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path} is no UTF-8 text: byte {error.start}") from error
    except (RecursionError, ValueError) as error:
        raise CorruptFile(f"{path} is no TOML: {error}") from error
    try:
        scenario = Scenario.model_validate_json(fields)
    except ValidationError as error:
        raise Complaint(f"{path}: {first_error(error)}") from error
    wrong = _wrong_in(scenario)
    if wrong:
        raise Complaint(f"{path}: {wrong}")
    return scenario


def routings_of(
    scenario: Scenario,
) -> tuple[Architecture, RoutingDistribution, RoutingDistribution]:
    """The network of a scenario, its routing, and the routing of the guard's fallback."""
    net = model_named(scenario.model)
    if len(scenario.survival) != net.recursions:
        raise Complaint(
            f"survival: {net.name} has {net.recursions} recursions, wanted as many shares, got "
            f"{len(scenario.survival)}"
        )
    try:
        routed = RoutingDistribution.from_survival(
            scenario.survival, tokens=net.tokens, always=net.prefix_tokens
        )
    except ValidationError as error:
        raise Complaint(f"survival: {first_error(error)}") from error
    except ValueError as error:
        raise Complaint(f"survival: {error}") from error
    return net, routed, RoutingDistribution.full(net.tokens, net.recursions)


def _wrong_in(scenario: Scenario) -> str:
    """What no single field can tell: one sentence, or nothing."""
    site, demand = scenario.site, scenario.demand
    if not scenario.devices or len(set(scenario.devices)) != len(scenario.devices):
        return f"devices: wanted one or more, each once, got {list(scenario.devices)}"
    if demand.cameras > MOST_CAMERAS:
        return f"demand.cameras: wanted up to {MOST_CAMERAS:,}, got more"
    if scenario.batch > LARGEST_BATCH:
        return f"batch: wanted up to {LARGEST_BATCH:,}, got more"
    if site.currency == "USD" and site.currency_per_usd != 1:
        return f"site.currency_per_usd: a USD is worth one USD, got {site.currency_per_usd}"
    if site.currency != "USD" and not site.currency_date:
        return (
            f"site.currency_per_usd: prices are in USD and the site counts in {site.currency}; "
            "give the rate and its currency_date"
        )
    return ""
