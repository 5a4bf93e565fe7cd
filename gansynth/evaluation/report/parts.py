"""What was found, part by part, in a line or two each."""

from __future__ import annotations

from collections.abc import Sequence

from gansynth.evaluation.report.found import Found, found, three, with_interval
from gansynth.evaluation.report.realism import known, title_of
from gansynth.report.document import Node, pattern
from gansynth.report.rendering import Part, Sign
from gansynth.report.words import Line, derived, index_of, joined, number, whole

Lines = Sequence[tuple[Sign | None, Line]]
LABELS = {
    "faithful": "Samples show what their labels say",
    "partly": "Samples show some of what their labels say",
    "no more than shuffled labels": "Samples show no more of their labels than of others",
    "unclear": "Whether samples show what their labels say is unclear",
}
REMEMBERED = {
    "copies": "Samples repeat training cases",
    "nearer to training": "Samples lie nearer to training people than to others",
    "not shown": "Memorisation is not shown, which does not rule it out",
}


def parts(root: Node) -> list[Part]:
    """Realism, labels, memorisation."""
    return [
        Part("Realism", "Do samples look like images of other real people?", _realism(root)),
        Part("Labels", "Do samples show what their labels say?", _labels(root["faithfulness"])),
        Part("Memorisation", "Do samples repeat training cases?", _memory(root["memorisation"])),
    ]


def _realism(root: Node) -> Lines:
    own = known(root)
    lines = []
    for sign in Found:
        some = [figure for figure in own if found(figure["finding"]) is sign]
        if some:
            indices = [index_of(figure) for figure in some]
            of = pattern("figures", indices, "finding")
            count = derived("count", some, of=of, holder="/figures")
            of = pattern("figures", [index_of(figure) for figure in own], "finding")
            total = derived("count", own, of=of, holder="/figures")
            word = {"SAME": "like real", "LOSS": "unlike real", "UNCLEAR": "unclear"}
            start: Line = [f"{word.get(sign.name, 'not known').capitalize()} in ", count, " of "]
            names = joined([[name] for name in _names(some, own)])
            lines.append((sign, [*start, total, " figures: ", *names, "."]))
    return lines or [(Found.MISSING, ["Not worked out."])]


def _names(some: Sequence[Node], own: Sequence[Node]) -> list[str]:
    """Each title once; with the names of its figures where not all of them are among these."""
    titles = [title_of(figure) for figure in own]
    found: dict[str, list[str]] = {}
    for figure in some:
        found.setdefault(title_of(figure), []).append(figure["name"].text or "without a name")
    return [
        title if len(names) == titles.count(title) else f"{title} ({'; '.join(names)})"
        for title, names in found.items()
    ]


def _labels(node: Node) -> Lines:
    if not node["finding"]:
        return [(Found.MISSING, ["Not worked out."])]
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
        return [(Found.MISSING, ["Not looked into."])]
    words = REMEMBERED.get(node["finding"].text, node["finding"].text)
    lines: list[tuple[Sign | None, Line]] = [(found(node["finding"]), [f"{words}."])]
    more: list[Line] = []
    if node["copies"]["count"].number is not None:
        copies = node["copies"]
        more.append([whole(copies["count"]), " of ", whole(copies["of"]), " are near-copies"])
    nearer = node["nearer"]
    if nearer["value"].number is not None:
        share = number(nearer["value"], 0, scale=100.0)
        more.append([share, " % lie nearer to training than to held-out people"])
    if more:
        lines[0] = (lines[0][0], [f"{words}: ", *joined(more), "."])
    return lines
