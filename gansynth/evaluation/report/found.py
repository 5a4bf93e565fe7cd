"""Findings: a sign with its word for each part, and one or two lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from gansynth.report.blocks import Part, Sign
from gansynth.report.document import Node, pattern
from gansynth.report.words import (
    Line,
    Linked,
    derived,
    finite,
    index_of,
    joined,
    number,
    three,
    whole,
    with_interval,
)

RESULTS = "evaluation.json"
"""File name of the document, beside the report."""
MOST_DECIMALS = 4


class Found(Sign):
    """A finding; the value is its sign in text."""

    SAME = "◆"
    LOSS = "▼"
    UNCLEAR = "○"
    MISSING = "–"

    @property
    def shape(self) -> str:
        """Its mark in drawings."""
        return {"SAME": "diamond", "LOSS": "down"}.get(self.name, "ring")


FINDINGS = {
    "like real": Found.SAME,
    "unlike real": Found.LOSS,
    "unclear": Found.UNCLEAR,
    "faithful": Found.SAME,
    "partly": Found.UNCLEAR,
    "no more than shuffled labels": Found.LOSS,
    "copies": Found.LOSS,
    "nearer to training": Found.LOSS,
    "not shown": Found.UNCLEAR,
}


def found(finding: Node) -> Found:
    """The sign of a finding; unknown words count as unclear."""
    return FINDINGS.get(finding.text, Found.UNCLEAR) if finding else Found.MISSING


def decimals(nodes: Iterable[Node], widths: Iterable[tuple[Node, Node]] = ()) -> int:
    """Decimals that a column of numbers needs.

    Args:
        widths: both ends of their intervals. The narrowest has two significant digits; without
            intervals the largest number has three.
    """
    ends = [finite(pair) for pair in widths]
    narrow = [width for pair in ends if len(pair) == 2 and (width := pair[1] - pair[0]) > 0]
    sizes = [abs(value) for node in nodes if (value := node.number)]
    size, digits = (min(narrow), 1) if narrow else (max(sizes, default=1.0), 2)
    return min(max(digits - math.floor(math.log10(size)), 0), MOST_DECIMALS)


def shortest(node: Node) -> Linked:
    """A number with as few decimals as possible."""
    value = node.number or 0.0
    exact = (d for d in range(12) if abs(round(value, d) - value) <= 1e-4 * abs(value))
    return number(node, next(exact, 12))


def sentence(text: str) -> Line:
    """Text as a sentence that others follow; nothing if empty."""
    text = text.strip().rstrip(".")
    return [f"{text[0].upper()}{text[1:]}. "] if text else []


def listed(node: Node) -> Linked:
    """A list of numbers as a whole, for drawings of all of them."""
    count = len(node.value) if isinstance(node.value, list) else 0
    return Linked("", f"a list of {count}", node.pointer)


def known(root: Node) -> list[Node]:
    """The figures with any known value."""
    return [
        figure
        for figure in root["figures"]
        if figure["finding"] or any(figure[key].number is not None for key in ("value", "real"))
    ]


def title_of(figure: Node) -> str:
    """A figure's heading."""
    return figure["title"].text or figure["metric"].text or "Without a name"


# -- part by part ---------------------------------------------------------------------------------

Lines = Sequence[tuple[Sign | None, Line]]
LABELS = {
    "faithful": "Samples show what their labels say",
    "partly": "Samples show some of what their labels say",
    "no more than shuffled labels": "Samples show no more of their labels than of others",
    "unclear": "Whether samples show what their labels say is unclear",
}
REMEMBERED = {
    "copies": "Samples repeat training cases",
    "nearer to training": "Samples lie nearer to training subjects than to others",
    "not shown": "Memorisation is not shown, which does not rule it out",
}


def parts(root: Node) -> list[Part]:
    """Realism, labels, memorisation."""
    return [
        Part("Realism", "Do samples look like images of other real subjects?", _realism(root)),
        Part("Labels", "Do samples show what their labels say?", _labels(root["faithfulness"])),
        Part("Memorisation", "Do samples repeat training cases?", _memory(root["memorisation"])),
    ]


def _realism(root: Node) -> Lines:
    figures = known(root)
    lines = []
    for sign in Found:
        chosen = [figure for figure in figures if found(figure["finding"]) is sign]
        if chosen:
            indices = [index_of(figure) for figure in chosen]
            of = pattern("figures", indices, "finding")
            count = derived("count", chosen, of=of, holder="/figures")
            of = pattern("figures", [index_of(figure) for figure in figures], "finding")
            total = derived("count", figures, of=of, holder="/figures")
            word = {"SAME": "like real", "LOSS": "unlike real", "UNCLEAR": "unclear"}
            start: Line = [f"{word.get(sign.name, 'not known').capitalize()} in ", count, " of "]
            names = joined([[name] for name in _names(chosen, figures)])
            lines.append((sign, [*start, total, " figures: ", *names, "."]))
    return lines or [(Found.MISSING, ["Not computed."])]


def _names(chosen: Sequence[Node], figures: Sequence[Node]) -> list[str]:
    """Each title once, with the names of its figures if only some are selected."""
    titles = [title_of(figure) for figure in figures]
    names_of: dict[str, list[str]] = {}
    for figure in chosen:
        names_of.setdefault(title_of(figure), []).append(figure["name"].text or "without a name")
    return [
        title if len(names) == titles.count(title) else f"{title} ({'; '.join(names)})"
        for title, names in names_of.items()
    ]


def _labels(node: Node) -> Lines:
    if not node["finding"]:
        return [(Found.MISSING, ["Not computed."])]
    words = LABELS.get(node["finding"].text, node["finding"].text)
    mean = node["mean"]
    if mean["synthetic"].number is None:
        return [(found(node["finding"]), [f"{words}."])]
    line: Line = [
        f"{words}: Dice ",
        *with_interval(*three(mean, 2, "synthetic")),
        ", on real cases ",
        number(mean["real"], 2),
        ", with shuffled labels ",
        number(mean["shuffled"], 2),
        ".",
    ]
    return [(found(node["finding"]), line)]


def _memory(node: Node) -> Lines:
    if not node["finding"]:
        return [(Found.MISSING, ["Not tested."])]
    words = REMEMBERED.get(node["finding"].text, node["finding"].text)
    lines: list[tuple[Sign | None, Line]] = [(found(node["finding"]), [f"{words}."])]
    details: list[Line] = []
    if node["copies"]["count"].number is not None:
        copies = node["copies"]
        details.append([whole(copies["count"]), " of ", whole(copies["of"]), " are near-copies"])
    nearer = node["nearer"]
    if nearer["value"].number is not None:
        share = number(nearer["value"], 0, scale=100.0)
        details.append([share, " % lie nearer to training than to held-out subjects"])
    if details:
        lines[0] = (lines[0][0], [f"{words}: ", *joined(details), "."])
    return lines
