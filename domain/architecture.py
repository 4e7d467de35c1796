"""The shape of a vision transformer whose middle block may be shared and repeated."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from domain.record import Count, Identifier, PositiveCount, Record

Sharing = Literal["middle-cycle", "cycle", "middle-sequence", "sequence"]
KeysAndValues = Literal["recursion-wise", "recursive-sharing"]
RouterKind = Literal["expert-choice", "token-choice", "random"]
RouterShape = Literal["linear", "mlp", "wide-mlp"]
RouterReads = Literal["token", "token-and-context"]
RouterGate = Literal["softmax", "sigmoid"]
DepthParameters = Literal["none", "embeddings", "norms"]
# quickgelu is x·sigmoid(1.702·x), as in OpenAI's CLIP.
Mlp = Literal["gelu", "quickgelu", "swiglu"]

# A router's hidden width over the network's: two layers as wide, or four times as wide.
ROUTER_HIDDEN: dict[RouterShape, int] = {"linear": 0, "mlp": 1, "wide-mlp": 4}
# Beside the token: CLS, and the mean and deviation of the patch's pixels.
PATCH_STATISTICS = 2


class Architecture(Record):
    """A MoR-ViT: unshared layers, a shared block entered up to `recursions` times, a head.

    A plain ViT is the same thing with `recursions=1`: every token goes everywhere, no router is
    built. `width` is the embedding width, `mlp_width` the hidden width of the MLP (for swiglu the
    width after the gate). `prefix_tokens` counts CLS and registers; they are never routed away.
    A `random` router is the control: it has no weights and keeps as many patches as it is told to.
    `router_reads` says whether a router sees CLS and the patch's mean and deviation beside the token;
    `router_gate` is for token choice alone, whose `router_bias` shifts its choice of depths without a
    gradient (arXiv 2408.15664). `depth_parameters` are weights of the shared block that each
    recursion has for itself: a vector added to its tokens, or the norms of its layers.
    `inner_norms` are norms before the projection of attention and before the last product of the MLP, as
    BEiT-3 has them. `untouched_parameters` are weights outside the transformer proper (a second distillation head,
    say), counted and stored, but never multiplied.

    >>> Architecture.plain(name="toy", depth=3, width=8, heads=2, image_size=8, patch_size=4).tokens
    5
    """

    name: Identifier
    image_size: PositiveCount
    patch_size: PositiveCount
    channels: PositiveCount = 3
    classes: Count = 1000
    width: PositiveCount
    heads: PositiveCount
    mlp_width: PositiveCount
    mlp: Mlp = "gelu"
    layers_before: Count
    shared_layers: PositiveCount
    recursions: PositiveCount
    layers_after: Count
    sharing: Sharing = "middle-cycle"
    keys_and_values: KeysAndValues = "recursion-wise"
    router: RouterKind = "expert-choice"
    router_shape: RouterShape = "linear"
    router_reads: RouterReads = "token"
    router_gate: RouterGate = "softmax"
    router_bias: bool = False
    depth_parameters: DepthParameters = "none"
    prefix_tokens: Count = 1
    position_tokens: Count | None = None
    layer_scale: bool = False
    qkv_bias: bool = True
    qk_norm: bool = False
    inner_norms: bool = False
    pre_norm: bool = False
    final_norm: bool = True
    untouched_parameters: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size must be a multiple of patch_size, got {self.image_size} and "
                f"{self.patch_size}"
            )
        if self.width % self.heads:
            raise ValueError(
                f"width must be a multiple of heads, got {self.width} and {self.heads}"
            )
        if self.sharing in ("cycle", "sequence") and (self.layers_before or self.layers_after):
            raise ValueError(
                f"{self.sharing} sharing has no unshared layers, got {self.layers_before} before "
                f"and {self.layers_after} after; use middle-{self.sharing}"
            )
        if self.depth_parameters == "norms" and "sequence" in self.sharing:
            raise ValueError(
                "norms for each recursion want every layer in every recursion, which sequence sharing "
                "does not have; use cycle or middle-cycle"
            )
        if self.keys_and_values == "recursive-sharing" and "sequence" in self.sharing:
            raise ValueError(
                "recursive-sharing looks at the keys of the same layer in recursion 1, which sequence "
                "sharing does not have; use cycle or middle-cycle"
            )
        return self

    @classmethod
    def plain(
        cls, *, name: str, depth: int, width: int, heads: int, image_size: int, patch_size: int,
        mlp_ratio: float = 4.0, channels: int = 3, classes: int = 1000,
    ) -> Self:  # fmt: skip
        """A plain ViT of `depth` layers."""
        return cls(
            name=name,
            image_size=image_size,
            patch_size=patch_size,
            channels=channels,
            classes=classes,
            width=width,
            heads=heads,
            mlp_width=int(width * mlp_ratio),
            layers_before=0,
            shared_layers=depth,
            recursions=1,
            layers_after=0,
        )

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of one image, prefix tokens included."""
        return self.patches + self.prefix_tokens

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def is_routed(self) -> bool:
        """Whether a router exists at all."""
        return self.recursions > 1

    @property
    def effective_depth(self) -> int:
        """Layers that a token meets when it goes everywhere."""
        return self.layers_before + self.shared_layers * self.recursions + self.layers_after

    @property
    def unique_layers(self) -> int:
        """Layers with weights of their own."""
        return self.layers_before + self.shared_layers + self.layers_after

    @property
    def layer_parameters(self) -> int:
        """Weights of one transformer layer."""
        width, hidden = self.width, self.mlp_width
        norms = 4 * width + 2 * (width + hidden) * self.inner_norms
        attention = 3 * width * width + 3 * width * self.qkv_bias + width * width + width
        attention += 4 * self.head_width * self.qk_norm
        first = 2 if self.mlp == "swiglu" else 1
        mlp = first * (width * hidden + hidden) + hidden * width + width
        return norms + attention + mlp + 2 * width * self.layer_scale

    @property
    def router_inputs(self) -> int:
        """Numbers that a router reads of one token."""
        context = self.width + PATCH_STATISTICS
        return self.width + context * (self.router_reads == "token-and-context")

    @property
    def router_parameters(self) -> int:
        """Weights of the routers: one with a score for each recursion (expert choice), or R at once."""
        if not self.is_routed or self.router == "random":
            return 0
        routers, outputs = (1, self.recursions)
        if self.router == "expert-choice":
            routers, outputs = outputs, routers
        inputs, hidden = self.router_inputs, self.width * ROUTER_HIDDEN[self.router_shape]
        first = (inputs + 1) * hidden
        return routers * (first + ((hidden or inputs) + 1) * outputs)

    @property
    def depth_parameter_count(self) -> int:
        """Weights that the recursions have for themselves, over those of one."""
        if not self.is_routed:
            return 0
        each = {
            "none": 0,
            "embeddings": self.recursions * self.width,
            "norms": (self.recursions - 1) * self.shared_layers * 4 * self.width,
        }
        return each[self.depth_parameters]

    @property
    def parameters(self) -> int:
        """Weights of the whole network."""
        patch_inputs = self.channels * self.patch_size**2
        embedding = patch_inputs * self.width + self.width * (not self.pre_norm)
        positions = self.tokens if self.position_tokens is None else self.position_tokens
        embedding += (self.prefix_tokens + positions) * self.width
        embedding += 2 * self.width * self.pre_norm
        head = (self.width + 1) * self.classes + 2 * self.width * self.final_norm
        layers = self.unique_layers * self.layer_parameters
        routing = self.router_parameters + self.depth_parameter_count
        return embedding + layers + routing + head + self.untouched_parameters

    def at_image_size(self, image_size: int) -> "Architecture":
        """The same network on another image size; position embeddings are resized."""
        if image_size == self.image_size:
            return self
        other = Architecture(
            **{**self.model_dump(), "image_size": image_size, "position_tokens": None}
        )
        if self.position_tokens is None:
            return other
        # Prefix tokens without a position stay without one.
        positions = self.position_tokens + other.patches - self.patches
        return Architecture(**{**other.model_dump(), "position_tokens": positions})
