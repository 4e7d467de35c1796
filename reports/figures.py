"""Figures, each a pure function from records to one plotly figure. Text in them can do no harm."""

import html
from collections.abc import Sequence
from itertools import pairwise

import pandas as pd
import plotly.graph_objects as go

from domain.complaint import printable
from domain.fit import HeldOut
from domain.prediction import Prediction
from domain.record import Estimate, Unknown
from domain.routing import DecidedImage, RoutingDistribution
from domain.scenario import Offer, Ownership
from domain.units import shown, significant
from reports.cells import money, percent
from reports.contents import Say
from reports.points import Point, stage_name

# Okabe and Ito's palette, which people with colour-blindness can tell apart (jfly.uni-koeln.de/color).
SKY, ORANGE, GREEN, VERMILLION, BLUE, PURPLE, YELLOW = (
    "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#F0E442",
)  # fmt: skip
RECURSIONS = (SKY, ORANGE, GREEN, VERMILLION, BLUE, PURPLE, YELLOW)
GREY, DARK_GREY = "#AAAAAA", "#777777"
TIERS = {"measured": GREEN, "calibrated": BLUE, "anchored": ORANGE, "spec-only": PURPLE}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "x", "star")

# Cividis: as light as it is deep, for every kind of eye (doi:10.1371/journal.pone.0199239).
CIVIDIS = ("#00224E", "#35456C", "#666970", "#948E77", "#C8B866", "#FEE838")

LONGEST_LABEL = 48
BINS = 20


def label(words: str) -> str:
    r"""`words` as plotly may show them: no markup, no mathematics, no control characters.

    >>> label("<b>x</b> $\\alpha$")
    '&lt;b&gt;x&lt;/b&gt; \\alpha'
    """
    plain = printable(words).replace("$", "").replace("\n", " ")
    if len(plain) > LONGEST_LABEL:
        plain = plain[: LONGEST_LABEL - 1] + "…"
    return html.escape(plain, quote=False)


def stage_times(points: Sequence[Point], say: Say) -> go.Figure:
    """Seconds an image by stage, stacked, one bar a point."""
    figure = _canvas(height=130 + 54 * len(points))
    for name in _stage_names(points):
        held = [(point, stage) for point in points for stage in point.stages if stage.name == name]
        figure.add_bar(
            orientation="h",
            name=label(stage_name(name, say)),
            y=[points.index(point) for point, _ in held],
            x=[stage.time_s.value / point.batch for point, stage in held],
            marker_color=_stage_colour(name),
            hovertext=[
                f"{label(stage_name(name, say))}: {shown(stage.time_s.value / point.batch, 's')}"
                for point, stage in held
            ],
            hoverinfo="text",
        )
    figure.update_layout(barmode="stack")
    figure.update_yaxes(**_rows(points))
    figure.update_xaxes(title_text=label(say("measured.axis_time")), **_SECONDS)
    return figure


def stage_tokens(points: Sequence[Point], say: Say) -> go.Figure:
    """Mean tokens an image that enter each stage; bars from the least to the most of an image.

    Points whose images were routed alike share one series.
    """
    figure = _canvas(height=340)
    alike: dict[tuple[tuple[str, Estimate], ...], list[Point]] = {}
    for point in points:
        counts = tuple((stage.name, stage.tokens) for stage in point.stages)
        alike.setdefault(counts, []).append(point)
    for i, (counts, holders) in enumerate(alike.items()):
        tokens = [each for _, each in counts]
        figure.add_bar(
            name=label(", ".join(dict.fromkeys(point.label for point in holders))),
            x=[label(stage_name(name, say)) for name, _ in counts],
            y=[each.value for each in tokens],
            error_y=_error_bars(tokens),
            marker_color=RECURSIONS[i % len(RECURSIONS)],
            hovertext=[f"{significant(each.value)}" for each in tokens],
            hoverinfo="text",
        )
    figure.update_layout(barmode="group", showlegend=len(alike) > 1)
    figure.update_yaxes(title_text=label(say("measured.axis_tokens")), rangemode="tozero")
    return figure


def stage_work(points: Sequence[Point], say: Say) -> go.Figure:
    """FLOP an image as routed and as executed, a pair of bars a point."""
    figure = _canvas(height=130 + 60 * len(points))
    rows = (
        ("measured.routed_short", [point.routed_flop / point.batch for point in points], SKY),
        (
            "measured.executed_short",
            [point.executed_flop / point.batch for point in points],
            ORANGE,
        ),
    )
    for key, flop, colour in rows:
        figure.add_bar(
            orientation="h",
            name=label(say(key)),
            y=list(range(len(points))),
            x=flop,
            marker_color=colour,
            hovertext=[f"{label(say(key))}: {shown(each, 'FLOP')}" for each in flop],
            hoverinfo="text",
        )
    figure.update_layout(barmode="group", bargap=0.3)
    figure.update_yaxes(**_rows(points))
    figure.update_xaxes(
        title_text=label(say("measured.axis_work")), tickformat="~s", ticksuffix="FLOP", nticks=6
    )
    return figure


