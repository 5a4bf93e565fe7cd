"""A report as a whole, before it is HTML or Markdown, and the HTML made of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gansynth.report.blocks import RESULTS, Block, Row, Section, html
from gansynth.report.document import fragment
from gansynth.report.words import Line

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.runtime import Context
    from markupsafe import Markup


class Sign(Protocol):
    """What marks a finding in words; its name in small letters is its class in the style sheet."""

    @property
    def name(self) -> str:
        """Its class."""

    @property
    def sign(self) -> str:
        """A sign of one letter."""


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


def render(report: Report, *, style: str = "", script: str = "") -> str:
    """A report as one HTML file that needs no other and no network.

    Args:
        report: what it says.
        style: style sheet behind the one that all reports share.
        script: script behind the one that all reports share.
    """
    from markupsafe import Markup

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


def write_texts(folder: Path, texts: Mapping[str, str]) -> dict[str, Path]:
    """Write texts into a folder, which is made if it is not there.

    Args:
        folder: where to write.
        texts: name of each file -> what goes into it.

    Returns:
        Name of each file -> its path.

    Raises:
        EnvironmentFault: the disk refuses.
    """
    from gansynth.runtime.files import disk_errors, write_bytes_atomic

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_bytes_atomic(folder / name, text.encode("utf-8"))
    return {name: folder / name for name in texts}
