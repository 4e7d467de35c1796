"""The training recipe: `python -m morvit.train`. Killed and run again, it goes on where it was."""

import json
import math
import shlex
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from jaxtyping import Float, Int, UInt8
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from domain.architecture import Architecture
from domain.complaint import Complaint, CorruptFile
from domain.shell import run_shell
from domain.store import results_root, write_whole
from morvit import losses
from morvit.data import (
    DEBIAN_FOLDER,
    LabelledImages,
    fashion_mnist,
    held_out,
    image_folder,
    normalised,
)
from morvit.losses import LossWeights
from morvit.model import MoRViT
from morvit.tensors import Kind, read_tensors, write_tensors
from morvit.weights import Card, Recipe, save_checkpoint

# Watched while training goes; never used to choose an epoch.
WATCHED_IMAGES = 2000
EVALUATION_BATCH = 500
# The recipe's aim: survival (1, .55, .25) for token choice.
DEPTH_SHARES = (0.45, 0.30, 0.25)
CAPACITIES = (1.0, 0.6, 0.3)
# MoR's 0.001 leaves the threshold uncalibrated after a short training: 200 batches gave 18 % of
# answers right by threshold and 65 % by top-k; with 0.03 both gave 65 %.
AUXILIARY = 0.03
LARGEST_STATE_HEADER_BYTES = 16 * 2**20

