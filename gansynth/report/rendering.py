"""Conversion of a report to HTML and Markdown: equal words, tables, numbers; images in HTML."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from gansynth.report.blocks import (
    RESULTS,
    Block,
    BulletList,
    CodeBlock,
    Definitions,
    Details,
    Drawing,
    ImageRow,
    Paragraph,
    PartSummary,
    Report,
    Table,
    TableRow,
)
from gansynth.report.document import fragment
from gansynth.report.numbers import Line, plain
from gansynth.runtime.files import disk_errors, write_bytes_atomic

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.runtime import Context

TOGETHER = {" = ": "\u00a0=\u00a0", " %": "\u00a0%", "± ": "±\u00a0"}
"""Blanks that must not become line breaks."""


def render(report: Report, *, style: str = "", script: str = "") -> str:
    """Render a report as one HTML file that needs no other file and no network.

    Args:
        report: its content.
        style: style sheet appended to the shared one.
        script: script appended to the shared one.
    """
    style, script = template("style.css") + style, template("script.js") + script
    return (
        _engine()
        .get_template("report.html")
        .render(
            report=report,
            results=report.results,
            policy=policy(style, script),
            style=Markup(style),
            script=Markup(script),
        )
    )


def html(line: Line | Markup, results: str = RESULTS) -> Markup:
    """Convert words to HTML: each number links to its place in the document; text is escaped."""
    if isinstance(line, Markup):
        return line
    parts = []
    for part in line:
        if isinstance(part, str):
            for blank, unbreakable in TOGETHER.items():
                part = part.replace(blank, unbreakable)
            parts.append(escape(part))
            continue
        href = f"{results}#{fragment(part.pointer)}"
        scale = "" if part.scale == 1 else Markup(' data-scale="{}"').format(f"{part.scale:.12g}")
        link = Markup('<a class="n" href="{}" title="{}"{}>{}</a>')
        parts.append(link.format(href, part.source, scale, part.text))
    return Markup("").join(parts)


def template(name: str, package: str = __package__) -> str:
    """Return the text of a file in a package's ``templates``."""
    return (resources.files(package) / "templates" / name).read_text("utf-8")


@cache
def _engine() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined, pass_context

    @pass_context
    def linked(context: Context, line: Line | Markup) -> Markup:
        return html(line, context["results"])

    engine = Environment(
        loader=FunctionLoader(template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {"html": linked, "fragment": fragment, "in_groups": _in_groups}
    engine.filters.update(filters)
    return engine


def _in_groups(rows: Sequence[TableRow]) -> list[tuple[str, list[TableRow]]]:
    return [(group, list(members)) for group, members in groupby(rows, lambda row: row.group)]


def policy(style: str, script: str) -> str:
    """Return the content security policy: this style and script, embedded images, nothing else."""
    hashes = {
        kind: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for kind, text in (("style", style), ("script", script))
    }
    parts = [f"{kind}-src 'sha256-{digest}'" for kind, digest in hashes.items()]
    directives = ["img-src data:", "base-uri 'none'", "form-action 'none'"]
    return "; ".join(["default-src 'none'", *parts, *directives])


def write_report(
    report: Report, folder: Path, *, style: str = "", script: str = ""
) -> dict[str, Path]:
    """Write ``report.html`` and ``report.md`` into a folder, which is made if it is not there.

    Returns:
        Name of each file -> its path.

    Raises:
        EnvironmentFault: the disk refuses.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    texts = {"report.html": render(report, style=style, script=script)}
    texts["report.md"] = markdown(report)
    for name, text in texts.items():
        write_bytes_atomic(folder / name, text.encode("utf-8"))
    return {name: folder / name for name in texts}


# -- Markdown --------------------------------------------------------------------------------------

LEFT, RIGHT = "---", "---:"


def markdown(report: Report) -> str:
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


def _part(part: PartSummary) -> str:
    return f"- **{_line([part.title])}**: " + " ".join(_line(line) for _, line in part.lines)


def _warning(line: Line) -> str:
    return f"> **Warning** {_line(line)}"


def _block(block: Block) -> list[str]:
    if isinstance(block, Paragraph):
        return [_warning(block.line) if block.tone == "warning" else _line(block.line)]
    if isinstance(block, Drawing):
        return [_line(block.text)] * bool(block.text)
    if isinstance(block, BulletList):
        return ["\n".join([_line([block.title]), "", *(f"- {_line(li)}" for li in block.lines)])]
    if isinstance(block, Definitions):
        rows = [row for row in block.rows if row not in block.links]
        return ["\n".join(f"- {_line([term])}: {_line(line)}" for term, line in rows)]
    if isinstance(block, Table):
        return [_table(block)]
    if isinstance(block, ImageRow):
        return ["\n".join(f"- {_line(picture.caption)}" for picture in block.items)]
    if isinstance(block, CodeBlock):
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
        return [f"{fence}yaml\n{block.text.rstrip()}\n{fence}"]
    if isinstance(block, Details):
        inner = [text for part in block.blocks for text in _block(part)]
        return [f"### {_line([block.title])}", *inner] if inner else []
    return []  # drawings, and what their signs mean


def _table(table: Table) -> str:
    """Its drawings left out."""
    indices = [i for i, column in enumerate(table.columns) if column.role != "drawing"]
    grouped = any(row.group for row in table.rows)
    head = [table.groups] * grouped + [table.columns[i].title for i in indices]
    marks = [LEFT] * grouped + [
        RIGHT if table.columns[i].role == "number" else LEFT for i in indices
    ]
    lines = [_cells([_line([text]) for text in head]), _cells(marks)]
    lines += [_cells(_row(row, indices, grouped)) for row in table.rows]
    return f"**{_line([table.caption])}**\n\n" + "\n".join(lines)


def _row(row: TableRow, indices: list[int], grouped: bool) -> list[str]:
    values = row.shown
    cells = [cell for i in indices if not isinstance(cell := values[i], Markup)]
    return [_line([row.group])] * grouped + [_line(cell) for cell in cells]


def _cells(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _line(line: Line) -> str:
    """Words on one line, in which nothing is markup."""
    text = " ".join(plain(line).split())
    text = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
