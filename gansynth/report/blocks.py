"""Building blocks of a report, for HTML and Markdown alike; used by benchmarks and others."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from markupsafe import Markup

from gansynth.report.numbers import Line

RESULTS = "results.json"
"""File name of a benchmark's document, beside its report."""


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; ``tone`` is text, note or warning."""

    line: Line
    tone: str = "text"
    kind: ClassVar[str] = "words"


@dataclass(frozen=True)
class BulletList:
    """A list of sentences under a title."""

    title: str
    lines: Sequence[Line]
    kind: ClassVar[str] = "items"


@dataclass(frozen=True)
class Definitions:
    """Definitions of terms; ``links``: those rows that consist of links alone, in HTML."""

    rows: Sequence[tuple[str, Line]]
    links: Sequence[tuple[str, Line]] = ()
    kind: ClassVar[str] = "terms"


@dataclass(frozen=True)
class TableColumn:
    """A column of a table.

    Attributes:
        role: words, short (words that stay on one line), number or drawing.
        head: a drawing in place of the heading, which then serves screen readers.
    """

    title: str
    role: str = "number"
    head: Markup | None = None


@dataclass(frozen=True)
class TableRow:
    """A row of a table; the first cell is its heading.

    Attributes:
        cells: one for each column; a mapping has the columns as keys.
        group: heading above this row and the following ones with the same group.
        tone: name of a finding, or empty.
        pointer: to the place of its numbers, if it is one place.
    """

    cells: Sequence[Line | Markup] | Mapping[TableColumn, Line | Markup]
    group: str = ""
    tone: str = ""
    pointer: str = ""

    @property
    def shown(self) -> list[Line | Markup]:
        """The cells as a list."""
        return list(self.cells.values() if isinstance(self.cells, Mapping) else self.cells)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: at least one.
        rows: may be none, which the report states.
        layout: of its columns: plain, or a class of the style sheet.
        groups: what the rows' groups are, where they need a column of their own.
    """

    caption: str
    columns: Sequence[TableColumn]
    rows: Sequence[TableRow]
    layout: str = "plain"
    groups: str = "arm"
    kind: ClassVar[str] = "table"

    @classmethod
    def of(cls, caption: str, rows: Sequence[TableRow], layout: str, groups: str = "arm") -> Table:
        """Return a table of rows, at least one, that name their columns."""
        return cls(
            caption,
            [key for key in rows[0].cells if isinstance(key, TableColumn)],
            rows,
            layout,
            groups,
        )


@dataclass(frozen=True)
class Panels:
    """Drawings of equal size, each with a heading."""

    items: Sequence[tuple[Line, Markup]]
    kind: ClassVar[str] = "panels"


@dataclass(frozen=True)
class Drawing:
    """Raw markup, and its text where nothing can be drawn.

    Attributes:
        markup: everything in it from the document is escaped.
        text: its replacement; may be empty.
    """

    markup: Markup
    text: Line = ()
    kind: ClassVar[str] = "drawn"


@dataclass(frozen=True)
class Legend:
    """The legend of a drawing: marks with words."""

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "key"


def data_uri(png: bytes) -> str:
    """Return the data URI of a PNG, to embed it in the page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


@dataclass(frozen=True)
class ReportImage:
    """An image with its caption; ``address`` is a data URI."""

    address: str
    described: str
    caption: Line


@dataclass(frozen=True)
class ImageRow:
    """Images side by side."""

    items: Sequence[ReportImage]
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class CodeBlock:
    """Verbatim text, and its place in the document."""

    text: str
    pointer: str
    kind: ClassVar[str] = "listing"


@dataclass(frozen=True)
class Details:
    """Blocks that are collapsed at first."""

    title: str
    blocks: Sequence[Block]
    kind: ClassVar[str] = "more"


Block = (
    Paragraph
    | BulletList
    | Definitions
    | Table
    | Panels
    | Drawing
    | Legend
    | ImageRow
    | CodeBlock
    | Details
)


@dataclass(frozen=True)
class Section:
    """A section of the report."""

    key: str
    title: str
    short: str
    blocks: Sequence[Block] = field(default_factory=tuple)


class Marker(Enum):
    """Marks of a finding; the lower-case name is its class in the style sheet."""

    @property
    def sign(self) -> str:
        """The sign, a single letter, at the start of the value."""
        return str(self.value[0])


@dataclass(frozen=True)
class PartSummary:
    """Verdict on one part: its title, its description, and the findings."""

    title: str
    description: str
    lines: Sequence[tuple[Marker, Line]]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The content of a report, before conversion to HTML or Markdown.

    Attributes:
        name: its subject.
        sentence: the verdict; empty if the parts are the verdict.
        scope: the objects of comparison.
        warnings: shown first.
        lead: blocks below the verdict.
        parts: the verdict part by part.
        parts_title: heading of the parts.
        answers_first: the parts come first, then pictures, then everything about the whole.
        pictures: blocks right after the parts.
        sections: all other content.
        footer: names the maker.
        maker: named in the window's title.
        opening: name of its beginning among the contents.
        results: name of the document's file, beside the report.
    """

    name: str
    sentence: Line
    scope: Line
    warnings: Sequence[Line] = ()
    lead: Sequence[Block] = ()
    parts: Sequence[PartSummary] = ()
    parts_title: str = "Arm by arm"
    answers_first: bool = False
    pictures: Sequence[Block] = ()
    sections: Sequence[Section] = ()
    footer: Line = ()
    maker: str = "gansynth benchmark"
    opening: str = "Verdict"
    results: str = RESULTS
