"""Comparison of arms with the control: differences, and equivalent numbers of real cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from statistics import median

from markupsafe import Markup

from gansynth.benchmark.report.study import (
    ComparisonOutcome,
    ReportArm,
    ReportData,
    ends_of,
    finding_of,
)
from gansynth.benchmark.report.verdict import why_not
from gansynth.metrics.segmentation.measures import NO_CASE
from gansynth.report.blocks import Block, Details, Legend, Paragraph, Table, TableColumn, TableRow
from gansynth.report.document import JsonNode
from gansynth.report.numbers import (
    NOTHING,
    Line,
    LinkedNumber,
    NumberFormat,
    interval,
    number,
    plain,
    probability,
    whole,
    with_interval,
)
from gansynth.report.svg import Axis, Drawings, block, grid, line, mark, ruler, sourced, whisker

HEIGHT = 30.0
MIDDLE = HEIGHT / 2
EDGES = 4.0, 96.0
BEYOND = 2.5
"""The axis ends at this multiple of the median interval, so that outliers do not dominate."""
MARKS = {
    ComparisonOutcome.GAIN: "up",
    ComparisonOutcome.LOSS: "down",
    ComparisonOutcome.SAME: "diamond",
    ComparisonOutcome.UNCLEAR: "ring",
}
WORTH = "Extra real cases that would have brought as much"
FOREST_KEY = Legend(
    (
        ("up gain", "gain shown"),
        ("down loss", "loss shown"),
        ("diamond same", "no effect beyond the margin"),
        ("ring unclear", "not shown either way"),
        ("whisker", "95 % confidence interval"),
        ("band", "margin: differences that make none"),
        ("mde", "minimum detectable effect at 80 % power"),
        ("beyond", "goes beyond the axis"),
    )
)


def differences(study: ReportData, drawings: Drawings) -> list[Block]:
    """Return forest plots: of the primary measure, and collapsed ones of the other measures."""
    if not study.root["comparisons"]:
        return [Paragraph(["No comparison was finished."], "note")]
    blocks: list[Block] = []
    for name, show in study.measures.items():
        if _unknown(node for *_, node in study.entries("comparisons", study.others, name)):
            continue
        table = _forest(study, drawings, name, show)
        way = "higher" if show.up else "lower"
        if name == study.primary:
            blocks += [table, FOREST_KEY, *_reach(study), *_alarms(study)]
            blocks += _against_baselines(study)
        else:
            blocks.append(Details(f"{show.title}, {show.unit}: {way} is better", [table]))
    return blocks


def _reach(study: ReportData) -> list[Block]:
    entries = study.entries("comparisons", study.others, study.primary)
    reach = dict.fromkeys(text for *_, node in entries if (text := node["generalises"].text))
    return (
        [Paragraph([f"The intervals speak for other: {'; '.join(reach)}."], "note")]
        if reach
        else []
    )


def _alarms(study: ReportData) -> list[Block]:
    shows, rows = study.beside(), list[TableRow]()
    del shows[study.primary]  # it is right above
    for arm, n in study.places(study.others):
        cells: dict[TableColumn, Line | Markup] = {
            TableColumn("N", "short"): [whole(study.size_node(n))]
        }
        for key, show in shows.items():
            node = study.entry("comparisons", arm.key, n, key)
            numbers = (show.difference(v) for v in (node["difference"], *ends_of(node)))
            line = [NO_CASE] if "alarms" in key and _unknown([node]) else with_interval(*numbers)
            cells[TableColumn(f"{show.title}, {show.unit}, {'↑' if show.up else '↓'}")] = line
        rows.append(TableRow(cells, arm.title))
    title = f"Lesions and false alarms beside {study.show.title}: differences, 95 % CI"
    return [Table.of(title, rows, "grouped")] if shows else []


def _unknown(comparisons: Iterable[JsonNode]) -> bool:
    return all(node["difference"].number is None for node in comparisons)


def _against_baselines(study: ReportData) -> list[Block]:
    show, rows = study.show, list[TableRow]()
    for node in study.root["baselines"]:
        finding = finding_of(node, show)
        cells: dict[TableColumn, Line | Markup] = {
            TableColumn("N", "short"): [whole(node["n"])],
            TableColumn("against", "words"): [study.title(node["baseline"].text)],
            **_compared(show, node),
            TableColumn("finding", "short"): [f"{finding.sign} {finding.words}"],
        }
        title = study.title(node["arm"].text)
        rows.append(TableRow(cells, title, finding.name.lower(), node.pointer))
    caption = f"{show.title}: what a GAN adds to the arms without one, {show.unit}"
    return [Table.of(caption, rows, "grouped")] if rows else []


def _compared(show: NumberFormat, node: JsonNode) -> dict[TableColumn, Line]:
    return {
        TableColumn("difference"): [show.difference(node["difference"])],
        TableColumn("95 % CI"): interval(*(show.difference(end) for end in ends_of(node))),
        TableColumn("p (Holm)"): [probability(node["p_holm"])],
        TableColumn("MDE"): [show.size(node["mde"])],
    }


def _forest(study: ReportData, drawings: Drawings, measure: str, show: NumberFormat) -> Table:
    rows = study.entries("comparisons", study.others, measure)
    axis = _forest_axis([node for *_, node in rows], show)
    sides = ("control better", "arm better") if show.up else ("arm better", "control better")
    title = f"{show.title}: difference to the control, {show.unit}"
    description = (
        f"Axis from {axis.words(axis.low)} to {axis.words(axis.high)}; left of zero {sides[0]}."
    )
    ends = (f"◂ {sides[0]}", f"{sides[1]} ▸")
    head = ruler(drawings, axis, title, description, ends, sign=True)
    column = TableColumn(title, "drawing", head)
    made = [_forest_row(study, drawings, axis, column, show, *row) for row in rows]
    return Table.of(title, made, "forest")


def _forest_axis(comparisons: Sequence[JsonNode], show: NumberFormat) -> Axis:
    reaches, others = [], [0.0]
    for node in comparisons:
        ends = [end.number for end in ends_of(node)]
        reach = [abs(e) for e in (*ends, node["difference"].number) if e is not None]
        reaches += [max(reach)] if reach else []
        others += [abs(v) for k in ("margin", "mde") if (v := node[k].number) is not None]
    most = max(reaches, default=1.0)
    most = max(min(most, BEYOND * median(reaches or [1.0])), 1.2 * min(max(others), most))
    return Axis.over([-most * show.scale, most * show.scale], *EDGES, about=6)


def _forest_row(
    study: ReportData,
    drawings: Drawings,
    axis: Axis,
    column: TableColumn,
    show: NumberFormat,
    arm: ReportArm,
    n: int,
    node: JsonNode,
) -> TableRow:
    finding = finding_of(node, show)
    words: list[str | LinkedNumber] = [f"{finding.sign} {finding.words}"]
    if finding is ComparisonOutcome.UNCLEAR and why_not(study, node):
        words.append(" after Holm")
    if (
        finding in (ComparisonOutcome.GAIN, ComparisonOutcome.LOSS)
        and node["equivalent"].value is True
    ):
        words.append(", within the margin")
    missing, numbers = finding is ComparisonOutcome.MISSING, _compared(show, node)
    cells: dict[TableColumn, Line | Markup] = {
        TableColumn("N", "short"): [whole(study.size_node(n))],
        column: _forest_drawing(drawings, axis, show, node, finding, f"{arm.title}, N = {n}"),
        **({key: [NOTHING] for key in numbers} if missing else numbers),
        TableColumn("finding", "short"): words,
    }
    return TableRow(cells, arm.title, finding.name.lower(), "" if missing else node.pointer)


def _forest_drawing(
    drawings: Drawings,
    axis: Axis,
    show: NumberFormat,
    node: JsonNode,
    finding: ComparisonOutcome,
    name: str,
) -> Markup:
    drawn = grid(axis, HEIGHT)
    margin, mde = node["margin"].number, node["mde"].number
    if margin is not None:
        edges = (axis.at(-margin * show.scale), axis.at(margin * show.scale))
        drawn.insert(0, sourced(show.size(node["margin"]), block(*edges, 0, HEIGHT, "band")))
    drawn.append(line(axis.at(0), 0, axis.at(0), HEIGHT, "zero"))
    if finding is ComparisonOutcome.MISSING:
        return drawings.drawing(name, "Nothing was finished.", HEIGHT, *drawn)
    if mde is not None:
        ticks = [x for x in (-mde * show.scale, mde * show.scale) if axis.low <= x <= axis.high]
        lines = [line(axis.at(x), 5, axis.at(x), HEIGHT - 5, "mde") for x in ticks]
        drawn.append(sourced(show.size(node["mde"]), *lines))
    low, high = ends_of(node)
    span = [show.difference(end) for end in (low, high)]
    drawn += whisker(axis, [(_shown(end), end) for end in span], MIDDLE)
    at = (node["difference"].number or 0.0) * show.scale
    if axis.low <= at <= axis.high:
        dot = mark(MARKS[finding], axis.at(at), MIDDLE, finding.name.lower())
        drawn.append(sourced(show.difference(node["difference"]), dot))
    described = (
        f"{plain([show.difference(node['difference'])])} {show.unit}, 95 % CI "
        f"{span[0].text} to {span[1].text}: {finding.words}."
    )
    return drawings.drawing(name, described, HEIGHT, *drawn)


def _shown(link: LinkedNumber) -> float | None:
    return None if link.value is None else link.value * link.scale


# -- worth ---------------------------------------------------------------------------------------


def worth(study: ReportData, drawings: Drawings) -> list[Block]:
    """Return the equivalent number of extra real cases of each arm."""
    entries = [entry for entry in study.entries("worth", study.others) if entry[-1]]
    if not entries:
        return [Paragraph(["This could not be worked out."], "note")]
    reach = [v for *_, node in entries if (v := node["cases"].number) is not None]
    ends = [v for *_, node in entries for k in ("low", "high") if (v := node[k].number) is not None]
    if not reach:
        return [_not_worked_out(study, entries)]
    usual = BEYOND * median([abs(v) for v in (*reach, *ends)] or [1.0])
    axis = Axis.over([0.0, *(min(max(v, -usual), usual) for v in (*reach, *ends))], *EDGES)
    title = "worth so many extra real cases"
    description = f"Axis from {axis.words(axis.low)} to {axis.words(axis.high)} real cases."
    head = ruler(drawings, axis, title, description, sign=True)
    column = TableColumn(title, "drawing", head)
    made = [_worth_row(study, drawings, axis, column, *entry) for entry in entries]
    return [Table.of(WORTH, made, "worth")]


def _not_worked_out(study: ReportData, entries: Sequence[tuple[ReportArm, int, JsonNode]]) -> Table:
    rows = [
        TableRow([[whole(study.size_node(n))], [node["reason"].text or NOTHING]], arm.title)
        for arm, n, node in entries
    ]
    columns = (TableColumn("N", "short"), TableColumn("why it could not be worked out", "words"))
    return Table(WORTH, columns, rows, "grouped")


def _worth_row(
    study: ReportData,
    drawings: Drawings,
    axis: Axis,
    column: TableColumn,
    arm: ReportArm,
    n: int,
    node: JsonNode,
) -> TableRow:
    cases, *ends = (number(node[k], 1, sign=True) for k in ("cases", "low", "high"))
    drawn = grid(axis, HEIGHT)
    drawn.append(line(axis.at(0), 0, axis.at(0), HEIGHT, "zero"))
    if any(end.value is not None for end in ends):  # without a limit, it goes beyond the axis
        low, high = (_shown(end) for end in ends)
        bounds = (-inf if low is None else low, inf if high is None else high)
        drawn += whisker(axis, list(zip(bounds, ends, strict=True)), MIDDLE)
    at = node["cases"].number
    if at is not None and axis.low <= at <= axis.high:
        drawn.append(sourced(cases, mark("dot", axis.at(at), MIDDLE, "arm")))
    description = (
        node["reason"].text or f"{cases.text} cases, 95 % CI {ends[0].text} to {ends[1].text}"
    )
    cells: dict[TableColumn, Line | Markup] = {
        TableColumn("N", "short"): [whole(study.size_node(n))],
        column: drawings.drawing(f"{arm.title}, N = {n}", description, HEIGHT, *drawn),
        TableColumn("cases"): [cases],
        TableColumn("95 % CI"): interval(*ends) if at is None else [ends[0], " to ", ends[1]],
        TableColumn("note", "words"): [node["reason"].text],
    }
    return TableRow(cells, arm.title, pointer=node.pointer)
