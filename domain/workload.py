"""What is run: a network, a batch, a precision, a runtime, an executor and a routing."""

from typing import Literal, Self

from pydantic import model_validator

from domain.architecture import Architecture
from domain.record import Executor, PositiveCount, Precision, Record, Runtime
from domain.routing import RoutingDistribution

States = Literal["by-token", "by-channel"]
Attention = Literal["fused", "unfused"]


def timm_states(net: Architecture, layout: str = "") -> States:
    """How the tokens of one of timm's plain networks lie in memory, for images in `layout`.

    Its patch embedding is a convolution whose result is transposed, not copied. Joining prefix tokens
    or a norm copies it; channels last (`nhwc`) it lies by token already. Without any of these the
    residual stream stays by channel to the end: timm 1.0, `VisionTransformer._pos_embed`.
    """
    is_copied = net.prefix_tokens or net.pre_norm or net.is_routed or layout == "nhwc"
    return "by-token" if is_copied else "by-channel"


def attention_of_torch(version: str, runtime: Runtime = "eager") -> Attention:
    """How a plain network of that torch attends: fused since 2.0 (`scaled_dot_product_attention`).

    Of a version that is not stated nothing older is assumed; an engine fuses whatever torch is beside it.

    >>> [attention_of_torch(version) for version in ("1.13.1", "1", "2.4.0", "10.0", "")]
    ['unfused', 'unfused', 'fused', 'fused', 'fused']
    """
    is_torch = runtime in ("eager", "compiled")
    return "unfused" if is_torch and version.split(".")[0] in ("0", "1") else "fused"


class Workload(Record):
    """One thing to run; its `key()` is the same wherever the same thing is asked.

    `states` says how tokens lie in memory; the networks of `morvit` have them by token. `attention` is
    one kernel that keeps its scores to itself, or products with scores in memory between them.
    """

    architecture: Architecture
    batch: PositiveCount
    precision: Precision = "fp32"
    runtime: Runtime = "eager"
    executor: Executor = "packed"
    states: States = "by-token"
    attention: Attention = "fused"
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
