"""Advice in words: every kind of plan gets its sentences, in both languages alike."""

from decimal import Decimal
from functools import partial

import pytest

from domain.advice import advice_of
from domain.defaults import GIVEN_PRICE, prices_assumed
from domain.device import DeviceSpec
from domain.locale import LANGUAGES, text
from domain.record import Figure, Unknown
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


def figure(value):
    return Figure(value=value, source="toy", read_on="2026-11-25", confidence="C")


def board(**changes):
    fields = {
        "id": "one",
        "name": "One",
        "device_class": "edge",
        "family": "Toy",
        "peak_flop_per_s": {"fp32": figure(1e12)},
        "memory_bytes": figure(1e9),
        "memory_bytes_per_s": figure(1e9),
        "cache_bytes": figure(1e6),
        "power_limit_w": figure(15.0),
        "idle_w": figure(5.0),
        "price_usd": figure(299.0),
        "price_date": "2023",
    }
    return DeviceSpec(**{**fields, **changes})


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
        field="hosts.dc_gpu.price_usd",
        value="10424",
        unit="USD",
        is_default=True,
        source="x",
        as_of="",
    )
    said = " ".join(advised(option(device_class="dc_gpu"), assumptions=(price,)))
    assert "1 of 1 inputs are defaults" in said
    assert "a server for data-centre cards costs 10,424 USD" in said


@pytest.mark.parametrize(
    ("use", "words"), [(Decimal("0.2"), "less than 20%"), (None, "never pays")]
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


def test_prices_nobody_gave_are_named_with_their_date_and_of_what_they_are():
    devices_ = [
        board(form_factor="SO-DIMM module", price_basis="module list"),
        board(form_factor="SO-DIMM module", price_basis="dev kit MSRP"),
    ]
    module, kit = (next(prices_assumed([each])) for each in devices_)
    assert (module.is_default, module.as_of) == (True, "2023")
    assert "carrier board" in module.source
    assert "carrier board" not in kit.source
    said = " ".join(advised(option(device_id="one"), assumptions=(module,)))
    assert "of the bare module" in said
    given = board(
        price_usd=Figure(value=5.0, source=GIVEN_PRICE, read_on="2026-11-25", confidence="A")
    )
    assert not next(prices_assumed([given])).is_default
    assert list(prices_assumed([board(price_usd=Unknown(reason="sold in servers only"))])) == []


def test_hosts_that_fail_as_units_are_said():
    hosted = option(host_places=4, devices_per_host=2, hosts=2)
    said = " ".join(advised(hosted))
    assert "2 host(s), up to 2 in each" in said
    assert "counted by hosts" in said
    assert "ホスト単位" in " ".join(advised(hosted, language="ja"))


def test_money_and_dates_read_as_the_language_has_them():
    said = " ".join(advised(option(), language="ja"))
    assert "1,650 円" in said
    assert "JPY" not in said
