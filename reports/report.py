"""One HTML file that opens offline: every figure, table and sentence, and no way out."""

import base64
import hashlib
from functools import cache, partial
from pathlib import Path

import jinja2
import plotly.offline

from domain.complaint import printable
from domain.locale import Language, text
from reports.blocks import absent_parts
from reports.contents import Absent, ReportContents
from reports.sections import sections_of
from reports.summary import facts_of, findings_of, quality_of

TEMPLATE = "report.html.j2"

# Draws each figure from the JSON beside it. A picture never changes, so it answers to nothing; a
# chart follows the width of the page, on paper too.
DRAW = """
"use strict";
const holders = [...document.querySelectorAll(".plot")];
for (const holder of holders) {
  const figure = JSON.parse(document.getElementById(holder.id + "-data").textContent);
  const isPicture = holder.classList.contains("picture");
  Plotly.newPlot(holder, figure.data, figure.layout,
    {displayModeBar: false, responsive: true, staticPlot: isPicture});
}
matchMedia("print").addEventListener("change", () => holders.forEach(Plotly.Plots.resize));
"""


def html_of(contents: ReportContents, language: Language) -> str:
    """The whole report as one page of HTML.

    Only the two scripts whose hashes the page names may run, so text that slips through escaping
    would still do nothing.
    """
    say = partial(text, language=language)
    return _template().render(
        language=language,
        say=say,
        contents=contents,
        is_reference=not isinstance(contents.measurements, Absent)
        and contents.measurements.is_reference,
        missing=absent_parts(contents),
        facts=facts_of(contents, say),
        findings=findings_of(contents, say),
        sections=(*sections_of(contents, say), quality_of(contents, say)),
        plotly=_plotly(),
        draw=DRAW,
        policy=_policy(),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_controls,
    )
    return environment.get_template(TEMPLATE)


def _without_controls(value: object) -> object:
    """Text without control and direction-changing characters; what the template calls safe as is."""
    is_plain = isinstance(value, str) and not hasattr(value, "__html__")
    return printable(str(value)) if is_plain else value


@cache
def _plotly() -> str:
    return str(plotly.offline.get_plotlyjs())


@cache
def _policy() -> str:
    """No network, no forms, no frames, and no script but the two that the page brings."""
    scripts = " ".join(f"'sha256-{_hash_of(script)}'" for script in (_plotly(), DRAW))
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _hash_of(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
