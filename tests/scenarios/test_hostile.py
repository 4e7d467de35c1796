"""Hostile files and extreme inputs: an answer or one clear sentence, never a traceback or NaN."""

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.complaint import Complaint
from domain.record import Unknown
from domain.scenario import Drift, Finance, Ownership, Promise, Site
from scenarios.candidates import Forecasts
from scenarios.reading import read_asked
from scenarios.sizing import plan_of
from tests.faults.scenarios import damaged
from tests.scenarios.records import demand, device, prediction, scenario
from tests.scenarios.test_size import SMALL


@given(random=st.randoms(use_true_random=False))
def test_any_change_of_a_file_is_read_or_refused_in_one_sentence(random, tmp_path_factory):
    text = damaged(SMALL, random)
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    said, asked = "", None
    try:
        asked = read_asked(path)
    except Complaint as complaint:
        said = str(complaint)
    assert asked is not None or 0 < len(said) < 1500


extreme = st.sampled_from([1e-300, 1e-9, 1.0, 1e9, 1e15])


@given(
    st.integers(1, 10**9),
    st.floats(1e-9, 1e8),
    st.sampled_from(["takt", "poisson", "offline"]),
    st.sampled_from([1e-9, 1e-3, 0.1, 100.0]),
    st.sampled_from([0.5, 0.95, 0.999]),
    st.sampled_from([-0.99, -0.01, 0.0, 0.5, 0.99]),
    st.sampled_from([0.0, 0.5, 0.99]),
    extreme,
    extreme,
)
def test_every_extreme_gets_an_answer_or_a_reason(
    cameras, period_s, kind, p99_s, confidence, rate, tax, price, energy
):
    one = prediction("one", 0.01, spread=1.5)
    plan = plan_of(
        scenario(
            demand=demand(cameras, period_s, kind),
            promise=Promise(p99_latency_s=p99_s, confidence=confidence),
            routing=Drift(fallback_share=0.5),
            site=Site(country="USA", currency="USD", energy_price_per_kwh=Decimal(repr(energy))),
            finance=Finance(discount_rate=rate, tax_rate=tax, horizon_years=20),
        ),
        {"one": Forecasts.of_one(one, one)},
        {"one": device("one", price)},
        "test",
        is_replayed=False,
    )
    (option,) = plan.options
    assert option.reason or option.devices > 0
    assert isinstance(option.p99_latency_s, Unknown) or math.isfinite(option.p99_latency_s)
    assert math.isfinite(option.utilisation)
    if isinstance(option.ownership, Ownership):
        assert sum(line.amount for line in option.ownership.lines) == option.ownership.total
        assert not option.ownership.total.is_nan()
    else:
        assert isinstance(option.ownership, Unknown)
        assert len(option.ownership.reason) < 400
    assert type(plan).model_validate_json(plan.model_dump_json()) == plan


@pytest.mark.parametrize("depth", [31, 33, 500])
def test_nesting_is_bounded(depth, tmp_path):
    path = tmp_path / "deep.toml"
    path.write_text(SMALL + "\nx = " + "[" * depth + "]" * depth + "\n")
    with pytest.raises(Complaint):
        read_asked(path)
