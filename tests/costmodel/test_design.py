"""What is designed keeps its promise by the same forecast that a buyer gets; what cannot is refused."""

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.asking import routing_named
from costmodel.design import network_of
from costmodel.designing import BATCHES, PREFERENCES, Design, Network, Promise, designs_of, kept
from costmodel.transfer import forecast
from domain.card import AtBudget, Budget, BudgetCard
from domain.catalogue import devices, model_named
from domain.complaint import CorruptFile
from domain.designs import Designs
from domain.record import Unknown
from domain.routing import routing_of_budget
from domain.statistics import share_interval
from domain.store import load, reference_root, stored_fits

FITS = stored_fits()
CARD = load(reference_root() / "networks" / "morvit-inspection-0.json", BudgetCard)
ROUTED = Network(architecture=CARD.architecture, budgets=CARD.budgets)
NAMES = ("orin-nano-super", "l4", "t4")


def designed(promise, networks=(ROUTED,), names=NAMES, runtimes=("eager",), prefer="accuracy"):
    specs = [devices()[name] for name in names]
    return designs_of(specs, networks, lambda _: ["fp16"], runtimes, promise, FITS, prefer)


@settings(max_examples=15)
@given(
    p99_s=st.floats(3e-3, 0.3), confidence=st.sampled_from([0.6, 0.9, 0.99]),
    rate=st.sampled_from([0.0, 50.0, 500.0]), prefer=st.sampled_from(sorted(PREFERENCES)),
)  # fmt: skip
def test_a_design_keeps_its_promise_and_every_device_is_answered_once(
    p99_s, confidence, rate, prefer
):
    promise = Promise(p99_s=p99_s, confidence=confidence, images_per_s=rate)
    chosen, missed = designed(promise, prefer=prefer)
    assert sorted([e.device.id for e in chosen] + [e.device_id for e in missed]) == sorted(NAMES)
    for each in chosen:
        work = each.prediction.workload
        assert each.prediction == forecast(work, each.device, FITS)
        assert work.batch in BATCHES
        assert each.probability == kept(each.prediction, promise.allowed_s(work.batch))
        assert each.probability >= confidence
        assert each.prediction.latency_s.value + promise.waiting_s(work.batch) <= p99_s
        assert not rate or each.prediction.latency_s.value <= work.batch / rate
    assert chosen == sorted(chosen, key=PREFERENCES[prefer])
    assert all(each.reason and each.probability < confidence for each in missed)


def test_budgets_of_a_card_route_as_many_tokens_as_it_says_and_no_other_is_promised():
    assert [each.name for each in CARD.budgets] == [f"{e.budget:g}" for e in CARD.by_budget]
    for budget, seen in zip(CARD.budgets, CARD.by_budget, strict=True):
        assert budget.routing.mean_depth == pytest.approx(seen.mean_depth)
        assert budget.accuracy.value == seen.accuracy
        assert budget.accuracy.low < seen.accuracy < budget.accuracy.high


def test_a_mean_that_is_predicted_is_the_budget_of_the_card():
    for budget in CARD.budgets:
        asked, _ = routing_named(f"mean={budget.name}", CARD.architecture)
        assert asked == budget.routing


def test_a_budget_means_what_it_meant_when_it_was_measured():
    now = routing_of_budget(0.3, CARD.architecture)
    seen = AtBudget(budget=0.3, mean_depth=now.mean_depth, accuracy=0.5)
    strange = AtBudget(budget=0.3, mean_depth=0.9, accuracy=0.5)
    card = BudgetCard(**{**dict(CARD), "by_budget": (seen, strange)})
    assert [each.routing for each in card.budgets] == [now]
    with pytest.raises(CorruptFile, match="no budget"):
        network_of(BudgetCard(**{**dict(CARD), "by_budget": (strange,)}))


@given(st.integers(1, 2_500), st.floats(0, 1))
def test_more_test_images_tell_more(images, share):
    hits = round(share * images)
    few, many = (share_interval(n * hits, n * images, 0.9) for n in (1, 4))
    assert 0 <= few.low <= few.value <= few.high <= 1
    assert many.high - many.low <= few.high - few.low + 1e-12


def test_a_stricter_promise_is_never_kept_by_more_devices():
    strict, loose = (designed(Promise(p99_s=p99_s)) for p99_s in (4e-3, 4e-2))
    assert {e.device.id for e in strict[0]} <= {e.device.id for e in loose[0]}
    surer = designed(Promise(p99_s=4e-2, confidence=0.9999))
    assert {e.device.id for e in surer[0]} <= {e.device.id for e in loose[0]}


