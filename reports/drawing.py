"""What all figures share: colours, an empty canvas, axes with written-out ticks, safe labels."""

import html
import math
from collections.abc import Sequence

import plotly.graph_objects as go

from domain.complaint import printable
from domain.record import Estimate
from reports.cells import measure

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


def label(words: str) -> str:
    r"""`words` as plotly may show them: no markup, no mathematics, no control characters.

    >>> label("<b>x</b> $\\alpha$")
    '&lt;b&gt;x&lt;/b&gt; \\alpha'
    """
    plain = printable(words).replace("$", "").replace("\n", " ")
    if len(plain) > LONGEST_LABEL:
        plain = plain[: LONGEST_LABEL - 1] + "…"
    return html.escape(plain, quote=False)


def canvas(height: int, margin: int = 8) -> go.Figure:
    """An empty figure of a height in pixels, as wide as the page."""
    # Colours of text and grid come from the page's style sheet, which knows light, dark and print.
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": margin, "r": margin, "t": margin, "b": margin},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "traceorder": "normal",
        },
        hoverlabel={"align": "left"},
        dragmode=False,
    )
    axis = {
        "automargin": True,
        "fixedrange": True,
        "zeroline": False,
        "gridcolor": GREY,
        "title_font_size": 13,
        "title_standoff": 12,
        "ticklabelstandoff": 5,
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def ticks(most: float, unit: str) -> dict[str, object]:
    """At most four round steps from zero to `most`, each written with its prefix."""
    decade = 10.0 ** math.floor(math.log10(most))
    step = next(step for share in (0.25, 0.5, 1.0, 2.5) if most / (step := share * decade) <= 4)
    values = [step * i for i in range(math.floor(most / step) + 1)]
    return {"tickvals": values, "ticktext": [measure(value, unit) for value in values]}


def log_ticks(least: float, most: float, unit: str) -> dict[str, object]:
    """Ticks of a logarithmic axis: 1, 2 and 5 of each decade, only 1 where decades are many."""
    decades = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    leading = (1, 2, 5) if most / least < 300 else (1,)
    values = [number * 10.0**decade for decade in decades for number in leading]
    return {
        "type": "log",
        "tickvals": values,
        "ticktext": [measure(value, unit) for value in values],
    }


def marker(colour: str, symbol: str) -> dict[str, object]:
    """A point that stands out on light and dark."""
    return {"color": colour, "symbol": symbol, "size": 9, "line": {"color": DARK_GREY, "width": 1}}


def error_bars(estimates: Sequence[Estimate]) -> dict[str, object]:
    """Bars from the low to the high end of each interval."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [estimate.high - estimate.value for estimate in estimates],
        "arrayminus": [estimate.value - estimate.low for estimate in estimates],
        "thickness": 1.2,
        "width": 3,
    }
