"""`python -m scenarios.acceptance`: how good the sizing is, held against simulation and brute force.

Random scenarios on devices of the catalogue: each is sized, its fleet is replayed with arrivals and
a true latency that it was not sized for, and its cost is held against the cheapest of all fleets.
Each scenario's result is a file, so an interrupted run goes on where it stopped.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from scipy.stats import binom

from domain.catalogue import devices, model_named, presets
from domain.demand import Demand
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.hosts import hosts_as_usual
from domain.record import Record, Unknown
from domain.scenario import Drift, Finance, Ownership, Promise, Scenario, Site
from domain.shell import emit, format_named, run_shell, say
from domain.store import load, reference_root, results_root, save, stored_fits
from domain.tables import Cell, rendered
from scenarios.candidates import Candidate, candidates_of
from scenarios.fleet import described, least_for_load, queue_of
from scenarios.forecasting import forecasts_of
from scenarios.pricing import priced
from scenarios.queueing import allen_cunneen_s, erlang_c, mdc_wait_s, mgc_wait_s
from scenarios.simulate import Simulated, simulate
from scenarios.sizing import option_of

LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SERVERS = (1, 2, 8)
# Squared coefficients of variation of the service: exponential, a router's, none.
VARIATIONS = (1.0, 0.3, 0.0)
QUEUED_IMAGES, LEVEL = 20_000, 0.99
DRAWS = 10
FRESH_SEED = 4_000_000
MOST_SERVERS = 400

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class QueueCheck(Record):
    """A closed form beside the simulation's 99 % interval, for one load in erlang a server."""

    quantity: Literal["waiting probability", "mean wait"]
    form: Literal["exact", "Allen-Cunneen", "with Cosmetatos"]
    load: float
    servers: int
    variation: float
    closed: float
    low: float
    high: float

    @property
    def is_inside(self) -> bool:
        """Whether the closed form lies in the interval."""
        return self.low <= self.closed <= self.high


class SizedScenario(Record):
    """One random scenario: its fleet, how often the promise held, and the cheapest fleet's cost."""

    format: Literal[1] = 1
    number: int
    arrivals: str
    cameras: int
    confidence: float
    device_id: str
    batch: int
    servers: int
    held: int
    draws: int
    cost: float | None
    least_cost: float | None
    said: str = ""


class SizingAcceptance(Record):
    """All of it, as stored."""

    format: Literal[1] = 1
    queues: tuple[QueueCheck, ...]
    scenarios: tuple[SizedScenario, ...]


