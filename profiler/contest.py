"""What the trained networks of the comparison get right: over seeds, by budget, by contrast of defect."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from domain.complaint import Complaint, CorruptFile, first_error
from domain.record import Record, Sentence
from domain.statistics import share_interval
from domain.store import load, read_limited
from domain.tables import Cell
from morvit.data import normalised
from morvit.evaluation import EVALUATION_BATCH
from morvit.inspection import DEFECTS, LEAST_CONTRAST, MOST_CONTRAST, inspection
from morvit.presets import NETWORKS, SETTINGS, NetworkName, Task
from morvit.weights import Card, load_checkpoint

MOST_PARAMETERS, MOST_LOST, LEAST_VIT = 0.32, 0.005, 0.90
# Differences of shares of ten thousand images are never this small.
TINY = 1e-9
CONTROLS: tuple[NetworkName, ...] = ("shallow", "recursive", "random")
# Grey levels between which defects are told apart by how hard they are to see.
CONTRASTS = tuple(np.linspace(LEAST_CONTRAST, MOST_CONTRAST, 5))


Part = Literal["accuracy", "contrast", "packing", "throughput", "compiled"]


class Row(Record):
    """One figure: the bar it is held against, its interval, and how it came about.

    `met` is None where no bar is set: the figure is shown beside the others. What was not measured
    has no value, and misses its bar. `part` is that of the bench, which can be run anew alone.
    """

    bar: Sentence
    value: float | None
    low: float | None
    high: float | None
    unit: Sentence
    seed: Sentence
    command: Sentence
    met: bool | None = None
    part: Part | None = None


STORED = TypeAdapter(list[Row])
LARGEST_TABLE_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network of the comparison: its cards by seed, and one checkpoint to run."""

    task: Task
    network: NetworkName
    cards: Mapping[int, Card]
    checkpoint: Path | None


def parts_named(names: str | None) -> tuple[Part, ...]:
    """The parts of the bench that a comma-separated list names; all of them without one.

    Raises Complaint. Compiling takes minutes a network: it is done where it is asked for.
    """
    known: tuple[Part, ...] = get_args(Part)
    if names is None:
        return tuple(each for each in known if each != "compiled")
    asked = [each.strip() for each in names.split(",")]
    strange = [each for each in asked if each not in known]
    if strange:
        raise Complaint(f"no part {strange[0]!r} of the bench; there are {', '.join(known)}")
    return tuple(each for each in known if each in asked)


