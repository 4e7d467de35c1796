"""What was answered before against what is answered now. Pure.

A change is refused for one thing only: what worked and fails now. A question was answered and is
refused; a measured batch lay in the interval and does not; an interval's middle moved so far that
old and new no longer overlap where nothing was measured; a split met its bar and misses it. All else
is drift, which is told and not judged: errors that used to cancel may stop cancelling.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from costmodel.fewtimings import BLACKWELL
from costmodel.published import is_old_stack, published_workload
from costmodel.reach import device_of
from costmodel.transfer import forecast
from domain.catalogue import PublishedRow, check_precision, model_named
from domain.device import DeviceSpec
from domain.fit import Fit, ValidationRow
from domain.prediction import Answer, Refusal
from domain.record import Executor, Precision
from domain.routing import RoutingDistribution
from domain.workload import Workload

# Every so many published rows are asked: enough to see a change, few enough for seconds.
PUBLISHED_STEP = 15
# Network, batch and survival of what every device is asked.
ASKED: tuple[tuple[str, int, tuple[float, ...]], ...] = (
    ("morvit-small", 8, (1.0, 0.6, 0.3)),
    ("vit_base_patch16_224", 32, (1.0,)),
)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a split's row must reach: largest median, 90th percentile and half-width, least coverage."""

    median: float = math.inf
    p90: float = math.inf
    half_width: float = math.inf
    coverage: float = 0.0

    def misses(self, row: ValidationRow) -> tuple[str, ...]:
        """Which figures of `row` miss it."""
        figures = {
            "median": row.median_abs_error > self.median,
            "p90": row.p90_abs_error > self.p90,
            "half-width": row.half_width > self.half_width,
            "coverage": row.coverage_90 < self.coverage,
        }
        return tuple(name for name, is_missed in figures.items() if is_missed)


CALIBRATED, SPEC_ONLY, WORST = 0.10, 0.35, 0.80
POINT = Bar(median=0.03, p90=0.08, half_width=CALIBRATED, coverage=0.85)
HARD = Bar(median=0.05, p90=0.12, half_width=CALIBRATED, coverage=WORST)
TIMM = Bar(median=0.10, p90=0.25, half_width=SPEC_ONLY, coverage=WORST)
FOUR = Bar(median=0.05, p90=0.15, half_width=CALIBRATED, coverage=WORST)
A100 = Bar(median=0.06, p90=0.15, half_width=CALIBRATED, coverage=WORST)
FAMILY = Bar(median=0.25, half_width=SPEC_ONLY, coverage=WORST)
EIGHT = Bar(median=0.05, half_width=CALIBRATED, coverage=WORST)
# Split and quantity: what the project promised itself.
BARS: dict[tuple[str, str], Bar] = {
    ("cpu-configuration", "latency"): POINT,
    ("cpu-configuration", "stage-latency"): POINT,
    ("cpu-unseen-routing", "latency"): POINT,
    ("cpu-hard-bf16", "latency"): HARD,
    ("cpu-hard-masked", "latency"): HARD,
    ("cpu-hard-uneven", "latency"): HARD,
    ("cpu-hard-wider", "latency"): HARD,
    ("cpu-hard-larger-batch", "latency"): HARD,
    ("cpu-memory", "peak-memory"): Bar(median=0.03),
    ("unseen-cpu-fp32", "latency"): FAMILY,
    ("unseen-cpu-fp32-4", "latency"): FOUR,
    ("timm-rtx3090-to-rtx4090", "latency"): TIMM,
    ("timm-rtx4090-to-rtx3090", "latency"): TIMM,
    ("timm-rtx3090-to-rtx4090-4", "latency"): FOUR,
    ("timm-rtx4090-to-rtx3090-4", "latency"): FOUR,
    **{
        (f"timm-to-{target}-{runtime}{suffix}", "latency"): bar
        for target in BLACKWELL
        for runtime in ("eager", "compiled")
        for suffix, bar in (("", TIMM), ("-4", FOUR))
    },
    ("a100-eager-4", "latency"): A100,
    ("a100-engine-4", "latency"): A100,
    **{
        (f"gemm-{name}{suffix}", "product-latency"): bar
        for name in ("a100-sxm-80", "l40s", "h100-sxm-80")
        for suffix, bar in (("", FAMILY), ("-8", EIGHT), ("-8-of-width", EIGHT))
    },
}


