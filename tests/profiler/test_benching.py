import json

import pytest
import torch
from typer.testing import CliRunner

from domain.card import AtBudget
from domain.complaint import Complaint, CorruptFile
from domain.record import Executor
from domain.store import load, save, write_whole
from morvit.data import LabelledImages
from morvit.inspection import DEFECTS
from morvit.model import MoRViT
from morvit.presets import architecture_of, recipe_of
from morvit.weights import Card, save_checkpoint
from profiler import benching, contest
from profiler.__main__ import app
from profiler.subjects import subject_of

EXECUTORS: tuple[Executor, ...] = ("capacity", "packed", "padded", "masked")
ACCURACY = {"vit": (0.91, 0.92, 0.93), "morvit": (0.91, 0.925, 0.92)}


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """Cards of three seeds of two networks, and one checkpoint of each; a few small images."""
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(benching, "BATCH", 2)
    monkeypatch.setattr(
        benching,
        "_test_images",
        lambda task: LabelledImages(
            images=torch.randint(0, 256, (4, 1, 28, 28), generator=generator).byte(),
            labels=torch.zeros(4, dtype=torch.int64),
            names=("one",),
            origin="noise",
        ),
    )
    for name, by_seed in ACCURACY.items():
        architecture, recipe = (
            each("fashion-mnist", name) for each in (architecture_of, recipe_of)
        )
        for seed, accuracy in enumerate(by_seed):
            card = Card(
                architecture=architecture, classes=("one",), data="noise", recipe=recipe, seed=seed,
                trained_epochs=1, test_images=4, accuracy=accuracy, uniform_accuracy=accuracy,
                survival=(1.0,) * architecture.recursions, command="test", torch="test",
                by_budget=(AtBudget(budget=0.5, mean_depth=0.5, accuracy=0.5),),
            )  # fmt: skip
            path = tmp_path / f"{name}-fashion-mnist-{seed}.safetensors"
            save_checkpoint(MoRViT(architecture, capacities=recipe.capacities), card, path)
            if seed:
                path.unlink()
    (tmp_path / "notes.json").write_text("{}")
    return tmp_path


def test_accuracy_is_the_mean_over_seeds_and_differences_are_of_the_same_seed(networks):
    rows = {row.bar: row for row in contest.accuracy_rows(contest.trained_in(networks), "c")}
    vit = rows["accuracy of vit >= 0.9, fashion-mnist"]
    assert (vit.value, vit.low, vit.high, vit.seed) == (pytest.approx(0.92), 0.91, 0.93, "0,1,2")
    lost = rows["accuracy of morvit minus vit >= -0.005 over three seeds, fashion-mnist"]
    assert lost.value == pytest.approx(-0.005 / 3)
    assert (lost.low, lost.high) == (pytest.approx(-0.01), pytest.approx(0.005))
    assert lost.met is True
    [parameters] = [row for bar, row in rows.items() if bar.startswith("parameters")]
    assert parameters.value <= 0.32
    assert parameters.met is True
    assert rows["accuracy of morvit at budget 0.5, fashion-mnist"].value == 0.5


def test_what_was_not_trained_misses_its_bar_and_has_no_figure(networks):
    rows = [*contest.accuracy_rows(contest.trained_in(networks), "c")]
    absent = {row.bar: row for row in rows if row.value is None}
    assert set(absent) == {
        "accuracy of morvit minus vit >= -0.005 over three seeds, inspection",
        *(
            f"accuracy of morvit minus {name} > 0, fashion-mnist"
            for name in ("shallow", "recursive", "random")
        ),
    }
    assert all(row.met is False for row in absent.values())
    assert contest.cells_of(next(iter(absent.values())))["value"] is None


def test_fewer_than_three_seeds_do_not_meet_the_bar(networks):
    for path in networks.glob("vit-*-2.json"):
        path.unlink()
    rows = [*contest.accuracy_rows(contest.trained_in(networks), "c")]
    [lost] = [row for row in rows if "minus vit" in row.bar and row.value is not None]
    assert lost.value == pytest.approx(0.0025)
    assert lost.met is False


def test_a_shallow_network_that_is_more_accurate_is_said_to_be(networks):
    better = networks / "shallow-fashion-mnist-0.json"
    card = load(networks / "vit-fashion-mnist-0.json", Card)
    save(Card(**{**dict(card), "accuracy": 0.95}), better)
    rows = {row.bar: row for row in contest.accuracy_rows(contest.trained_in(networks), "c")}
    lead = rows["accuracy of morvit minus shallow > 0, fashion-mnist"]
    assert lead.value == pytest.approx(-0.04)
    assert lead.met is False


def test_speed_counts_only_at_the_accuracy_of_the_vit(networks):
    trained = contest.trained_in(networks)
    assert contest.is_as_accurate(trained, "fashion-mnist")
    for path in networks.glob("morvit-*.json"):
        card = load(path, Card)
        path.unlink()
        save(Card(**{**dict(card), "accuracy": card.accuracy - 0.01}), path)
    assert not contest.is_as_accurate(contest.trained_in(networks), "fashion-mnist")


