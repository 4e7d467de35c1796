"""What a section is laid out from: paragraphs, drawings, galleries, tables, lists."""

from dataclasses import dataclass
from typing import ClassVar

import plotly.graph_objects as go

from reports.cells import Table
from reports.contents import Absent, Found, ReportContents, Say, sentence_of


@dataclass(frozen=True)
class Paragraph:
    """Words alone; a `warning` stands out, `source` and `absent` are set apart."""

    text: str
    tone: str = "plain"
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Drawing:
    """A figure under a fixed id, and the sentence that says what it shows."""

    id: str
    figure: go.Figure
    caption: str
    kind: ClassVar[str] = "drawing"

    @property
    def json(self) -> str:
        """The figure as plotly reads it, harmless inside a script element."""
        text = str(self.figure.to_json())
        for letter in "<>&\u2028\u2029":
            text = text.replace(letter, f"\\u{ord(letter):04x}")
        return text


@dataclass(frozen=True)
class Picture:
    """One decided image: its drawing and the two lines below it."""

    drawing: Drawing
    label: str
    predicted: str


@dataclass(frozen=True)
class Gallery:
    """Small pictures with one legend: a colour and its meaning."""

    title: str
    legend: tuple[tuple[str, str], ...]
    pictures: tuple[Picture, ...]
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Sentences:
    """A list under a heading."""

    title: str
    items: tuple[str, ...]
    kind: ClassVar[str] = "sentences"


@dataclass(frozen=True)
class Sheet:
    """A table in its place."""

    table: Table
    kind: ClassVar[str] = "sheet"


Block = Paragraph | Drawing | Gallery | Heading | Sentences | Sheet


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the report."""

    id: str
    heading: str
    blocks: tuple[Block, ...]

    @property
    def drawings(self) -> tuple[Drawing, ...]:
        """Every drawing, those of galleries included."""
        found: list[Drawing] = []
        for block in self.blocks:
            if isinstance(block, Drawing):
                found.append(block)
            elif isinstance(block, Gallery):
                found.extend(picture.drawing for picture in block.pictures)
        return tuple(found)


def source_of(part: Found[object], say: Say) -> Paragraph:
    """Where a part was read from, and whether it is of this machine."""
    key = "page.source_reference" if part.is_reference else "page.source_here"
    return Paragraph(say(key, file=part.source), tone="source")


def absence_of(part: Absent, name: str, say: Say) -> Paragraph:
    """Why a part is not there."""
    return Paragraph(f"{say(f'part.{name}')}: {sentence_of(part, say)}", tone="absent")


def absent_parts(contents: ReportContents) -> dict[str, Absent]:
    """The parts that are not there, by name."""
    return {name: part for name, part in contents.parts.items() if isinstance(part, Absent)}
