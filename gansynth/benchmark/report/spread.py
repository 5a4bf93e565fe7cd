"""Where the differences between an arm and the control spread."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from gansynth.benchmark.report.study import Arm, Study
from gansynth.report.blocks import Block, Column, Key, Row, Table, Terms, Words
from gansynth.report.document import Node, pattern
from gansynth.report.svg import Drawings, block, sourced
from gansynth.report.svg import words as text
from gansynth.report.words import NOTHING, Line, Linked, rounded, whole

HEIGHT = 30.0
WRITTEN = 0.14
"""Share from which a part of a bar is wide enough to be written on."""
PARTS = {
    "draw": ("draw", "which real cases were drawn for training"),
    "seed": ("seed", "the random numbers of one training"),
    "case": ("subject", "test subjects for whom an arm does more than for others"),
    "draw_case": ("draw × subject", "subjects for whom one draw does more than another"),
    "rest": ("rest", "all else: the same subject, draw and arm under another seed"),
}
"""Key in the document -> its name, and what it stands for."""


def spread(study: Study, drawings: Drawings) -> list[Block]:
    """A bar for each comparison of the primary measure, in shares of the variance."""
    rows = []
    for arm in study.others:
        for n in study.sizes:
            node = study.entry("comparisons", arm.key, n, study.primary)["variance"]
            if sum(parts(node).values()) > 0:
                rows.append(_row(study, drawings, arm, n, node))
    if not rows:
        return [Words(["The variance could not be split."], "note")]
    columns = [Column("N", "short"), Column("shares of the variance, %", "drawing")]
    columns += [Column(name) for name, _ in PARTS.values()]
    key = Key(tuple((f"part {part}", name) for part, (name, _) in PARTS.items()))
    terms = Terms([(name, [meaning]) for name, meaning in PARTS.values()])
    table = Table("Variance of the differences to the control, %", columns, rows, "spread")
    return [table, key, terms]


def parts(node: Node) -> dict[str, float]:
    """Parts of a variance; what was estimated below zero counts as none."""
    return {part: max(0.0, node[part].number or 0.0) for part in PARTS}


def _row(study: Study, drawings: Drawings, arm: Arm, n: int, node: Node) -> Row:
    values = parts(node)
    shares = {part: value / sum(values.values()) for part, value in values.items()}
    of = pattern(*node.pointer.split("/")[1:], list(PARTS))
    found = [
        Linked(rounded(100 * s, 0), s, node[part].pointer, 100.0, "share", of)
        if node[part].number is not None
        else Linked(NOTHING, None, node[part].pointer)
        for part, s in shares.items()
    ]
    said = ", ".join(f"{PARTS[k][0]} {f.text} %" for k, f in zip(PARTS, found, strict=True))
    bar = drawings.drawing(f"{arm.title}, N = {n}", said, HEIGHT, *_bar(found))
    cells: list[Line | Markup] = [[whole(study.size_node(n))], bar, *([f] for f in found)]
    return Row(cells, arm.title, pointer=node.pointer)


def _bar(shares: Sequence[Linked]) -> list[Markup]:
    drawn, start = [], 0.0
    for part, share in zip(PARTS, shares, strict=True):
        size = 100 * (share.value or 0.0)
        if size <= 0:
            continue
        inside = [block(start, start + size, 4, HEIGHT - 8, f"part {part}")]
        if size >= 100 * WRITTEN:
            inside.append(text(start + size / 2, 19, share.text, f"on {part}"))
        drawn.append(sourced(share, *inside))
        start += size
    return drawn