def decided_image(image: DecidedImage, recursions: int) -> go.Figure:
    """One image in grey beside the recursions that each of its patches entered."""
    figure = _canvas(height=110, margin=0)
    figure.add_heatmap(
        z=[list(row) for row in image.pixels],
        zmin=0,
        zmax=255,
        colorscale=[[0, "#000000"], [1, "#FFFFFF"]],
        showscale=False,
        hoverinfo="skip",
    )
    colours = depth_colours(recursions)
    steps = [[i / len(colours), (i + 1) / len(colours)] for i in range(len(colours))]
    figure.add_heatmap(
        z=[list(row) for row in image.depths],
        zmin=-0.5,
        zmax=recursions + 0.5,
        colorscale=[
            [edge, colour] for step, colour in zip(steps, colours, strict=True) for edge in step
        ],
        showscale=False,
        hoverinfo="skip",
        xaxis="x2",
        yaxis="y2",
    )
    shape = {"showgrid": False, "zeroline": False, "showticklabels": False, "ticks": ""}
    figure.update_layout(
        xaxis={**shape, "domain": [0, 0.485], "constrain": "domain"},
        yaxis={**shape, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain"},
        xaxis2={**shape, "domain": [0.515, 1], "constrain": "domain", "anchor": "y2"},
        yaxis2={
            **shape, "autorange": "reversed", "scaleanchor": "x2", "constrain": "domain",
            "anchor": "x2",
        },
    )  # fmt: skip
    return figure


def depth_colours(recursions: int) -> tuple[str, ...]:
    """The colour of 0, 1, … `recursions` recursions entered, dark to light."""
    last = len(CIVIDIS) - 1
    return tuple(CIVIDIS[round(i * last / recursions)] for i in range(recursions + 1))


def token_depths(routing: RoutingDistribution, say: Say) -> go.Figure:
    """Share of tokens by the recursions that they entered."""
    figure = _canvas(height=300)
    # Those that enter r but not r + 1.
    shares = [before - after for before, after in pairwise((1.0, *routing.survival, 0.0))]
    figure.add_bar(
        x=list(range(len(shares))),
        y=shares,
        marker_color=list(depth_colours(routing.recursions)),
        marker_line={"color": GREY, "width": 1},
        hovertext=[percent(share) for share in shares],
        hoverinfo="text",
    )
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title_text=label(say("router.axis_depth")), dtick=1)
    figure.update_yaxes(title_text=label(say("router.axis_share")), tickformat=".0%")
    return figure


def image_depths(routing: RoutingDistribution, say: Say) -> go.Figure:
    """Images by the mean recursions of their tokens."""
    figure = _canvas(height=300)
    depths = pd.Series([sum(row) / routing.tokens for row in routing.counts])
    bins = depths.value_counts(bins=BINS, sort=False)
    images = [int(count) for count in bins]
    figure.add_bar(
        x=[interval.mid for interval in bins.index],
        y=images,
        width=[interval.length for interval in bins.index],
        marker_color=BLUE,
        hovertext=[
            f"{significant(interval.left)}–{significant(interval.right)}: {count}"
            for interval, count in zip(bins.index, images, strict=True)
        ],
        hoverinfo="text",
    )
    figure.update_layout(showlegend=False)
    figure.update_xaxes(
        title_text=label(say("router.axis_mean_depth")), range=[0, routing.recursions * 1.02]
    )
    figure.update_yaxes(title_text=label(say("router.axis_images")), rangemode="tozero")
    return figure


def predicted_against_measured(pairs: Sequence[HeldOut], unit: str, say: Say) -> go.Figure:
    """Held-out predictions of one quantity over what was measured, with the line of identity."""
    figure = _canvas(height=460)
    ends = [pair.measured for pair in pairs]
    ends += [pair.predicted.value for pair in pairs if pair.predicted.value > 0]
    line = [min(ends) * 0.8, max(ends) * 1.25]
    figure.add_scatter(
        x=line,
        y=line,
        mode="lines",
        name=label(say("accuracy.identity")),
        line={"color": DARK_GREY, "dash": "dash", "width": 1.5},
        hoverinfo="skip",
    )
    for i, split in enumerate(dict.fromkeys(pair.split for pair in pairs)):
        held = [pair for pair in pairs if pair.split == split]
        figure.add_scatter(
            x=[pair.measured for pair in held],
            y=[pair.predicted.value for pair in held],
            error_y=_error_bars([pair.predicted for pair in held]),
            mode="markers",
            name=label(split),
            marker=_marker(RECURSIONS[(i + 4) % len(RECURSIONS)], SYMBOLS[i % len(SYMBOLS)]),
            hovertext=[
                f"{label(pair.point)}<br>{label(say('accuracy.axis_measured'))}: "
                f"{shown(pair.measured, unit)}<br>{label(say('accuracy.axis_predicted'))}: "
                f"{shown(pair.predicted.value, unit)}"
                for pair in held
            ],
            hoverinfo="text",
        )
    axis = {"type": "log", "tickformat": "~s", "ticksuffix": unit, "dtick": "D2", "nticks": 8}
    figure.update_xaxes(title_text=label(say("accuracy.axis_measured")), **axis)
    figure.update_yaxes(title_text=label(say("accuracy.axis_predicted")), **axis)
    return figure


