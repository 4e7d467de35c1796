"""What a checkpoint's card says to whoever decides: its network, and its accuracy by budget."""

import math
from typing import Annotated

from pydantic import ConfigDict, Field

from domain.architecture import Architecture
from domain.record import Estimate, Record, Sentence, Share, Unknown
from domain.routing import RoutingDistribution, routing_of_budget
from domain.statistics import share_interval

# An interval of a share takes memory for each image.
MOST_TEST_IMAGES = 1_000_000


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


class BudgetCard(Record):
    """The part of a card that tells what accuracy a budget promises; the rest is for training."""

    model_config = ConfigDict(extra="ignore")

    architecture: Architecture
    data: Sentence
    test_images: Annotated[int, Field(ge=1, le=MOST_TEST_IMAGES)]
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
        hits = round(accuracy * self.test_images)
        seen = share_interval(hits, self.test_images, level=0.9)
        return Budget(name=name, routing=routing, accuracy=seen)

    def _routing_of(self, seen: AtBudget) -> RoutingDistribution | None:
        """The routing under which `seen` was measured, or None where its mean depth is another's."""
        routing = routing_of_budget(seen.budget, self.architecture)
        is_that = math.isclose(routing.mean_depth, seen.mean_depth, abs_tol=1e-6)
        return routing if is_that else None