def rows_kept(path: Path, parts: Sequence[Part]) -> list[Row]:
    """Rows of a stored table that are of other parts. Raises CorruptFile."""
    if not path.exists():
        return []
    try:
        rows = STORED.validate_json(read_limited(path, LARGEST_TABLE_BYTES))
    except ValidationError as error:
        raise CorruptFile(f"{path} is no table of the bench: {first_error(error)}") from error
    return [row for row in rows if row.part is not None and row.part not in parts]


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows part by part, as one whole run gives them."""
    known = get_args(Part)
    return sorted(rows, key=lambda row: known.index(row.part))


def cells_of(row: Row) -> dict[str, Cell]:
    """A row of the table."""
    shown = {"met": {True: "PASS", False: "FAIL", None: ""}[row.met]}
    return {
        "bar": row.bar,
        **{
            name: None if value is None else f"{value:.4g}"
            for name, value in (("value", row.value), ("low", row.low), ("high", row.high))
        },
        "unit": row.unit,
        "seed": row.seed,
        **shown,
    }


def trained_in(folder: Path) -> list[Trained]:
    """Networks of the comparison in a folder and below it, as `<network>-<task>-<seed>.json`."""
    found = []
    for task in SETTINGS:
        for network in NETWORKS:
            cards: dict[int, Card] = {}
            checkpoint: Path | None = None
            for path in sorted(folder.rglob(f"{network}-{task}-*.json")):
                if not path.stem.rpartition("-")[2].isdigit():
                    continue
                card = load(path, Card)
                cards[card.seed] = card
                if checkpoint is None and path.with_suffix(".safetensors").exists():
                    checkpoint = path.with_suffix(".safetensors")
            if cards:
                found.append(
                    Trained(task=task, network=network, cards=cards, checkpoint=checkpoint)
                )
    return found


def accuracy_rows(trained: Sequence[Trained], command: str) -> Iterator[Row]:
    """Weights and accuracy of the networks, over the seeds that were trained."""
    for task in SETTINGS:
        networks = {each.network: each for each in trained if each.task == task}
        for name, each in networks.items():
            row = _spread(f"accuracy of {name}, {task}", _accuracies(each), command)
            if (name, task) == ("vit", "fashion-mnist"):
                row = _judged(row, f"accuracy of vit >= {LEAST_VIT}, {task}", LEAST_VIT)
            yield row
        bar = f"accuracy of morvit minus vit >= -{MOST_LOST} over three seeds, {task}"
        if "vit" not in networks or "morvit" not in networks:
            yield not_measured(bar, command)
            continue
        routed, plain = networks["morvit"], networks["vit"]
        share = _parameters(routed) / _parameters(plain)
        yield Row(
            bar=f"parameters of morvit over vit <= {MOST_PARAMETERS}, {task}",
            value=share,
            low=share,
            high=share,
            unit="ratio",
            seed="none",
            command=command,
            met=share <= MOST_PARAMETERS,
        )
        yield _judged(_lead(routed, plain, bar, command), bar, -MOST_LOST, least_seeds=3)
        for control in CONTROLS:
            bar = f"accuracy of morvit minus {control} > 0, {task}"
            if control in networks:
                yield _judged(_lead(routed, networks[control], bar, command), bar, TINY)
            else:
                yield not_measured(bar, command)
        if "distilled" in networks:
            bar = f"accuracy of distilled (morvit taught by vit) minus vit, {task}"
            yield _lead(networks["distilled"], plain, bar, command)
        uniform = {seed: card.uniform_accuracy for seed, card in routed.cards.items()}
        yield _spread(f"accuracy of morvit at uniform depth, {task}", uniform, command)
        for budget in sorted({each.budget for c in routed.cards.values() for each in c.by_budget}):
            reached = {
                seed: each.accuracy
                for seed, card in routed.cards.items()
                for each in card.by_budget
                if each.budget == budget
            }
            yield _spread(f"accuracy of morvit at budget {budget:g}, {task}", reached, command)


def is_as_accurate(trained: Sequence[Trained], task: Task) -> bool:
    """Whether MoR-ViT loses no more against the ViT than it may, over the seeds that both have."""
    networks = {each.network: each for each in trained if each.task == task}
    lead = _lead(networks["morvit"], networks["vit"], "lead", "none").value
    return lead is not None and lead >= -MOST_LOST - TINY


def _lead(one: Trained, other: Trained, bar: str, command: str) -> Row:
    """How much more accurate `one` is, seed by seed."""
    theirs = _accuracies(other)
    leads = {
        seed: accuracy - theirs[seed]
        for seed, accuracy in _accuracies(one).items()
        if seed in theirs
    }
    return _spread(bar, leads, command) if leads else not_measured(bar, command)


def _judged(row: Row, bar: str, least: float, least_seeds: int = 1) -> Row:
    seeds = 0 if row.value is None else row.seed.count(",") + 1
    is_met = row.value is not None and row.value >= least - TINY and seeds >= least_seeds
    return Row(**{**dict(row), "bar": bar, "met": is_met})


def not_measured(bar: str, command: str) -> Row:
    """A bar that no figure was held against: missed."""
    return Row(
        bar=bar,
        value=None,
        low=None,
        high=None,
        unit="not measured: a network of the comparison was not trained here",
        seed="none",
        command=command,
        met=False,
    )


def _accuracies(trained: Trained) -> dict[int, float]:
    return {seed: card.accuracy for seed, card in sorted(trained.cards.items())}


def _parameters(trained: Trained) -> int:
    return next(iter(trained.cards.values())).architecture.parameters


def _spread(bar: str, by_seed: Mapping[int, float], command: str) -> Row:
    values = list(by_seed.values())
    return Row(
        bar=bar,
        value=sum(values) / len(values),
        low=min(values),
        high=max(values),
        unit="share of test images; mean and range over seeds",
        seed=",".join(map(str, sorted(by_seed))),
        command=command,
    )


def contrast_rows(
    trained: Sequence[Trained],
    command: str,
    count: int = SETTINGS["inspection"].test_images,
) -> Iterator[Row]:
    """What an inspector asks: defects found and called by name, by their contrast; false alarms.

    On `count` test images of the inspection task, by one checkpoint of each network, routed as it chooses.
    """
    networks = [each for each in trained if each.task == "inspection" and each.checkpoint]
    if not networks:
        return
    images = inspection("test", count)
    labels = images.labelled.labels.numpy()
    has_defect = labels != DEFECTS.index("none")
    for each in networks:
        assert each.checkpoint is not None
        model, card = load_checkpoint(each.checkpoint)
        with torch.inference_mode():
            answers = torch.cat(
                [
                    model(normalised(part)).logits.argmax(dim=1)
                    for part in torch.split(images.labelled.images, EVALUATION_BATCH)
                ]
            ).numpy()
        for low, high in pairwise(CONTRASTS):
            chosen = has_defect & (images.contrast >= low) & (images.contrast < high)
            where = f"by {each.network}, contrast {low:.0f} to {high:.0f} grey levels, inspection"
            found = answers[chosen] != DEFECTS.index("none")
            named = answers[chosen] == labels[chosen]
            yield _share(f"defects found {where}", found, card.seed, command)
            yield _share(f"defects called by their name {where}", named, card.seed, command)
        alarms = answers[~has_defect] != DEFECTS.index("none")
        yield _share(f"false alarms by {each.network}, inspection", alarms, card.seed, command)


def _share(bar: str, hits: NDArray[np.bool_], seed: int, command: str) -> Row:
    seen = share_interval(int(hits.sum()), len(hits))
    return Row(
        bar=bar,
        value=seen.value,
        low=seen.low,
        high=seen.high,
        unit=f"share of {len(hits)} test images; 95 % interval",
        seed=str(seed),
        command=command,
    )
