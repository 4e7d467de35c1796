"""What a checkpoint's card says to whoever decides: its network, and its accuracy by budget."""

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import ConfigDict, Field

from domain.architecture import Architecture
from domain.record import Estimate, PositiveCount, Record, Sentence, Unknown
from domain.routing import (
    RoutingDistribution,
    capacities_of_budget,
    kept_of,
    survival_of_mean,
)

Share = Annotated[float, Field(ge=0, le=1)]
NORMAL_90 = 1.645


class AtBudget(Record):
    """Accuracy on the test images at a mean depth, a share of the full one.

    `budget` was asked for; `mean_depth` came out, CLS included. `thresholds` route by themselves at
    that mean depth: they were set on training images, and `threshold_accuracy` and
    `threshold_mean_depth` are what they give on the test images, whose counts then vary.
    """

    budget: Share
    mean_depth: Share
    accuracy: Share
    thresholds: tuple[Share, ...] = ()
    threshold_mean_depth: Share | None = None
    threshold_accuracy: Share | None = None


class Budget(Record):
    """One way to run a trained network, and how often it was right on test images."""

    name: Sentence
    routing: RoutingDistribution
    accuracy: Estimate | Unknown


def share_seen(share: float, images: int) -> Estimate:
    """A share of so many images with Wilson's 90 % interval (Wilson 1927): what so few can tell.

    >>> seen = share_seen(0.9, 100)
    >>> round(seen.low, 3), round(seen.high, 3)
    (0.84, 0.939)
    """
    z2 = NORMAL_90**2
    middle = (share + z2 / (2 * images)) / (1 + z2 / images)
    spread = math.sqrt(share * (1 - share) / images + z2 / (4 * images**2))
    half = NORMAL_90 * spread / (1 + z2 / images)
    # Rounding must not push the share out of its interval where every image was right or wrong.
    low, high = max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
    return Estimate(value=share, low=low, high=high)


class BudgetCard(Record):
    """The part of a card that tells what accuracy a budget promises; the rest is for training."""

    model_config = ConfigDict(extra="ignore")

    architecture: Architecture
    data: Sentence
    test_images: PositiveCount
    accuracy: Share
    uniform_accuracy: Share
    survival: tuple[Share, ...]
    by_budget: tuple[AtBudget, ...] = ()

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Every way to run it whose accuracy was measured with as many patches of every image.

        Where the card has no curve: as it was trained, and everything everywhere.
        """
        net = self.architecture
        full = RoutingDistribution.full(net.tokens, net.recursions)
        if not net.is_routed:
            return (self._budget("full", full, self.accuracy),)
        if self.by_budget:
            routed = [(each, self._routing_of(each)) for each in self.by_budget]
            return tuple(
                self._budget(f"{each.budget:g}", routing, each.accuracy)
                for each, routing in routed
                if routing is not None
            )
        learned = RoutingDistribution.from_survival(self.survival, net.tokens, net.prefix_tokens)
        return (
            self._budget("as trained", learned, self.accuracy),
            self._budget("1", full, self.uniform_accuracy),
        )

    def _budget(self, name: str, routing: RoutingDistribution, accuracy: float) -> Budget:
        seen = share_seen(accuracy, self.test_images)
        return Budget(name=name, routing=routing, accuracy=seen)

    def _routing_of(self, seen: AtBudget) -> RoutingDistribution | None:
        """The routing under which `seen` was measured: that of its mean depth.

        What a budget gives to each recursion has changed once; None where neither way fits.
        """
        net = self.architecture
        if seen.budget == 1:
            return RoutingDistribution.full(net.tokens, net.recursions)
        for capacities in (capacities_of_budget, survival_of_mean):
            routing = routing_at(capacities(seen.budget, net.recursions), net)
            if math.isclose(routing.mean_depth, seen.mean_depth, abs_tol=1e-6):
                return routing
        return None


def routing_at(capacities: Sequence[float], net: Architecture) -> RoutingDistribution:
    """As many patches of every image as capacities keep, and what is never routed away."""
    kept = tuple(net.prefix_tokens + each for each in kept_of(capacities, net.patches))
    return RoutingDistribution(tokens=net.tokens, counts=(kept,))
