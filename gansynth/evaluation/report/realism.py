"""Realism: each figure beside the value of other real subjects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gansynth.evaluation.report.assessments import VERDICTS, assessment_of, decimals, title_of
from gansynth.report.blocks import Block, Details, Legend, Paragraph, Table, TableColumn, TableRow
from gansynth.report.document import JsonNode
from gansynth.report.numbers import (
    NOTHING,
    Line,
    LinkedNumber,
    Three,
    finite,
    interval,
    plain,
    probability,
    three,
    value_of,
    whole,
    with_interval,
)
from gansynth.report.svg import Axis, Drawings, block, line, mark, sourced, whisker
from gansynth.report.svg import words as text

HEIGHT = 30.0
MIDDLE = HEIGHT / 2
EDGES = 3.0, 97.0
NEARER, LEAST, FARTHEST = 3.0, 5.0, 100.0
"""Extent of the axis in half widths of the band: to the left, and least and most to the right."""
TICKS = (2, 5, 10, 20, 50, 100)
CHANCE = 0.5
FIGURES_KEY = Legend(
    (
        ("diamond same", "like real"),
        ("down loss", "unlike real"),
        ("ring unclear", "cannot tell"),
        ("whisker", "95 % confidence interval"),
        ("band", "where other real subjects lie"),
        ("reference", "their middle value"),
        ("mde", "0.5: chance"),
        ("beyond", "goes beyond the axis"),
    )
)


@dataclass(frozen=True)
class RealRange:
    """Scale of a figure relative to the band of other real subjects.

    Within the band, -1 to 1, it is linear; outside it is logarithmic. Further right is less like
    real, whichever direction is better.
    """

    middle: float
    half: float
    way: float  # 1 or -1

    @classmethod
    def of(cls, figure: JsonNode) -> RealRange | None:
        """A figure's scale; None if its band is unknown or has no width."""
        low, high = figure["real_low"].number, figure["real_high"].number
        value = figure["value"].number
        if low is None or high is None or not high > low:
            return None
        middle, better = (low + high) / 2, figure["better"].text
        aim = CHANCE if better == "half" else middle
        way = -1.0 if value is not None and value < aim else 1.0
        way = {"lower": 1.0, "higher": -1.0}.get(better, way)
        return cls(middle, (high - low) / 2, way)

    def at(self, value: float) -> float:
        """Position of a number."""
        return _bent(self.way * (value - self.middle) / self.half)


def _bent(times: float) -> float:
    """Half widths of the band, logarithmic outside of it."""
    far = abs(times)
    return times if far <= 1 else math.copysign(1 + math.log(far), times)


def figures(root: JsonNode, drawings: Drawings) -> list[Block]:
    """All figures with a drawing each, every number of them, and skipped metrics."""
    nodes = list(root["figures"])
    blocks: list[Block] = []
    if nodes:
        blocks += [_table(nodes, drawings), FIGURES_KEY, Details("Every number", [_numbers(nodes)])]
    else:
        blocks.append(Paragraph(["No figure of realism was computed."], "note"))
    if root["left_out"]:
        rows = [
            TableRow([[node[key].text] for key in ("metric", "why")]) for node in root["left_out"]
        ]
        columns = [TableColumn("metric", "short"), TableColumn("why", "words")]
        blocks.append(Table("Left out", columns, rows))
    return blocks


def _table(nodes: Sequence[JsonNode], drawings: Drawings) -> Table:
    scales = [RealRange.of(figure) for figure in nodes]
    ends = [
        scale.at(value)
        for figure, scale in zip(nodes, scales, strict=True)
        if scale
        for value in finite(figure[key] for key in ("value", "low", "high"))
    ]
    right = min(max([_bent(LEAST), *ends]) + 0.2, _bent(FARTHEST))
    axis = Axis(-_bent(NEARER), right, (), *EDGES)
    head = _head(drawings, axis)
    pairs = zip(nodes, scales, strict=True)
    rows = [_row(drawings, axis, head, figure, scale) for figure, scale in pairs]
    caption = (
        "Samples, with 95 % confidence intervals, beside the band that other real subjects fill; "
        "each row has its own scale"
    )
    return Table.of(caption, rows, "figures", "metric")


def _head(drawings: Drawings, axis: Axis) -> Markup:
    return drawings.drawing(
        "Distance from the band of other real subjects",
        "The band is in the middle; to the right of it figures are less like real, in half widths "
        "of the band on a logarithmic scale.",
        38,
        text(axis.at(0), 32, "real subjects", "side"),
        text(axis.end, 10, "less like real ▸", "side", "end"),
        *(text(axis.at(_bent(t)), 32, f"{t}×", "tick") for t in TICKS if _bent(t) <= axis.high),
    )


