"""What adaptive depth is worth: the cheapest fleet for other networks on the same demand.

Networks of about the same work or the same width, with what is known of their accuracy beside the
money: the same accuracy is nowhere taken for granted.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from domain.architecture import Architecture
from domain.catalogue import FOLDER, model_named, plain_vits
from domain.choice import PeerCost
from domain.columns import text_of
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.record import Executor, Unknown
from domain.routing import RoutingDistribution
from domain.scenario import FleetOption, Ownership, Scenario
from domain.store import committed_cards
from scenarios.choosing import Found, changed
from scenarios.forecasting import forecasts_of
from scenarios.sizing import cheapest_of

# Tokens that DynamicViT keeps after layers 3, 6 and 9 (arXiv 2106.02034).
DYNAMIC_KEPT = (0.7, 0.49, 0.343)
NOT_PUBLISHED = "not published at this size"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another network, how it runs, and what is known of its accuracy."""

    name: str
    how: str
    net: Architecture
    survival: tuple[float, ...]
    executor: Executor
    accuracy: str


def peers_of(
    scenario: Scenario,
    ways: Sequence[Found],
    devices: Mapping[str, DeviceSpec],
    fits: Sequence[Fit],
) -> Iterator[PeerCost]:
    """Fleets for each peer on the device of the cheapest owned way and on the scenario's own."""
    owned = [way for way in ways if way.kind in ("edge", "on-premises")]
    net = model_named(scenario.model)
    if not owned or not net.is_routed:
        return
    least = min(owned, key=lambda way: way.cost.total)
    names = {least.option.device_id, *(each for each in scenario.devices if each in devices)}
    few = {name: devices[name] for name in sorted(names)}
    for peer in peers_to(scenario, net):
        yield _cost_of(peer, scenario, least, few, fits)
    tiny = published_accuracy("TinyViT", net.width)
    if tiny:
        none = Unknown(reason="convolution stages and window attention are not in the cost model")
        yield PeerCost(
            name="TinyViT", how="not priced", device_name="", devices=0, total=none, saved=none,
            accuracy=tiny,
        )  # fmt: skip


def _cost_of(
    peer: Peer,
    scenario: Scenario,
    least: Found,
    devices: Mapping[str, DeviceSpec],
    fits: Sequence[Fit],
) -> PeerCost:
    net = peer.net
    routed = RoutingDistribution.from_survival(peer.survival, net.tokens, net.prefix_tokens)
    full = RoutingDistribution.full(net.tokens, net.recursions)
    other = changed(scenario, survival=peer.survival, executor=peer.executor)
    options = cheapest_of(
        other, forecasts_of(other, devices, fits, (net, routed, full)), devices
    )  # fmt: skip
    facts = {"name": peer.name, "how": peer.how, "accuracy": peer.accuracy}
    chosen = options[0] if options else None
    if chosen is None or chosen.reason or not isinstance(chosen.ownership, Ownership):
        none = Unknown(reason=_why_none(options))
        return PeerCost(**facts, device_name="", devices=0, total=none, saved=none)
    return PeerCost(
        **facts,
        device_name=chosen.device_name,
        devices=chosen.devices,
        total=chosen.ownership.total,
        saved=chosen.ownership.total - least.cost.total,
    )


def peers_to(scenario: Scenario, net: Architecture) -> Iterator[Peer]:
    """The same network without routing, plain ViTs of as much width and of as much work, DynamicViT."""
    yield Peer(
        name="the same network, all tokens everywhere",
        how=f"{net.layers_before} + {net.shared_layers} × {net.recursions} + {net.layers_after} "
        "layers for every token",
        net=net,
        survival=(1.0,) * net.recursions,
        executor="masked",
        accuracy="its own at uniform depth",
    )
    plain = _plain_peer(net)
    if plain is None:
        return
    yield Peer(
        name=plain.name,
        how=f"{plain.shared_layers} layers of width {net.width}, plain",
        net=plain,
        survival=(1.0,),
        executor="masked",
        accuracy=published_accuracy("DeiT", net.width) or NOT_PUBLISHED,
    )
    layers = (
        net.layers_before + net.layers_after + round(net.shared_layers * sum(scenario.survival))
    )
    yield Peer(
        name=f"a plain ViT of {layers} layers",
        how="as much work as MoR-ViT's mean depth, without routing",
        net=_reshaped(plain, f"{plain.name}-{layers}", layers_before=0, shared_layers=layers),
        survival=(1.0,),
        executor="masked",
        accuracy=NOT_PUBLISHED,
    )
    if plain.shared_layers == 4 * len(DYNAMIC_KEPT):
        yield Peer(
            name="DynamicViT, ratio 0.7",
            how="twelve layers, tokens dropped after layers 3, 6 and 9; its predictors as routers",
            net=_reshaped(
                plain,
                f"{plain.name}-dynamic",
                layers_before=3,
                shared_layers=3,
                recursions=len(DYNAMIC_KEPT),
                layers_after=0,
            ),
            survival=DYNAMIC_KEPT,
            executor="packed",
            accuracy=published_accuracy("DynamicViT", net.width) or NOT_PUBLISHED,
        )


def _reshaped(net: Architecture, name: str, **changes: int) -> Architecture:
    fields = {field: getattr(net, field) for field in Architecture.model_fields}
    return Architecture(**{**fields, "name": name[:128], **changes})


def _plain_peer(net: Architecture) -> Architecture | None:
    """The plain DeiT of the catalogue of that width, image and patch."""
    for name, plain in plain_vits().items():
        if (
            (plain.width, plain.image_size, plain.patch_size)
            == (net.width, net.image_size, net.patch_size)
            and name.startswith("deit")
            and "distilled" not in name
        ):
            return plain
    return None


def published_accuracy(name: str, width: int) -> str:
    """Top-1 on ImageNet-1K with its source; empty where the catalogue has none."""
    for row in tomllib.loads(text_of(FOLDER / "peers.toml"))["peer"]:
        if (row["name"], row["width"]) == (name, width):
            return f"ImageNet {row['top1_percent']:g} % ({row['source']})"
    return ""


def accuracy_seen_here() -> str:
    """What the committed networks reached on the tasks they were trained on, in one sentence."""
    found: dict[str, dict[str, list[float]]] = {}
    for card in committed_cards():
        task = found.setdefault(card.data.partition(",")[0], {})
        task.setdefault(card.architecture.name, []).append(card.accuracy)
    return "; ".join(
        f"on {task}: {', '.join(_over_seeds(name, seen) for name, seen in sorted(networks.items()))}"
        for task, networks in found.items()
    )


def _over_seeds(name: str, seen: Sequence[float]) -> str:
    mean = f"{name} {sum(seen) / len(seen):.1%}"
    if len(seen) == 1:
        return f"{mean} (one seed)"
    return f"{mean} ({min(seen):.1%} to {max(seen):.1%}, {len(seen)} seeds)"


def _why_none(options: Sequence[FleetOption]) -> str:
    return options[0].reason or "no fleet has a known price" if options else "no device"
