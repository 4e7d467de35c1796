"""A network half-way through its recipe: one step, one epoch, and all that resuming needs."""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from domain.architecture import Architecture
from domain.complaint import Complaint, CorruptFile
from domain.routing import capacities_of_budget
from morvit import losses
from morvit.data import LabelledImages, normalised
from morvit.evaluation import Line, evaluated, routing_line
from morvit.model import MoRViT, Output
from morvit.muon import Muon
from morvit.router import TokenChoice
from morvit.tensors import Kind, read_tensors, write_tensors
from morvit.votes import Orders
from morvit.weights import Recipe

# Watched while training goes; never used to choose an epoch.
WATCHED_IMAGES = 1000
LARGEST_STATE_HEADER_BYTES = 16 * 2**20
# A teacher's answers to images that never change are worked out once, this many images at a time, where
# they are no more numbers than that (64 MiB); else batch by batch, every time.
TAUGHT_BATCH, MOST_TAUGHT = 250, 2**24
UNIFORM = Orders(uniform=True)

Images = UInt8[Tensor, "batch channels rows columns"]


@runtime_checkable
class Source(Protocol):
    """Labelled images by their places."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batch(self, chosen: Int[Tensor, " batch"]) -> tuple[Images, Int[Tensor, " batch"]]:
        """The images at these places, and their labels."""
        ...


class Training:
    """A network half-way through its recipe, and all that decides how it goes on.

    One generator on the CPU draws order, augmentation, uniform batches and budgets, so state and
    data give the same weights whether or not training was interrupted. The `teacher` is what the
    recipe distils from.
    """

    def __init__(
        self, architecture: Architecture, recipe: Recipe, seed: int, teacher: MoRViT | None = None
    ) -> None:
        if (recipe.distillation > 0) != (teacher is not None):
            raise Complaint(
                "distillation wants a teacher, and a teacher wants distillation over 0; give both "
                "or neither"
            )
        if recipe.bias_step and not (
            architecture.router == "token-choice" and architecture.router_bias
        ):
            raise Complaint("bias_step wants a token-choice router with router_bias")
        self.architecture, self.recipe, self.seed = architecture, recipe, seed
        torch.manual_seed(seed)
        self.model = MoRViT(
            architecture,
            capacities=recipe.capacities,
            selection=recipe.selection,
            token_deviation=recipe.token_deviation,
        )
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self.optimizers = optimizers_of(self.model, recipe)
        self.generator = torch.Generator().manual_seed(seed)
        self.taught: Float[Tensor, "images classes"] | None = None
        self.epoch = 0
        self.history: list[Line] = []

    def run_epoch(self, data: Source) -> Iterator[tuple[int, int]]:
        """Train once over the data; yields batches done and batches to do."""
        batch, images = self.recipe.batch, len(data)
        batches = max(1, images // batch)
        order = torch.randperm(images, generator=self.generator)
        seen: dict[str, list[float]] = {}
        self._ask_teacher(data)
        self.model.train()
        for done in range(batches):
            chosen = order[done * batch : (done + 1) * batch]
            step = self.epoch * batches + done
            taught = None if self.taught is None else self.taught[chosen]
            terms = self._step(*data.batch(chosen), taught, step, batches)
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

    def _ask_teacher(self, data: Source) -> None:
        """Work out what the teacher says of every image, once, if the recipe leaves images as they are.

        In their own order, so that it is the same to the bit wherever training is taken up again.
        """
        recipe = self.recipe
        is_moving = recipe.largest_shift > 0 or recipe.flip or recipe.turn
        many = len(data) * self.architecture.classes > MOST_TAUGHT
        if self.teacher is None or self.taught is not None or is_moving or many:
            return
        places = torch.split(torch.arange(len(data)), TAUGHT_BATCH)
        answers = [self._taught(normalised(data.batch(part)[0])) for part in places]
        self.taught = torch.cat(answers)

    def _taught(
        self, pixels: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch classes"]:
        assert self.teacher is not None
        with torch.inference_mode():
            logits = self.teacher(pixels, orders=UNIFORM).logits
        return logits.clone()

    def _step(
        self,
        images: Images,
        labels: Int[Tensor, " batch"],
        taught: Float[Tensor, "batch classes"] | None,
        step: int,
        batches: int,
    ) -> dict[str, Float[Tensor, ""]]:
        recipe = self.recipe
        rate = learning_rate(step, recipe.epochs * batches, recipe)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        orders = self._orders(step / batches)
        moved = augmented(images, recipe.largest_shift, recipe.flip, self.generator)
        pixels = normalised(turned(moved, self.generator) if recipe.turn else moved)
        # On a CPU the fused attention's backward pass is slow in bf16; plain products are not.
        backend = SDPBackend.MATH if recipe.precision == "amp_bf16" else SDPBackend.FLASH_ATTENTION
        with _precision(recipe.precision), sdpa_kernel([backend, SDPBackend.MATH]):
            output: Output = self.model(pixels, orders=orders)
        terms = losses.total_loss(
            output, labels, self.architecture, recipe.losses, uniform=orders.uniform
        )
        if self.teacher is not None:
            taught = self._taught(pixels) if taught is None else taught
            terms["distillation"] = losses.distilled(output.logits, taught, recipe.temperature)
            terms["total"] = (1 - recipe.distillation) * terms["total"] + (
                recipe.distillation * terms["distillation"]
            )
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        terms["total"].backward()  # type: ignore[no-untyped-call] # torch leaves it so
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.largest_gradient)
        for optimizer in self.optimizers:
            optimizer.step()
        self._rebalance(output, orders)
        return terms

    def _orders(self, epochs: float) -> Orders:
        """Where this batch's tokens go: everywhere, as far as a drawn budget, or as the router says."""
        recipe, recursions = self.recipe, self.architecture.recursions
        lot, share = torch.rand(2, generator=self.generator).tolist()
        # As long as later recursions are not learned, everything at full depth would only disturb.
        grows = recipe.warm_from == "first" and epochs < recipe.warm_epochs
        if lot < recipe.uniform_share and not grows:
            return UNIFORM
        if recipe.budgets is not None:
            low, high = recipe.budgets
            budget = low + (high - low) * share
            return Orders(
                capacities=warmed(capacities_of_budget(budget, recursions), epochs, recipe)
            )
        if recipe.warm_epochs and recipe.capacities is not None:
            return Orders(capacities=warmed(recipe.capacities, epochs, recipe))
        return Orders()

    def _rebalance(self, output: Output, orders: Orders) -> None:
        router, step = self.model.router, self.recipe.bias_step
        if not step or orders.uniform:
            return
        assert isinstance(router, TokenChoice)
        recursions = self.architecture.recursions
        chosen = router.depths(output.router_logits.detach()) + 1
        aims = self.recipe.losses.depth_shares or (1 / recursions,) * recursions
        router.rebalance(losses.depth_load(chosen, recursions), aims, step)

    def watch(self, test: LabelledImages) -> Line:
        """Add to the last epoch's line what the network does on the watched test images."""
        images, labels = test.batch(torch.arange(min(WATCHED_IMAGES, len(test))))
        routed = evaluated(self.model, images, labels)
        line = {**self.history[-1], "accuracy": routed.accuracy}
        if self.architecture.is_routed:
            everywhere = evaluated(self.model, images, labels, UNIFORM)
            line["uniform_accuracy"] = everywhere.accuracy
            line |= routing_line(routed, self.architecture, self.recipe.losses)
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
        self.model.load_state_dict(_below("model.", tensors))
        for number, optimizer in enumerate(self.optimizers):
            moments: dict[int, dict[str, Tensor]] = {}
            for name, tensor in _below(f"optimizer-{number}.", tensors).items():
                place, moment = name.split(".")
                moments.setdefault(int(place), {})[moment] = tensor
            # A weight that never had a gradient has no moments; they were stored as zeros.
            moments = {
                place: each for place, each in moments.items() if float(each.get("step", 1)) > 0
            }
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.generator.set_state(tensors["generator"])

    def _started_as(self) -> str:
        teacher = "" if self.teacher is None else digest_of(self.teacher)
        return json.dumps([self.architecture.key(), self.recipe.key(), self.seed, teacher])

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {name: torch.zeros(kind.shape) for name, kind in self._kinds().items()}
        tensors |= {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            for place, moments in optimizer.state_dict()["state"].items():
                tensors |= {
                    f"optimizer-{number}.{place}.{name}": value for name, value in moments.items()
                }
        return {**tensors, "generator": self.generator.get_state()}

    def _kinds(self) -> dict[str, Kind]:
        kinds = {f"model.{name}": Kind.of(value) for name, value in self.model.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            moments, has_steps = MOMENTS[type(optimizer)]
            ordered = [each for group in optimizer.param_groups for each in group["params"]]
            for place, parameter in enumerate(ordered):
                beginning = f"optimizer-{number}.{place}"
                kinds |= {f"{beginning}.{moment}": Kind.of(parameter) for moment in moments}
                if has_steps:
                    kinds[f"{beginning}.step"] = Kind("F32", ())
        return {**kinds, "generator": Kind.of(self.generator.get_state())}


# Tables of vectors: as little decayed as biases are.
NOT_DECAYED = ("prefix", "positions", "depth_embeddings")
# What each optimiser remembers of a weight, and whether it counts steps.
MOMENTS: dict[type[torch.optim.Optimizer], tuple[tuple[str, ...], bool]] = {
    torch.optim.AdamW: (("exp_avg", "exp_avg_sq"), True),
    Muon: (("momentum_buffer",), False),
}


def optimizers_of(model: MoRViT, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW for everything; or Muon for the matrices of the layers, at AdamW's scale of updates.

    Muon's updates have AdamW's size, so one learning rate serves both. Embeddings, head and router
    keep AdamW; vectors are not decayed.
    """
    named = list(model.named_parameters())
    by_muon = [
        weight
        for name, weight in named
        if recipe.optimizer == "muon" and weight.ndim == 2 and "layers" in name
    ]
    is_by_muon = {id(weight) for weight in by_muon}
    rest = [(name, weight) for name, weight in named if id(weight) not in is_by_muon]
    decayed = [weight for name, weight in rest if weight.ndim > 1 and name not in NOT_DECAYED]
    is_decayed = {id(weight) for weight in decayed}
    others = [weight for _, weight in rest if id(weight) not in is_decayed]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups)
    if not by_muon:
        return (adam,)
    return adam, Muon(by_muon, weight_decay=recipe.weight_decay)


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to zero (arXiv 1608.03983)."""
    warmup = max(1, round(recipe.warmup_share * steps))
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2


def warmed(shares: tuple[float, ...], epochs: float, recipe: Recipe) -> tuple[float, ...]:
    """Capacities on their way to `shares`, by half a cosine over the warm epochs.

    They come from one, or, where the recipe grows from the first recursion, from one in that and
    nothing in the others.

    >>> warmed((0.5,), 1.0, Recipe(epochs=4, warm_epochs=2.0))
    (0.75,)
    >>> warmed((0.8, 0.5), 1.0, Recipe(epochs=4, warm_epochs=2.0, warm_from="first"))
    (0.9, 0.25)
    """
    if epochs >= recipe.warm_epochs:
        return shares
    left = (1 + math.cos(math.pi * epochs / recipe.warm_epochs)) / 2
    others = 1.0 if recipe.warm_from == "full" else 0.0
    started = (1.0,) + (others,) * (len(shares) - 1)
    return tuple(
        share + (began - share) * left for share, began in zip(shares, started, strict=True)
    )


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


def turned(
    images: UInt8[Tensor, "batch channels side side"], generator: torch.Generator
) -> UInt8[Tensor, "batch channels side side"]:
    """Each image turned by none, one, two or three right angles: for what has no upside."""
    quarters = torch.randint(0, 4, (len(images),), generator=generator)
    whole = torch.empty_like(images)
    for quarter in range(4):
        chosen = quarters == quarter
        whole[chosen] = torch.rot90(images[chosen], quarter, (2, 3))
    return whole


def digest_of(model: MoRViT) -> str:
    """The SHA-256 of all weights, in order."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode() + weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _below(beginning: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(beginning): tensor
        for name, tensor in tensors.items()
        if name.startswith(beginning)
    }


def _precision(precision: Literal["fp32", "amp_bf16"]) -> AbstractContextManager[object]:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast("cpu", dtype=torch.bfloat16)