def cost_against_latency(
    offers: Sequence[tuple[int, Offer, Prediction, Ownership]], say: Say
) -> go.Figure:
    """Money for a million images over seconds a batch, numbered as in the table, coloured by tier.

    All in one currency, all with a known cost of a million images.
    """
    figure = _canvas(height=460)
    currency = offers[0][3].currency
    for tier, colour in TIERS.items():
        held = [each for each in offers if each[2].tier == tier]
        if not held:
            continue
        latencies = [prediction.latency_s for _, _, prediction, _ in held]
        costs = [cost_of_million(ownership) for _, _, _, ownership in held]
        figure.add_scatter(
            x=[latency.value for latency in latencies],
            y=[cost.value for cost in costs if cost is not None],
            error_x=_error_bars(latencies),
            error_y=_error_bars([cost for cost in costs if cost is not None]),
            mode="markers+text",
            name=label(say(f"tier.{tier}")),
            text=[str(number) for number, _, _, _ in held],
            textposition="top right",
            textfont_size=11,
            marker=_marker(colour, SYMBOLS[list(TIERS).index(tier)]),
            hovertext=[
                f"{label(prediction.device_name)}<br>{shown(prediction.latency_s.value, 's')}<br>"
                + label(money(ownership.per_million_images, ownership.currency))
                for _, _, prediction, ownership in held
            ],
            hoverinfo="text",
        )
    figure.update_xaxes(title_text=label(say("catalogue.axis_latency")), type="log", **_SECONDS)
    figure.update_yaxes(
        title_text=label(say("catalogue.axis_cost", currency=currency)),
        type="log",
        tickformat="~r",
        dtick="D2",
    )
    return figure


def cost_of_million(ownership: Ownership) -> Estimate | None:
    """Cost of a million images with its bounds, for an axis; None where any is unknown."""
    value, low, high = (
        ownership.per_million_images, ownership.per_million_low, ownership.per_million_high,
    )  # fmt: skip
    if isinstance(value, Unknown) or isinstance(low, Unknown) or isinstance(high, Unknown):
        return None
    if low <= 0:
        return None
    return Estimate(value=float(value), low=float(low), high=float(high))


_SECONDS = {"tickformat": "~s", "ticksuffix": "s", "nticks": 6}


def _canvas(height: int, margin: int = 8) -> go.Figure:
    # Colours of text and grid come from the page's style sheet, which knows light, dark and print.
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": margin, "r": margin, "t": margin, "b": margin},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"align": "left"},
        dragmode=False,
    )
    figure.update_xaxes(automargin=True, fixedrange=True, zeroline=False, gridcolor=GREY)
    figure.update_yaxes(automargin=True, fixedrange=True, zeroline=False, gridcolor=GREY)
    return figure


def _marker(colour: str, symbol: str) -> dict[str, object]:
    return {"color": colour, "symbol": symbol, "size": 9, "line": {"color": DARK_GREY, "width": 1}}


def _error_bars(estimates: Sequence[Estimate]) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [estimate.high - estimate.value for estimate in estimates],
        "arrayminus": [estimate.value - estimate.low for estimate in estimates],
        "thickness": 1.2,
        "width": 3,
    }


def _stage_names(points: Sequence[Point]) -> list[str]:
    """Every stage once, in the order of the network."""
    names = {stage.name for point in points for stage in point.stages}
    return sorted(names, key=_place_of)


def _place_of(stage: str) -> tuple[int, int]:
    kind, _, number = stage.partition("-")
    return ("prologue", "recursion", "epilogue").index(kind), int(number or 0)


def _stage_colour(stage: str) -> str:
    kind, _, number = stage.partition("-")
    if kind != "recursion":
        return {"prologue": GREY, "epilogue": DARK_GREY}[kind]
    return RECURSIONS[(int(number) - 1) % len(RECURSIONS)]


def _rows(points: Sequence[Point]) -> dict[str, object]:
    """A vertical axis with a row for each point, the first on top."""
    return {
        "autorange": "reversed",
        "tickvals": list(range(len(points))),
        # One facet a line, or a phone has no room left for the bars.
        "ticktext": [
            "<br>".join(label(facet) for facet in point.label.split(" · ")) for point in points
        ],
        "showgrid": False,
    }
