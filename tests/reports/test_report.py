import re
from dataclasses import replace
from decimal import Decimal

import pytest

from domain.designs import Designs
from domain.locale import LANGUAGES
from domain.scenario import Offers
from reports.cells import unit_price
from reports.contents import Absent, Found
from reports.report import html_of
from tests.reports import records
from tests.reports.page import Page, numbers_in

FIGURES = [
    "figure-times", "figure-tokens", "figure-work", *(f"decision-{n}" for n in range(1, 13)),
    "figure-depths", "figure-images", "figure-held-out-1", "figure-cost-1",
]  # fmt: skip


@pytest.fixture(scope="module", params=LANGUAGES)
def page(request):
    return Page(html_of(records.full_contents(), request.param))


def test_the_page_is_well_formed_and_its_ids_are_unique(page):
    assert page.mistakes == []
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)


def test_every_figure_has_its_own_fixed_id(page):
    assert [name for name in page.ids if f"{name}-data" in page.ids] == FIGURES


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_says_its_language_and_forbids_the_network(language):
    html = html_of(records.full_contents(), language)
    assert f'<html lang="{language}">' in html
    assert "default-src &#39;none&#39;" in html
    assert html.count("plotly.js v") == 1


def test_every_number_in_a_cell_comes_from_a_record(page):
    assert _invented(page.cells) == []


@pytest.mark.parametrize("invented", ["7.77 ms", "3,330,000 JPY", "47.3 %"])
def test_an_invented_number_would_be_noticed(invented):
    assert _invented([invented])


def _invented(cells: list[str]) -> list[tuple[str, float]]:
    """Numbers that are no leaf of a record and no named ratio, whatever their prefix."""
    contents = records.full_contents()
    known = _derived() | numbers_in(records.MACHINE.key())
    for name, part in contents.parts.items():
        if name in ("decisions", "routing"):  # pixels and counts would excuse any number
            continue
        assert isinstance(part, Found)
        stored = part.value if isinstance(part.value, tuple) else (part.value,)
        known |= numbers_in(part.source)
        known |= {leaf for each in stored for leaf in _leaves(each.model_dump(mode="json"))}
    mantissas = {_mantissa(each) for each in known if each}
    return [
        (cell, number)
        for cell in cells
        for number in numbers_in(cell)
        if number and not any(abs(_mantissa(number) - each) < 0.0051 for each in mantissas)
    ]


def _leaves(value: object) -> set[float]:
    if isinstance(value, dict):
        return {leaf for each in value.values() for leaf in _leaves(each)}
    if isinstance(value, list):
        return {leaf for each in value for leaf in _leaves(each)}
    if isinstance(value, bool) or value is None:
        return set()
    if isinstance(value, (int, float)):
        return {float(value)}
    return numbers_in(str(value))


def _mantissa(value: float) -> float:
    return float(f"{abs(value):e}".split("e")[0])


def _derived() -> set[float]:
    """What the report works out: medians an image, shares, ratios, sums, intervals, tallies."""
    derived = {33 / 2, 36.3 / 2, 29.7 / 2, 25 / 2, 27.5 / 2, 22.5 / 2, 42.0, 16.0, 18.0, 19.0, 3.0}
    derived |= {33 / 25, 29.7 / 27.5, 36.3 / 22.5, 650 / 506, 506.0, 650.0, 4048.0, 5200.0}
    derived |= {each / whole for each in (1, 2, 4, 8, 10) for whole in (25, 33)}
    derived |= {e**sign * v for e, v in ((1.17878, 0.5), (2.27623, 2.0)) for sign in (1, -1)}
    survival = records.routing().survival
    ends = (61, 65, 26, 45, 6, 20)
    return derived | set(survival) | {count / 65 for count in ends} | set(map(float, range(9)))


def test_slower_samples_show_slower_times():
    contents = records.full_contents()
    slower = tuple(records.measurement(executor="packed", run=run, slower=2.0) for run in (1, 2, 3))
    html = html_of(replace(contents, measurements=records.found(slower)), "en")
    assert "50 ms" in html
    assert "33 ms" not in html


