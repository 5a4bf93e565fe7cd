"""Memorisation: plots of distances, conclusions in text, and a list of near-copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gansynth.evaluation.report.found import decimals, sentence
from gansynth.report.blocks import Block, Column, Key, More, Row, Table, Words
from gansynth.report.document import Node
from gansynth.report.svg import Axis, Drawings, block, grid, line, mark, ruler, sourced, whisker
from gansynth.report.words import (
    NOTHING,
    Line,
    Linked,
    Three,
    finite,
    interval,
    number,
    probability,
    three,
    told,
    value_of,
    whole,
    with_interval,
)

AT_ONCE = 12
"""Near-copies listed openly; more are collapsed."""
OWNER = (
    "The list of near-copies names training cases. It is for whoever owns the run, and must not "
    "be passed on."
)
MEANING = (
    "If samples repeat training cases, they lie nearer to them than to as many held-out "
    "subjects, and an attacker can identify training subjects. What is not shown here is not ruled "
    "out: another attack may show it, and few held-out subjects show little."
)
HEIGHT = 30.0
MIDDLE = HEIGHT / 2
EDGES = 4.0, 96.0
QUANTILES = range(5)
CHANCE = 0.5
"""AUC of a random attack."""
BOX_KEY = Key(
    (
        ("part box synthetic", "half of the samples"),
        ("part box other", "half of the real cases"),
        ("whisker", "9 of 10 of them"),
        ("median", "the middle one"),
    )
)
CHANCE_KEY = Key(
    (
        ("dot arm", "found"),
        ("whisker", "95 % confidence interval"),
        ("mde", "expected without memorisation"),
    )
)
ATTACKS = {
    "distance": "Membership by distance, AUC",
    "discriminator": "Membership by discriminator, AUC",
}


def memorisation(root: Node, drawings: Drawings) -> list[Block]:
    """Distances, shares and attacks, near-copies."""
    node = root["memorisation"]
    blocks = [*distances(node, drawings), *chances(node, drawings), *_ratios(node), *_copies(node)]
    if not blocks:
        why: Line = [": ", told(node["why"])] if node["why"] else []
        return [Words(["Memorisation was not tested", *why, "."], "note")]
    return [Words([MEANING]), *blocks]


# -- distances -----------------------------------------------------------------------------------


def distances(node: Node, drawings: Drawings) -> list[Block]:
    """A box plot for each side: distances to the nearest case of another subject."""
    entries = [entry for entry in node["distances"] if finite(entry["quantiles"])]
    if not entries:
        return []
    quantiles = [quantile for entry in entries for quantile in entry["quantiles"]]
    axis = Axis.over([0.0, *finite(quantiles)], *EDGES)
    ends = [(entry["quantiles"][1], entry["quantiles"][3]) for entry in entries]
    places, unit = decimals(quantiles, ends), node["unit"].text
    description = f"Axis from {axis.words(axis.low)} to {axis.words(axis.high)} {unit}."
    head = ruler(drawings, axis, "Distance to the nearest", description)
    rows = [_distance(drawings, axis, head, entry, places) for entry in entries]
    caption = f"Distance to the nearest case{f', {unit}' if unit else ''}"
    return [Table.of(caption, rows, "distances"), BOX_KEY]


def _distance(drawings: Drawings, axis: Axis, head: Markup, entry: Node, places: int) -> Row:
    name = entry["of"].text or "without a name"
    q = [number(entry["quantiles"][index], places) for index in QUANTILES]
    class_ = "synthetic" if name.startswith("synthetic") else "other"
    described = f"Middle {q[2].text}, half within {q[1].text} to {q[3].text}."
    box = drawings.drawing(name, described, HEIGHT, *_box(axis, q, class_))
    cells: dict[Column, Line | Markup] = {
        Column("distance of", "words"): [name],
        Column("distance", "drawing", head): box,
        Column("middle"): [q[2]],
        Column("half lie within"): interval(q[1], q[3]),
        Column("9 of 10 lie within"): interval(q[0], q[4]),
        Column("number"): [whole(entry["count"])],
    }
    return Row(cells, pointer=entry.pointer)


def _box(axis: Axis, quantiles: Sequence[Linked], class_: str) -> list[Markup]:
    """Whisker from the first to the last quantile, box from the second to the fourth."""
    drawn = grid(axis, HEIGHT)
    drawn += whisker(axis, [(value_of(quantiles[i]), quantiles[i]) for i in (0, 4)], MIDDLE)
    first, middle, last = (value_of(quantiles[i]) for i in (1, 2, 3))
    if first is not None and last is not None:
        turn = axis.at(middle if middle is not None else (first + last) / 2)
        for end, source in ((first, quantiles[1]), (last, quantiles[3])):
            half = block(axis.at(end), turn, 6, HEIGHT - 12, f"box {class_}")
            drawn.append(sourced(source, half))
    if middle is not None:
        at = axis.at(middle)
        drawn.append(sourced(quantiles[2], line(at, 4, at, HEIGHT - 4, "median")))
    return drawn


# -- shares and attacks --------------------------------------------------------------------------


@dataclass(frozen=True)
class Chance:
    """A result with the value expected by chance."""

    node: Node
    name: str
    how: Line
    value: Three
    expected: float | None
    expected_text: Line


def chances(node: Node, drawings: Drawings) -> list[Block]:
    """The share nearer to training, and attacks, each with the value of chance."""
    nearer = node["nearer"]
    entries = [_nearer(nearer)] if nearer["value"].number is not None else []
    entries += [_attack(a) for a in node["membership"] if a["auc"].number is not None]
    if not entries:
        return []
    axis = Axis.over([0.0, 1.0], *EDGES)
    description = "Axis from zero to one; values right of chance indicate memorisation."
    head = ruler(drawings, axis, "Share or AUC", description, ("", "memorised ▸"))
    rows = [_chance(drawings, axis, head, entry) for entry in entries]
    caption = "Memorisation tests, beside the values expected without memorisation"
    return [Table.of(caption, rows, "chances"), CHANCE_KEY]


def _found(node: Node, key: str) -> Three:
    middle, low, high = (number(node[k], 2) for k in (key, "low", "high"))
    return middle, low, high


def _nearer(node: Node) -> Chance:
    return Chance(
        node,
        "Samples nearer to training",
        [
            "Share of samples that lie nearer to training subjects than to as many held-out ones; ",
            whole(node["people"]),
            " subjects on each side.",
        ],
        _found(node, "value"),
        node["expected"].number,
        [number(node["expected"], 2)],
    )


def _attack(node: Node) -> Chance:
    key = node["attack"].text
    return Chance(
        node,
        ATTACKS.get(key, f"Membership, AUC{f': {key}' if key else ''}"),
        [
            *sentence(node["what"].text),
            whole(node["members"]),
            " members, ",
            whole(node["others"]),
            " others.",
        ],
        _found(node, "auc"),
        CHANCE,
        [f"{CHANCE:.2f}"],
    )


def _chance(drawings: Drawings, axis: Axis, head: Markup, entry: Chance) -> Row:
    drawn = grid(axis, HEIGHT)
    if entry.expected is not None:
        at = axis.at(entry.expected)
        drawn.append(line(at, 0, at, HEIGHT, "mde"))
    middle, *ends = entry.value
    drawn += whisker(axis, [(value_of(end), end) for end in ends], MIDDLE)
    if (value := value_of(middle)) is not None:
        drawn.append(sourced(middle, mark("dot", axis.at(value), MIDDLE, "arm")))
    described = f"{middle.text}, 95 % CI {ends[0].text} to {ends[1].text}."
    cells: dict[Column, Line | Markup] = {
        Column("what", "words"): [entry.name],
        Column("how", "words"): entry.how,
        Column("beside chance", "drawing", head): drawings.drawing(
            entry.name, described, HEIGHT, *drawn
        ),
        Column("found, 95 % CI"): with_interval(*entry.value),
        Column("expected"): entry.expected_text,
        Column("p"): [probability(entry.node["p"])],
    }
    return Row(cells, pointer=entry.node.pointer)


# -- in words -------------------------------------------------------------------------------------


def _ratios(node: Node) -> list[Block]:
    """How much nearer samples lie, as text."""
    ratio, own_case = node["ratio"], node["own"]
    blocks: list[Block] = []
    if ratio["value"].number is not None:
        start = "The median distance to training cases is "
        end = " times that of held-out real cases; without memorisation about 1 is expected."
        blocks.append(Words([start, *with_interval(*three(ratio, 2)), end]))
    if own_case["ratio"].number is not None:
        line: Line = [
            "To the case whose labels a sample is based on it is ",
            number(own_case["ratio"], 2),
            " times the usual one (",
            whole(own_case["samples"]),
            " samples).",
        ]
        blocks.append(Words(line))
    return blocks


def _copies(node: Node) -> list[Block]:
    """Number of near-copies, and their cases."""
    copies = node["copies"]
    if not copies:
        return []
    counted = copies["count"].number is not None
    blocks: list[Block] = [Words(count_of(copies))] if counted else []
    pairs = [pair for pair in copies["pairs"] if pair["case"] or pair["sample"]]
    if pairs:
        table = _pairs(pairs)
        blocks.append(Words([OWNER], "warning"))
        blocks.append(table if len(pairs) <= AT_ONCE else More("All near-copies", [table]))
    return blocks


def count_of(copies: Node) -> Line:
    """Number of near-copies, and their definition."""
    line: list[str | Linked] = [whole(copies["count"]), " of ", whole(copies["of"])]
    line.append(" samples are near-copies of training cases")
    if copies["threshold"].number is not None:
        line += [" (nearer than ", number(copies["threshold"], 2), " times the usual distance"]
        if copies["margin"].number is not None:
            line += [", and than ", number(copies["margin"], 2), " times that to the next subject"]
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
                [words[own_case] if isinstance(own_case := pair["own"].value, bool) else NOTHING],
            ],
            pointer=pair.pointer,
        )
        for pair in pairs
    ]
    columns = [Column("sample", "short"), Column("training case", "words"), Column("distance")]
    columns.append(Column("based on its labels", "short"))
    return Table("Near-copies; distances in usual ones", columns, rows)