def test_accuracy_that_nobody_measured_is_no_accuracy():
    net = model_named("morvit-tiny", None)
    budget = CARD.budgets[0]
    blank = Network(
        architecture=CARD.architecture,
        budgets=(
            Budget(name="x", routing=budget.routing, accuracy=Unknown(reason="never tested")),
        ),
    )
    chosen, missed = designed(Promise(p99_s=1.0, least_accuracy=0.1), networks=(blank,))
    assert not chosen
    assert "no card" in missed[0].reason
    both, _ = designed(Promise(p99_s=1.0), networks=(blank, ROUTED))
    assert all(isinstance(each, Design) and each.accuracy > 0 for each in both)
    assert net.name


def test_a_price_that_nobody_knows_is_not_below_any():
    chosen, missed = designed(Promise(p99_s=1.0, price_usd=1e6), names=("a10g", "l4"))
    assert [each.device.id for each in chosen] == ["l4"]
    assert "no price" in missed[0].reason
    free, _ = designed(Promise(p99_s=1.0), names=("a10g",))
    assert math.isinf(free[0].price_usd)


def test_what_changes_its_shapes_runs_on_no_engine():
    chosen, _ = designed(Promise(p99_s=1.0), runtimes=("engine",))
    assert {each.prediction.workload.executor for each in chosen} <= {"capacity", "masked"}


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "costmodel.design", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_answers_in_every_shape_and_says_what_it_rests_on():
    done = command("--p99-ms", "30", "--device", "orin-nano-super", "--price-usd", "2000")
    assert done.returncode == 0, done.stderr
    assert "exact 90 %" in done.stdout
    assert "spec-only" in done.stdout
    assert "- price of orin-nano-super: dev kit MSRP" in done.stdout
    asked = ("--p99-ms", "30", "--device", "orin-nano-super,l4", "--format")
    rows = json.loads(command(*asked, "json").stdout)
    assert len(rows) == 2
    for row in rows:
        assert row["p99_ms_low"] < row["p99_ms"] < row["p99_ms_high"]
        assert row["probability"] >= 0.9
        price = devices()[row["device_id"]].price_usd
        assert row["price_usd"] == price.value
        assert price.source in row["price_source"]
        assert row["price_as_of"] == devices()[row["device_id"]].price_date
    assert command(*asked, "csv").stdout.count("\n") == 3


def test_the_whole_answer_is_stored_also_where_nothing_keeps_the_promise(tmp_path):
    asked = ("--device", "orin-nano-super,l4", "--designs", str(tmp_path / "designs.json"))
    rows = json.loads(command("--p99-ms", "30", *asked, "--format", "json").stdout)
    stored = load(tmp_path / "designs.json", Designs)
    assert [each.device_id for each in stored.devices] == [row["device_id"] for row in rows]
    for each, row in zip(stored.devices, rows, strict=True):
        assert each.p99_s.high * 1e3 == pytest.approx(row["p99_ms_high"])
        assert each.probability == row["probability"]
        assert (each.price_source, each.price_as_of) == (row["price_source"], row["price_as_of"])
    assert command("--p99-ms", "0.01", *asked).returncode == 7
    nothing = load(tmp_path / "designs.json", Designs)
    assert not nothing.devices
    assert {each.device_id for each in nothing.missing} == {"orin-nano-super", "l4"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--p99-ms", "0.01"], 7, "nothing keeps"),
        (["--p99-ms", "30", "--least-accuracy", "0.999"], 7, "nothing keeps"),
        (["--p99-ms", "nan"], 2, "--p99-ms"),
        (["--p99-ms", "30", "--confidence", "1"], 2, "--confidence"),
        (["--p99-ms", "30", "--prefer", "beauty"], 2, "accuracy, price, throughput"),
        (["--p99-ms", "30", "--model", "no-such"], 2, "no-such"),
        (["--p99-ms", "30", "--model", "none.json"], 6, "none.json"),
        (["--p99-ms", "30", "--precision", "fp17"], 2, "fp16"),
        (["--p99-ms", "30", "--top", "0"], 2, "--top"),
    ],
)  # fmt: skip
def test_nonsense_and_the_impossible_get_one_clear_sentence(arguments, code, said):
    done = command(*arguments, "--device", "orin-nano-super")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_accuracies_of_different_images_are_not_compared():
    other = "morvit/checkpoints/morvit-fmnist.json"
    own = reference_root() / "networks" / "morvit-inspection-0.json"
    done = command("--p99-ms", "30", "--device", "l4", "--model", f"{other},{own}")
    assert done.returncode == 2
    assert "cannot be compared" in done.stderr
