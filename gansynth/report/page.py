"""A report: one Markdown text from a template; its page is that text with the figures inside.

Whatever a template shows is escaped, but for what is ``Markdown`` already. In the text a figure is
an image, named by its key; ``report.md`` leaves these lines out.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from gansynth.report.numbers import number
from gansynth.runtime.files import disk_errors, write_bytes_atomic

if TYPE_CHECKING:
    from jinja2 import Environment
    from markdown_it.token import Token

Row = Mapping[str, object]
_NUMBERS = re.compile(r"none|[\d\s.,+−–<()%×]*(?: to [\d\s.,+−–<()%×]*)?\)?")


class Markdown(str):
    """Text that is Markdown already."""


def escaped(value: object) -> str:
    """Return text on one line in which nothing is Markdown, nor at its start; None is nothing."""
    if isinstance(value, Markdown):
        return value
    return re.sub(r"^(?:[-+=](?=[-+=\s]|$)|(\d+)(?=[.)](?:\s|$)))", _at_start, _inline(value))


def _at_start(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[1] else f"\\{found[0]}"


def _inline(value: object) -> str:
    unknown = value is None or (isinstance(value, float) and math.isnan(value))
    text = "" if unknown else " ".join(str(value).split())
    text = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def table(caption: str, rows: Sequence[Row]) -> Markdown:
    """Return a table, its caption above it; columns of numbers alone stand to the right.

    Args:
        rows: column -> cell; a column that a row lacks is empty there. At least one row.
    """
    names = list(dict.fromkeys([name for row in rows for name in row]))
    cells = [[_inline(row.get(name)) for name in names] for row in rows]
    lines = [
        [_inline(name) for name in names],
        [_side(column) for column in zip(*cells, strict=True)],
        *cells,
    ]
    written = "\n".join([f"| {' | '.join(line)} |" for line in lines])
    return Markdown(f"**{_inline(caption)}**\n\n{written}")


def _side(cells: Sequence[str]) -> str:
    right = all(_NUMBERS.fullmatch(cell.replace("&lt;", "<")) for cell in cells)
    return "---:" if right else "---"


def figure(key: str, caption: str, kind: str = "") -> Markdown:
    """Return the place of a figure; ``kind`` is a class of the style sheet: small, or sheet."""
    return Markdown(f'![{_inline(caption)}]({key} "{kind}")')


def listing(text: str) -> Markdown:
    """Return YAML as it is."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return Markdown(f"{fence}yaml\n{text.rstrip()}\n{fence}")


def data_uri(picture: bytes, kind: str = "png") -> str:
    """Return a picture as an address; ``kind`` is png or svg+xml."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def template(name: str, package: str = __package__) -> str:
    """Return the text of a package's template."""
    return resources.files(package).joinpath("templates", name).read_text("utf-8")


@cache
def _engine() -> Environment:
    from jinja2 import ChainableUndefined, Environment

    engine = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=ChainableUndefined,
        finalize=escaped,
    )
    engine.globals |= {"table": table, "figure": figure, "listing": listing, "number": number}
    return engine


def compose(name: str, package: str = __package__, /, **values: Any) -> str:
    """Return the Markdown text of a package's template; what a document lacks is empty."""
    return _engine().from_string(template(name, package)).render(values).rstrip() + "\n"


def without_figures(text: str) -> str:
    """Return the text of a report without its pictures, as ``report.md`` has it."""
    return re.sub(r"(?:^!\[.*\n)+\n?", "", text, flags=re.MULTILINE)


def write_report(text: str, figures: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Write ``report.html`` and ``report.md`` into a folder, which is made if it is not there.

    Args:
        text: Markdown, as ``compose`` returns it.
        figures: key -> data URI.

    Returns:
        Name of each file -> its path.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    texts = {"report.html": page(text, figures), "report.md": without_figures(text)}
    for name, written in texts.items():
        write_bytes_atomic(folder / name, written.encode("utf-8"))
    return {name: folder / name for name in texts}


# -- the page --------------------------------------------------------------------------------------


def policy(style: str, script: str = "") -> str:
    """Return the content security policy: this style and script, embedded images, nothing else."""
    parts = ["default-src 'none'"]
    for kind, text in (("style", style), ("script", script)):
        if text:
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            parts.append(f"{kind}-src 'sha256-{digest}'")
    return "; ".join([*parts, "img-src data:", "base-uri 'none'", "form-action 'none'"])


def page(text: str, figures: Mapping[str, str]) -> str:
    """Return a report as one HTML file without scripts that needs no other file and no network.

    What stands below a third heading is folded away.
    """
    from jinja2 import Environment
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    titles = {tag: [_plain(inline) for token, inline in pairwise(tokens) if token.tag == tag
                    and token.nesting == 1] for tag in ("h1", "h2")}  # fmt: skip
    body = parser.renderer.render(list(_arranged(tokens, figures)), parser.options, {})
    style = template("style.css")
    return (
        Environment(autoescape=True)
        .from_string(template("page.html"))
        .render(
            name=titles["h1"][0],
            sections={_slug(title): title for title in titles["h2"]},
            body=Markup(body),
            style=Markup(style),
            policy=policy(style),
        )
    )


def _arranged(tokens: Sequence[Token], figures: Mapping[str, str]) -> Iterator[Token]:
    """Put sections, folded parts, figures and places that scroll around what Markdown has."""
    opened: list[str] = []
    caption, waiting = "", iter(tokens)
    for token in waiting:
        if token.type not in ("heading_open", "paragraph_open"):
            if token.type == "th_open":
                token.attrSet("scope", "col")
            if token.attrs.pop("style", None):  # of columns to the right; the policy forbids it
                token.attrSet("class", "number")
            if token.type == "table_open":
                label = Markup('<div class="scroll" role="region" aria-label="{}" tabindex="0">')
                yield _markup(label.format(caption))
            yield token
            if token.type == "table_close":
                yield _markup("</div>")
            continue
        inline = next(waiting)
        caption = _plain(inline)
        if token.tag in ("h2", "h3"):
            while opened and (token.tag == "h2" or opened[-1] == "details"):
                yield _markup(f"</{opened.pop()}>")
        if token.tag == "h2":
            opened.append("section")
            yield _markup(Markup('<section id="{}">').format(_slug(caption)))
        if token.tag == "h3":
            opened.append("details")
            yield _markup(Markup("<details><summary>{}</summary>").format(caption))
            next(waiting)
        elif {child.type for child in inline.children or ()} - {"softbreak"} == {"image"}:
            yield _markup(_pictures(inline, figures))
            next(waiting)
        else:
            yield token
            yield inline
    for name in reversed(opened):
        yield _markup(f"</{name}>")


def _pictures(inline: Token, figures: Mapping[str, str]) -> str:
    images = [child for child in inline.children or () if child.type == "image"]
    drawn = Markup("")
    for image in images:
        figure = Markup('<figure><img src="{}" alt="{}"><figcaption>{}</figcaption></figure>')
        drawn += figure.format(figures[str(image.attrs["src"])], _plain(image), _plain(image))
    return Markup('<div class="figures {}">{}</div>').format(images[0].attrs.get("title"), drawn)


def _markup(text: str) -> Token:
    from markdown_it.token import Token

    return Token("html_block", "", 0, content=f"{text}\n")


def _plain(inline: Token) -> str:
    return "".join([child.content for child in inline.children or ()])


def _slug(title: str) -> str:
    return re.sub(r"[^a-z]+", "-", title.lower()).strip("-")
