"""The training recipe: `python -m morvit.train`. Killed and run again, it goes on where it was."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, get_args

import torch
import typer
from rich.console import Console
from rich.progress import Progress

from domain.architecture import Architecture
from domain.complaint import Complaint, nearest
from domain.shell import run_shell
from domain.store import results_root, write_whole
from morvit.data import DEBIAN_FOLDER, LabelledImages, held_out, image_folder
from morvit.evaluation import CALIBRATION_IMAGES, Line, by_budget, evaluated, survival
from morvit.losses import LossWeights
from morvit.model import MoRViT
from morvit.presets import (
    ROUTES,
    NetworkName,
    architecture_of,
    images_of,
    recipe_of,
    task_named,
)
from morvit.streamed import StreamedFolder
from morvit.training import UNIFORM, Source, Training
from morvit.weights import Card, Recipe, load_checkpoint, save_checkpoint

# The shipped network's aim: survival (1, .55, .25) for token choice.
DEPTH_SHARES = (0.45, 0.30, 0.25)
CAPACITIES = (1.0, 0.6, 0.3)
# MoR's 0.001 leaves the threshold uncalibrated after a short training: 200 batches gave 18 % of
# answers right by threshold and 65 % by top-k; with 0.03 both gave 65 %.
AUXILIARY = 0.03
# Where CLS and positions begin, beside patches that deviate by about one. From 0.02 three epochs of
# 10,000 images gave 72 % of 5,000 others right, from 1.0 80 % (Fashion-MNIST, one seed).
FAR_APART = 1.0
# Of a folder that does not fit in memory.
MOST_TEST_IMAGES = 10_000


def train_on(
    training: Training,
    train: Source,
    calibration: LabelledImages,
    test: LabelledImages,
    out: Path,
    command: str,
    name: str | None = None,
) -> Card:
    """Run the recipe to its end, storing the state after every epoch, then the checkpoint.

    Thresholds by budget are set on `calibration`, which are training images. The checkpoint is
    called `name`, else as its architecture.
    """
    state = out / "state.safetensors"
    if state.exists():
        training.resume(state)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("training", total=training.recipe.epochs)
        while training.epoch < training.recipe.epochs:
            epoch = training.epoch
            for done, batches in training.run_epoch(train):
                progress.update(
                    task, completed=epoch + done / batches, description=f"epoch {epoch + 1}"
                )
            line = training.watch(test)
            training.save(state)
            _write_log(training.history, out / "log.jsonl")
            typer.echo(json.dumps(line))
    routed = evaluated(training.model, test.images, test.labels)
    everywhere = evaluated(training.model, test.images, test.labels, UNIFORM)
    card = Card(
        architecture=training.architecture,
        classes=test.names,
        data=f"{calibration.origin}; tested on {test.origin}",
        recipe=training.recipe,
        seed=training.seed,
        trained_epochs=training.epoch,
        test_images=len(test.labels),
        accuracy=routed.accuracy,
        uniform_accuracy=everywhere.accuracy,
        survival=tuple(survival(routed, training.architecture)),
        by_budget=by_budget(training.model, test, calibration),
        command=command,
        torch=torch.__version__,
    )
    called = f"{name or training.architecture.name}.safetensors"
    return save_checkpoint(training.model, card, out / called)


def _write_log(history: list[Line], path: Path) -> None:
    write_whole(path, "".join(json.dumps(line) + "\n" for line in history).encode())


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    epilog="Example: python -m morvit.train --task inspection --network morvit --seed 1 --threads 2"
)
def train(
    out: Annotated[Path | None, typer.Option(help="Folder for state, log, checkpoint.")] = None,
    task: Annotated[
        str, typer.Option(help="fashion-mnist, or inspection (real textures, rendered defects).")
    ] = "fashion-mnist",
    network: Annotated[
        str,
        typer.Option(
            help="shipped (the small one of this package), or one of the comparison: "
            + ", ".join(get_args(NetworkName))
        ),
    ] = "shipped",
    router: Annotated[str, typer.Option(help="token-choice or expert-choice.")] = "token-choice",
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Default: the recipe's.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Largest step, after warm-up; default: the recipe's.")
    ] = None,
    uniform_share: Annotated[
        float | None, typer.Option(help="Share of batches at full depth; default: the recipe's.")
    ] = None,
    balancing: Annotated[float, typer.Option(help="Weight of the balancing loss.")] = 0.05,
    auxiliary: Annotated[
        float, typer.Option(help="Weight of the BCE of expert choice.")
    ] = AUXILIARY,
    selection: Annotated[
        str, typer.Option(help="Expert choice at inference: top-k or threshold.")
    ] = "threshold",
    precision: Annotated[
        str | None, typer.Option(help="fp32 or amp_bf16; default: the recipe's.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="A checkpoint to distil from, run at uniform depth.")
    ] = None,
    distillation: Annotated[
        float, typer.Option(min=0, max=1, help="Weight of the teacher against the labels.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1)] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    data: Annotated[
        Path, typer.Option(help="Folder of the Fashion-MNIST IDX files.")
    ] = DEBIAN_FOLDER,
    folder: Annotated[
        Path | None, typer.Option(help="Train on class/name.png files in this folder instead.")
    ] = None,
    imagenet: Annotated[
        Path | None,
        typer.Option(help="Folder with train/ and val/ of class folders, read batch by batch."),
    ] = None,
    image_size: Annotated[
        int, typer.Option(help="Side of the images of --folder or --imagenet.")
    ] = 28,
    channels: Annotated[int, typer.Option(help="1 grey or 3 RGB, for --folder or --imagenet.")] = 1,
) -> None:
    """Train MoR-ViT or what it is compared with; run it again to go on."""
    torch.set_num_threads(threads)
    chosen = task_named(task)
    if network != "shipped" and not (folder is None and imagenet is None):
        raise Complaint("the networks of the comparison are for --task; leave out --network")
    source: Source
    if imagenet is not None:
        name = "morvit-imagenet"
        source = StreamedFolder(imagenet / "train", image_size, channels)
        seen = source.first(CALIBRATION_IMAGES)
        test = StreamedFolder(imagenet / "val", image_size, channels).first(MOST_TEST_IMAGES)
        if test.names != seen.names:
            raise Complaint(f"{imagenet} has other classes in val than in train")
    elif folder is not None:
        name = "morvit-folder"
        source, test = held_out(image_folder(folder, image_size, channels))
        seen = source
    else:
        name = "morvit-fmnist" if chosen == "fashion-mnist" else f"morvit-{chosen}"
        seen, test = (images_of(chosen, split, data) for split in ("train", "test"))
        source = seen
    if network == "shipped":
        architecture = recommended(name, router, seen)
        recipe = _shipped_recipe(architecture, selection, auxiliary, balancing)
    else:
        architecture, recipe = (
            architecture_of(chosen, _network(network)),
            recipe_of(chosen, _network(network)),
        )
    given = {
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "uniform_share": uniform_share,
        "precision": precision,
        "distillation": distillation or None,
    }
    recipe = Recipe.model_validate(
        {**dict(recipe), **{field: value for field, value in given.items() if value is not None}}
    )
    training = Training(architecture, recipe, seed, _teacher(teacher, architecture))
    place = architecture.name if network == "shipped" else f"{architecture.name}-{seed}"
    command = shlex.join(["python", "-m", "morvit.train", *sys.argv[1:]])
    folder_out = out or results_root() / "training" / place
    first = slice(CALIBRATION_IMAGES)
    calibration = LabelledImages(
        images=seen.images[first], labels=seen.labels[first], names=seen.names, origin=seen.origin
    )
    card = train_on(training, source, calibration, test, folder_out, command, place)
    typer.echo(card.model_dump_json(include={"accuracy", "uniform_accuracy", "survival"}))


def _network(name: str) -> NetworkName:
    for known in ROUTES:
        if known == name:
            return known
    raise Complaint(f"no network {name!r}; {nearest(name, ['shipped', *ROUTES])}")


def _teacher(path: Path | None, architecture: Architecture) -> MoRViT | None:
    if path is None:
        return None
    model, card = load_checkpoint(path)
    asked, came = (
        (each.image_size, each.channels, each.classes) for each in (architecture, card.architecture)
    )
    if asked != came:
        raise Complaint(
            f"the teacher takes images and classes of {came} (side, channels, classes), the network "
            f"{asked}; give a teacher of the same task"
        )
    return model


def _shipped_recipe(
    architecture: Architecture, selection: str, auxiliary: float, balancing: float
) -> Recipe:
    is_expert = architecture.router == "expert-choice"
    return Recipe.model_validate(
        {
            "epochs": 10,
            "token_deviation": FAR_APART,
            "capacities": CAPACITIES if is_expert else None,
            "selection": selection if is_expert else "top-k",
            "losses": LossWeights(auxiliary=auxiliary)
            if is_expert
            else LossWeights(balancing=balancing, depth_shares=DEPTH_SHARES),
        }
    )


def recommended(name: str, router: str, data: LabelledImages) -> Architecture:
    """The small network of the recipe, 1 + 2×3 + 1 layers, for this data."""
    side = data.images.shape[-1]
    return Architecture.model_validate(
        {
            "name": name,
            "image_size": side,
            "patch_size": 4 if side < 64 else 16,
            "channels": data.images.shape[1],
            "classes": len(data.names),
            "width": 96,
            "heads": 3,
            "mlp_width": 384,
            "layers_before": 1,
            "shared_layers": 2,
            "recursions": 3,
            "layers_after": 1,
            "router": router,
        }
    )


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