def _row(
    drawings: Drawings, axis: Axis, head: Markup, figure: JsonNode, scale: RealRange | None
) -> TableRow:
    samples, real = (three(figure, _places(figure), key) for key in ("value", "real"))
    finding = assessment_of(figure["finding"])
    finding_text = VERDICTS[finding]
    description = ". ".join(p.rstrip(".") for k in ("what", "note") if (p := figure[k].text))
    name = ", ".join(filter(None, (title_of(figure), figure["name"].text)))
    comparison = [plain(with_interval(*side)) for side in (samples, real)]
    described = f"Samples {comparison[0]}, other real subjects {comparison[1]}: {finding_text}."
    drawn = _drawn(axis, scale, figure, samples, real)
    cells: dict[TableColumn, Line | Markup] = {
        TableColumn("figure", "words"): [figure["name"].text or NOTHING],
        TableColumn("what it is", "words"): [description],
        TableColumn("beside other real subjects", "drawing", head): drawings.drawing(
            name, described, HEIGHT, *drawn
        ),
        TableColumn("samples"): with_interval(*samples),
        TableColumn("real subjects"): with_interval(*real),
        TableColumn("p"): [probability(figure["p"])] if figure["p"] else [],
        TableColumn("finding", "short"): [f"{finding.sign} {finding_text}"],
    }
    return TableRow(cells, title_of(figure), finding.name.lower(), figure.pointer)


def _drawn(
    axis: Axis, scale: RealRange | None, figure: JsonNode, samples: Three, real: Three
) -> list[Markup]:
    """A row: band, middle value, chance, interval and mark."""
    values = [value for number in (*samples, *real) if (value := value_of(number)) is not None]
    if not values:
        return [text(50, MIDDLE + 4, "nothing is known", "side")]
    chance = figure["better"].text == "half"
    drawn: list[Markup] = []
    if scale is None:  # an own axis with labelled ends
        axis = Axis.over([*values, *[CHANCE, 1.0] * chance], *EDGES, about=2)
        ends = [(t, "start" if t == axis.low else "end") for t in (axis.low, axis.high)]
        drawn += [text(axis.at(t), HEIGHT - 1, axis.words(t), "tick", side) for t, side in ends]

    def at(number: LinkedNumber) -> float | None:
        value = value_of(number)
        return value if scale is None or value is None else scale.at(value)

    drawn += _band(axis, [(at(number), number) for number in real])
    if chance:
        x = axis.at(scale.at(CHANCE) if scale else CHANCE)
        drawn.append(line(x, 0, x, HEIGHT, "mde"))
    drawn += whisker(axis, [(at(number), number) for number in samples[1:]], MIDDLE)
    value, finding = at(samples[0]), assessment_of(figure["finding"])
    if value is not None:
        inside = axis.low <= value <= axis.high
        shape = finding.shape if inside else "right" if value > axis.high else "left"
        drawn.append(sourced(samples[0], mark(shape, axis.at(value), MIDDLE, finding.name.lower())))
    return drawn


def _band(axis: Axis, real: Sequence[tuple[float | None, LinkedNumber]]) -> list[Markup]:
    """The range of other real subjects, and their middle value."""
    (middle, source), (low, first), (high, last) = real
    drawn = []
    if low is not None and high is not None:
        turn = axis.at(middle if middle is not None else (low + high) / 2)
        for end, number in ((low, first), (high, last)):
            drawn.append(sourced(number, block(axis.at(end), turn, 0, HEIGHT, "band")))
    if middle is not None:
        rule = line(axis.at(middle), 0, axis.at(middle), HEIGHT, "reference")
        drawn.append(sourced(source, rule))
    return drawn


def _numbers(nodes: Sequence[JsonNode]) -> Table:
    """Every number of every figure."""
    titles = ("samples", "95 % CI", "other real subjects", "95 %", "difference", "95 % CI", "p",
              "better", "images", "splits")  # fmt: skip
    rows = []
    for figure in nodes:
        places = _places(figure)
        cells: list[Line] = [[figure["name"].text or NOTHING]]
        for key in ("value", "real", "difference"):
            middle, low, high = three(figure, places, key, sign=key == "difference")
            cells += [[middle], interval(low, high)]
        cells += [[probability(figure["p"])], [_better(figure)]]
        cells += [[whole(figure[key])] for key in ("images", "splits")]
        rows.append(TableRow(cells, title_of(figure), pointer=figure.pointer))
    columns = [TableColumn("figure", "words"), *(TableColumn(title) for title in titles)]
    return Table("Every number of every figure", columns, rows, "grouped", "metric")


def _places(figure: JsonNode) -> int:
    """Decimals of all numbers of a figure."""
    pairs = [(figure[f"{k}low"], figure[f"{k}high"]) for k in ("", "real_", "difference_")]
    return decimals([figure["value"], figure["real"]], pairs)


def _better(figure: JsonNode) -> str:
    words = {"real": "as real", "half": "0.5, chance"}
    return words.get(figure["better"].text, figure["better"].text) or NOTHING
