"""Findings: a sign with its word for each part, and one or two lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from gansynth.report.blocks import Marker, PartSummary
from gansynth.report.document import JsonNode, pattern
from gansynth.report.numbers import (
    Line,
    LinkedNumber,
    derived,
    finite,
    index_of,
    joined,
    link_number,
    number,
    three,
    whole,
    with_interval,
)

RESULTS = "evaluation.json"  # file name of the document, beside the report
MOST_DECIMALS = 4


class Assessment(Marker):
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
    "like real": Assessment.SAME,
    "unlike real": Assessment.LOSS,
    "unclear": Assessment.UNCLEAR,
    "faithful": Assessment.SAME,
    "partly": Assessment.UNCLEAR,
    "no more than shuffled labels": Assessment.LOSS,
    "copies": Assessment.LOSS,
    "revealed": Assessment.LOSS,
    "not shown": Assessment.UNCLEAR,
}


VERDICTS = {
    Assessment.SAME: "like real",
    Assessment.LOSS: "unlike real",
    Assessment.UNCLEAR: "cannot tell",
    Assessment.MISSING: "not known",
}
"""What a figure says of samples."""


def assessment_of(finding: JsonNode) -> Assessment:
    """The sign of a finding; unknown words count as unclear."""
    return FINDINGS.get(finding.text, Assessment.UNCLEAR) if finding else Assessment.MISSING


def decimals(nodes: Iterable[JsonNode], widths: Iterable[tuple[JsonNode, JsonNode]] = ()) -> int:
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


def shortest(node: JsonNode) -> LinkedNumber:
    """A number with as few decimals as possible."""
    value = node.number or 0.0
    exact = (d for d in range(12) if abs(round(value, d) - value) <= 1e-4 * abs(value))
    return number(node, next(exact, 12))


def sentence(text: str) -> Line:
    """Text as a sentence that others follow; nothing if empty."""
    text = text.strip().rstrip(".")
    return [f"{text[0].upper()}{text[1:]}. "] if text else []


def listed(node: JsonNode) -> LinkedNumber:
    """A list of numbers as a whole, for drawings of all of them."""
    count = len(node.value) if isinstance(node.value, list) else 0
    return LinkedNumber("", f"a list of {count}", node.pointer)


def title_of(figure: JsonNode) -> str:
    """A figure's heading."""
    return figure["title"].text or figure["metric"].text


# -- part by part ---------------------------------------------------------------------------------

Lines = Sequence[tuple[Marker, Line]]
LABELS = {
    "faithful": "Samples show what their labels say",
    "partly": "Samples show some of what their labels say",
    "no more than shuffled labels": "Samples show no more of their labels than of others",
    "unclear": "Whether samples show what their labels say is unclear",
}
REMEMBERED = {
    "copies": "Samples repeat training cases",
    "revealed": "Samples reveal who the training subjects are",
    "not shown": "Memorisation is not shown, which does not rule it out",
}


def parts(root: JsonNode) -> list[PartSummary]:
    """Realism, labels, memorisation."""
    return [
        PartSummary(
            "Realism", "Do samples look like images of other real subjects?", _realism(root)
        ),
        PartSummary(
            "Labels", "Do samples show what their labels say?", _labels(root["faithfulness"])
        ),
        PartSummary(
            "Memorisation", "Do samples repeat training cases?", _memory(root["memorisation"])
        ),
    ]


def _realism(root: JsonNode) -> Lines:
    figures = list(root["figures"])
    differs = root["differs"]
    lines: list[tuple[Marker, Line]] = [(Assessment.LOSS, [link_number(differs)])] * bool(differs)
    for sign in Assessment:
        chosen = [figure for figure in figures if assessment_of(figure["finding"]) is sign]
        if chosen:
            indices = [index_of(figure) for figure in chosen]
            of = pattern("figures", indices, "finding")
            count = derived("count", chosen, of=of, holder="/figures")
            of = pattern("figures", [index_of(figure) for figure in figures], "finding")
            total = derived("count", figures, of=of, holder="/figures")
            start: Line = [f"{VERDICTS[sign].capitalize()} in ", count, " of "]
            names = joined([[name] for name in _names(chosen, figures)])
            lines.append((sign, [*start, total, " figures: ", *names, "."]))
    return lines or [(Assessment.MISSING, ["Not computed."])]


def _names(chosen: Sequence[JsonNode], figures: Sequence[JsonNode]) -> list[str]:
    """Each title once, with the names of its figures if only some are selected."""
    titles = [title_of(figure) for figure in figures]
    names_of: dict[str, list[str]] = {}
    for figure in chosen:
        names_of.setdefault(title_of(figure), []).append(figure["name"].text or "without a name")
    return [
        title if len(names) == titles.count(title) else f"{title} ({'; '.join(names)})"
        for title, names in names_of.items()
    ]


def _labels(node: JsonNode) -> Lines:
    if not node["finding"]:
        return [(Assessment.MISSING, ["Not computed."])]
    words = LABELS.get(node["finding"].text, node["finding"].text)
    mean = node["mean"]
    if mean["synthetic"].number is None:
        return [(assessment_of(node["finding"]), [f"{words}."])]
    line: Line = [
        f"{words}: Dice ",
        *with_interval(*three(mean, 2, "synthetic")),
        ", on real cases ",
        number(mean["real"], 2),
        ", with shuffled labels ",
        number(mean["shuffled"], 2),
        ".",
    ]
    return [(assessment_of(node["finding"]), line)]


def _memory(node: JsonNode) -> Lines:
    if not node["finding"]:
        return [(Assessment.MISSING, ["Not tested."])]
    words = REMEMBERED.get(node["finding"].text, node["finding"].text)
    copies = node["copies"]
    count: Line = [whole(copies["count"]), " of ", whole(copies["of"]), " are near-copies."]
    return [(assessment_of(node["finding"]), [f"{words}: ", *count])]