def bar_of(row: ValidationRow) -> Bar | None:
    """What `row` must reach; a measured machine's name, after a dot, does not matter."""
    return BARS.get((row.split.partition(".")[0], row.quantity))


def answers_of(
    rows: Sequence[PublishedRow], specs: Mapping[str, DeviceSpec], fits: Sequence[Fit]
) -> Iterator[Answer]:
    """What is answered today to the questions of the gate."""
    known = [(device, _precision(device)) for device in specs.values()]
    machines = [fit for fit in fits if fit.scope == "machine"]
    known += [(device_of(fit), check_precision(fit.precisions[0])) for fit in machines]
    for device, precision in known:
        for name, batch, survival in ASKED:
            net = model_named(name, None)
            executor: Executor = "packed" if net.is_routed else "masked"
            work = Workload(
                architecture=net, batch=batch, precision=precision, executor=executor,
                routing=RoutingDistribution.from_survival(survival, net.tokens, net.prefix_tokens),
            )  # fmt: skip
            where = f"{device.id}.{device.parallel_units}.{precision}.{name}"
            yield _answer(where, work, device, fits, None)
    today = [row for row in rows if not is_old_stack(row)]
    for number, row in enumerate(today[::PUBLISHED_STEP]):
        yield _answer(
            f"published.{number}.{row.device_id}",
            published_workload(row),
            specs[row.device_id],
            fits,
            (row.batch or 1) / row.throughput_img_per_s,
        )


def _precision(device: DeviceSpec) -> Precision:
    return "fp32" if device.device_class == "cpu" else "fp16"


def _answer(
    name: str, work: Workload, device: DeviceSpec, fits: Sequence[Fit], measured_s: float | None
) -> Answer:
    said = forecast(work, device, fits)
    question = work.key()
    if isinstance(said, Refusal):
        return Answer(name=name, question=question, reason=said.reason, measured_s=measured_s)
    return Answer(
        name=name,
        question=question,
        latency_s=said.latency_s,
        tier=said.tier,
        measured_s=measured_s,
    )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What fails now and worked, and by how much the rest moved (log new / old), by name."""

    failures: tuple[str, ...]
    drift: Mapping[str, float]
    unasked: tuple[str, ...] = ()


def compared(old: Sequence[Answer], new: Sequence[Answer]) -> Comparison:
    """New answers against old ones. A question that changed its meaning is not compared."""
    now = {each.name: each for each in new}
    failures, drift, unasked = [], {}, []
    for before in old:
        after = now.get(before.name)
        if after is None or after.question != before.question:
            unasked.append(before.name)
            continue
        if before.latency_s is None:
            continue
        if after.latency_s is None:
            failures.append(f"{before.name} was answered and is refused: {after.reason}")
            continue
        drift[before.name] = math.log(after.latency_s.value / before.latency_s.value)
        measured_s = before.measured_s
        if measured_s is None:
            if after.latency_s.low > before.latency_s.high or (
                after.latency_s.high < before.latency_s.low
            ):
                failures.append(
                    f"{before.name} took {before.latency_s.low:.3g} to {before.latency_s.high:.3g} "
                    f"s and takes {after.latency_s.low:.3g} to {after.latency_s.high:.3g} s"
                )
        elif _holds(before, measured_s) and not _holds(after, measured_s):
            failures.append(
                f"{before.name} took {measured_s:.3g} s, which its interval held and holds no more"
            )
    return Comparison(failures=tuple(failures), drift=drift, unasked=tuple(unasked))


def _holds(answer: Answer, measured_s: float) -> bool:
    latency = answer.latency_s
    return latency is not None and latency.low <= measured_s <= latency.high


def rows_compared(old: Sequence[ValidationRow], new: Sequence[ValidationRow]) -> Comparison:
    """New accuracy against old: bars that were met and are missed, splits that were judged and are not.

    Drift is the change of the median error.
    """
    now = {(row.split, row.quantity): row for row in new}
    failures, drift = [], {}
    for before in old:
        key = (before.split, before.quantity)
        after = now.get(key)
        if after is None:
            failures.append(f"{before.split} {before.quantity} was judged and is not")
            continue
        drift[" ".join(key)] = after.median_abs_error - before.median_abs_error
        bar = bar_of(before)
        if bar is not None:
            lost = set(bar.misses(after)) - set(bar.misses(before))
            failures += [
                f"{before.split} {before.quantity} met its bar of {e}" for e in sorted(lost)
            ]
    return Comparison(failures=tuple(failures), drift=drift)
