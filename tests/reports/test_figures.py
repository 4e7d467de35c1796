from functools import partial

import pytest

from domain.locale import text
from domain.routing import RoutingDistribution
from reports import figures
from reports.drawing import LONGEST_LABEL, label, log_ticks, ticks
from reports.points import points_of, savings_of
from reports.purchase import _share, priced
from tests.reports import records
from tests.scenarios.records import prediction

SAY = partial(text, language="en")


@pytest.fixture
def points():
    return points_of(records.measurements(), SAY)


def test_every_usable_point_is_shown_once(points):
    assert [point.label for point in points] == [
        f"batch {batch} · {executor}"
        for batch in (2, 16)
        for executor in ("masked", "packed", "padded")
    ]


def test_times_are_medians_of_run_medians(points):
    packed = points[1]
    assert packed.time_s.value == pytest.approx(0.025)
    assert packed.time_s.low == pytest.approx(0.0225)
    assert packed.time_s.high == pytest.approx(0.0275)


def test_shares_of_stages_add_up(points):
    for point in points:
        assert sum(stage.share for stage in point.stages) == pytest.approx(1.0)


def test_records_of_different_environments_are_never_merged():
    other = records.measurement()
    elsewhere = type(other)(
        **{**dict(other), "environment": type(records.MACHINE)(
            **{**dict(records.MACHINE), "device_name": "Other Box"}
        )}
    )  # fmt: skip
    assert len(points_of([other, elsewhere], SAY)) == 2


def test_savings_compare_like_with_like(points):
    savings = savings_of(points)
    assert {(each.masked.batch, each.other.batch) for each in savings} == {(2, 2), (16, 16)}
    assert savings[0].time_ratio.value == pytest.approx(33 / 25)
    assert savings[0].work_ratio == pytest.approx(650 / 506)


def test_bars_stack_to_the_time_of_an_image(points):
    figure = figures.stage_times(points, SAY)
    for row, point in enumerate(points):
        stacked = sum(bar.x[list(bar.y).index(row)] for bar in figure.data)
        assert stacked == pytest.approx(point.stages_s / point.batch)


def test_bars_of_tokens_are_the_mean_counts(points):
    figure = figures.stage_tokens(points, SAY)
    assert [list(bar.y) for bar in figure.data] == [[65, 65, 42, 16, 65]]


def test_masked_executes_more_than_was_routed(points):
    routed, executed = figures.stage_work(points, SAY).data
    assert routed.x[0] == pytest.approx(253e6)
    assert executed.x[0] == pytest.approx(325e6)


def test_shares_of_tokens_add_up_to_all():
    bars = figures.token_depths(records.routing(), SAY).data[0]
    assert sum(bars.y) == pytest.approx(1.0)
    assert list(bars.x) == [0, 1, 2, 3]


@pytest.mark.parametrize("routing", [records.routing(), RoutingDistribution.full(65, 3)])
def test_every_image_falls_into_a_bin(routing):
    assert sum(figures.image_depths(routing, SAY).data[0].y) == routing.images


def test_a_picture_holds_the_pixels_and_depths_of_its_record():
    image = records.decisions().images[0]
    grey, depth = figures.decided_image(image, 3).data
    assert tuple(map(tuple, grey.z)) == image.pixels
    assert tuple(map(tuple, depth.z)) == image.depths


def test_every_held_out_pair_is_a_point_with_its_interval():
    pairs = records.validation().pairs
    line, *splits = figures.predicted_against_measured(pairs, "s", SAY).data
    assert list(line.x) == list(line.y)
    assert sorted(x for split in splits for x in split.x) == sorted(p.measured for p in pairs)
    tops = [y + up for s in splits for y, up in zip(s.y, s.error_y.array, strict=True)]
    assert sorted(tops) == pytest.approx(sorted(pair.predicted.high for pair in pairs))


def test_costs_are_those_of_the_offers_and_numbered_as_in_the_table():
    offers = tuple(priced(records.offers()))
    data = figures.cost_against_latency(offers, SAY).data
    shown = {number: y for tier in data for number, y in zip(tier.text, tier.y, strict=True)}
    assert shown == {str(offer.number): offer.cost.value for offer in offers}
    assert len({tier.marker.color for tier in data}) == len(data)


@pytest.mark.parametrize(
    ("words", "harmless"),
    [
        ("<script>", "&lt;script&gt;"),
        (r"$\href{javascript:alert(1)}{x}$", r"\href{javascript:alert(1)}{x}"),
        ("a\x1b[31mb\nc", "a?[31mb c"),
    ],
)
def test_labels_can_do_no_harm(words, harmless):
    assert label(words) == harmless


def test_long_labels_are_cut():
    assert len(label("x" * 2000)) == LONGEST_LABEL


@pytest.mark.parametrize("most", [1e-6, 0.0165, 1.0, 4.0, 9.99, 325e6])
def test_ticks_are_few_round_and_inside(most):
    values = ticks(most, "s")["tickvals"]
    assert 2 <= len(values) <= 5
    assert values[-1] <= most


@pytest.mark.parametrize(("least", "most"), [(1e-3, 2e-2), (1e-6, 10.0)])
def test_logarithmic_ticks_cover_the_axis(least, most):
    values = log_ticks(least, most, "s")["tickvals"]
    assert values[0] <= least < most <= values[-1]


def test_that_something_fits_is_never_shown_as_certain():
    sure = prediction("one", 0.1)
    for fits, words in ((1.0, ">99.9%"), (0.0, "<0.1%"), (0.953, "95.3%")):
        assert _share(sure.model_copy(update={"fits_in_memory": fits})).text == words