Line = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came out on test images: the share of right answers and where the tokens went."""

    accuracy: float
    counts: Int[Tensor, "images recursions"]
    depths: Int[Tensor, "images tokens"]


class Training:
    """A network half-way through its recipe, and all that decides how it goes on.

    One generator on the CPU draws order, augmentation and uniform batches, so state and data give
    the same weights whether or not training was interrupted.
    """

    def __init__(self, architecture: Architecture, recipe: Recipe, seed: int) -> None:
        self.architecture, self.recipe, self.seed = architecture, recipe, seed
        torch.manual_seed(seed)
        self.model = MoRViT(architecture, capacities=recipe.capacities, selection=recipe.selection)
        self.optimizer = torch.optim.AdamW(_groups(self.model, recipe.weight_decay))
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch = 0
        self.history: list[Line] = []

    def run_epoch(self, data: LabelledImages) -> Iterator[tuple[int, int]]:
        """Train once over the data; yields batches done and batches to do."""
        batch, images = self.recipe.batch, len(data.labels)
        batches = max(1, images // batch)
        order = torch.randperm(images, generator=self.generator)
        seen: dict[str, list[float]] = {}
        self.model.train()
        for done in range(batches):
            chosen = order[done * batch : (done + 1) * batch]
            step = self.epoch * batches + done
            terms = self._step(data.images[chosen], data.labels[chosen], step, batches)
            for name, term in terms.items():
                seen.setdefault(name, []).append(float(term.detach()))
            if not math.isfinite(seen["total"][-1]):
                raise Complaint(
                    f"the loss is no longer a number in epoch {self.epoch + 1}; lower "
                    "--learning-rate"
                )
            yield done + 1, batches
        self.epoch += 1
        means = {name: sum(values) / len(values) for name, values in seen.items()}
        self.history.append({"epoch": self.epoch, "losses": means})

    def _step(
        self,
        images: UInt8[Tensor, "batch channels rows columns"],
        labels: Int[Tensor, " batch"],
        step: int,
        batches: int,
    ) -> dict[str, Float[Tensor, ""]]:
        recipe = self.recipe
        rate = learning_rate(step, recipe.epochs * batches, recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        is_uniform = float(torch.rand((), generator=self.generator)) < recipe.uniform_share
        seen = augmented(images, recipe.largest_shift, recipe.flip, self.generator)
        # On a CPU the fused attention's backward pass is slow in bf16; plain products are not.
        with _precision(recipe.precision), sdpa_kernel(SDPBackend.MATH):
            output = self.model(normalised(seen), uniform=is_uniform)
        terms = losses.total_loss(
            output, labels, self.architecture, recipe.losses, uniform=is_uniform
        )
        self.optimizer.zero_grad()
        terms["total"].backward()  # type: ignore[no-untyped-call] # torch leaves it so
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.largest_gradient)
        self.optimizer.step()
        return terms

    def watch(self, test: LabelledImages) -> Line:
        """Add to the last epoch's line what the network does on the watched test images."""
        watched = slice(WATCHED_IMAGES)
        routed = evaluated(self.model, test.images[watched], test.labels[watched])
        everywhere = evaluated(self.model, test.images[watched], test.labels[watched], uniform=True)
        line = {
            **self.history[-1],
            "accuracy": routed.accuracy,
            "uniform_accuracy": everywhere.accuracy,
            **routing_line(routed, self.architecture, self.recipe.losses),
        }
        self.history[-1] = line
        return line

    def save(self, path: Path) -> None:
        """Store everything that `resume` needs, in one file, at once."""
        notes = {
            "epoch": str(self.epoch),
            "started_as": self._started_as(),
            "history": json.dumps(self.history),
        }
        write_tensors(path, self._tensors(), notes)

    def resume(self, path: Path) -> None:
        """Go on from a state that `save` stored for this network, recipe and seed."""
        tensors, notes, _ = read_tensors(path, self._kinds(), LARGEST_STATE_HEADER_BYTES)
        if notes.get("started_as") != self._started_as():
            raise Complaint(
                f"{path} was begun with another network, recipe or seed; name another --out, or "
                "give the same options to go on"
            )
        try:
            self.epoch = int(notes["epoch"])
            self.history = json.loads(notes["history"])
        except (KeyError, ValueError) as error:
            raise CorruptFile(f"{path} does not say which epoch it is of") from error
        weights = {
            name.removeprefix("model."): tensor
            for name, tensor in tensors.items()
            if name.startswith("model.")
        }
        self.model.load_state_dict(weights)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, place, moment = name.split(".")
                moments.setdefault(int(place), {})[moment] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.generator.set_state(tensors["generator"])

    def _started_as(self) -> str:
        return json.dumps([self.architecture.key(), self.recipe.key(), self.seed])

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for place, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{place}.{name}": value for name, value in moments.items()}
        return {**tensors, "generator": self.generator.get_state()}

    def _kinds(self) -> dict[str, Kind]:
        kinds = {f"model.{name}": Kind.of(value) for name, value in self.model.state_dict().items()}
        groups = self.optimizer.param_groups
        ordered = [parameter for group in groups for parameter in group["params"]]
        for place, parameter in enumerate(ordered):
            kinds[f"optimizer.{place}.step"] = Kind("F32", ())
            kinds[f"optimizer.{place}.exp_avg"] = Kind.of(parameter)
            kinds[f"optimizer.{place}.exp_avg_sq"] = Kind.of(parameter)
        return {**kinds, "generator": Kind.of(self.generator.get_state())}


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to zero (arXiv 1608.03983)."""
    warmup = max(1, round(recipe.warmup_share * steps))
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2


def augmented(
    images: UInt8[Tensor, "batch channels rows columns"],
    largest_shift: int,
    flip: bool,
    generator: torch.Generator,
) -> UInt8[Tensor, "batch channels rows columns"]:
    """Each image moved by up to `largest_shift` pixels over black, and mirrored by chance."""
    batch, channels, height, width = images.shape
    shifts = torch.randint(0, 2 * largest_shift + 1, (2, batch), generator=generator)
    mirrored = torch.rand(batch, generator=generator) < 0.5 * flip
    margins = (largest_shift,) * 4
    rows = shifts[0, :, None] + torch.arange(height)
    columns = torch.arange(width).expand(batch, width)
    columns = shifts[1, :, None] + torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = functional.pad(images, margins)
    return padded[
        torch.arange(batch)[:, None, None, None],
        torch.arange(channels)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


@torch.inference_mode()
def evaluated(
    model: MoRViT,
    images: UInt8[Tensor, "images channels rows columns"],
    labels: Int[Tensor, " images"],
    *,
    uniform: bool = False,
) -> Evaluation:
    """The network in inference on labelled images."""
    model.eval()
    outputs = [
        model(normalised(part), uniform=uniform) for part in torch.split(images, EVALUATION_BATCH)
    ]
    answers = torch.cat([output.logits.argmax(dim=1) for output in outputs])
    return Evaluation(
        accuracy=int((answers == labels).sum()) / len(labels),
        counts=torch.cat([output.counts for output in outputs]),
        depths=torch.cat([output.depths for output in outputs]),
    )


def routing_line(evaluation: Evaluation, architecture: Architecture, weights: LossWeights) -> Line:
    """What is watched of the router: survival, depth, dead positions, balance."""
    recursions = architecture.recursions
    patch_depths = evaluation.depths[:, architecture.prefix_tokens :]
    line: Line = {
        "survival": survival(evaluation, architecture),
        "mean_depth": float(patch_depths.float().mean()),
        "count_deviation": [
            float(deviation) for deviation in evaluation.counts.float().std(dim=0, correction=0)
        ],
        "dead_token_ratio": losses.dead_token_ratio(patch_depths, recursions),
    }
    if architecture.is_routed and architecture.router == "token-choice":
        load = losses.depth_load(patch_depths, recursions)
        aims = weights.depth_shares or (1 / recursions,) * recursions
        line["max_violation"] = losses.maximal_violation(load, aims)
        line["entropy"] = losses.entropy(load)
    return line


def survival(evaluation: Evaluation, architecture: Architecture) -> list[float]:
    """Share of all tokens that entered each recursion."""
    return [float(mean) / architecture.tokens for mean in evaluation.counts.float().mean(dim=0)]


def _groups(model: MoRViT, weight_decay: float) -> list[dict[str, Any]]:
    named = list(model.named_parameters())
    decayed = [
        weight for name, weight in named if weight.ndim > 1 and name not in ("prefix", "positions")
    ]
    is_decayed = {id(weight) for weight in decayed}
    others = [weight for _, weight in named if id(weight) not in is_decayed]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _precision(precision: Literal["fp32", "amp_bf16"]) -> AbstractContextManager[object]:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast("cpu", dtype=torch.bfloat16)


def train_on(
    training: Training, train: LabelledImages, test: LabelledImages, out: Path, command: str
) -> Card:
    """Run the recipe to its end, storing the state after every epoch, then the checkpoint."""
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
    everywhere = evaluated(training.model, test.images, test.labels, uniform=True)
    card = Card(
        architecture=training.architecture,
        classes=test.names,
        data=f"{train.origin}; tested on {test.origin}",
        recipe=training.recipe,
        seed=training.seed,
        trained_epochs=training.epoch,
        test_images=len(test.labels),
        accuracy=routed.accuracy,
        uniform_accuracy=everywhere.accuracy,
        survival=tuple(survival(routed, training.architecture)),
        command=command,
        torch=torch.__version__,
    )
    name = f"{training.architecture.name}.safetensors"
    return save_checkpoint(training.model, card, out / name)


def _write_log(history: list[Line], path: Path) -> None:
    write_whole(path, "".join(json.dumps(line) + "\n" for line in history).encode())


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    epilog="Example: python -m morvit.train --epochs 10 --threads 2 --out results/training/mine"
)
def train(
    out: Annotated[Path | None, typer.Option(help="Folder for state, log, checkpoint.")] = None,
    router: Annotated[str, typer.Option(help="token-choice or expert-choice.")] = "token-choice",
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    batch: Annotated[int, typer.Option(min=1)] = 64,
    learning_rate: Annotated[float, typer.Option(help="Largest step, after warm-up.")] = 1.5e-3,
    uniform_share: Annotated[float, typer.Option(help="Share of batches at full depth.")] = 0.15,
    balancing: Annotated[float, typer.Option(help="Weight of the balancing loss.")] = 0.05,
    auxiliary: Annotated[
        float, typer.Option(help="Weight of the BCE of expert choice.")
    ] = AUXILIARY,
    selection: Annotated[
        str, typer.Option(help="Expert choice at inference: top-k or threshold.")
    ] = "threshold",
    precision: Annotated[str, typer.Option(help="fp32 or amp_bf16.")] = "amp_bf16",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1)] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    data: Annotated[
        Path, typer.Option(help="Folder of the Fashion-MNIST IDX files.")
    ] = DEBIAN_FOLDER,
    folder: Annotated[
        Path | None, typer.Option(help="Train on class/name.png files in this folder instead.")
    ] = None,
    image_size: Annotated[int, typer.Option(help="Side of the images of --folder.")] = 28,
    channels: Annotated[int, typer.Option(help="1 grey or 3 RGB, for --folder.")] = 1,
) -> None:
    """Train MoR-ViT on Fashion-MNIST, or on folders of images; run it again to go on."""
    torch.set_num_threads(threads)
    if folder is None:
        name = "morvit-fmnist"
        seen, test = fashion_mnist("train", data), fashion_mnist("test", data)
    else:
        name = "morvit-folder"
        seen, test = held_out(image_folder(folder, image_size, channels))
    architecture = recommended(name, router, seen)
    is_expert = architecture.router == "expert-choice"
    recipe = Recipe.model_validate(
        {
            "epochs": epochs,
            "batch": batch,
            "learning_rate": learning_rate,
            "uniform_share": uniform_share,
            "precision": precision,
            "capacities": CAPACITIES if is_expert else None,
            "selection": selection if is_expert else "top-k",
            "losses": LossWeights(auxiliary=auxiliary)
            if is_expert
            else LossWeights(balancing=balancing, depth_shares=DEPTH_SHARES),
        }
    )
    training = Training(architecture, recipe, seed)
    command = shlex.join(["python", "-m", "morvit.train", *sys.argv[1:]])
    card = train_on(training, seen, test, out or results_root() / "training" / name, command)
    typer.echo(card.model_dump_json(include={"accuracy", "uniform_accuracy", "survival"}))


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
