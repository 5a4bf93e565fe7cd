"""What a report is built of, for HTML and Markdown alike; of benchmarks, and of others."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from markupsafe import Markup

from gansynth.report.words import Line

RESULTS = "results.json"
"""A benchmark's document, beside its report."""


@dataclass(frozen=True)
class Words:
    """A paragraph; ``tone`` is text, note or warning."""

    line: Line
    tone: str = "text"
    kind: ClassVar[str] = "words"


@dataclass(frozen=True)
class Items:
    """Sentences one below the other, behind what they have in common."""

    title: str
    lines: Sequence[Line]
    kind: ClassVar[str] = "items"


@dataclass(frozen=True)
class Terms:
    """What each of some terms means; ``links``: those rows that are of links alone, in HTML."""

    rows: Sequence[tuple[str, Line]]
    links: Sequence[tuple[str, Line]] = ()
    kind: ClassVar[str] = "terms"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        role: words, short (words that stay on one line), number or drawing.
        head: a drawing in place of the heading, which then is for those who do not see it.
    """

    title: str
    role: str = "number"
    head: Markup | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table; the first cell is its heading.

    Attributes:
        cells: one for each column; where these are its keys, it says what they are.
        group: heading above this row and those that follow with the same one.
        tone: name of a finding, or empty.
        pointer: where its numbers stand, if in one place.
    """

    cells: Sequence[Line | Markup] | Mapping[Column, Line | Markup]
    group: str = ""
    tone: str = ""
    pointer: str = ""

    @property
    def shown(self) -> list[Line | Markup]:
        """The cells alone."""
        return list(self.cells.values() if isinstance(self.cells, Mapping) else self.cells)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: at least one.
        rows: may be none, which is said.
        layout: how its columns are laid out: plain, or a name that the style sheet knows.
        groups: what the groups of its rows are, where they need a column of their own.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    layout: str = "plain"
    groups: str = "arm"
    kind: ClassVar[str] = "table"

    @classmethod
    def of(cls, caption: str, rows: Sequence[Row], layout: str, groups: str = "arm") -> Table:
        """A table of rows, at least one, that name their columns."""
        return cls(
            caption, [key for key in rows[0].cells if isinstance(key, Column)], rows, layout, groups
        )


@dataclass(frozen=True)
class Panels:
    """Drawings of equal size with a heading each."""

    items: Sequence[tuple[Line, Markup]]
    kind: ClassVar[str] = "panels"


@dataclass(frozen=True)
class Drawn:
    """Markup as it is, and what is told of it where nothing can be drawn.

    Attributes:
        markup: of which everything is escaped that comes from the document.
        told: words; none if there is nothing to tell.
    """

    markup: Markup
    told: Line = ()
    kind: ClassVar[str] = "drawn"


@dataclass(frozen=True)
class Key:
    """What the signs of a drawing mean: marks with words."""

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "key"


def data_uri(png: bytes) -> str:
    """The address of a picture that is in the page itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


@dataclass(frozen=True)
class Picture:
    """A picture with its words; ``address`` is a data URI."""

    address: str
    described: str
    caption: Line


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side."""

    items: Sequence[Picture]
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class Listing:
    """Text as it is, and where it stands in the document."""

    text: str
    pointer: str
    kind: ClassVar[str] = "listing"


@dataclass(frozen=True)
class More:
    """What is folded away at first."""

    title: str
    blocks: Sequence[Block]
    kind: ClassVar[str] = "more"


Block = Words | Items | Terms | Table | Panels | Drawn | Key | Pictures | Listing | More


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    key: str
    title: str
    short: str
    blocks: Sequence[Block] = field(default_factory=tuple)


class Sign(Enum):
    """What marks a finding; its name in small letters is its class in the style sheet."""

    @property
    def sign(self) -> str:
        """A sign of one letter, with which the value begins."""
        return str(self.value[0])


@dataclass(frozen=True)
class Part:
    """What is said of one part: its title, what it is, and what was found.

    A sign is None where the words are the document's own.
    """

    title: str
    what: str
    lines: Sequence[tuple[Sign | None, Line]]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report says, before it is HTML or Markdown.

    Attributes:
        name: of what it is about.
        sentence: the verdict; none where the parts are it.
        scope: what was compared.
        warnings: what a reader must know first.
        lead: what stands below the verdict.
        parts: the verdict part by part.
        parts_title: heading of these.
        answers_first: the parts stand on top, then pictures, and all else that is said of the whole
            behind them.
        pictures: what stands right behind the parts.
        sections: all the rest.
        footer: what made it.
        maker: what the window's title says made it.
        results: name of the document's file, beside the report.
    """

    name: str
    sentence: Line
    scope: Line
    warnings: Sequence[Line] = ()
    lead: Sequence[Block] = ()
    parts: Sequence[Part] = ()
    parts_title: str = "Arm by arm"
    answers_first: bool = False
    pictures: Sequence[Block] = ()
    sections: Sequence[Section] = ()
    footer: Line = ()
    maker: str = "gansynth benchmark"
    results: str = RESULTS
