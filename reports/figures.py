"""Figures, each a pure function from records to one plotly figure. Text in them can do no harm."""

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd
import plotly.graph_objects as go

from domain.fit import HeldOut
from domain.record import Estimate
from domain.routing import DecidedImage, RoutingDistribution
from domain.units import shown, significant
from reports.cells import measure, percent
from reports.contents import Say
from reports.drawing import (
    BLUE,
    CIVIDIS,
    DARK_GREY,
    GREY,
    ORANGE,
    RECURSIONS,
    SKY,
    SYMBOLS,
    TIERS,
    canvas,
    error_bars,
    label,
    log_ticks,
    marker,
    ticks,
)
from reports.points import Point, stage_name
from reports.purchase import Priced

BINS = 20
# A line of a tick's label.
LABEL_LINE_PX = 18


def stage_times(points: Sequence[Point], say: Say) -> go.Figure:
    """Seconds an image by stage, stacked, one bar a point."""
    figure = canvas(height=130 + _row_px(points) * len(points))
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
    longest_s = max(point.stages_s / point.batch for point in points)
    figure.update_xaxes(title_text=label(say("measured.axis_time")), **ticks(longest_s, "s"))
    return figure


def stage_tokens(points: Sequence[Point], say: Say) -> go.Figure:
    """Mean tokens an image that enter each stage; bars from the least to the most of an image.

    Points whose images were routed alike share one series.
    """
    figure = canvas(height=340)
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
            error_y={**error_bars(tokens), "color": DARK_GREY},
            marker_color=RECURSIONS[i % len(RECURSIONS)],
            hovertext=[f"{significant(each.value)}" for each in tokens],
            hoverinfo="text",
        )
    figure.update_layout(barmode="group", showlegend=len(alike) > 1)
    figure.update_yaxes(title_text=label(say("measured.axis_tokens")), rangemode="tozero")
    return figure


def stage_work(points: Sequence[Point], say: Say) -> go.Figure:
    """FLOP an image as routed and as executed, a pair of bars a point."""
    figure = canvas(height=130 + _row_px(points) * len(points))
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
    most = max(max(flop) for _, flop, _ in rows)
    figure.update_xaxes(title_text=label(say("measured.axis_work")), **ticks(most, "FLOP"))
    return figure


def decided_image(image: DecidedImage, recursions: int) -> go.Figure:
    """One image in grey beside the recursions that each of its patches entered."""
    figure = canvas(height=110, margin=0)
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
    figure = canvas(height=300)
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
    figure = canvas(height=300)
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
    figure = canvas(height=460)
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
            error_y=error_bars([pair.predicted for pair in held]),
            mode="markers",
            name=label(split),
            marker=marker(
                RECURSIONS[(i + 4) % len(RECURSIONS)],
                SYMBOLS[(i + i // len(SYMBOLS)) % len(SYMBOLS)],
            ),
            hovertext=[
                f"{label(pair.point)}<br>{label(say('accuracy.axis_measured'))}: "
                f"{measure(pair.measured, unit)}<br>{label(say('accuracy.axis_predicted'))}: "
                f"{measure(pair.predicted.value, unit)}"
                for pair in held
            ],
            hoverinfo="text",
        )
    axis = log_ticks(line[0], line[1], unit)
    figure.update_xaxes(title_text=label(say("accuracy.axis_measured")), **axis)
    figure.update_yaxes(title_text=label(say("accuracy.axis_predicted")), **axis)
    return figure


def cost_against_latency(offers: Sequence[Priced], say: Say) -> go.Figure:
    """Money for a million images over seconds a batch, numbered as in the table, coloured by tier.

    All in one currency.
    """
    figure = canvas(height=460)
    for tier, colour in TIERS.items():
        held = [offer for offer in offers if offer.prediction.tier == tier]
        if not held:
            continue
        figure.add_scatter(
            x=[offer.prediction.latency_s.value for offer in held],
            y=[offer.cost.value for offer in held],
            error_x=error_bars([offer.prediction.latency_s for offer in held]),
            error_y=error_bars([offer.cost for offer in held]),
            mode="markers+text",
            name=label(say(f"tier.{tier}")),
            text=[str(offer.number) for offer in held],
            textposition="top right",
            textfont_size=11,
            marker=marker(colour, SYMBOLS[list(TIERS).index(tier)]),
            hovertext=[
                f"{label(offer.prediction.device_name)}<br>"
                f"{shown(offer.prediction.latency_s.value, 's')}<br>{label(offer.price)}"
                for offer in held
            ],
            hoverinfo="text",
        )
    latencies = [offer.prediction.latency_s for offer in offers]
    least_s, most_s = min(each.low for each in latencies), max(each.high for each in latencies)
    least, most = min(each.cost.low for each in offers), max(each.cost.high for each in offers)
    figure.update_xaxes(
        title_text=label(say("catalogue.axis_latency")), **log_ticks(least_s, most_s, "s")
    )
    figure.update_yaxes(
        title_text=label(say("catalogue.axis_cost", currency=offers[0].currency)),
        **log_ticks(least, most, ""),
    )
    return figure


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


def _row_px(points: Sequence[Point]) -> int:
    """Height of a row that has room for the lines of its label."""
    lines = max((point.label.count(" · ") + 1 for point in points), default=1)
    return max(54, 10 + LABEL_LINE_PX * lines)


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
