"""A scenario from a TOML file: whole and valid, or one sentence that names file, line and field."""

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from domain.architecture import Architecture
from domain.catalogue import energy, model_named
from domain.complaint import Complaint, CorruptFile, first_error
from domain.defaults import PARTS, assumptions_of
from domain.depreciation import macrs_percent
from domain.hosts import CLASSES, usual_hosts
from domain.record import Unknown
from domain.routing import RoutingDistribution
from domain.scenario import Assumption, Host, Scenario
from domain.store import read_limited
from scenarios.arrivals import read_arrivals, recording_of
from scenarios.demand import Times

LARGEST_SCENARIO_BYTES, DEEPEST = 2**20, 32
LIBRARY = Path(__file__).parent / "library"
SKELETON = LIBRARY / "inspection-line.toml"
# Beyond these, a number is a slip of the keyboard.
MOST_CAMERAS, LARGEST_BATCH = 10**9, 10**6
# What is taken where a file says nothing, and the kind of arrivals or the country decides.
PEAK_OF_RANDOM = 2.0
PUE_EDGE = 1.1
LEVY_OF = {"JPN": "4.18"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A scenario, what its file gave of it, and the recorded arrivals if it names any."""

    scenario: Scenario
    given: frozenset[str]
    recorded_s: Times | None

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """Every input that a file may leave out, given or not."""
        return assumptions_of(self.scenario, self.given)


def read_scenario(path: Path) -> Scenario:
    """The scenario of a file. Raises CorruptFile for no TOML, Complaint for a wrong field."""
    return read_asked(path).scenario


def read_asked(path: Path) -> Asked:
    """The scenario of a file, with what it left out filled in and the trace that it names read.

    Raises CorruptFile for no TOML, Complaint for a wrong field.
    """
    content = read_limited(path, LARGEST_SCENARIO_BYTES)
    try:
        text = content.decode()
        fields = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path} is no UTF-8 text: byte {error.start}") from error
    except (RecursionError, ValueError) as error:
        raise CorruptFile(f"{path} is no TOML: {error}") from error
    if _depth(fields) > DEEPEST:
        raise CorruptFile(f"{path} is no TOML of ours: nested deeper than {DEEPEST}")
    given = frozenset(_given(fields))
    try:
        recorded_s = _filled(fields, path)
        # Through JSON text: lists become tuples there, and floats become Decimals digit by digit.
        scenario = Scenario.model_validate_json(json.dumps(fields, default=str))
    except ValidationError as error:
        where = [str(part) for part in error.errors(include_url=False)[0]["loc"]]
        raise Complaint(f"{path}{_line_of(text, where)}: {first_error(error)}") from error
    except Complaint as complaint:
        if isinstance(complaint, CorruptFile):
            raise
        raise Complaint(f"{path}: {complaint}") from complaint
    wrong = _wrong_in(scenario)
    if wrong:
        where = wrong.partition(":")[0].split(".")
        raise Complaint(f"{path}{_line_of(text, where)}: {wrong}")
    return Asked(scenario=scenario, given=given, recorded_s=recorded_s)


def _given(fields: Mapping[str, Any]) -> Iterator[str]:
    """Every `part.field` that a file says; of hosts `host.field`, or `hosts.class.field`."""
    parts = {part: fields.get(part) for part in (*PARTS, "host")}
    hosts = fields.get("hosts")
    if isinstance(hosts, dict):
        parts |= {f"hosts.{name}": block for name, block in hosts.items()}
    for part, block in parts.items():
        if isinstance(block, dict):
            yield from (f"{part}.{name}" for name in block)


def routings_of(
    scenario: Scenario,
) -> tuple[Architecture, RoutingDistribution, RoutingDistribution]:
    """The network of a scenario, its routing, and the routing of the guard's fallback.

    Corruption moves the survival of each recursion towards one by its share of the way.
    """
    net = model_named(scenario.model)
    if len(scenario.survival) != net.recursions:
        raise Complaint(
            f"survival: {net.name} has {net.recursions} recursions, wanted as many shares, got "
            f"{len(scenario.survival)}"
        )
    drift = scenario.routing.corruption
    try:
        routed = RoutingDistribution.from_survival(
            tuple(share + drift * (1 - share) for share in scenario.survival),
            tokens=net.tokens,
            always=net.prefix_tokens,
        )
    except ValidationError as error:
        raise Complaint(f"survival: {first_error(error)}") from error
    except ValueError as error:
        raise Complaint(f"survival: {error}") from error
    return net, routed, RoutingDistribution.full(net.tokens, net.recursions)


def _filled(fields: dict[str, Any], path: Path) -> Times | None:
    """Put in what the country and the kind of arrivals decide; the trace that the file names."""
    demand, site = fields.get("demand"), fields.get("site")
    recorded_s = None
    _with_hosts(fields)
    if isinstance(demand, dict):
        if demand.get("arrivals") == "poisson":
            demand.setdefault("peak_factor", PEAK_OF_RANDOM)
        if demand.get("arrivals") == "trace" and isinstance(demand.get("trace"), str):
            recorded_s = _with_trace(demand, _beside(path, demand["trace"]))
    if isinstance(site, dict):
        _with_country(site)
        site.setdefault("pue_edge", PUE_EDGE)
    return recorded_s


def _with_hosts(fields: dict[str, Any]) -> None:
    """Hosts of every class: the catalogue's, less what `[host]` says of cards, less `[hosts.x]`."""
    common, own = fields.pop("host", {}), fields.get("hosts", {})
    if not isinstance(common, dict) or not isinstance(own, dict):
        raise Complaint("host: wanted a table [host], or [hosts.dc_gpu] and such for one class")
    try:
        Host.model_validate_json(json.dumps(common, default=str))
    except ValidationError as error:
        raise Complaint(f"host.{first_error(error)}") from error
    fields["hosts"] = own | {
        name: {field: figure.value for field, figure in usual_hosts()[name].items()}
        | (common if name != "edge" else {})
        | own.get(name, {})
        for name in CLASSES
        if isinstance(own.get(name, {}), dict)
    }


def _beside(path: Path, name: str) -> Path:
    """A file that a scenario may name: beside it or below, so that it can not read elsewhere."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise Complaint(f"demand.trace: wanted a file beside the scenario, got {name[:60]!r}")
    return path.parent / name


def _with_trace(demand: dict[str, Any], trace: Path) -> Times:
    if "recording" in demand or "period_s" in demand:
        raise Complaint("demand.trace: period_s and recording come from the trace, leave them out")
    times_s = read_arrivals(trace)
    recording = recording_of(trace, times_s)
    cameras = demand.get("cameras")
    demand["recording"] = recording.model_dump()
    if isinstance(cameras, int) and cameras >= 1:
        demand["period_s"] = cameras * recording.span_s / recording.images
    return times_s


def _with_country(site: dict[str, Any]) -> None:
    country = site.get("country")
    if not isinstance(country, str) or not re.fullmatch(r"[A-Z]{3}", country):
        return
    if "energy_price_per_kwh" in site and "carbon_g_per_kwh" in site:
        return
    try:
        row = energy(country)
    except Complaint as complaint:
        raise Complaint(f"site.country: {complaint}") from complaint
    site.setdefault("carbon_g_per_kwh", row.carbon_g_per_kwh)
    if "energy_price_per_kwh" in site:
        return
    if isinstance(row.price_per_kwh, Unknown):
        raise Complaint(
            f"site.energy_price_per_kwh: the catalogue has no price for {row.country}; give one"
        )
    if row.currency != site.get("currency"):
        raise Complaint(
            f"site.energy_price_per_kwh: the catalogue has {row.country}'s in {row.currency}, the "
            f"site counts in {str(site.get('currency'))[:10]}; give one"
        )
    site["energy_price_per_kwh"] = float(row.price_per_kwh)
    # The price of the catalogue is without it; one that the file gives may well hold it.
    if country in LEVY_OF:
        site.setdefault("energy_levy_per_kwh", float(LEVY_OF[country]))


def _wrong_in(scenario: Scenario) -> str:
    """What no single field can tell: one sentence, or nothing."""
    site, demand, finance = scenario.site, scenario.demand, scenario.finance
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
    classes = sorted(macrs_percent())
    if finance.depreciation == "macrs" and finance.life_years not in classes:
        return f"finance.life_years: MACRS has classes of {classes} years, got {finance.life_years}"
    peak = demand.peak_img_per_s * (1 + demand.growth_per_year) ** finance.horizon_years
    if not math.isfinite(peak) or peak * demand.sites > 1e15:
        return f"demand.cameras: wanted up to 1e15 images a second over all, got {peak:.3g} a site"
    return ""


def _depth(value: object) -> int:
    """How deep tables and lists are nested, without recursion."""
    deepest, open_ = 0, [(value, 1)]
    while open_:
        each, depth = open_.pop()
        deepest = max(deepest, depth)
        if isinstance(each, Mapping):
            open_ += [(inner, depth + 1) for inner in each.values()]
        elif isinstance(each, list):
            open_ += [(inner, depth + 1) for inner in each]
    return deepest


def _line_of(text: str, where: list[str]) -> str:
    """`:line` of the field in the file, or of its table; nothing where neither is to be found."""
    names = [part for part in where if not part.isdigit()]
    table, at_table, now = ".".join(names[:-1]), 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        head = re.match(r"\s*\[+\s*([\w.-]+)\s*\]+", line)
        if head:
            now = head[1]
            at_table = number if now in (table, ".".join(names)) else at_table
        elif names and now == table and re.match(rf"\s*{re.escape(names[-1])}\s*=", line):
            return f":{number}"
    return f":{at_table}" if at_table else ""
