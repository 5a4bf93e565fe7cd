"""Faithfulness: whether samples show what their labels say."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from gansynth.report.blocks import Block, Legend, Paragraph, Table, TableColumn, TableRow
from gansynth.report.document import JsonNode
from gansynth.report.numbers import (
    Line,
    LinkedNumber,
    Three,
    link_number,
    number,
    plain,
    three,
    value_of,
    whole,
    with_interval,
)
from gansynth.report.svg import Axis, Drawings, grid, mark, ruler, sourced, whisker

HEIGHT = 60.0
EDGES = 4.0, 96.0
KEY = Legend(
    (
        ("square real", "real cases"),
        ("up synthetic", "samples with their own labels"),
        ("ring unclear", "samples with labels of other samples"),
        ("whisker", "95 % confidence interval"),
    )
)
MEANING = (
    "A segmenter that was not trained on samples predicts the labels that each sample is based on. "
    "If its Dice is as high as in real cases, samples show what their labels say. If it is no "
    "higher than for shuffled labels of other samples, they do not."
)


def faithfulness(root: JsonNode, drawings: Drawings) -> list[Block]:
    """Dice for each label on real cases, samples, and samples with shuffled labels."""
    node = root["faithfulness"]
    entries = [entry for entry in [*node["labels"], node["mean"]] if _known(entry)]
    if not entries:
        why: Line = [": ", link_number(node["why"])] if node["why"] else []
        return [Paragraph(["Faithfulness to labels was not computed", *why, "."], "note")]
    judge: Line = ["Segmenter: ", link_number(node["judge"]), "."]
    return [Paragraph([MEANING]), Paragraph(judge, "note"), _table(entries, drawings), KEY]


def _known(entry: JsonNode) -> bool:
    return any(entry[key].number is not None for key in ("real", "synthetic", "shuffled"))


def _table(entries: Sequence[JsonNode], drawings: Drawings) -> Table:
    axis = Axis.over([0.0, 1.0], *EDGES)
    description = f"Axis from {axis.words(0)} to {axis.words(1)}; higher is better."
    head = ruler(drawings, axis, "Dice", description, ("", "better ▸"))
    rows = [_row(drawings, axis, head, entry) for entry in entries]
    caption = "Dice of the segmenter for each label, with 95 % confidence intervals"
    return Table.of(caption, rows, "faithful")


def _row(drawings: Drawings, axis: Axis, head: Markup, entry: JsonNode) -> TableRow:
    real, samples, ratio = (three(entry, 2, key) for key in ("real", "synthetic", "ratio"))
    shuffled = number(entry["shuffled"], 2)
    name = entry["label"].text
    described = (
        f"Real cases {plain(with_interval(*real))}, samples {plain(with_interval(*samples))}, "
        f"shuffled labels {shuffled.text}."
    )
    drawn = _drawn(axis, real, samples, shuffled)
    cells: dict[TableColumn, Line | Markup] = {
        TableColumn("label", "words"): [name],
        TableColumn("Dice", "drawing", head): drawings.drawing(
            f"Dice, {name}", described, HEIGHT, *drawn
        ),
        TableColumn("real cases"): with_interval(*real),
        TableColumn("samples"): with_interval(*samples),
        TableColumn("shuffled labels"): [shuffled],
        TableColumn("ratio"): with_interval(*ratio),
        TableColumn("number of samples"): [whole(entry["samples"])],
        TableColumn("number of real cases"): [whole(entry["real_cases"])],
    }
    tone = "mean" if entry.pointer.endswith("/mean") else ""
    return TableRow(cells, tone=tone, pointer=entry.pointer)


def _drawn(axis: Axis, real: Three, samples: Three, shuffled: LinkedNumber) -> list[Markup]:
    """Real cases, samples and shuffled labels, one below the other."""
    drawn = grid(axis, HEIGHT)
    lanes = (("square", "real", real, 10.0), ("up", "synthetic", samples, 30.0))
    for shape, class_, (middle, *ends), y in lanes:
        drawn += whisker(axis, [(value_of(end), end) for end in ends], y)
        if (value := value_of(middle)) is not None:
            drawn.append(sourced(middle, mark(shape, axis.at(value), y, class_)))
    if (value := value_of(shuffled)) is not None:
        drawn.append(sourced(shuffled, mark("ring", axis.at(value), 50.0, "unclear")))
    return drawn
