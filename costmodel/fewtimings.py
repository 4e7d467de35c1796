"""Published networks on one device from others', without and with a few timings. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from costmodel.anchoring import (
    TIMING_LOG_SD,
    Belief,
    belief_after,
    belief_before,
    left_over_log_sd,
    log_s_of,
    log_sd_of,
)
from costmodel.discrepancy import corrections_at, discrepancy_of, features_of_group
from costmodel.draws import DRAWS, SEED, Draw, promised_by_others, summary_of_draws
from costmodel.published import (
    PRECISION_GROUPS,
    published_observations,
    published_workload,
)
from costmodel.publishedfits import fits_of_published
from costmodel.reach import software_named
from costmodel.regression import Observations
from costmodel.work import groups_of
from domain.catalogue import PublishedRow
from domain.device import DeviceSpec
from domain.fit import ValidationRow

TIMM_ANCHORS, A100_ANCHORS = 4, 4
TIMM_PAIRS = (("rtx3090", "rtx4090"), ("rtx4090", "rtx3090"))
# The GPUs that were known when Blackwell's came, and these; a quarter of the draws is enough for them.
FEWER = 4
BEFORE_BLACKWELL, BLACKWELL = ("rtx3090", "rtx4090"), ("rtx5090", "rtx-pro6000-maxq")


def published_rows(
    rows: Sequence[PublishedRow], specs: Mapping[str, DeviceSpec], draws: int = DRAWS
) -> list[ValidationRow]:
    """Timm from known GPUs to another, and an A100 at any batch: without and with a few timings."""
    judged: list[ValidationRow] = []
    eager = [
        row
        for row in rows
        if row.file.startswith("timm_rtx")
        and row.runtime == "eager"
        and row.torch_version.startswith("2.4")
    ]
    timed: dict[str, list[Draw]] = {}
    for known, target in TIMM_PAIRS:
        few = FewTimings.of(
            [row for row in eager if row.device_id == known],
            [row for row in eager if row.device_id == target],
            specs,
        )
        name = f"timm-{known}-to-{target}"
        judged.append(summary_of_draws(name, "spec-only", [few.unseen()]))
        timed[f"{name}-{TIMM_ANCHORS}"] = few.draws(TIMM_ANCHORS, draws)
    timm = [row for row in rows if row.file.startswith("timm_rtx")]
    for target in BLACKWELL:
        for runtime in ("eager", "compiled"):
            alike = [row for row in timm if row.runtime == runtime]
            few = FewTimings.of(
                [row for row in alike if row.device_id in BEFORE_BLACKWELL],
                [r for r in alike if r.device_id == target and r.precision == "amp_fp16"],
                specs,
            )
            name = f"timm-to-{target}-{runtime}"
            judged.append(summary_of_draws(name, "spec-only", [few.unseen()]))
            timed[f"{name}-{TIMM_ANCHORS}"] = few.draws(TIMM_ANCHORS, max(draws // FEWER, 1))
    for runtime in ("eager", "engine"):
        few = FewTimings.of(
            [r for r in rows if r.runtime == runtime and not r.file.startswith("aitemplate")],
            [r for r in rows if r.runtime == runtime and r.file.startswith("aitemplate")],
            specs,
        )
        timed[f"a100-{runtime}-{A100_ANCHORS}"] = few.draws(A100_ANCHORS, draws)
    for name, promised in promised_by_others(timed).items():
        judged.append(summary_of_draws(name, "calibrated", promised))
    return judged


@dataclass(frozen=True, kw_only=True)
class FewTimings:
    """Batches of one device, and what is believed of them before any is seen."""

    before: Belief
    seen: Observations
    places: Sequence[tuple[float, ...]]
    log_sd: float
    unseen_log_sd: float

    @classmethod
    def of(
        cls,
        known: Sequence[PublishedRow],
        target: Sequence[PublishedRow],
        specs: Mapping[str, DeviceSpec],
    ) -> "FewTimings":
        """The class that `known` rows make, of the precision and software that `target` was timed with."""
        [alike] = [group for group in PRECISION_GROUPS if target[0].precision in group]
        software = software_named(published_workload(target[0]))
        [fit] = [
            fit
            for fit in fits_of_published(known, specs, "python -m costmodel.validate")
            if fit.scope == "class"
            and set(alike) & set(fit.precisions)
            and fit.software == software
        ]
        log_sd = left_over_log_sd(fit)
        seen = published_observations(target, specs, ())
        return cls(
            before=belief_before(fit),
            seen=replace(seen, log_sd=np.full(len(target), log_sd)),
            places=[_place_of(row) for row in target],
            log_sd=log_sd,
            unseen_log_sd=math.hypot(fit.residual_log_sd, fit.device_log_sd),
        )

    def unseen(self) -> Draw:
        """What is missed of all rows from the data sheet."""
        misses = np.log(self.seen.seconds) - log_s_of(self.before, self.seen)
        return Draw(misses=misses, log_sd=self.unseen_log_sd)

    def draws(self, count: int, draws: int) -> list[Draw]:
        """`draws` seeded draws of `count` timings."""
        few = []
        for number in range(draws):
            random = np.random.default_rng([SEED, number])
            few.append(self.draw(np.sort(random.choice(len(self.places), count, replace=False))))
        return few

    def draw(self, timed: NDArray[np.int64]) -> Draw:
        """What is missed of the other rows after seeing those `timed`."""
        after, left_over = belief_after(self.before, self.seen.only(timed))
        places = [self.places[row] for row in timed]
        shared = discrepancy_of(places, left_over, np.full(len(timed), TIMING_LOG_SD))
        corrections = corrections_at(shared, self.places)
        misses = np.log(self.seen.seconds) - log_s_of(after, self.seen) - corrections
        others = np.setdiff1d(np.arange(len(misses)), timed)
        own = np.hypot(self.log_sd, log_sd_of(after, self.seen))
        return Draw(misses=misses[others], log_sd=own[others])


def _place_of(row: PublishedRow) -> tuple[float, ...]:
    group = groups_of(published_workload(row), host_runs_ahead=True)[0]
    place = features_of_group(group, {"half": float(row.precision not in ("fp32", "tf32"))})
    assert place is not None, "a published network has layers"
    return place
