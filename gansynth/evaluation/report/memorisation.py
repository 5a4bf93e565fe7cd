"""Memorisation: plots of distances, conclusions in text, and a list of near-copies."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from gansynth.evaluation.report.assessments import decimals, sentence
from gansynth.report.blocks import Block, Details, Legend, Paragraph, Table, TableColumn, TableRow
from gansynth.report.document import JsonNode
from gansynth.report.numbers import (
    Line,
    LinkedNumber,
    finite,
    interval,
    link_number,
    number,
    probability,
    three,
    value_of,
    whole,
    with_interval,
)
from gansynth.report.svg import Axis, Drawings, block, grid, line, mark, ruler, sourced, whisker

AT_ONCE = 12  # near-copies listed openly; more are collapsed
OWNER = (
    "The list of near-copies names training cases. It is for whoever owns the run, and must not "
    "be passed on."
)
MEANING = (
    "If samples repeat training cases, they lie nearer to training subjects than to held-out ones, "
    "and an attacker can identify training subjects. Membership by distance decides whether that "
    "is shown. What is not shown here is not ruled out: another attack may show it, and few "
    "held-out subjects show little."
)
HEIGHT = 30.0
MIDDLE = HEIGHT / 2
EDGES = 4.0, 96.0
QUANTILES = range(5)
CHANCE = 0.5  # AUC of a random attack
BOX_KEY = Legend(
    (
        ("part box synthetic", "half of the samples"),
        ("part box other", "half of the real cases"),
        ("whisker", "9 of 10 of them"),
        ("median", "the middle one"),
    )
)
CHANCE_KEY = Legend(
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


def memorisation(root: JsonNode, drawings: Drawings) -> list[Block]:
    """Distances, attacks, near-copies."""
    node = root["memorisation"]
    if not node["finding"]:
        why: Line = [": ", link_number(node["why"])] if node["why"] else []
        return [Paragraph(["Memorisation was not tested", *why, "."], "note")]
    tests = (*distances(node, drawings), *chances(node, drawings))
    return [Paragraph([MEANING]), *tests, *_ratios(node), *_copies(node)]


# -- distances -----------------------------------------------------------------------------------


def distances(node: JsonNode, drawings: Drawings) -> list[Block]:
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
    caption = f"Distance to the nearest case, {unit}"
    return [Table.of(caption, rows, "distances"), BOX_KEY]


def _distance(
    drawings: Drawings, axis: Axis, head: Markup, entry: JsonNode, places: int
) -> TableRow:
    name = entry["of"].text
    q = [number(entry["quantiles"][index], places) for index in QUANTILES]
    class_ = "synthetic" if name.startswith("synthetic") else "other"
    described = f"Middle {q[2].text}, half within {q[1].text} to {q[3].text}."
    box = drawings.drawing(name, described, HEIGHT, *_box(axis, q, class_))
    cells: dict[TableColumn, Line | Markup] = {
        TableColumn("distance of", "words"): [name],
        TableColumn("distance", "drawing", head): box,
        TableColumn("middle"): [q[2]],
        TableColumn("half lie within"): interval(q[1], q[3]),
        TableColumn("9 of 10 lie within"): interval(q[0], q[4]),
        TableColumn("number"): [whole(entry["count"])],
    }
    return TableRow(cells, pointer=entry.pointer)


def _box(axis: Axis, quantiles: Sequence[LinkedNumber], class_: str) -> list[Markup]:
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


# -- attacks --------------------------------------------------------------------------


def chances(node: JsonNode, drawings: Drawings) -> list[Block]:
    """The attacks, each with the value of chance."""
    attacks = list(node["membership"])
    if not attacks:
        return []
    axis = Axis.over([0.0, 1.0], *EDGES)
    description = "Axis from zero to one; values right of chance indicate memorisation."
    head = ruler(drawings, axis, "AUC", description, ("", "memorised ▸"))
    rows = [_attack(drawings, axis, head, attack) for attack in attacks]
    caption = "Membership inference: can training subjects be told from others?"
    return [Table.of(caption, rows, "chances"), CHANCE_KEY]


def _attack(drawings: Drawings, axis: Axis, head: Markup, node: JsonNode) -> TableRow:
    key = node["attack"].text
    name = ATTACKS.get(key, f"Membership, AUC: {key}")
    middle, *ends = auc = [number(node[part], 2) for part in ("auc", "low", "high")]
    drawn = grid(axis, HEIGHT)
    at = axis.at(CHANCE)
    drawn.append(line(at, 0, at, HEIGHT, "mde"))
    drawn += whisker(axis, [(value_of(end), end) for end in ends], MIDDLE)
    if (value := value_of(middle)) is not None:
        drawn.append(sourced(middle, mark("dot", axis.at(value), MIDDLE, "arm")))
    described = f"{middle.text}, 95 % CI {ends[0].text} to {ends[1].text}."
    members: Line = [whole(node["members"]), " members, ", whole(node["others"]), " others."]
    cells: dict[TableColumn, Line | Markup] = {
        TableColumn("what", "words"): [name],
        TableColumn("how", "words"): [*sentence(node["what"].text), *members],
        TableColumn("beside chance", "drawing", head): drawings.drawing(
            name, described, HEIGHT, *drawn
        ),
        TableColumn("found, 95 % CI"): with_interval(*auc),
        TableColumn("expected"): [f"{CHANCE:.2f}"],
        TableColumn("p"): [probability(node["p"])],
    }
    return TableRow(cells, pointer=node.pointer)


# -- in words -------------------------------------------------------------------------------------


def _ratios(node: JsonNode) -> list[Block]:
    """How much nearer samples lie, as text."""
    ratio, own_case = node["ratio"], node["own"]
    blocks: list[Block] = []
    if ratio["value"].number is not None:
        start = "The median distance to training cases is "
        end = " times that of held-out real cases. Blur makes it smaller, too."
        blocks.append(Paragraph([start, *with_interval(*three(ratio, 2)), end]))
    if own_case["ratio"].number is not None:
        line: Line = [
            "To the case whose labels a sample is based on it is ",
            number(own_case["ratio"], 2),
            " times the usual one (",
            whole(own_case["samples"]),
            " samples).",
        ]
        blocks.append(Paragraph(line))
    return blocks


def _copies(node: JsonNode) -> list[Block]:
    """Number of near-copies, and their cases."""
    copies = node["copies"]
    blocks: list[Block] = [Paragraph(count_of(copies))]
    if pairs := list(copies["pairs"]):
        table = _pairs(pairs)
        blocks.append(Paragraph([OWNER], "warning"))
        blocks.append(table if len(pairs) <= AT_ONCE else Details("All near-copies", [table]))
    return blocks


def count_of(copies: JsonNode) -> Line:
    """Number of near-copies, and their definition."""
    return [
        *(whole(copies["count"]), " of ", whole(copies["of"])),
        " samples are near-copies of training cases (nearer than ",
        *(number(copies["threshold"], 2), " times the usual distance, and than "),
        *(number(copies["margin"], 2), " times that to the next subject)."),
    ]


def _pairs(pairs: Sequence[JsonNode]) -> Table:
    rows = [
        TableRow(
            [
                [whole(pair["sample"])],
                [pair["case"].text],
                [number(pair["ratio"], 2)],
                ["yes" if pair["own"].value else "no"],
            ],
            pointer=pair.pointer,
        )
        for pair in pairs
    ]
    columns = [
        TableColumn("sample", "short"),
        TableColumn("training case", "words"),
        TableColumn("distance"),
    ]
    columns.append(TableColumn("based on its labels", "short"))
    return Table("Near-copies; distances in usual ones", columns, rows)
