"""Checkpoints: safetensors with a card beside, both checked before a network is built."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from domain.architecture import Architecture
from domain.card import AtBudget
from domain.complaint import CorruptFile
from domain.record import Count, Positive, PositiveCount, Record, Sentence, Share
from domain.store import load, save
from morvit.losses import LossWeights
from morvit.model import MoRViT
from morvit.router import Selection
from morvit.tensors import Kind, check_it_is_here, read_tensors, refuse_pickle, write_tensors

SHIPPED = Path(__file__).resolve().parent / "checkpoints" / "morvit-fmnist.safetensors"

# A card may ask for no more modules than this; its weights must all be in the file anyway.
MOST_LAYERS, MOST_RECURSIONS = 512, 64

# Card format 1: the first. Format 2: the task, and accuracy by budget.


class Recipe(Record):
    """How a network is trained. `uniform_share` of the batches go everywhere, for the guard.

    `capacities` and `selection` are for expert choice and chance: training always takes the top k,
    `selection` says what inference does. With `budgets` each batch that does not go everywhere has
    a mean depth drawn between the two, so that one checkpoint serves them all; `warm_epochs` go to
    that by half a cosine from full depth (MoR, arXiv 2507.10524, section 2) or from the first
    recursion alone, without batches that go everywhere, which is cheaper and learned sooner here.
    `turn` is for what has no upside. `bias_step` is what loss-free balancing moves a bias by.
    `distillation` weighs the divergence from a teacher's answers against cross-entropy, both
    softened by `temperature`. CLS and positions begin with `token_deviation`.
    """

    epochs: PositiveCount
    batch: PositiveCount = 64
    learning_rate: Positive = 1.5e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_share: Share = 0.05
    uniform_share: Share = 0.15
    largest_shift: Count = 1
    flip: bool = True
    turn: bool = False
    precision: Literal["fp32", "amp_bf16"] = "amp_bf16"
    largest_gradient: Positive = 1.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    capacities: tuple[Share, ...] | None = None
    budgets: tuple[Share, Share] | None = None
    warm_epochs: Annotated[float, Field(ge=0)] = 0.0
    warm_from: Literal["full", "first"] = "full"
    bias_step: Annotated[float, Field(ge=0)] = 0.0
    distillation: Share = 0.0
    temperature: Positive = 2.0
    selection: Selection = "top-k"
    losses: LossWeights = LossWeights()
    token_deviation: Positive = 0.02


class Card(Record):
    """What a checkpoint is: its network, how it was made, and what came out on test images.

    `weights_sha256` is of the whole safetensors file; `survival` of the test images' tokens.
    `by_budget` is what one network gives at several mean depths, without training again.
    """

    format: Literal[1, 2] = 2
    architecture: Architecture
    classes: tuple[Sentence, ...]
    data: Sentence
    recipe: Recipe
    seed: int
    trained_epochs: Count
    test_images: PositiveCount
    accuracy: Share
    uniform_accuracy: Share
    survival: tuple[Share, ...]
    by_budget: tuple[AtBudget, ...] = ()
    command: Sentence
    torch: Sentence
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = "0" * 64


def save_checkpoint(model: MoRViT, card: Card, path: Path) -> Card:
    """Store weights at `path` and the card, with their checksum, beside them; gives that card."""
    content = write_tensors(path, model.state_dict())
    digest = hashlib.sha256(content).hexdigest()
    finished = Card(**{**dict(card), "weights_sha256": digest})
    save(finished, card_path(path))
    return finished


def load_checkpoint(path: Path) -> tuple[MoRViT, Card]:
    """The network, ready for inference, and its card.

    Raises CorruptFile where the card, or a name, dtype or shape in the header of the file, does not
    fit: nothing is allocated until all do.
    """
    beside = card_path(path)
    check_it_is_here(path)
    with path.open("rb") as file:
        refuse_pickle(file.read(2), path)
    if not beside.exists():
        raise CorruptFile(f"{path} has no card: wanted {beside.name} beside it, as training writes")
    check_it_is_here(beside)
    card = load(beside, Card)
    architecture = card.architecture
    if (
        architecture.unique_layers > MOST_LAYERS
        or architecture.recursions > MOST_RECURSIONS
        or architecture.parameters * 4 > path.stat().st_size
    ):
        raise CorruptFile(
            f"{path} cannot hold the {architecture.parameters} parameters that {beside.name} states"
        )
    model = _without_memory(card, beside)
    expected = {name: Kind.of(weight) for name, weight in model.state_dict().items()}
    tensors, _, content = read_tensors(path, expected)
    if hashlib.sha256(content).hexdigest() != card.weights_sha256:
        raise CorruptFile(f"{path} is not the file that {beside.name} describes: checksums differ")
    model.load_state_dict(tensors, assign=True)
    return model.eval(), card


def card_path(path: Path) -> Path:
    """Where the card of a checkpoint lies."""
    return path.with_suffix(".json")


def _without_memory(card: Card, beside: Path) -> MoRViT:
    try:
        with torch.device("meta"):
            return MoRViT(
                card.architecture,
                capacities=card.recipe.capacities,
                selection=card.recipe.selection,
            )
    except ValueError as error:
        raise CorruptFile(f"{beside}: {error}") from error
