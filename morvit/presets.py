"""The networks that are compared, and how they are trained: one recipe for all of a task.

`morvit` claims that it is as accurate as `vit` with a third of the weights and in less time. What it
must beat to say so: a `shallow` ViT as fast as it is, the same `recursive` network without routing,
and a `random` router that spends as much. Beside them `distilled`: morvit taught by the ViT, which is
another recipe.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from domain.architecture import Architecture
from domain.complaint import Complaint, nearest
from domain.routing import capacities_of_budget
from morvit.data import DEBIAN_FOLDER, LabelledImages, Split, fashion_mnist
from morvit.inspection import inspection
from morvit.losses import LossWeights
from morvit.weights import Recipe

Task = Literal["fashion-mnist", "inspection"]
NetworkName = Literal["morvit", "vit", "shallow", "recursive", "random", "distilled"]

WIDTH, HEADS, DEPTH = 64, 2, 12
# A block of three layers, four times: twelve effective layers of three unique ones. Every patch goes
# through it once, as through a ViT of three layers; the router chooses who goes on.
SHARED_LAYERS, RECURSIONS = 3, 4
# Mean share of the recursions that a token of the routed networks enters. On images set aside for such
# choices 0.32 gave 93.95 % and 0.36 gave 94.0 (seed 0), for a ninth less work.
BUDGET = 0.32
# Of its training a routed network grows from its first recursion alone for so long. With 25 % one seed
# in three stood still for two epochs at a loss of 1.0; with 75 % it lost nothing against the others.
GROWING_SHARE = 0.75
# Layers of the plain ViT whose throughput is nearest to that of the routed network.
SHALLOW_DEPTH = 4


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a task asks of a network: image side, patch side, classes; and how long to train."""

    image_size: int
    patch_size: int
    classes: int
    epochs: int
    batch: int
    learning_rate: float
    largest_shift: int
    token_deviation: float
    flip: bool
    turn: bool
    training_images: int
    test_images: int


SETTINGS: dict[Task, Setting] = {
    "fashion-mnist": Setting(
        image_size=28,
        patch_size=4,
        classes=10,
        epochs=10,
        batch=32,
        learning_rate=2e-3,
        largest_shift=0,
        token_deviation=1.0,
        flip=False,
        turn=False,
        training_images=60_000,
        test_images=10_000,
    ),
    "inspection": Setting(
        image_size=224,
        patch_size=16,
        classes=5,
        epochs=6,
        batch=16,
        learning_rate=2e-3,
        largest_shift=0,
        token_deviation=0.02,
        flip=True,
        turn=True,
        training_images=6_000,
        test_images=2_000,
    ),
}


def task_named(name: str) -> Task:
    """The task of that name. Raises Complaint."""
    for known in SETTINGS:
        if known == name:
            return known
    raise Complaint(f"no task {name!r}; {nearest(name, SETTINGS)}")


def images_of(task: Task, split: Split, folder: Path = DEBIAN_FOLDER) -> LabelledImages:
    """Training or test images of a task; `folder` holds Fashion-MNIST."""
    if task == "fashion-mnist":
        return fashion_mnist(split, folder)
    setting = SETTINGS[task]
    count = setting.training_images if split == "train" else setting.test_images
    return inspection(split, count).labelled


def architecture_of(task: Task, network: NetworkName) -> Architecture:
    """A network of the comparison on a task."""
    return NETWORKS[network](f"{network}-{task}", SETTINGS[task])


def recipe_of(task: Task, network: NetworkName) -> Recipe:
    """How it is trained: what differs within a task is where tokens go, and for one that it is taught."""
    setting, route = SETTINGS[task], ROUTES[network]
    grows = {"warm_epochs": GROWING_SHARE * setting.epochs} if "warm_from" in route else {}
    common = {
        "epochs": setting.epochs,
        "batch": setting.batch,
        "learning_rate": setting.learning_rate,
        "largest_shift": setting.largest_shift,
        "token_deviation": setting.token_deviation,
        "flip": setting.flip,
        "turn": setting.turn,
        "precision": "fp32",
        "optimizer": "muon",
    }
    return Recipe.model_validate({**common, **route, **grows})


def _plain(name: str, setting: Setting, depth: int) -> Architecture:
    return Architecture.plain(
        name=name,
        depth=depth,
        width=WIDTH,
        heads=HEADS,
        image_size=setting.image_size,
        patch_size=setting.patch_size,
        channels=1,
        classes=setting.classes,
    )


def _recursive(name: str, setting: Setting, router: str) -> Architecture:
    return Architecture.model_validate(
        {
            **_plain(name, setting, DEPTH).model_dump(),
            "shared_layers": SHARED_LAYERS,
            "recursions": RECURSIONS,
            "sharing": "cycle",
            "router": router,
            "depth_parameters": "norms",
        }
    )


NETWORKS: dict[NetworkName, Callable[[str, Setting], Architecture]] = {
    "morvit": lambda name, setting: _recursive(name, setting, "expert-choice"),
    "vit": lambda name, setting: _plain(name, setting, DEPTH),
    "shallow": lambda name, setting: _plain(name, setting, SHALLOW_DEPTH),
    "recursive": lambda name, setting: _recursive(name, setting, "random"),
    "random": lambda name, setting: _recursive(name, setting, "random"),
    "distilled": lambda name, setting: _recursive(name, setting, "expert-choice"),
}

_ROUTED: dict[str, object] = {
    "capacities": capacities_of_budget(BUDGET, RECURSIONS),
    "budgets": (0.28, 0.45),
    "uniform_share": 0.1,
    "warm_from": "first",
    "losses": LossWeights(auxiliary=0.01, router_z=0.0, balancing=0.0),
}
_EVERYWHERE: dict[str, object] = {"uniform_share": 1.0}
ROUTES: dict[NetworkName, dict[str, object]] = {
    "morvit": _ROUTED,
    "vit": _EVERYWHERE,
    "shallow": _EVERYWHERE,
    "recursive": {**_EVERYWHERE, "capacities": (1.0,) * RECURSIONS},
    "random": _ROUTED,
    "distilled": {**_ROUTED, "distillation": 0.5},
}
