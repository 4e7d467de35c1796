"""How many tokens of each image enter each recursion, where a plan imposes it."""

from itertools import accumulate

from domain.measurement import PlannedPoint
from domain.routing import RoutingDistribution

DISTINCT_IMAGES = 64


def rotation_of(batch: int) -> int:
    """Batches in rotation, so that at least 64 distinct images are seen.

    >>> rotation_of(8), rotation_of(48), rotation_of(256)
    (8, 2, 1)
    """
    return -(-DISTINCT_IMAGES // batch)


def forced_counts(point: PlannedPoint, images: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Counts of each image around the planned survival: never rising, prefix tokens always on.

    Image i has the survival times 1 + spread × u, the same u at every recursion, so that an image
    with more tokens early also has more late. The u fill [-1, 1] evenly, and so does every prefix
    of them (van der Corput's sequence, shifted by the seed): few batches look like many.
    """
    network = point.architecture
    survival = point.survival or (1.0,) * network.recursions
    shift = (seed * 0.6180339887498949) % 1.0
    rows = []
    for image in range(images):
        place = (_van_der_corput(image) + 0.5 / images + shift) % 1.0
        factor = 1.0 + point.spread * (2.0 * place - 1.0)
        wanted = (round(share * factor * network.tokens) for share in survival)
        bounded = [min(network.tokens, max(network.prefix_tokens, count)) for count in wanted]
        rows.append(tuple(accumulate(bounded, min)))
    return tuple(rows)


def presumed_routing(point: PlannedPoint, seed: int) -> RoutingDistribution:
    """The routing of a point that could not be run: the planned one, else every token everywhere."""
    network = point.architecture
    if point.survival is None or not network.is_routed:
        return RoutingDistribution.full(network.tokens, network.recursions)
    images = point.batch * rotation_of(point.batch)
    return RoutingDistribution(tokens=network.tokens, counts=forced_counts(point, images, seed))


def _van_der_corput(index: int) -> float:
    """The bits of `index` mirrored at the binary point.

    >>> [_van_der_corput(index) for index in range(4)]
    [0.0, 0.5, 0.25, 0.75]
    """
    value, weight = 0.0, 0.5
    while index:
        value += weight * (index & 1)
        index >>= 1
        weight /= 2
    return value
