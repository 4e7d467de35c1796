"""What a user asked for, in words and options, made into the nouns; refused where it is nonsense."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

from pydantic import ValidationError

from costmodel.offers import Terms
from costmodel.reach import device_of
from domain.architecture import Architecture
from domain.catalogue import check_precision, devices, energy, resolve_device
from domain.complaint import Complaint, CorruptFile, first_error
from domain.defaults import GIVEN_PRICE
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.record import Figure, Precision, Unknown
from domain.routing import RoutingDistribution, default_capacities, routing_of_budget
from domain.scenario import Finance
from domain.store import read_trace, reference_root

# The network whose learned routing on real images is among the reference results.
TRACED_MODEL = "morvit-fmnist"
MOST_CAP_W = 1e5


def batches_of(text: str) -> tuple[int, ...]:
    """Batch sizes from `1,8,32`."""
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise Complaint(f"wanted batch sizes like 1,8,32, got {text!r}") from None
    if any(not 1 <= size <= 1_000_000 for size in sizes):
        raise Complaint(f"wanted batch sizes from 1 to 1,000,000, got {text!r}")
    return sizes


def precision_for(asked: str | None, device: DeviceSpec) -> Precision:
    """What was asked, or fp32 on a CPU and fp16 elsewhere."""
    if asked is not None:
        return check_precision(asked)
    return "fp32" if device.device_class == "cpu" else "fp16"


def routing_named(asked: str | None, net: Architecture) -> tuple[RoutingDistribution, str]:
    """The routing that `--routing` names, fitted to `net`, and how it came about in words."""
    tokens, prefix, recursions = net.tokens, net.prefix_tokens, net.recursions
    if asked == "full" or (asked is None and not net.is_routed):
        return RoutingDistribution.full(tokens, recursions), "every token goes everywhere"
    if asked is None:
        recorded = reference_root() / "routing.parquet"
        if net.name == TRACED_MODEL and recorded.exists():
            trace = read_trace(recorded)
            return trace.resized(tokens, prefix), f"recorded on {trace.images} real images"
        survival = default_capacities(recursions)
        words = f"MoR's default capacities {_listed(survival)} (an assumption; use --routing)"
        return RoutingDistribution.from_survival(survival, tokens, prefix), words
    if asked.startswith("mean="):
        routing = routing_of_budget(_share(asked.removeprefix("mean=")), net)
        words = f"mean depth {routing.mean_depth:.3g}, survival {_listed(routing.survival)}"
        return routing, words
    if asked.endswith(".parquet") or "/" in asked or Path(asked[:200]).is_file():
        trace = read_trace(Path(asked))
        _check_length(len(trace.survival), net)
        return trace.resized(tokens, prefix), f"trace {asked}, {trace.images} images"
    shares = tuple(_share(part) for part in asked.split(","))
    _check_length(len(shares), net)
    try:
        given = RoutingDistribution.from_survival(shares, tokens, prefix)
    except ValueError as error:
        raise Complaint(f"--routing {asked}: {_plain(error)}") from None
    return given, f"survival {_listed(shares)}"


def _plain(error: ValueError) -> str:
    return first_error(error) if isinstance(error, ValidationError) else str(error)


def _check_length(given: int, net: Architecture) -> None:
    if given != net.recursions:
        raise Complaint(
            f"{net.name} has {net.recursions} recursions: wanted as many survival shares, got {given}"
        )


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not 0 <= share <= 1:
        raise Complaint(
            f"wanted shares between 0 and 1 such as 1,0.6,0.3, mean=0.3, full or a .parquet trace, "
            f"got {text!r}"
        )
    return share


def _listed(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:.3g}" for share in shares)


def devices_named(
    name: str, fits: Sequence[Fit], price_usd: str | None, threads: int | None = None
) -> list[tuple[DeviceSpec, str]]:
    """Devices that `--device` names, each with what should be said about the choice.

    A measured machine is taken with `threads`, or with the most it was measured with.
    """
    machines = _machines(fits, threads)
    price = None if price_usd is None else _money("--price-usd", price_usd)
    if name == "all":
        if price is not None:
            raise Complaint("--price-usd is of one device: name it with --device")
        own = [fit for id, fit in machines.items() if id not in devices()]
        chosen = [(device_of(fit), "") for fit in own]
        return chosen + [(device, "") for device in devices().values()]
    called = {fit.environment.device_id: fit for fit in machines.values() if fit.environment}
    if name not in machines and name not in devices() and name in called:
        name = called[name].device_id
    if threads is not None and name != "cpu" and name not in machines:
        raise Complaint(f"--threads is of a measured CPU, {name} is none")
    if name == "cpu" or (name in machines and name not in devices()):
        cpus = [fit for fit in machines.values() if fit.device_class == "cpu"]
        if not cpus and name not in machines:
            raise Complaint(
                "no measured CPU: run `make profile`, or name a device of --list-devices"
            )
        fit = machines[name] if name in machines else cpus[0]
        spec, note = device_of(fit), f"device: {fit.device_id}, {fit.provenance}"
        note += "; if yours is another, `make profile` measures it"
    else:
        resolved = resolve_device(name)
        spec, note = resolved.device, f"device: {resolved.device.id}, {resolved.device.name}"
        note += f"; {resolved.note}" if resolved.note else ""
    if price is not None:
        figure = Figure(
            value=float(price),
            source=GIVEN_PRICE,
            read_on=datetime.now(UTC).date().isoformat(),
            confidence="A",
        )
        fields = {field: getattr(spec, field) for field in DeviceSpec.model_fields}
        spec = DeviceSpec(**{**fields, "price_usd": figure})
    return [(spec, note)]


def capped(
    wanted: Sequence[tuple[DeviceSpec, str]], power_cap_w: float | None
) -> list[tuple[DeviceSpec, str]]:
    """The devices under the power cap of `--power-cap-w`; as they are without one."""
    # NaN fails both comparisons.
    if power_cap_w is not None and not 0 < power_cap_w <= MOST_CAP_W:
        raise Complaint(f"wanted --power-cap-w above 0 and up to {MOST_CAP_W:g}, got {power_cap_w}")
    return [(device.held_to(power_cap_w), note) for device, note in wanted]


def _machines(fits: Sequence[Fit], threads: int | None) -> dict[str, Fit]:
    """The newest fit of each measured machine, with that many threads or with the most."""
    found: dict[str, Fit] = {}
    for fit in fits:
        own = None if fit.environment is None else fit.environment.threads
        if fit.scope == "machine" and (threads is None or threads == own):
            found[fit.device_id] = max(found.get(fit.device_id, fit), fit, key=_rank)
    if threads is not None and not found:
        raise Complaint(f"no machine was measured with {threads} threads; leave out --threads")
    return found


def _rank(fit: Fit) -> tuple[int, bool]:
    """Most threads first, then fp32, as machines are named by; of equals, the newest."""
    threads = 0 if fit.environment is None else fit.environment.threads
    return threads, "fp32" in fit.precisions


def terms_of(energy_usd_per_kwh: str | None, pue: float | None, duty: float, years: int) -> Terms:
    """Money terms; what was not given comes from the catalogue."""
    if not 1e-6 <= duty <= 1:
        raise Complaint(f"wanted --duty from 0.000001 to 1, got {duty}")
    if pue is not None and not 1 <= pue <= 5:
        raise Complaint(f"wanted --pue from 1 to 5, got {pue}")
    world = energy("WLD")
    if energy_usd_per_kwh is not None:
        price, source = _money("--energy-usd-per-kwh", energy_usd_per_kwh), "given"
    elif isinstance(world.price_per_kwh, Unknown):
        raise CorruptFile(
            f"the catalogue lacks the world energy price: {world.price_per_kwh.reason}"
        )
    else:
        price, source = (
            world.price_per_kwh,
            f"world business mean of {world.price_year}, {world.price_source}",
        )
    return Terms(
        energy_usd_per_kwh=price,
        energy_source=source,
        pue=pue,
        duty=duty,
        finance=Finance(horizon_years=years),
    )


def _money(option: str, text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not (amount.is_finite() and 0 < amount <= Decimal(10) ** 9):
        raise Complaint(f"wanted a positive amount of money for {option}, got {text!r}")
    return amount
