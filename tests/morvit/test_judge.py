"""A checkpoint judged again: what it gives by budget, and a card that keeps the rest."""

import json

import pytest
from typer.testing import CliRunner

from domain.card import AtBudget
from domain.store import load, save
from morvit import judge as judge_module
from morvit.judge import app
from morvit.train import train_on
from morvit.training import Training
from morvit.weights import Card, Recipe, card_path, load_checkpoint
from tests.morvit.networks import changed
from tests.morvit.test_train import RECIPE, blobs

ROUTED = changed(router="expert-choice", recursions=4)
RECIPE_OF = Recipe(**{**dict(RECIPE), "epochs": 1, "capacities": (1.0, 0.5, 0.3, 0.2)})


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_module, "images_of", lambda task, split, folder: blobs())
    data = blobs()
    train_on(Training(ROUTED, RECIPE_OF, 0), data, data, data, tmp_path, "test", "toy")
    return tmp_path / "toy.safetensors"


def asked(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_what_comes_out_is_what_training_wrote_and_an_update_keeps_the_rest(checkpoint):
    before = load(card_path(checkpoint), Card)
    result = asked(checkpoint, "--budgets", "0.2,0.5", "--format", "json")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    written = {each.budget: each for each in before.by_budget}
    assert [row["accuracy"] for row in rows] == [written[b].accuracy for b in (0.2, 0.5)]
    assert load(card_path(checkpoint), Card) == before

    stale = [AtBudget(budget=0.2, mean_depth=0.2, accuracy=0.0), *before.by_budget[-2:]]
    _, card = load_checkpoint(checkpoint)
    save(Card(**{**dict(card), "by_budget": tuple(stale)}), card_path(checkpoint))
    assert asked(checkpoint, "--budgets", "0.2", "--update").exit_code == 0
    after = load(card_path(checkpoint), Card)
    assert after.by_budget == (written[0.2], *before.by_budget[-2:])
    load_checkpoint(checkpoint)


def test_the_control_draws_who_enters_and_writes_no_card(checkpoint):
    before = load(card_path(checkpoint), Card)
    rows = json.loads(
        asked(checkpoint, "--budgets", "0.2,0.5", "--by-chance", "--format", "json").stdout
    )
    again = asked(checkpoint, "--budgets", "0.2,0.5", "--by-chance", "--format", "json")
    assert json.loads(again.stdout) == rows
    written = {each.budget: each for each in before.by_budget}
    # As many patches; where all enter the first recursion there is nothing to draw.
    assert [row["mean_depth"] for row in rows] == [written[b].mean_depth for b in (0.2, 0.5)]
    assert rows[1]["accuracy"] == written[0.5].accuracy
    refused = asked(checkpoint, "--by-chance", "--update")
    assert "leave out --update" in str(refused.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--budgets", "much"), "wanted --budgets"),
        (("--budgets", "0"), "over 0"),
        (("--budgets", "nan"), "over 0"),
        (("--task", "mnist"), "no task"),
    ],
)
def test_what_is_asked_wrongly_is_refused(checkpoint, arguments, said):
    result = asked(checkpoint, *arguments)
    assert result.exit_code != 0
    assert said in str(result.exception)


def test_a_checkpoint_of_another_task_is_refused(checkpoint, monkeypatch):
    other = blobs()
    monkeypatch.setattr(
        judge_module,
        "images_of",
        lambda task, split, folder: type(other)(
            images=other.images, labels=other.labels, names=tuple("vwxyz"), origin="other"
        ),
    )
    assert "knows a, b, c, d, e" in str(asked(checkpoint).exception)


def test_a_network_without_a_router_is_refused_before_anything_is_run(tmp_path):
    data = blobs()
    plain = changed(recursions=1)
    recipe = Recipe(**{**dict(RECIPE), "epochs": 1})
    train_on(Training(plain, recipe, 0), data, data, data, tmp_path, "test", "plain")
    assert "no router" in str(asked(tmp_path / "plain.safetensors").exception)
