"""What the router did on images, as the nouns that the other floors read."""

from collections.abc import Sequence

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from domain.routing import DecidedImage, RouterDecisions, RoutingDistribution
from morvit.data import normalised
from morvit.model import MoRViT, Output

TRACE_BATCH = 128


def routing_of(
    model: MoRViT, images: UInt8[Tensor, "images channels rows columns"]
) -> RoutingDistribution:
    """Tokens of each image, CLS included, that entered each recursion."""
    counts = torch.cat([output.counts for output in _outputs(model, images)])
    return RoutingDistribution(
        tokens=model.architecture.tokens, counts=tuple(map(tuple, counts.tolist()))
    )


def decisions_of(
    model: MoRViT,
    images: UInt8[Tensor, "images channels rows columns"],
    labels: Int[Tensor, " images"],
    names: Sequence[str],
    weights: str,
    classes: Sequence[str] | None = None,
) -> RouterDecisions:
    """The depth of every patch of these images, beside the images and what they were taken for.

    `names` are those of the labels, `classes` those of the network's answers (else the same);
    `weights` says whose decisions these are: a checksum, or that the weights are random.
    """
    architecture = model.architecture
    side = architecture.image_size // architecture.patch_size
    outputs = list(_outputs(model, images))
    answers = torch.cat([output.logits.argmax(dim=1) for output in outputs]).tolist()
    depths = torch.cat([output.depths for output in outputs])[:, architecture.prefix_tokens :]
    grids = depths.reshape(-1, side, side).tolist()
    greys = images.float().mean(dim=1).round().to(torch.uint8).tolist()
    return RouterDecisions(
        model=architecture.name,
        weights=weights,
        recursions=architecture.recursions,
        images=tuple(
            DecidedImage(
                label=names[label],
                predicted=(classes or names)[answer],
                pixels=tuple(map(tuple, grey)),
                depths=tuple(map(tuple, grid)),
            )
            for label, answer, grey, grid in zip(
                labels.tolist(), answers, greys, grids, strict=True
            )
        ),
    )


@torch.inference_mode()
def _outputs(model: MoRViT, images: UInt8[Tensor, "images channels rows columns"]) -> list[Output]:
    device = model.positions.device
    return [model(normalised(part.to(device))) for part in torch.split(images, TRACE_BATCH)]