@app.command(epilog="Example: python -m scenarios.acceptance --scenarios 20")
def accept(
    scenarios: Annotated[int, typer.Option(min=1, max=100_000, help="Random scenarios.")] = 200,
    reference: Annotated[
        bool, typer.Option("--reference", help="Write results/reference/sizing.json too.")
    ] = False,
    format: Annotated[str, typer.Option(help="table, json, csv or md")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write there, not to stdout.")] = None,
) -> None:
    """Measure the sizing's bars. Resumable: each scenario's result lies in results/plans/acceptance.

    In a folder of the code that made it: what other code found is measured again, never mixed in.
    """
    shape = format_named(format)
    folder, fits = results_root() / "plans" / "acceptance" / _code_sha256()[:16], stored_fits()
    done = []
    for number in range(scenarios):
        path = folder / f"scenario-{number:05d}.json"
        if not path.is_file():
            save(sized(number, fits), path)
            say(f"{number + 1} of {scenarios}")
        done.append(load(path, SizedScenario))
    queues = folder / "queues.json"
    if not queues.is_file():
        save(SizingAcceptance(queues=tuple(queue_checks()), scenarios=()), queues)
    result = SizingAcceptance(queues=load(queues, SizingAcceptance).queues, scenarios=tuple(done))
    save(result, folder / "sizing.json")
    if reference:
        save(result, reference_root() / "sizing.json")
    emit(rendered(list(verdicts_of(result)), shape), output)


def _code_sha256() -> str:
    """Of all modules and tables that a figure here comes from."""
    root, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for room in ("domain", "costmodel", "scenarios"):
        for path in sorted((root / room).rglob("*")):
            if path.suffix in (".py", ".toml", ".csv", ".json"):
                digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def verdicts_of(result: SizingAcceptance) -> Iterator[dict[str, Cell]]:
    """Each bar with what was seen."""
    for form in ("exact", "Allen-Cunneen", "with Cosmetatos"):
        checks = [each for each in result.queues if each.form == form]
        inside = sum(each.is_inside for each in checks)
        # Of true answers one in a hundred lies outside by chance.
        least = int(binom.ppf(0.01, len(checks), LEVEL)) if checks else 0
        yield _verdict(
            f"{form}: inside the simulation's 99 % interval, loads 0.1 to 0.95, 1 to 8 servers",
            f"{len(checks)}, {least} by chance",
            f"{inside}",
            is_met=inside >= least,
        )
    for form in ("Allen-Cunneen", "with Cosmetatos"):
        far = farthest_from_exact(result.queues, form)
        yield _verdict(
            f"{form}: mean wait for fixed services, 2 and 8 servers, over the exact one (Crommelin)",
            "no bar",
            f"{far[0]:+.1%} to {far[1]:+.1%}",
            is_met=None,
        )
    kept = [each for each in result.scenarios if each.device_id]
    for confidence in sorted({each.confidence for each in kept}):
        rows = [each for each in kept if each.confidence == confidence]
        held, draws = sum(each.held for each in rows), sum(each.draws for each in rows)
        yield _verdict(
            f"promise of {confidence:.0%} holds, {len(rows)} scenarios, fresh arrivals and latency",
            f"{confidence:.0%}",
            f"{held / draws:.1%} of {draws}",
            is_met=held / draws >= confidence,
        )
    ratios = np.array(
        [each.cost / each.least_cost for each in kept if each.cost and each.least_cost]
    )
    yield _verdict(
        f"cost over the cheapest of all fleets, {len(ratios)} scenarios",
        "1.1",
        f"median {np.median(ratios):.4f}, p95 {np.quantile(ratios, 0.95):.4f}, "
        f"largest {ratios.max():.4f}, above 1.1: {(ratios > 1.1).sum()}",
        is_met=bool((ratios <= 1.1).all()),
    )
    lost = [each for each in result.scenarios if not each.device_id and each.least_cost]
    refused = sum(not each.device_id for each in result.scenarios)
    yield _verdict(
        "scenarios refused although some fleet keeps them",
        "0",
        f"{len(lost)} of {refused} refused",
        is_met=not lost,
    )


def farthest_from_exact(queues: Sequence[QueueCheck], form: str) -> tuple[float, float]:
    """How far a form lies from the exact wait, at least and at most, where that is known."""
    exact = {
        (each.load, each.servers): each.closed
        for each in queues
        if each.form == "exact" and each.quantity == "mean wait" and not each.variation
    }
    off = [
        each.closed / exact[each.load, each.servers] - 1
        for each in queues
        if each.form == form and not each.variation and exact.get((each.load, each.servers))
    ]
    return min(off, default=0.0), max(off, default=0.0)


def _verdict(bar: str, wanted: str, seen: str, *, is_met: bool | None) -> dict[str, Cell]:
    return {
        "bar": bar,
        "wanted": wanted,
        "seen": seen,
        "met": {True: "yes", False: "NO", None: ""}[is_met],
    }


def queue_checks() -> Iterator[QueueCheck]:
    """Erlang C and Allen-Cunneen against the simulation, load by load."""
    for servers in SERVERS:
        for share in LOADS:
            for seed, variation in enumerate(VARIATIONS):
                yield from _checks_of(share, servers, variation, seed)


def _checks_of(share: float, servers: int, variation: float, seed: int) -> Iterator[QueueCheck]:
    load_erlang = share * servers
    seen = _simulated(load_erlang, servers, variation, seed)
    wait, waiting = seen.mean_wait_s(LEVEL), seen.waiting_share(LEVEL)
    # Where nobody waited, the upper end is of a share that would still be seen as none.
    rarest = -math.log(1 - LEVEL) / len(seen.waits_s) if not waiting.value else 0.0
    facts: dict[str, Any] = {"load": share, "servers": servers, "variation": variation}
    plain_s = allen_cunneen_s(
        load_erlang, servers, 1.0, arrival_variation=1.0, service_variation=variation
    )
    is_exact = servers == 1 or variation == 1.0
    forms: dict[str, float] = {"exact": plain_s}
    if not is_exact:
        better_s = mgc_wait_s(load_erlang, servers, 1.0, variation)
        forms = {"Allen-Cunneen": plain_s, "with Cosmetatos": better_s}
    if not is_exact and not variation:
        forms["exact"] = mdc_wait_s(load_erlang, servers, 1.0)
    for form, closed in forms.items():
        yield QueueCheck(
            quantity="mean wait",
            form=form,  # type: ignore[arg-type]
            closed=closed,
            low=wait.low,
            high=wait.high + rarest,
            **facts,
        )
    if variation == 1.0:
        yield QueueCheck(
            quantity="waiting probability",
            form="exact",
            closed=erlang_c(load_erlang, servers),
            low=waiting.low,
            high=waiting.high + rarest,
            **facts,
        )


def _simulated(load_erlang: float, servers: int, variation: float, seed: int) -> Simulated:
    demand = Demand(cameras=1, period_s=1 / load_erlang, arrivals="poisson")
    return simulate(
        demand,
        servers=servers,
        batch=1,
        service_s=1.0,
        service_variation=variation,
        images=QUEUED_IMAGES,
        seed=1000 + seed,
    )


def sized(number: int, fits: tuple[Fit, ...]) -> SizedScenario:
    """One random scenario sized, replayed and held against every other fleet."""
    random = np.random.default_rng(number)
    scenario, chosen, recorded_s = random_scenario(random, number)
    forecasts = forecasts_of(scenario, chosen, fits)
    options = [
        option_of(scenario, device, forecasts[name], recorded_s) for name, device in chosen.items()
    ]
    kept = [
        (option.ownership.total, option)
        for option in options
        if isinstance(option.ownership, Ownership) and not option.reason
    ]
    found: dict[tuple[str, int], Candidate] = {
        (name, each.batch): each
        for name in chosen
        for each in candidates_of(scenario, forecasts[name])[0]
    }
    least = _cheapest(scenario, found, chosen, recorded_s)
    facts: dict[str, Any] = {
        "number": number,
        "arrivals": scenario.demand.arrivals,
        "cameras": scenario.demand.cameras,
        "confidence": scenario.promise.confidence,
        "least_cost": None if least is None else float(least),
    }
    if not kept:
        return SizedScenario(
            device_id="",
            batch=0,
            servers=0,
            held=0,
            draws=0,
            cost=None,
            said=options[0].reason,
            **facts,
        )
    cost, option = min(kept, key=lambda pair: pair[0])
    candidate = found[option.device_id, option.batch]
    held = 0
    for draw in range(DRAWS):
        # Arrivals that it was not sized for, and a latency drawn from what was predicted.
        queue = queue_of(
            scenario.demand,
            scenario.promise,
            candidate.promised,
            recorded_s,
            seed=FRESH_SEED + number * DRAWS + draw,
        )
        truth = math.exp(random.normal() * candidate.promised.log_sd)
        held += queue.holds(option.servers, truth)
    return SizedScenario(
        device_id=option.device_id,
        batch=option.batch,
        servers=option.servers,
        held=held,
        draws=DRAWS,
        cost=float(cost),
        **facts,
    )


def _cheapest(
    scenario: Scenario,
    found: Mapping[tuple[str, int], Candidate],
    chosen: Mapping[str, DeviceSpec],
    recorded_s: Any,
) -> Decimal | None:
    """The cost of the cheapest fleet of all devices, batches and counts, one after another."""
    least: Decimal | None = None
    for (name, _), candidate in found.items():
        queue = queue_of(
            scenario.demand, scenario.promise, candidate.promised, recorded_s, seed=FRESH_SEED - 1
        )
        latency_s = candidate.promised.full_s * queue.factor
        floor = least_for_load(scenario.demand, scenario.promise, latency_s, candidate.batch)
        if floor is None or latency_s > scenario.promise.p99_latency_s:
            continue
        for servers in range(floor, MOST_SERVERS):
            if queue.holds(servers, queue.factor):
                fleet = described(queue, servers)
                option = priced(
                    scenario,
                    chosen[name],
                    candidate,
                    {scenario.demand: fleet},
                    scenario.hosts.of(chosen[name].device_class),
                )
                if not isinstance(option, str) and isinstance(option.ownership, Ownership):
                    total = option.ownership.total
                    least = total if least is None else min(least, total)
                break
    return least


def random_scenario(
    random: np.random.Generator, number: int
) -> tuple[Scenario, dict[str, DeviceSpec], Any]:
    """A scenario of the size that people ask for, on three devices of the catalogue."""
    known = [
        device
        for device in devices().values()
        if not isinstance(device.price_usd, Unknown) and "fp16" in device.peak_flop_per_s
    ]
    chosen = {known[i].id: known[i] for i in random.choice(len(known), 3, replace=False)}
    net = model_named(str(random.choice([name for name in presets() if "fmnist" not in name])))
    kind = str(random.choice(["takt", "poisson"]))
    cameras = int(math.exp(random.uniform(0, math.log(1000))))
    scenario = Scenario(
        name=f"random-{number}",
        title="A random scenario",
        model=net.name,
        precision="fp16",
        runtime="engine",
        executor=str(random.choice(["packed", "masked"])),  # type: ignore[arg-type]
        batch=int(random.choice([1, 4, 8])),
        survival=_falling(float(random.uniform(0.2, 1.0)), net.recursions),
        devices=tuple(chosen),
        demand=Demand(
            cameras=cameras,
            period_s=float(math.exp(random.uniform(math.log(0.1), math.log(5)))),
            arrivals=kind,  # type: ignore[arg-type]
            hours_per_day=float(random.uniform(8, 24)),
        ),
        promise=Promise(
            p99_latency_s=float(math.exp(random.uniform(math.log(0.01), math.log(0.5)))),
            spare_devices=int(random.integers(0, 2)),
            target_utilisation=float(random.uniform(0.6, 0.9)),
            confidence=float(random.choice([0.8, 0.9, 0.95])),
        ),
        site=Site(country="USA", currency="USD", energy_price_per_kwh=Decimal("0.15")),
        routing=Drift(hold_at_full_depth=bool(random.integers(0, 2))),
        hosts=hosts_as_usual(),
        finance=Finance(horizon_years=3),
    )
    return scenario, chosen, None


def _falling(mean: float, recursions: int) -> tuple[float, ...]:
    """A survival that falls by the same share in every recursion and has that mean; p by bisection.

    A scenario's survival may be any: this is no budget that a network serves at.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        reached = sum(middle**r for r in range(1, recursions + 1)) / recursions
        low, high = (middle, high) if reached < mean else (low, middle)
    return tuple(high**r for r in range(1, recursions + 1))


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