def test_every_executor_of_the_routed_network_is_held_against_the_plain_one(networks):
    rows = [*benching.speed_rows(contest.trained_in(networks), 0.01, "c")]
    assert [row.bar.split(" over")[0] for row in rows] == [
        *(f"throughput of morvit ({executor})" for executor in EXECUTORS),
        "throughput of vit (packed)",
        "throughput of morvit",
    ]
    for row in rows[:-1]:
        assert 0 < row.low <= row.value <= row.high
        assert row.met is None  # the bar is set on the inspection task
    assert rows[-1].value is None
    assert rows[-1].met is False


@pytest.mark.parametrize(("dense_s", "routed_s"), [(2.0, 1.0), (1.0, 1.0)])
def test_packing_is_held_against_the_work_that_the_router_asks_for(monkeypatch, dense_s, routed_s):
    monkeypatch.setattr(benching, "WIDTHS", (64,))
    monkeypatch.setattr(benching, "turn_about", lambda *named: ([dense_s] * 12, [routed_s] * 12))
    threads = torch.get_num_threads()
    packed, rate, masked = benching.packing_rows(0.01, "c", batches=(1,))
    assert torch.get_num_threads() == threads
    plain, routed = (
        subject_of(each, "cpu", 0)
        for each in (benching._plain(64, 1), benching._routed(64, 1, "packed"))
    )
    ideal_s = dense_s * sum(routed.flop("packed").values()) / sum(plain.flop("packed").values())
    assert ideal_s < dense_s
    assert packed.value == masked.value == pytest.approx(ideal_s / routed_s)
    assert packed.met is (ideal_s / routed_s >= 0.9)
    assert masked.met is None
    assert rate.value == pytest.approx(sum(plain.flop("packed").values()) / dense_s / 1e9)


def test_the_command_stores_a_list_and_says_what_is_missed(networks, tmp_path, monkeypatch):
    monkeypatch.setenv("MORSIZER_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(benching, "WIDTHS", ())
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    result = CliRunner().invoke(
        app, ["bench", "--networks", str(networks), "--seconds", "0.1", "--format", "json"]
    )
    assert result.exit_code == 3, result.output  # the controls were not trained
    stored = json.loads((tmp_path / "results" / "selftest" / "bench.json").read_text())
    assert {"bar", "value", "low", "high", "unit", "seed", "command"} <= set(stored[0])
    assert {row["part"] for row in stored} >= {"accuracy", "throughput"}
    refused = CliRunner().invoke(app, ["bench", "--parts", "speed"])
    assert "no part 'speed'" in str(refused.exception)
    refused = CliRunner().invoke(app, ["bench", "--networks", str(tmp_path / "none")])
    assert isinstance(refused.exception, Complaint)


def test_a_part_run_anew_leaves_the_rows_of_the_others(networks, tmp_path, monkeypatch):
    monkeypatch.setenv("MORSIZER_RESULTS", str(tmp_path / "results"))
    kept = contest.not_measured("of packing", "an earlier command")
    rows = [contest.Row(**{**dict(kept), "part": part}) for part in ("accuracy", "packing")]
    reference = tmp_path / "reference"
    write_whole(reference / "bench.json", json.dumps([row.model_dump() for row in rows]).encode())
    monkeypatch.setattr("domain.store.reference_root", lambda: reference)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    arguments = ["bench", "--networks", str(networks), "--parts", "accuracy", "--reference"]
    assert CliRunner().invoke(app, arguments).exit_code == 3
    stored = contest.STORED.validate_json((reference / "bench.json").read_bytes())
    assert [row for row in stored if row.part == "packing"] == [rows[1]]
    assert rows[0] not in stored
    assert len(stored) > 2
    (reference / "bench.json").write_text("[{}]")
    assert isinstance(CliRunner().invoke(app, arguments).exception, CorruptFile)


def test_defects_found_named_and_false_alarms_are_shares_of_the_test_images(tmp_path):
    architecture, recipe = (each("inspection", "shallow") for each in (architecture_of, recipe_of))
    card = Card(
        architecture=architecture, classes=DEFECTS, data="noise", recipe=recipe, seed=0,
        trained_epochs=1, test_images=4, accuracy=0.2, uniform_accuracy=0.2,
        survival=(1.0,), command="test", torch="test",
    )  # fmt: skip
    model = MoRViT(architecture)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]))
    save_checkpoint(model, card, tmp_path / "shallow-inspection-0.safetensors")
    rows = list(contest.contrast_rows(contest.trained_in(tmp_path), "c", count=60))
    assert all(row.value == 1 for row in rows if row.bar.startswith("defects found"))
    named = [row.value for row in rows if row.bar.startswith("defects called")]
    assert all(0 <= share < 1 for share in named)
    [alarms] = [row for row in rows if row.bar.startswith("false alarms")]
    # A network that calls everything a hole finds all, and cries wolf every time.
    assert alarms.value == 1
    assert alarms.low < 1 == alarms.high
    assert "12 test images" in alarms.unit
