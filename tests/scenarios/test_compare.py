"""The command on real files: ways, peers, swings and worth, from the committed reference."""

import json
from decimal import Decimal

import pytest

from costmodel.renting import rates_for
from domain.catalogue import cloud_prices
from domain.choice import Choice
from domain.scenario import Finance
from domain.store import committed_cards, load
from scenarios.candidates import Forecasts
from scenarios.choosing import Found, local_part
from scenarios.cloud import rented
from scenarios.compare import main, ways_of
from scenarios.peers import accuracy_seen_here
from scenarios.reading import LIBRARY
from scenarios.sizing import option_of
from tests.scenarios.commands import run
from tests.scenarios.records import device, prediction, scenario
from tests.scenarios.test_size import SMALL

LINE = LIBRARY / "inspection-line.toml"


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL.replace('["orin-nano-super"]', '["orin-nano-super", "l4", "t4"]'))
    return path


def test_boards_servers_and_clouds_are_held_against_each_other(results, small):
    done = run(main, small, "--only-named", "--draws", 2000, "--format", "json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    kinds = {way["kind"] for way in said["ways"]}
    assert kinds >= {"edge", "on-premises", "cloud"}
    totals = [float(way["total"]) for way in said["ways"]]
    assert totals == sorted(totals)
    assert sum(way["cheapest_probability"] for way in said["ways"]) == pytest.approx(1, abs=1e-6)
    for way in said["ways"]:
        assert way["cost"]["low"] < float(way["total"]) < way["cost"]["high"]
        assert way["p99_latency_s"] <= 1.0
    # The way to the cloud and back is in what is promised.
    cloud = next(way for way in said["ways"] if way["kind"] == "cloud")
    assert cloud["p99_latency_s"] > 0.03
    stored = load(results / "plans" / "choices" / "small.json", Choice)
    assert len(stored.ways) == len(totals)


def test_people_read_ways_peers_swings_and_what_measuring_is_worth(results, small):
    done = run(main, small, "--only-named", "--draws", 500)
    assert done.returncode == 0, done.stderr
    for words in (
        "P(cheapest)", "MoR-ViT saves", "price of hardware", "expected saving",
        "inputs are defaults", "promise holds",
    ):  # fmt: skip
        assert words in done.stdout


def test_the_same_seed_gives_the_same_answer(results, small):
    first, second = (
        json.loads(run(main, small, "--only-named", "--draws", 500, "--format", "json").stdout)
        for _ in range(2)
    )
    clocks = {"seconds_drawn": 0, "cpu_seconds_drawn": 0}
    assert first | clocks == second | clocks


def test_a_promise_shorter_than_the_way_to_the_cloud_leaves_it_out(results, small):
    small.write_text(small.read_text().replace("p99_latency_s = 1.0", "p99_latency_s = 0.029"))
    said = json.loads(run(main, small, "--only-named", "--draws", 500, "--format", "json").stdout)
    assert {way["kind"] for way in said["ways"]} == {"edge", "on-premises", "mixed"}
    assert not any("rent" in way["name"] for way in said["ways"])


def test_no_way_is_exit_7(results, small):
    small.write_text(small.read_text().replace("p99_latency_s = 1.0", "p99_latency_s = 1e-6"))
    done = run(main, small, "--only-named", "--draws", 500)
    assert done.returncode == 7
    assert done.stderr.count("\n") == 1


def test_base_load_owned_and_peak_rented_lies_between(results):
    done = run(
        main, LIBRARY / "cloud-burst.toml", "--only-named", "--draws", 500, "--format", "json"
    )
    ways = json.loads(done.stdout)["ways"]
    mixed = next(way for way in ways if way["name"].startswith("own and rent"))
    hourly = min(float(way["total"]) for way in ways if way["name"].endswith(("on-demand", "spot")))
    assert 0 < float(mixed["total"]) < 2 * hourly
    assert "owned; up to" in mixed["how"]


def test_people_do_not_move_with_the_prices_of_clouds():
    rate = next(each for each in rates_for("l4", cloud_prices(), ()) if each.price.gpu_count == 1)
    widths = []
    for wages in (Decimal(0), Decimal(10**6)):
        asked = scenario(finance=Finance(horizon_years=1, tax_rate=0.3, staff_per_year=wages))
        option = option_of(asked, device("l4"), Forecasts.of_one(prediction("l4")))
        cost = rented(asked, rate, [2], 1e6)
        way = Found(
            kind="cloud",
            option=option,
            cost=cost,
            how="toy",
            rate=rate,
            rent=cost.total,
            local=local_part(cost),
        )
        (told,) = ways_of(asked, [way], 500, 0)
        widths.append(told.cost.high - told.cost.low)
        assert told.cost.low < float(told.total) < told.cost.high
    assert widths[0] > 0
    assert widths[1] == pytest.approx(widths[0], rel=1e-6)


def test_accuracy_seen_here_is_a_mean_over_seeds_with_its_range():
    said = accuracy_seen_here()
    for name in {card.architecture.name for card in committed_cards()}:
        seen = [card.accuracy for card in committed_cards() if card.architecture.name == name]
        assert said.count(f"{name} {sum(seen) / len(seen):.1%} ") == 1
        if len(seen) > 1:
            assert f"({min(seen):.1%} to {max(seen):.1%}, {len(seen)} seeds)" in said
