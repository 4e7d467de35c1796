"""What of the predictions for a device is worth sizing: batches that fit, and how long they take."""

from collections.abc import Mapping
from dataclasses import dataclass

from domain.prediction import Prediction, Refusal
from domain.record import Unknown
from domain.scenario import Scenario
from scenarios.service import Service, mixed, service_of

# Below this share of belief that it fits in memory, a device is refused.
LEAST_FIT = 0.9


@dataclass(frozen=True, kw_only=True)
class Forecasts:
    """What one device is predicted to take, by batch: as routed, and with all tokens everywhere.

    A refusal stands where nothing can be said of a batch.
    """

    routed: Mapping[int, Prediction | Refusal]
    full: Mapping[int, Prediction | Refusal]

    @classmethod
    def of_one(
        cls, routed: Prediction | Refusal, full: Prediction | Refusal | None = None
    ) -> "Forecasts":
        """Of one batch alone."""
        batch = routed.workload.batch if isinstance(routed, Prediction) else 1
        return cls(routed={batch: routed}, full={} if full is None else {batch: full})


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One batch on one device: its service as it is loaded, as promised, and at full depth."""

    batch: int
    prediction: Prediction
    loaded: Service
    promised: Service
    full: Service | None


def candidates_of(
    scenario: Scenario, forecasts: Forecasts
) -> tuple[list[Candidate], tuple[str, str]]:
    """Batches that fit, largest first; or the tier and the reason where none does."""
    found: list[Candidate] = []
    why_not = ("refused", "no prediction was made")
    routed = {b: each for b, each in forecasts.routed.items() if isinstance(each, Prediction)}
    full = {b: each for b, each in forecasts.full.items() if isinstance(each, Prediction)}
    for batch in sorted(forecasts.routed, reverse=True):
        prediction = forecasts.routed[batch]
        if isinstance(prediction, Refusal):
            why_not = ("refused", prediction.reason)
            continue
        fits = prediction.fits_in_memory
        if not isinstance(fits, Unknown) and fits < LEAST_FIT:
            reason = f"a batch of {batch} fits in memory with a probability of {fits:.0%} only"
            why_not = (prediction.tier, reason)
            continue
        typical = service_of(routed, batch)
        at_full = service_of(full, batch) if batch in full else None
        if at_full is None and (scenario.routing.hold_at_full_depth or _falls_back(scenario)):
            refusal = forecasts.full.get(batch)
            reason = refusal.reason if isinstance(refusal, Refusal) else "no prediction was made"
            why_not = (prediction.tier, f"nothing is known of it at full depth: {reason}")
            continue
        loaded = typical
        if at_full is not None:
            loaded = mixed(typical, at_full, scenario.routing.fallback_share)
        is_worst = at_full is not None and scenario.routing.is_promised_at_full_depth
        found.append(
            Candidate(
                batch=batch,
                prediction=prediction,
                loaded=loaded,
                promised=at_full if is_worst and at_full is not None else typical,
                full=at_full,
            )
        )
    return found, why_not


def _falls_back(scenario: Scenario) -> bool:
    return scenario.routing.fallback_share > 0
