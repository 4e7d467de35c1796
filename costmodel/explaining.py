"""Why a prediction is what it is, and what would change it: by depth, by operator, by what-if. Pure."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from costmodel import grid
from costmodel.discrepancy import factors_of
from costmodel.latency import group_s
from costmodel.operators import Operator
from costmodel.reach import Reach, reach_of, setting_for
from costmodel.transfer import NORMAL_90, forecast
from costmodel.work import Array, Machine, Rates, Work, groups_of
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.prediction import Bound, OperatorCost, Prediction, Refusal
from domain.record import Executor, Precision
from domain.routing import RoutingDistribution
from domain.tables import Cell
from domain.units import MILLI
from domain.workload import Workload

# What is half as dear or twice as fast in each what-if.
CHANGES: dict[str, Callable[[Machine], Machine]] = {
    "twice the memory bandwidth": lambda m: replace(m, memory_bytes_per_s=2 * m.memory_bytes_per_s),
    "twice the cache": lambda m: replace(m, cache_bytes=2 * m.cache_bytes),
    "twice the arithmetic peak": lambda m: replace(m, peak_flop_per_s=2 * m.peak_flop_per_s),
}
PRECISIONS_BELOW: tuple[Precision, ...] = ("fp16", "bf16", "int8")
BATCHES_DRAWN, LARGEST_DRAWN, SEED = 400, 4096, 11
PERCENTILES = (0.5, 0.95, 0.99)


def by_stage_and_operator(prediction: Prediction) -> list[dict[str, Cell]]:
    """Milliseconds of each operator of each stage, its share, its bound and its intensity."""
    whole_s = prediction.latency_s.value
    return [
        {
            "stage": each.stage,
            "operator": each.name,
            "latency_ms": each.latency_s / MILLI,
            "share": each.latency_s / whole_s,
            "bound": each.bound,
            "flop_per_byte": each.flop / each.bytes_moved if each.bytes_moved else None,
            "flop_per_s": each.flop / each.latency_s if each.latency_s else None,
            "calls": each.calls,
        }
        for each in _merged(prediction.operators)
    ]


def _merged(operators: Sequence[OperatorCost]) -> Iterator[OperatorCost]:
    """Operators of one name in one stage as one, bound by what bounds most of their time."""
    together: dict[tuple[str, str], list[OperatorCost]] = {}
    for each in operators:
        together.setdefault((each.stage, each.name), []).append(each)
    for (stage, name), members in together.items():
        yield OperatorCost(
            stage=stage,
            name=name,
            flop=math.fsum(each.flop for each in members),
            bytes_moved=math.fsum(each.bytes_moved for each in members),
            calls=math.fsum(each.calls for each in members),
            latency_s=math.fsum(each.latency_s for each in members),
            bound=max(members, key=lambda each: each.latency_s).bound,
        )


def bound_shares(prediction: Prediction) -> dict[Bound, float]:
    """Share of the time that arithmetic, memory and launching bound."""
    names: tuple[Bound, ...] = ("compute", "memory", "host")
    whole_s = prediction.latency_s.value
    return {
        name: math.fsum(each.latency_s for each in prediction.operators if each.bound == name)
        / whole_s
        for name in names
    }


def ridge_flop_per_byte(machine: Machine) -> float:
    """The intensity above which arithmetic bounds, below which memory does (Williams 2009)."""
    return machine.peak_flop_per_s / machine.memory_bytes_per_s


def seconds_on(workload: Workload, reach: Reach, machine: Machine) -> float:
    """Seconds of one batch by the fit of `reach` on a machine of other rates."""
    return float(batches_s([workload], reach, machine)[0])


def batches_s(workloads: Sequence[Workload], reach: Reach, machine: Machine) -> Array:
    """Seconds of each workload, all at once."""
    groups: list[Sequence[Operator]] = []
    owner: list[int] = []
    factors: list[float] = []
    for number, workload in enumerate(workloads):
        setting = setting_for(workload, reach.fit)
        own = groups_of(workload, host_runs_ahead=machine.host_runs_ahead)
        groups += own
        owner += [number] * len(own)
        factors += [*factors_of(reach.fit.discrepancy, own, setting)]
    coefficients = {each.name: each.value for each in reach.fit.coefficients}
    seconds = group_s(Work.of(groups), Rates.of([machine] * len(groups)), coefficients)
    return np.bincount(owner, seconds * np.array(factors), len(workloads)).astype(float)


def what_ifs(workload: Workload, device: DeviceSpec, fits: Sequence[Fit]) -> list[dict[str, Cell]]:
    """What other hardware, another precision or a faster host would change, in percent of latency."""
    reach = reach_of(workload, device, fits)
    if isinstance(reach, Refusal):
        return []
    here_s = seconds_on(workload, reach, reach.machine)
    rows = [
        _change(name, here_s, seconds_on(workload, reach, change(reach.machine)))
        for name, change in CHANGES.items()
        if change(reach.machine) != reach.machine
    ]
    hastier = Fit(
        **{
            **dict(reach.fit),
            "coefficients": tuple(
                type(each)(**{**dict(each), "value": each.value / 2})
                if each.unit == "s" and "call" in each.name
                else each
                for each in reach.fit.coefficients
            ),
        }
    )
    faster = seconds_on(workload, replace(reach, fit=hastier), reach.machine)
    rows.append(_change("half the launch time (graphs, a faster host)", here_s, faster))
    for precision in PRECISIONS_BELOW:
        if precision != workload.precision and precision in device.precisions:
            other = forecast(_with(workload, precision=precision), device, fits)
            if isinstance(other, Prediction):
                rows.append(_change(f"{precision} instead", here_s, other.latency_s.value))
    return rows


def _change(name: str, here_s: float, there_s: float) -> dict[str, Cell]:
    return {
        "change": name,
        "latency_ms": there_s / MILLI,
        "latency_change": there_s / here_s - 1,
    }


def executors_compared(
    workload: Workload, device: DeviceSpec, fits: Sequence[Fit]
) -> list[dict[str, Cell]]:
    """Packed, padded and masked execution of the same routing; none for a plain network."""
    rows: list[dict[str, Cell]] = []
    if not workload.architecture.is_routed:
        return rows
    executors: tuple[Executor, ...] = ("packed", "padded", "masked")
    for executor in executors:
        answer = forecast(_with(workload, executor=executor), device, fits)
        if isinstance(answer, Prediction):
            rows.append({"executor": executor, "latency_ms": answer.latency_s.value / MILLI})
    return rows


def break_even_share(workload: Workload, device: DeviceSpec, fits: Sequence[Fit]) -> float | None:
    """The share of tokens, kept in every recursion, below which packing beats computing all.

    None where it never does. By bisection: packing costs the more the more tokens stay.
    """
    net = workload.architecture
    reach = reach_of(workload, device, fits)
    if isinstance(reach, Refusal) or not net.is_routed:
        return None

    def gain_s(share: float) -> float:
        routing = RoutingDistribution.from_survival(
            [share] * net.recursions, net.tokens, net.prefix_tokens
        )
        one, other = (
            _with(workload, executor=executor, routing=routing) for executor in ("masked", "packed")
        )
        masked_s, packed_s = batches_s([one, other], reach, reach.machine)
        return float(masked_s - packed_s)

    low, high = 0.0, 1.0
    if gain_s(low) <= 0:
        return None
    if gain_s(high) > 0:
        return 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if gain_s(middle) > 0 else (low, middle)
    return low


def batch_percentiles(
    workload: Workload, device: DeviceSpec, fits: Sequence[Fit]
) -> dict[str, float]:
    """p50, p95 and p99 of one batch's seconds, as images of the routing happen to come together.

    Batches are drawn from the joint counts; the mean of depths tells nothing of their tail. The
    spread is the images' own: the model's interval comes on top. None where the executor cannot run
    images that differ, or batches are so large that their tail is their mean.
    """
    reach = reach_of(workload, device, fits)
    counts = np.array(workload.routing.counts)
    is_static = workload.executor == "capacity" and not (counts == counts[0]).all()
    if isinstance(reach, Refusal) or is_static or workload.batch > LARGEST_DRAWN:
        return {}
    random = np.random.default_rng(SEED)
    drawn = random.integers(len(counts), size=(BATCHES_DRAWN, workload.batch))
    sizes = np.full(BATCHES_DRAWN, workload.batch)
    seconds = grid.batches_s(grid.Asked.of(workload, reach), counts[drawn], sizes)
    return {f"p{share * 100:.0f}": float(np.quantile(seconds, share)) for share in PERCENTILES}


def ranked(predictions: Sequence[Prediction]) -> list[dict[str, Cell]]:
    """Fastest first, with the probability that each beats the next and the last.

    Errors of two devices are taken as independent: what they share would only make the order surer.
    """
    order = sorted(predictions, key=lambda each: each.latency_s.value)
    return [
        {
            "rank": number + 1,
            "device_id": each.device_id,
            "tier": each.tier,
            "latency_ms": each.latency_s.value / MILLI,
            "latency_ms_low": each.latency_s.low / MILLI,
            "latency_ms_high": each.latency_s.high / MILLI,
            "throughput_img_per_s": each.throughput_img_per_s.value,
            "beats_next": None if number + 1 == len(order) else beats(each, order[number + 1]),
            "beats_last": None if number + 1 == len(order) else beats(each, order[-1]),
        }
        for number, each in enumerate(order)
    ]


def beats(one: Prediction, other: Prediction) -> float:
    """P(one takes less time than other), both log-normal."""
    spreads = [
        math.log(each.latency_s.high / each.latency_s.value) / NORMAL_90 for each in (one, other)
    ]
    apart = math.log(other.latency_s.value / one.latency_s.value)
    return 0.5 * (1 + math.erf(apart / math.hypot(*spreads) / math.sqrt(2)))


def _with(workload: Workload, **changes: object) -> Workload:
    fields: Mapping[str, object] = {**dict(workload), **changes}
    return Workload(**fields)  # type: ignore[arg-type]
