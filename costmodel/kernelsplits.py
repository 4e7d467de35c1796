"""Published matrix products, a GPU family left out: how far data sheets and eight timings reach. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from costmodel.anchoring import Belief, belief_after, log_s_of, log_sd_of
from costmodel.draws import DRAWS, SEED, Draw, factor_of, promised_by_others, summary_of_draws
from costmodel.latency import prior
from costmodel.operators import Operator
from costmodel.published import ASSUMED_GPU_LOG_SD, DEVICE_LOG_SD, sign_of
from costmodel.regression import Deviation, Observations, posterior_of, spread_of
from costmodel.work import Array, Machine, Rates, Work
from domain.device import DeviceSpec
from domain.fit import ValidationRow
from domain.kernels import SITES, WIDTHS, GemmRow, sites_of

PRODUCTS = "product-latency"
GEMM_DEVICES, GEMM_ANCHORS = ("a100-sxm-80", "l40s", "h100-sxm-80"), 8
# What is left over where a family is fitted whole (3 to 5 % median): libraries have more shapes of tiles.
PRODUCT_LOG_SD = 0.06
# Graphs launch without a host: a product's own start is a few microseconds of a nominal clock, and
# there is no stage that a host would begin.
GRAPH_CALL_S, NO_STAGE_S = (3e-6, 0.7), (1e-9, 0.05)


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """The four products of a layer, summed, for every row count and width of one device."""

    device_id: str
    observations: Observations


def blocks_of(rows: Sequence[GemmRow], device: DeviceSpec) -> Blocks:
    """Blocks of `rows`, which are of `device`, in seconds of a nominal clock.

    A product starts and ends in cycles of the device's own clock, as its steps do: with all seconds
    and rates brought to one clock, what it takes to start can be carried from device to device.
    """
    machine, slowness = _machine(device), Machine.of(device, "bf16").slowness
    groups, seconds = [], []
    for row in rows:
        at = dict(zip(SITES, row.seconds, strict=True))
        for width in WIDTHS:
            sites = sites_of(width)
            groups.append(tuple(_product(row.rows, *site) for site in sites))
            seconds.append(math.fsum(at[site] for site in sites) / slowness)
    return Blocks(
        device_id=device.id,
        observations=Observations(
            work=Work.of(groups),
            rates=Rates.of([machine] * len(groups)),
            target=np.arange(len(groups)),
            seconds=np.array(seconds),
            log_sd=np.full(len(groups), PRODUCT_LOG_SD),
            design=np.zeros((len(groups), 0)),
            devices=0,
        ),
    )


def belief_of_class(blocks: Sequence[Blocks]) -> Belief:
    """What all of `blocks` have in common, as far as they tell."""
    beliefs = {**prior("gpu"), "call_s": GRAPH_CALL_S, "stage_s": NO_STAGE_S}
    posterior = posterior_of(_stacked(blocks), beliefs, offset_log_sd=ASSUMED_GPU_LOG_SD)
    return Belief(
        names=posterior.names,
        log_values=posterior.log_values,
        covariance=posterior.covariance_at({}),
    )


def belief_from(blocks: Sequence[Blocks]) -> Belief:
    """What products of a device not among `blocks` are believed to take, before any is timed."""
    common = belief_of_class(blocks)
    signs = np.array([sign_of(name) for name in common.names])
    own = np.array([_own_log_sd(name) for name in common.names])
    between = np.diag(own**2) + ASSUMED_GPU_LOG_SD**2 * np.outer(signs, signs)
    return replace(common, covariance=common.covariance + between)


def _own_log_sd(name: str) -> float:
    return {**DEVICE_LOG_SD, "inner_step_s": 0.5, "traffic_efficiency": 0.3}.get(name, 0.0)


def _stacked(blocks: Sequence[Blocks]) -> Observations:
    parts = [each.observations for each in blocks]
    sizes = [len(part.seconds) for part in parts]
    starts = np.cumsum([0, *sizes[:-1]])
    covariates: Mapping[str, Array] = {
        each.device_id: np.repeat([float(each is other) for other in blocks], sizes)
        for each in blocks
    }
    return Observations(
        work=Work.joined([part.work for part in parts]),
        rates=Rates.joined([part.rates for part in parts]),
        target=np.concatenate(
            [part.target + start for part, start in zip(parts, starts, strict=True)]
        ),
        seconds=np.concatenate([part.seconds for part in parts]),
        log_sd=np.concatenate([part.log_sd for part in parts]),
        design=np.stack(list(covariates.values()), axis=1),
        devices=len(blocks),
        covariates=covariates,
        deviations=tuple(
            Deviation(coefficient=name, covariate=each.device_id, log_sd=_own_log_sd(name))
            for each in blocks
            for name in ("gemm_efficiency", "inner_step_s", "traffic_efficiency", "call_s")
        ),
    )


def _machine(device: DeviceSpec) -> Machine:
    own = Machine.of(device, "bf16")
    return replace(
        own,
        peak_flop_per_s=own.peak_flop_per_s * own.slowness,
        memory_bytes_per_s=own.memory_bytes_per_s * own.slowness,
        slowness=1.0,
        host_runs_ahead=False,
    )


def _product(rows: int, columns: int, inner: int) -> Operator:
    return Operator(
        stage="block",
        name="product",
        family="gemm",
        flop=2.0 * rows * inner * columns,
        weight_bytes=2.0 * inner * columns,
        moved_bytes=2.0 * rows * (inner + columns),
        rows=rows,
        inner=inner,
        columns=columns,
    )


def kernel_rows(
    rows: Sequence[GemmRow], specs: Mapping[str, DeviceSpec], draws: int = DRAWS
) -> list[ValidationRow]:
    """Matrix products of each GPU family, from two others' and with eight timings of its own.

    The eight are of any width, and the rest of all widths is judged; or all are of one width, as who
    times his own network has them.
    """
    blocks = [
        blocks_of([row for row in rows if row.device_id == name], specs[name])
        for name in GEMM_DEVICES
    ]
    judged = []
    timed: dict[str, list[Draw]] = {}
    of_width: dict[str, list[Draw]] = {}
    for own in blocks:
        others = [each for each in blocks if each is not own]
        before = belief_from(others)
        unseen = unseen_family(others, own)
        judged.append(summary_of_draws(f"gemm-{own.device_id}", "spec-only", [unseen], PRODUCTS))
        every = np.arange(len(own.observations.seconds))
        few = f"gemm-{own.device_id}-{GEMM_ANCHORS}"
        timed[few] = [_after_timings(before, own, every, number) for number in range(draws)]
        # Rows are width by width within a row count.
        widths = [every[number % len(WIDTHS) :: len(WIDTHS)] for number in range(draws)]
        of_width[f"{few}-of-width"] = [
            _after_timings(before, own, alike, number) for number, alike in enumerate(widths)
        ]
    for name, scaled in {**promised_by_others(timed), **promised_by_others(of_width)}.items():
        judged.append(summary_of_draws(name, "calibrated", scaled, PRODUCTS))
    return judged


def _after_timings(before: Belief, own: Blocks, among: np.ndarray, number: int) -> Draw:
    """What is missed of the blocks `among` after seeing `GEMM_ANCHORS` of them, drawn from a seed.

    Neighbours' share of what is left over was tried, by a Gaussian process over rows and width: it
    made none of the three families better where timings are of all widths (seen on these rows).
    """
    random = np.random.default_rng([SEED, number])
    chosen = np.sort(random.choice(among, GEMM_ANCHORS, replace=False))
    left = np.setdiff1d(among, chosen)
    after, _ = belief_after(before, own.observations.only(chosen))
    seen = own.observations.only(left)
    misses = np.log(seen.seconds) - log_s_of(after, seen)
    return Draw(misses=misses, log_sd=np.hypot(PRODUCT_LOG_SD, log_sd_of(after, seen)))


def promised_of(known: Sequence[Blocks], target: Blocks, left_over_log_sd: float) -> Draw:
    """Products of a family from those of `known` families, and the spread that is promised.

    As for a network on an unseen device: what the class leaves open, what is left over within a
    family, and what families differ by beside their data sheets, which stays as assumed while fewer
    than three are known.
    """
    common = belief_of_class(known)
    own_log_sd = log_sd_of(common, target.observations)
    return Draw(
        misses=np.log(target.observations.seconds) - log_s_of(common, target.observations),
        log_sd=np.sqrt(own_log_sd**2 + left_over_log_sd**2 + ASSUMED_GPU_LOG_SD**2),
    )


def unseen_family(known: Sequence[Blocks], target: Blocks) -> Draw:
    """`promised_of`, its procedure replayed on each of `known` from the rest of them."""
    replays = [
        promised_of([each for each in known if each is not held], held, 0.0) for held in known
    ]
    left_over = spread_of(
        np.concatenate([replay.misses - np.median(replay.misses) for replay in replays])
    )
    again = [replace(each, log_sd=np.hypot(each.log_sd, left_over)) for each in replays]
    return promised_of(known, target, left_over).scaled(factor_of([[each] for each in again]))
