"""How long a device takes for batches of every size, how sure that is, and how images differ."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.stats import norm

from domain.prediction import Prediction

# Half-width of a 90 % normal interval, in spreads; as the predictions have it.
NORMAL_90 = 1.645


@dataclass(frozen=True, kw_only=True)
class Service:
    """Likely seconds of a batch of 1, 2, … images; the spread of their logarithm; of images.

    `variation` is the squared coefficient of variation of the time of one image.
    """

    seconds: tuple[float, ...]
    log_sd: float
    variation: float

    @property
    def batch(self) -> int:
        """The largest batch."""
        return len(self.seconds)

    @property
    def full_s(self) -> float:
        """Likely seconds of a full batch."""
        return self.seconds[-1]

    def factor(self, confidence: float) -> float:
        """How much longer than likely a batch takes with that probability at most."""
        return math.exp(_quantile(confidence) * self.log_sd)

    def times(self, factor: float) -> tuple[float, ...]:
        """Seconds by batch size where all take `factor` times as long as is likely."""
        return tuple(factor * seconds for seconds in self.seconds)

    def probability(self, factor: float) -> float:
        """That batches take at most `factor` times as long as is likely."""
        if not self.log_sd:
            return 1.0 if factor >= 1 else 0.0
        return float(norm.cdf(math.log(factor) / self.log_sd)) if factor > 0 else 0.0


@cache
def _quantile(share: float) -> float:
    """Of a standard normal; asked for the same few shares again and again."""
    return float(norm.ppf(share))


def service_of(predictions: Mapping[int, Prediction], batch: int) -> Service:
    """Times up to `batch`, straight lines between the sizes that were predicted.

    The interval and the variation are those of the full batch. Times never fall with the size.
    """
    sizes = sorted(size for size in predictions if size <= batch)
    if not sizes or sizes[-1] != batch:
        raise ValueError(f"wanted a prediction for a batch of {batch}, got those of {sizes}")
    whole = predictions[batch]
    seconds = np.interp(
        np.arange(1, batch + 1), sizes, [predictions[size].latency_s.value for size in sizes]
    )
    return Service(
        seconds=tuple(np.maximum.accumulate(seconds).tolist()),
        log_sd=math.log(whole.latency_s.high / whole.latency_s.value) / NORMAL_90,
        variation=service_variation(whole),
    )


def mixed(service: Service, other: Service, share: float) -> Service:
    """Mean times where `share` of the time is of `other`, a service of the same batch."""
    seconds = tuple(
        (1 - share) * ours + share * theirs
        for ours, theirs in zip(service.seconds, other.seconds, strict=True)
    )
    return Service(seconds=seconds, log_sd=service.log_sd, variation=service.variation)


def service_variation(prediction: Prediction) -> float:
    """Squared coefficient of variation of the time of one image, from the depths of its tokens.

    The time of a recursion is taken as proportional to the tokens that enter it, where the
    executor computes only those; otherwise every image takes the same.
    """
    if prediction.workload.executor not in ("packed", "padded"):
        return 0.0
    routing, seconds = prediction.workload.routing, prediction.stages_s
    means = [share * routing.tokens for share in routing.survival]
    in_recursions = [seconds.get(f"recursion-{r}", 0.0) for r in range(1, len(means) + 1)]
    rest_s = sum(seconds.values()) - sum(in_recursions)
    times_s = [
        rest_s
        + sum(
            time_s * count / mean
            for time_s, count, mean in zip(in_recursions, row, means, strict=True)
            if mean
        )
        for row in routing.counts
    ]
    mean_s = sum(times_s) / len(times_s)
    spread = sum((time_s - mean_s) ** 2 for time_s in times_s) / len(times_s)
    return spread / mean_s**2 if mean_s else 0.0
