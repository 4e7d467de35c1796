import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from domain.complaint import Complaint, CorruptFile
from morvit import losses
from morvit import train as train_module
from morvit import training as training_module
from morvit.data import LabelledImages, normalised
from morvit.losses import LossWeights
from morvit.model import MoRViT
from morvit.train import train_on
from morvit.training import UNIFORM, Training, augmented, learning_rate, turned, warmed
from morvit.weights import Recipe, load_checkpoint
from tests.morvit.networks import TOY, changed

RECIPE = Recipe(epochs=3, batch=8, uniform_share=0.3, precision="fp32", largest_shift=1)


def blobs(count: int = 40, seed: int = 0) -> LabelledImages:
    """Five classes, told by which row of the image is bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 5
    images = torch.randint(0, 60, (count, 1, 8, 8), generator=generator).byte()
    images[torch.arange(count), 0, labels] = 255
    return LabelledImages(images=images, labels=labels, names=tuple("abcde"), origin="blobs")


def run(out, recipe=RECIPE, architecture=TOY, epochs=None, seed=0):
    training = Training(architecture, recipe, seed)
    data = blobs()
    if epochs is None:
        train_on(training, data, data, data, out, "test")
    else:
        for _ in range(epochs):
            list(training.run_epoch(data))
            training.watch(data)
        training.save(out / "state.safetensors")
    return training


ROUTES = {
    "token-choice": {"bias_step": 0.01},
    "expert-choice": {"budgets": (0.3, 0.8), "warm_epochs": 1.5},
    "random": {"capacities": (1.0, 0.5, 0.2), "optimizer": "muon"},
}


@pytest.mark.parametrize("router", ROUTES)
def test_killing_and_resuming_gives_the_same_weights_bit_for_bit(tmp_path, router):
    architecture = changed(router=router, router_bias=True)
    recipe = Recipe(**{**dict(RECIPE), **ROUTES[router]})
    whole = run(tmp_path / "whole", recipe, architecture)
    run(tmp_path / "parts", recipe, architecture, epochs=1)
    resumed = run(tmp_path / "parts", recipe, architecture)
    assert resumed.history == whole.history
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
    name = f"{TOY.name}.safetensors"
    assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    logs = [(tmp_path / part / "log.jsonl").read_text() for part in ("whole", "parts")]
    assert logs[0] == logs[1]


def test_training_lowers_the_loss_and_logs_every_epoch(tmp_path):
    recipe = Recipe(**{**dict(RECIPE), "epochs": 12, "learning_rate": 0.01, "largest_shift": 0})
    run(tmp_path, recipe)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 13))
    assert lines[-1]["losses"]["cross_entropy"] < 0.7 * lines[0]["losses"]["cross_entropy"]
    assert set(lines[0]) == {
        "epoch",
        "losses",
        "accuracy",
        "uniform_accuracy",
        "survival",
        "mean_depth",
        "count_deviation",
        "dead_token_ratio",
        "max_violation",
        "entropy",
    }
    _, card = load_checkpoint(tmp_path / "toy.safetensors")
    assert card.trained_epochs == 12
    assert card.accuracy == lines[-1]["accuracy"]


def test_another_recipe_does_not_go_on_from_this_state(tmp_path):
    run(tmp_path, epochs=1)
    other = Recipe(**{**dict(RECIPE), "losses": LossWeights(balancing=0.5)})
    with pytest.raises(Complaint, match="another network, recipe or seed"):
        run(tmp_path, other)
    with pytest.raises(Complaint, match="another network, recipe or seed"):
        run(tmp_path, seed=1)


def test_a_torn_state_is_refused(tmp_path):
    run(tmp_path, epochs=1)
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-9])
    with pytest.raises(CorruptFile, match="bytes of tensors"):
        run(tmp_path)


def test_a_loss_that_is_no_number_stops_the_training(tmp_path, monkeypatch):
    training = Training(TOY, RECIPE, 0)
    with torch.no_grad():
        training.model.head.weight.fill_(float("nan"))
    with pytest.raises(Complaint, match="no longer a number"):
        list(training.run_epoch(blobs()))


def test_the_learning_rate_warms_up_and_falls_to_zero():
    recipe = Recipe(epochs=1, learning_rate=1.0, warmup_share=0.1)
    rates = [learning_rate(step, 100, recipe) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == 0.0


def test_augmentation_moves_and_mirrors_but_keeps_pixels():
    images = torch.zeros(256, 1, 6, 6, dtype=torch.uint8)
    images[:, 0, 2, 1] = 200
    moved = augmented(images, 1, True, torch.Generator().manual_seed(0))
    assert (moved.sum(dim=(1, 2, 3)) == 200).all()
    places = {tuple(place[2:].tolist()) for place in moved.nonzero()}
    assert places == {(row, column) for row in (1, 2, 3) for column in (0, 1, 2, 3, 4, 5)}
    still = augmented(images, 0, False, torch.Generator().manual_seed(0))
    assert torch.equal(still, images)


def test_turning_makes_the_four_turns_of_an_image_and_no_other():
    images = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3).expand(64, 1, 3, 3).contiguous()
    seen = {tuple(each.flatten().tolist()) for each in turned(images, torch.Generator())}
    wanted = {tuple(torch.rot90(images[0, 0], k).flatten().tolist()) for k in range(4)}
    assert seen == wanted


@given(
    st.lists(st.floats(0.01, 1), min_size=2, max_size=5),
    st.floats(0, 3),
    st.sampled_from(["full", "first"]),
)
def test_warming_never_leaves_the_way_between_its_ends(shares, epochs, warm_from):
    shares = tuple(sorted(shares, reverse=True))
    recipe = Recipe(epochs=4, warm_epochs=2.0, warm_from=warm_from)
    now = warmed(shares, epochs, recipe)
    if epochs >= 2:
        assert now == shares
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(now))
    assert shares[0] - 1e-12 <= now[0] <= 1
    sign = 1 if warm_from == "full" else -1
    assert all(sign * (a - b) >= -1e-12 for a, b in zip(now[1:], shares[1:], strict=True))


@pytest.fixture
def command(monkeypatch):
    monkeypatch.setattr(train_module, "images_of", lambda task, split, folder: _grown(blobs(16)))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)

    def invoke(*arguments):
        return CliRunner().invoke(train_module.app, arguments)

    return invoke


def _grown(data: LabelledImages) -> LabelledImages:
    images = data.images.repeat(1, 1, 4, 4)[..., :28, :28]
    return LabelledImages(images=images, labels=data.labels, names=data.names, origin="blobs")


@pytest.mark.parametrize("router", ["token-choice", "expert-choice"])
def test_the_command_trains_and_leaves_a_checkpoint(tmp_path, command, router):
    options = ("--out", str(tmp_path), "--epochs", "1", "--batch", "8", "--router", router)
    result = command(*options)
    assert result.exit_code == 0, result.output
    *epochs, last = map(json.loads, result.stdout.splitlines())
    assert len(epochs) == 1
    assert set(last) == {"accuracy", "uniform_accuracy", "survival"}
    _, card = load_checkpoint(tmp_path / "morvit-fmnist.safetensors")
    assert card.architecture.router == router
    again = command(*options)
    assert again.stdout.splitlines() == [json.dumps(last, separators=(",", ":"))]


def test_the_command_reads_folders(tmp_path, command):
    image = pytest.importorskip("PIL.Image")
    for name in ("good", "bad"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for place in range(6):
            image.new("L", (8, 8), 40 * place).save(tmp_path / "data" / name / f"{place}.png")
    result = command(
        "--folder", str(tmp_path / "data"), "--image-size", "8", "--epochs", "1", "--batch", "4",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "morvit-folder.safetensors").exists()


def test_a_teacher_pulls_the_answers_towards_its_own():
    data = blobs()
    recipe = Recipe(**{**dict(RECIPE), "epochs": 6, "distillation": 1.0, "learning_rate": 0.01,
                       "largest_shift": 0, "flip": False, "uniform_share": 1.0})  # fmt: skip
    torch.manual_seed(7)
    teacher = MoRViT(changed(recursions=1)).eval()
    training = Training(TOY, recipe, 0, teacher)
    with torch.inference_mode():
        taught = teacher(normalised(data.images)).logits
        before = training.model.eval()(normalised(data.images), orders=UNIFORM).logits
    for _ in range(6):
        list(training.run_epoch(data))
    with torch.inference_mode():
        after = training.model.eval()(normalised(data.images), orders=UNIFORM).logits
    assert losses.distilled(after, taught, 1.0) < 0.5 * losses.distilled(before, taught, 1.0)
    assert all(weight.grad is None for weight in teacher.parameters())


class Counted(MoRViT):
    """A teacher that remembers how many images it was shown."""

    shown = 0

    def forward(self, images, **how):
        """As any, counted."""
        self.shown += len(images)
        return super().forward(images, **how)


def distilled_run(most_taught, monkeypatch, **changes):
    monkeypatch.setattr(training_module, "MOST_TAUGHT", most_taught)
    monkeypatch.setattr(training_module, "TAUGHT_BATCH", 16)  # 40 images: the last part is short
    still = {"largest_shift": 0, "flip": False, "distillation": 0.5, **changes}
    torch.manual_seed(7)
    teacher = Counted(changed(recursions=1))
    training = Training(TOY, Recipe(**{**dict(RECIPE), **still}), 0, teacher)
    for _ in range(3):
        list(training.run_epoch(blobs()))
    return training.model.state_dict(), teacher.shown


def test_a_teacher_is_asked_once_of_images_that_stay_as_they_are(monkeypatch):
    once, shown = distilled_run(1000, monkeypatch)
    anew, shown_anew = distilled_run(0, monkeypatch)
    assert (shown, shown_anew) == (40, 120)
    for name, weight in anew.items():
        assert once[name] == pytest.approx(weight, abs=1e-4), name


@pytest.mark.parametrize("moving", [{"largest_shift": 1}, {"flip": True}, {"turn": True}])
def test_a_teacher_is_asked_anew_of_images_that_move(monkeypatch, moving):
    assert distilled_run(1000, monkeypatch, **moving)[1] == 120


def test_a_taught_network_resumes_bit_for_bit(tmp_path):
    recipe = Recipe(**{**dict(RECIPE), "distillation": 0.5, "largest_shift": 0, "flip": False})
    torch.manual_seed(7)
    teacher = MoRViT(changed(recursions=1))
    ended = []
    for stops in ((), (1, 2)):
        training = Training(TOY, recipe, 0, teacher)
        for epoch in range(3):
            if epoch in stops:
                training.save(tmp_path / "state.safetensors")
                training = Training(TOY, recipe, 0, teacher)
                training.resume(tmp_path / "state.safetensors")
            list(training.run_epoch(blobs()))
        ended.append(training.model.state_dict())
    for name, weight in ended[0].items():
        assert torch.equal(ended[1][name], weight), name


def test_distillation_and_a_teacher_come_together():
    with pytest.raises(Complaint, match="wants a teacher"):
        Training(TOY, Recipe(**{**dict(RECIPE), "distillation": 0.5}), 0)


def test_budgets_are_drawn_between_their_bounds_after_a_warm_up_from_full_depth():
    recipe = Recipe(**{**dict(RECIPE), "budgets": (0.3, 0.6), "warm_epochs": 1.0})
    training = Training(changed(router="expert-choice"), recipe, 0)
    warm = [training._orders(0.0) for _ in range(40)]
    later = [training._orders(1.0) for _ in range(200)]
    assert all(each.uniform or each.capacities == (1.0,) * 3 for each in warm)
    drawn = [sum(each.capacities) / 3 for each in later if not each.uniform]
    assert 0.3 <= min(drawn) < 0.35 < 0.55 < max(drawn) <= 0.6
    share = 1 - len(drawn) / len(later)
    assert share == pytest.approx(recipe.uniform_share, abs=0.12)


def test_while_a_network_grows_no_batch_goes_everywhere():
    grows = {"budgets": (0.4, 0.6), "warm_epochs": 1.0, "warm_from": "first"}
    training = Training(
        changed(router="expert-choice"),
        Recipe(**{**dict(RECIPE), **grows, "uniform_share": 0.5}),
        0,
    )
    early = [training._orders(0.01) for _ in range(60)]
    assert not any(each.uniform for each in early)
    assert all(each.capacities[0] == 1 and max(each.capacities[1:]) < 0.01 for each in early)
    later = [training._orders(1.0).uniform for _ in range(200)]
    assert sum(later) / len(later) == pytest.approx(0.5, abs=0.12)


def test_loss_free_balancing_evens_out_the_depths():
    data, violations = blobs(), []
    for step in (0.0, 0.05):
        recipe = Recipe(
            **{
                **dict(RECIPE),
                "epochs": 8,
                "bias_step": step,
                "losses": LossWeights(balancing=0.0),
            }
        )
        training = Training(changed(router_bias=step > 0), recipe, 1)
        with torch.no_grad():  # a router that sends everything to the first depth
            training.model.router.scores.bias[0] += 2.0
        for _ in range(8):
            list(training.run_epoch(data))
        violations.append(training.watch(data)["max_violation"])
    assert violations[1] < violations[0]


def test_weights_that_never_had_a_gradient_do_not_keep_a_run_from_going_on(tmp_path):
    """At uniform depth an expert-choice router learns nothing."""
    recipe = Recipe(**{**dict(RECIPE), "uniform_share": 1.0})
    architecture = changed(router="expert-choice")
    whole = run(tmp_path / "whole", recipe, architecture)
    run(tmp_path / "parts", recipe, architecture, epochs=1)
    resumed = run(tmp_path / "parts", recipe, architecture)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


def test_another_teacher_does_not_go_on_from_this_state(tmp_path):
    recipe = Recipe(**{**dict(RECIPE), "distillation": 0.5})
    one, other = (MoRViT(changed(recursions=1)) for _ in range(2))
    training = Training(TOY, recipe, 0, one)
    training.save(tmp_path / "state.safetensors")
    Training(TOY, recipe, 0, one).resume(tmp_path / "state.safetensors")
    with pytest.raises(Complaint, match="another network, recipe or seed"):
        Training(TOY, recipe, 0, other).resume(tmp_path / "state.safetensors")


def test_a_bias_that_is_not_there_cannot_be_moved():
    with pytest.raises(Complaint, match="router_bias"):
        Training(TOY, Recipe(**{**dict(RECIPE), "bias_step": 0.1}), 0)


def test_the_networks_of_the_comparison_are_for_their_tasks(tmp_path, command):
    result = command("--folder", str(tmp_path), "--network", "vit", "--out", str(tmp_path / "out"))
    assert isinstance(result.exception, Complaint)
    assert "leave out --network" in str(result.exception)
