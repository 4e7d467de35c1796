"""What is run: a network, a batch, a precision, a runtime, an executor and a routing."""

from typing import Self

from pydantic import model_validator

from domain.architecture import Architecture
from domain.record import Executor, PositiveCount, Precision, Record, Runtime
from domain.routing import RoutingDistribution


class Workload(Record):
    """One thing to run; its `key()` is the same wherever the same thing is asked."""

    architecture: Architecture
    batch: PositiveCount
    precision: Precision = "fp32"
    runtime: Runtime = "eager"
    executor: Executor = "packed"
    routing: RoutingDistribution

    @model_validator(mode="after")
    def _routing_is_of_this_network(self) -> Self:
        wanted = (self.architecture.recursions, self.architecture.tokens)
        came = (self.routing.recursions, self.routing.tokens)
        if wanted != came:
            raise ValueError(
                f"{self.architecture.name} has {wanted[0]} recursions and {wanted[1]} tokens, the "
                f"routing has {came[0]} and {came[1]}"
            )
        return self
