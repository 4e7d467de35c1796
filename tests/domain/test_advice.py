"""Advice in words: every kind of plan gets its sentences, in both languages alike."""

from decimal import Decimal
from functools import partial

import pytest

from domain.advice import advice_of
from domain.locale import LANGUAGES, text
from domain.record import Unknown
from domain.scenario import Assumption, BreakEven, FleetOption, Plan
from tests.reports.records import ownership, plan


def option(name="one", hardware=1000, **changes):
    fields = {
        "device_id": name,
        "device_name": name.title(),
        "devices": 3,
        "utilisation": 0.5,
        "p99_latency_s": 0.05,
        "meets_full_depth": False,
        "tier": "spec-only",
        "ownership": ownership(hardware=hardware, currency="JPY"),
        "batch": 4,
        "sites": 2,
        "spares": 1,
        "promise_probability": 0.97,
        "batch_limit_s": 0.01,
    }
    return FleetOption(**{**fields, **changes})


def advised(*options, language="en", assumptions=()):
    whole = Plan(scenario=plan().scenario, options=options, made_by="test", assumptions=assumptions)
    return advice_of(whole, partial(text, language=language))


def test_a_purchase_says_what_to_buy_its_cost_its_certainty_and_the_first_step():
    said = " ".join(advised(option()))
    for words in ("Buy 3 × One", "1,650 JPY", "97.0%", "promise is broken", "10 ms", "accept"):
        assert words in said
    kept = " ".join(advised(option(meets_full_depth=True)))
    assert "holds even if every image" in kept


def test_a_close_rival_wants_a_quote_and_a_far_one_does_not():
    assert any("get a quote" in each for each in advised(option(), option("two", 1100)))
    assert any("much better price" in each for each in advised(option(), option("two", 90_000)))


def test_the_defaults_that_matter_are_named():
    price = Assumption(
        field="hosts.dc_gpu.price_usd", value="0", unit="USD", is_default=True, source="x", as_of=""
    )
    said = " ".join(advised(option(), assumptions=(price,)))
    assert "1 of 1 inputs are defaults" in said
    assert "a host of the class dc_gpu costs 0 USD" in said


@pytest.mark.parametrize(
    ("use", "words"), [(Decimal("0.2"), "less than 20 %"), (None, "never pays")]
)
def test_renting_is_advised_below_its_share_of_use(use, words):
    against = BreakEven(
        contract="on-demand",
        instance="cloud one",
        instances=1,
        as_of="2026-09-06",
        is_estimate=False,
        rented_total=Decimal(1),
        hours=Unknown(reason="never"),
        years=Unknown(reason="never"),
        utilisation=Unknown(reason="never") if use is None else use,
        payback_years=Unknown(reason="never"),
        net_present_value=Decimal(0),
        rate_of_return=Unknown(reason="none"),
    )
    assert words in " ".join(advised(option(against=(against,))))


def test_where_nothing_holds_nothing_is_bought_and_the_reasons_are_given():
    refused = option(devices=0, reason="too slow", ownership=Unknown(reason="no fleet"))
    said = advised(refused)
    assert said[0].startswith("Nothing keeps the promise")
    assert "too slow" in said[1]


@pytest.mark.parametrize("options", [(option(),), (option(), option("two")), (option(devices=0, reason="slow", ownership=Unknown(reason="none")),)])  # fmt: skip
def test_both_languages_say_as_much(options):
    counts = {len(advised(*options, language=language)) for language in LANGUAGES}
    assert len(counts) == 1
    japanese = " ".join(advised(*options, language="ja"))
    assert any("\u3040" <= letter <= "\u30ff" for letter in japanese)
