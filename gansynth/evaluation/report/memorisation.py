"""Memorisation: drawings of nearness, and in words what they show; near-copies one by one."""

from __future__ import annotations

from collections.abc import Sequence

from gansynth.evaluation.report.found import three, told, with_interval
from gansynth.evaluation.report.nearness import chances, distances
from gansynth.report.blocks import Block, Column, More, Row, Table, Words
from gansynth.report.document import Node
from gansynth.report.svg import Drawings
from gansynth.report.words import NOTHING, Line, Linked, number, whole

AT_ONCE = 12
"""Near-copies that are listed at once; more are folded away."""
OWNER = (
    "The list of near-copies names training cases. It is for whoever owns the run, and must not "
    "be passed on."
)
MEANING = (
    "If samples repeat training cases, they lie nearer to them than to as many people who were "
    "held out, and an attacker can tell who was trained on. What is not shown here is not ruled "
    "out: another attack may show it, and few held-out people show little."
)


def memorisation(root: Node, drawings: Drawings) -> list[Block]:
    """Distances, shares and attacks, near-copies."""
    node = root["memorisation"]
    found = [*distances(node, drawings), *chances(node, drawings), *_ratios(node), *_copies(node)]
    if not found:
        why: Line = [": ", told(node["why"])] if node["why"] else []
        return [Words(["Memorisation was not looked into", *why, "."], "note")]
    return [Words([MEANING]), *found]


def _ratios(node: Node) -> list[Block]:
    """How much nearer samples lie, in words."""
    ratio, own = node["ratio"], node["own"]
    found: list[Block] = []
    if ratio["value"].number is not None:
        start = "The median distance to training cases is "
        end = " times that of held-out real cases; without memorisation about 1 is expected."
        found.append(Words([start, *with_interval(*three(ratio, 2)), end]))
    if own["ratio"].number is not None:
        line: Line = [
            "To the very case whose labels were asked for it is ",
            number(own["ratio"], 2),
            " times the usual one (",
            whole(own["samples"]),
            " samples).",
        ]
        found.append(Words(line))
    return found


def _copies(node: Node) -> list[Block]:
    """How many samples are near-copies, and of which cases."""
    copies = node["copies"]
    if not copies:
        return []
    known = copies["count"].number is not None
    blocks: list[Block] = [Words(count_of(copies))] if known else []
    pairs = [pair for pair in copies["pairs"] if pair["case"] or pair["sample"]]
    if pairs:
        table = _pairs(pairs)
        blocks.append(Words([OWNER], "warning"))
        blocks.append(table if len(pairs) <= AT_ONCE else More("All near-copies", [table]))
    return blocks


def count_of(copies: Node) -> Line:
    """How many near-copies there are, and what is called one."""
    line: list[str | Linked] = [whole(copies["count"]), " of ", whole(copies["of"])]
    line.append(" samples are near-copies of training cases")
    if copies["threshold"].number is not None:
        line += [" (nearer than ", number(copies["threshold"], 2), " times the usual distance"]
        if copies["margin"].number is not None:
            line += [", and than ", number(copies["margin"], 2), " times that to the next person"]
        line.append(")")
    if copies["expected"].number is not None:
        line += ["; ", number(copies["expected"], 1), " would be expected of real cases"]
    return [*line, "."]


def _pairs(pairs: Sequence[Node]) -> Table:
    words = {True: "yes", False: "no"}
    rows = [
        Row(
            [
                [whole(pair["sample"])],
                [pair["case"].text or NOTHING],
                [number(pair["ratio"], 2)],
                [words[own] if isinstance(own := pair["own"].value, bool) else NOTHING],
            ],
            pointer=pair.pointer,
        )
        for pair in pairs
    ]
    columns = [Column("sample", "short"), Column("training case", "words"), Column("distance")]
    columns.append(Column("drawn of its labels", "short"))
    return Table("Near-copies; distances in usual ones", columns, rows)
