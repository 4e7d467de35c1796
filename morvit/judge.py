"""`python -m morvit.judge`: what a checkpoint gives at each budget, by today's code."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from domain.card import AtBudget
from domain.complaint import Complaint
from domain.shell import emit, format_named, run_shell
from domain.store import save
from domain.tables import Cell, rendered
from morvit import router
from morvit.data import DEBIAN_FOLDER, LabelledImages
from morvit.evaluation import BUDGETS, by_budget
from morvit.model import MoRViT
from morvit.presets import images_of, task_named
from morvit.router import ExpertChoice
from morvit.weights import Card, card_path, load_checkpoint

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    epilog="Example: python -m morvit.judge results/reference/networks/morvit-inspection-0.safetensors "
    "--task inspection --budgets 0.15,0.2"
)
def judge(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors file with its card beside.")],
    task: Annotated[str, typer.Option(help="fashion-mnist or inspection.")] = "fashion-mnist",
    budgets: Annotated[
        str, typer.Option(help="Mean depths over the full one, by comma.")
    ] = ",".join(map(str, BUDGETS)),
    update: Annotated[
        bool, typer.Option("--update", help="Write what came out into the card.")
    ] = False,
    by_chance: Annotated[
        bool,
        typer.Option(
            "--by-chance",
            help="Control: draw who enters where the router was never taught to choose.",
        ),
    ] = False,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    data: Annotated[
        Path, typer.Option(help="Folder of the Fashion-MNIST IDX files.")
    ] = DEBIAN_FOLDER,
    format: Annotated[str, typer.Option(help="table, json, csv or md")] = "table",
) -> None:
    """Accuracy on the test images of a task at each budget, without training again."""
    torch.set_num_threads(threads)
    shape, chosen, wanted = format_named(format), task_named(task), budgets_named(budgets)
    model, card = load_checkpoint(checkpoint)
    if not card.architecture.is_routed:
        raise Complaint(f"{checkpoint} has no router: it takes everything everywhere")
    if by_chance:
        _draw_lots(model, update)
    train, test = (images_of(chosen, split, data) for split in ("train", "test"))
    _check_it_is_of(card, test, task)
    points = by_budget(model, test, train, wanted)
    emit(rendered([row_of(each) for each in points], shape), None)
    if update:
        kept = {each.budget: each for each in (*card.by_budget, *points)}
        ordered = tuple(kept[budget] for budget in sorted(kept))
        save(Card(**{**dict(card), "format": 2, "by_budget": ordered}), card_path(checkpoint))


def budgets_named(text: str) -> tuple[float, ...]:
    """Budgets from a list by comma. Raises Complaint."""
    try:
        found = tuple(float(each) for each in text.split(","))
    except ValueError as error:
        raise Complaint(f"wanted --budgets like 0.2,0.5, got {text!r}") from error
    if not all(0 < each <= 1 for each in found):
        raise Complaint(f"wanted --budgets over 0 and up to 1, got {text!r}")
    return found


def row_of(point: AtBudget) -> dict[str, Cell]:
    """A budget's row of the table."""
    return {
        "budget": point.budget,
        "mean_depth": point.mean_depth,
        "accuracy": point.accuracy,
        "threshold_mean_depth": point.threshold_mean_depth,
        "threshold_accuracy": point.threshold_accuracy,
    }


def _draw_lots(model: MoRViT, update: bool) -> None:
    if update:
        raise Complaint("--by-chance is a control, which no card tells; leave out --update")
    if not isinstance(model.router, ExpertChoice):
        raise Complaint("--by-chance is for expert choice; the router of this network is another")
    model.router.untaught = router.by_chance


def _check_it_is_of(card: Card, test: LabelledImages, task: str) -> None:
    net = card.architecture
    came = (net.image_size, net.channels, card.classes)
    asked = (test.images.shape[-1], test.images.shape[1], test.names)
    if came != asked:
        raise Complaint(
            f"the checkpoint takes images of {came[0]} pixels and {came[1]} channels and knows "
            f"{', '.join(came[2])}; --task {task} has {asked[0]}, {asked[1]} and {', '.join(asked[2])}"
        )


def main() -> None:
    """The command."""
    run_shell(app)


if __name__ == "__main__":
    main()
