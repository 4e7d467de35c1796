"""A page taken apart: whether it is well formed, its ids, its words."""

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "hr", "input"}
NUMBER = re.compile(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?")


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.attributes: set[str] = set()
        self.cells: list[str] = []
        self.words: list[str] = []
        self.mistakes: list[str] = []
        self.feed(html)
        self.close()
        self.mistakes += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        facts = dict(attrs)
        if facts.get("id"):
            self.ids.append(str(facts["id"]))
        if facts.get("aria-labelledby"):
            self.references.append(str(facts["aria-labelledby"]))
        if str(facts.get("href", "")).startswith("#"):
            self.references.append(str(facts["href"])[1:])
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(f"</{tag}> closes nothing at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)
        if "td" in self.open:
            self.cells[-1] += f" {data}"


def numbers_in(words: str) -> set[float]:
    """Every number as it is shown, without its prefix and unit."""
    return {float(number.replace(",", "")) for number in NUMBER.findall(words)}