def test_unknown_energy_is_a_reason_and_never_zero(page):
    assert any(records.NO_METER.reason in words for words in page.words)
    assert not any(cell.strip().startswith(("0 J", "0 s")) for cell in page.cells)


def test_money_is_never_without_its_currency():
    cells = Page(html_of(records.full_contents(), "en")).cells
    money = [cell for cell in cells if re.search(r"\d\.\d\d\b(?! %)", cell) and "USD" in cell]
    assert money
    assert all(re.fullmatch(r"\s*[\d,.]+ USD\s+[\d,.]+ to [\d,.]+ USD\s*", cell) for cell in money)


def test_a_small_unit_price_keeps_its_digits():
    assert unit_price(Decimal("0.00456"), "USD") == "0.00456 USD"
    assert unit_price(Decimal(0), "JPY") == "0 JPY"


def test_refusals_and_missing_prices_say_why(page):
    words = " ".join(page.words)
    for reason in ("no fp32 peak is known", "the vendor gives no price", "machine has 8 GB"):
        assert reason in words


def test_what_is_missing_is_a_sentence_and_never_an_empty_figure():
    html = html_of(records.empty_contents(), "en")
    page = Page(html)
    assert page.mistakes == []
    assert 'class="plot' not in html
    assert " ".join(page.words).count("not available, because journal.jsonl is not there") == 16


def test_designs_say_what_keeps_the_promise_and_why_the_rest_does_not(page):
    words = " ".join(page.words)
    for said in ("no list price", "toy-net has no card", "97.0%", "2,000 USD", "toy images",
        "800 USD 2026-05 toy list",
    ):  # fmt: skip
        assert said in words
    # What a file says is text, never markup.
    assert "takes <b>90 ms</b> for a batch" in words


def test_a_promise_that_nothing_keeps_is_said():
    none = Designs(**{**dict(records.designs()), "devices": ()})
    html = html_of(replace(records.full_contents(), designs=records.found(none)), "en")
    assert "Nothing keeps this promise" in html
    assert "table-designs" not in html


@pytest.mark.parametrize("name", list(records.full_contents().parts))
@pytest.mark.parametrize("language", LANGUAGES)
def test_any_one_part_may_be_missing(name, language):
    gone = Absent(wanted="x", command="y", complaint="x is damaged.")
    page = Page(html_of(replace(records.full_contents(), **{name: gone}), language))
    assert page.mistakes == []
    assert any("x is damaged" in words for words in page.words)


def test_what_stands_out_of_accuracy_is_the_measured_machine_before_what_others_published():
    full = records.full_contents()
    assert isinstance(full.validation, Found)
    own = full.validation.value.rows[0]
    published = own.model_copy(update={"split": "published", "n": 900, "noise_floor": None})
    stages = own.model_copy(update={"split": "stages", "n": 901, "quantity": "stage-latency"})
    rows = (published, own.model_copy(update={"split": "fewer", "n": own.n - 1}), own, stages)
    told = full.validation.value.model_copy(update={"rows": rows})
    page = Page(html_of(replace(full, validation=records.found(told)), "en"))
    [found] = [words for words in page.words if words.startswith("Held-out latency (")]
    assert f"({own.split})" in found


def test_reference_results_are_called_reference():
    reference = records.found(records.measurements(), is_reference=True)
    html = html_of(replace(records.full_contents(), measurements=reference), "en")
    assert "not on yours" in html


def test_nothing_usable_is_said():
    failed = records.measurements()[-1]
    html = html_of(replace(records.full_contents(), measurements=records.found((failed,))), "en")
    assert "none of the 1 measurements gave one" in html


def test_offers_without_prices_have_no_chart():
    unpriced = Offers(model="toy-net", routing="any", offers=records.offers().offers[-2:])
    html = html_of(replace(records.full_contents(), offers=records.found(unpriced)), "en")
    assert "figure-cost-1" not in html
    assert "No chart of cost" in html


def test_the_same_contents_give_the_same_page():
    assert html_of(records.full_contents(), "ja") == html_of(records.full_contents(), "ja")
