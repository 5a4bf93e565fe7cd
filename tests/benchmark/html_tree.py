"""HTML as a tree, with the standard library alone."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

EMPTY = {"meta", "link", "img", "br", "input"}


@dataclass
class Element:
    """An element; of its children texts are strings."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)
    parent: Element | None = None

    def all(self, *names: str) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                if not names or child.name in names:
                    yield child
                yield from child.all(*names)

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.here = self.root = Element("")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {k: v or "" for k, v in attrs}, parent=self.here)
        self.here.children.append(element)
        if tag not in EMPTY:
            self.here = element

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.here.name, f"</{tag}> closes <{self.here.name}>"
        assert self.here.parent is not None
        self.here = self.here.parent

    def handle_data(self, data: str) -> None:
        self.here.children.append(data)


def parsed(text: str) -> Element:
    """The tree of a page, every element of which is closed where it ought to be."""
    builder = _Builder()
    builder.feed(text)
    builder.close()
    assert builder.here is builder.root, f"<{builder.here.name}> is not closed"
    return builder.root


def check_speaks_for_itself(page: Element) -> None:
    """Headings in order, names that are unique and lead somewhere, tables and pictures told."""
    levels = [int(h.name[1]) for h in page.all("h1", "h2", "h3", "h4")]
    assert (levels[0], levels.count(1)) == (1, 1)
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [e.attributes["id"] for e in page.all() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    assert all(a.attributes["href"][1:] in ids for a in page.all("a"))
    for table in page.all("table"):
        assert table.parent is not None
        assert table.parent.attributes["aria-label"]
        assert all("scope" in head.attributes for head in table.all("th"))
    assert all(image.attributes["alt"] for image in page.all("img"))


def check_inert(page: Element) -> None:
    """Nothing is run and nothing loaded; links lead to sections, and the policy says so."""
    assert list(page.all("script", "iframe", "object", "form", "base")) == []
    assert not [k for e in page.all() for k in e.attributes if k.startswith("on") or k == "style"]
    links = [e.attributes[k] for e in page.all() for k in ("href", "src") if k in e.attributes]
    assert {link.split("#")[0] for link in links if not link.startswith("data:")} <= {""}
    policy = next(page.all("head")).children[3]  # before all that it is about
    assert isinstance(policy, Element)
    parts = dict(p.split(" ", 1) for p in policy.attributes["content"].split("; "))
    digest = hashlib.sha256(next(page.all("style")).text.encode()).digest()
    style = f"'sha256-{base64.b64encode(digest).decode()}'"
    assert parts == {
        **dict.fromkeys(("default-src", "base-uri", "form-action"), "'none'"),
        **{"style-src": style, "img-src": "data:"},
    }


def pictures(page: Element) -> dict[str, str]:
    """What stands below each picture -> its bytes as text."""
    return {
        image.attributes["alt"]: base64.b64decode(image.attributes["src"].partition(",")[2]).decode(
            "utf-8", "replace"
        )
        for image in page.all("img")
    }


def check_same_tables(page: Element, markdown: str) -> int:
    """The page has every table of the text, cell for cell; return how many rows."""
    shown = [[cell.text for cell in row.all("th", "td")] for row in page.all("tr")]
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    rows = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in lines]
    told = [
        [html.unescape(re.sub(r"\\([^a-z0-9\s])", r"\1", cell)).strip() for cell in row]
        for row in rows
        if not set("".join(row)) <= set("-: ")
    ]
    assert shown == told
    return len(told)


def contrast(one: str, other: str) -> float:
    """How much lighter one of two colours, #rrggbb, is than the other (WCAG 2.2)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def whole_tables(markdown: str) -> int:
    """How many tables there are, each with as many cells in every line."""
    tables = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    return len(tables)
