"""The report as Markdown: the same words, tables and numbers, no pictures."""

from __future__ import annotations

import re

from markupsafe import Markup

from gansynth.report.blocks import (
    Block,
    Drawn,
    Items,
    Listing,
    More,
    Part,
    Pictures,
    Report,
    Row,
    Table,
    Terms,
    Words,
)
from gansynth.report.words import Line, plain

LEFT, RIGHT = "---", "---:"


def render(report: Report) -> str:
    """A report as GitHub's Markdown; what comes from the document is escaped."""
    about = [f"**{_line(report.sentence)}**"] if report.sentence else []
    about += [_line(report.scope), *map(_warning, report.warnings)]
    about += [text for block in report.lead for text in _block(block)]
    answers = ["\n".join(map(_part, report.parts))] if report.parts else []
    top = [*answers, *about] if report.answers_first else [*about, *answers]
    parts = [f"# {_line([report.name])}", *top]
    for section in report.sections:
        written = [text for block in section.blocks for text in _block(block)]
        if written:
            parts += [f"## {section.title}", *written]
    return "\n\n".join([*parts, _line(report.footer)]) + "\n"


def _part(part: Part) -> str:
    return f"- **{_line([part.title])}**: " + " ".join(_line(line) for _, line in part.lines)


def _warning(line: Line) -> str:
    return f"> **Warning** {_line(line)}"


def _block(block: Block) -> list[str]:
    if isinstance(block, Words):
        return [_warning(block.line) if block.tone == "warning" else _line(block.line)]
    if isinstance(block, Drawn):
        return [_line(block.told)] * bool(block.told)
    if isinstance(block, Items):
        return ["\n".join([_line([block.title]), "", *(f"- {_line(li)}" for li in block.lines)])]
    if isinstance(block, Terms):
        rows = [row for row in block.rows if row not in block.links]
        return ["\n".join(f"- {_line([term])}: {_line(line)}" for term, line in rows)]
    if isinstance(block, Table):
        return [_table(block)]
    if isinstance(block, Pictures):
        return ["\n".join(f"- {_line(picture.caption)}" for picture in block.items)]
    if isinstance(block, Listing):
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
        return [f"{fence}yaml\n{block.text.rstrip()}\n{fence}"]
    if isinstance(block, More):
        inner = [text for part in block.blocks for text in _block(part)]
        return [f"### {_line([block.title])}", *inner] if inner else []
    return []  # drawings, and what their signs mean


def _table(table: Table) -> str:
    """Its drawings left out."""
    kept = [i for i, column in enumerate(table.columns) if column.role != "drawing"]
    grouped = any(row.group for row in table.rows)
    head = [table.groups] * grouped + [table.columns[i].title for i in kept]
    marks = [LEFT] * grouped + [RIGHT if table.columns[i].role == "number" else LEFT for i in kept]
    lines = [_cells([_line([text]) for text in head]), _cells(marks)]
    lines += [_cells(_row(row, kept, grouped)) for row in table.rows]
    return f"**{_line([table.caption])}**\n\n" + "\n".join(lines)


def _row(row: Row, kept: list[int], grouped: bool) -> list[str]:
    shown = row.shown
    cells = [cell for i in kept if not isinstance(cell := shown[i], Markup)]
    return [_line([row.group])] * grouped + [_line(cell) for cell in cells]


def _cells(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _line(line: Line) -> str:
    """Words on one line, in which nothing is markup."""
    text = " ".join(plain(line).split())
    text = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
