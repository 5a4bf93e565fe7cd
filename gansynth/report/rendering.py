"""A report as HTML, and both its files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from gansynth.report.blocks import RESULTS, Report, Row
from gansynth.report.document import fragment
from gansynth.report.markdown import render as markdown
from gansynth.report.words import Line
from gansynth.runtime.files import disk_errors, write_bytes_atomic

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.runtime import Context

TOGETHER = {" = ": "\u00a0=\u00a0", " %": "\u00a0%", "± ": "±\u00a0"}
"""Blanks at which no line may break."""


def render(report: Report, *, style: str = "", script: str = "") -> str:
    """A report as one HTML file that needs no other and no network.

    Args:
        report: what it says.
        style: style sheet behind the one that all reports share.
        script: script behind the one that all reports share.
    """
    style, script = template("style.css") + style, template("script.js") + script
    return (
        _engine()
        .get_template("report.html")
        .render(
            report=report,
            results=report.results,
            policy=_policy(style, script),
            style=Markup(style),
            script=Markup(script),
        )
    )


def html(line: Line | Markup, results: str = RESULTS) -> Markup:
    """Words as HTML: each number a link to its place in the document, all text escaped."""
    if isinstance(line, Markup):
        return line
    parts = []
    for part in line:
        if isinstance(part, str):
            for blank, kept in TOGETHER.items():
                part = part.replace(blank, kept)
            parts.append(escape(part))
            continue
        href = f"{results}#{fragment(part.pointer)}"
        scale = "" if part.scale == 1 else Markup(' data-scale="{}"').format(f"{part.scale:.12g}")
        link = Markup('<a class="n" href="{}" title="{}"{}>{}</a>')
        parts.append(link.format(href, part.source, scale, part.text))
    return Markup("").join(parts)


def template(name: str, package: str = __package__) -> str:
    """Text of a file in a package's ``templates``."""
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


def _in_groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    return [(group, list(own)) for group, own in groupby(rows, lambda row: row.group)]


def _policy(style: str, script: str) -> str:
    """What a browser may load: this very style and script, pictures within, nothing else."""
    hashes = {
        kind: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for kind, text in (("style", style), ("script", script))
    }
    parts = [f"{kind}-src 'sha256-{digest}'" for kind, digest in hashes.items()]
    rest = ["img-src data:", "base-uri 'none'", "form-action 'none'"]
    return "; ".join(["default-src 'none'", *parts, *rest])


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
