"""Records in the report: worst cases, a paper's table, test set accesses, failures, the plan."""

from __future__ import annotations

from collections.abc import Sequence

from gansynth.benchmark.report.overlays import Overlay, WorstCase, worst_cases
from gansynth.benchmark.report.study import ReportData
from gansynth.report.blocks import (
    Block,
    CodeBlock,
    Details,
    ImageRow,
    Legend,
    Paragraph,
    ReportImage,
    Table,
    TableColumn,
    TableRow,
    data_uri,
)
from gansynth.report.document import JsonNode
from gansynth.report.numbers import NOTHING, Line, LinkedNumber, number, whole

OVERLAY_KEY = Legend((("truth", "truth, solid"), ("predicted", "prediction, dashed")))


def worst(study: ReportData, overlays: Sequence[Overlay]) -> list[Block]:
    """Return the cases with the greatest losses, with their pictures if there are any."""
    chosen = worst_cases(study.root.value)
    if not chosen and not overlays:
        return [Paragraph(["There are no scores of single cases."], "note")]
    blocks: list[Block] = []
    if overlays:
        blocks += [OVERLAY_KEY, ImageRow([_picture(study, o) for o in overlays])]
    else:
        blocks.append(Paragraph(["No pictures were made."], "note"))
    show = study.show
    columns = [
        *(TableColumn(title, "words") for title in ("case", "arm")),
        *(TableColumn(title, "short") for title in ("N", "draw", "seed")),
        *(TableColumn(f"{column}, {show.unit}") for column in ("control", "arm")),
    ]
    rows = [_worst_row(study, case) for case in chosen]
    caption = f"{show.title}: worst cases of the control, and greatest losses of the arms"
    return [*blocks, *([Table(caption, columns, rows)] if rows else [])]


def _worst_row(study: ReportData, worst: WorstCase) -> TableRow:
    score: Line = [study.show.value(worst.score)]
    ends: list[Line] = [score, [NOTHING]]
    if worst.reference:
        ends = [[study.show.value(worst.reference)], score]
    place: list[Line] = [[whole(worst.run[key])] for key in ("n", "draw", "seed")]
    return TableRow([[worst.case], [study.title(worst.run["arm"].text)], *place, *ends])


def _picture(study: ReportData, overlay: Overlay) -> ReportImage:
    worst, show = overlay.worst, study.show
    title = study.title(worst.run["arm"].text)
    caption: list[str | LinkedNumber] = [f"{worst.case}, {title}"]
    for word, key in (("N = ", "n"), ("draw ", "draw"), ("seed ", "seed")):
        caption += [f", {word}", whole(worst.run[key])]
    caption += [f": {show.title} ", show.value(worst.score), f" {show.unit}"]
    if worst.reference:
        caption += [" (control ", show.value(worst.reference), ")"]
    described = f"{worst.case} under {title}: outlines of truth and prediction"
    return ReportImage(data_uri(overlay.png), described, caption)


def paper(study: ReportData) -> list[Block]:
    """Return a paper's table, each of its numbers beside ours."""
    node = study.root["paper"]
    if not node:
        return []
    names = [column.text for column in node["columns"]]
    columns = [TableColumn("", "words")]
    columns += [TableColumn(f"{name}, {source}") for name in names for source in ("paper", "ours")]
    rows = [
        TableRow([[row["name"].text], *_side_by_side(row, len(names))], pointer=row.pointer)
        for row in node["rows"]
    ]
    return [Table(node["title"].text, columns, rows)]


def _side_by_side(row: JsonNode, count: int) -> list[Line]:
    pairs = [(row["paper"][index], row["ours"][index]) for index in range(count)]
    return [[number(node, 3) if node else NOTHING] for pair in pairs for node in pair]


def looks(study: ReportData) -> list[Block]:
    """Return the log of accesses to the test data."""
    titles = ("look", "split", "when", "plan", "arms", "reason")
    rows = [
        TableRow(
            [
                [whole(entry["look"])],
                *([entry[key].text] for key in ("split", "when", "plan_hash")),
                [", ".join(arm.text for arm in entry["arms"])],
                [entry["reason"].text or NOTHING],
            ],
            pointer=entry.pointer,
        )
        for entry in study.root["look"]["log"]
    ]
    columns = [TableColumn(t, "words" if t in ("arms", "reason") else "short") for t in titles]
    return [Table("Every look so far", columns, rows)]


def failures(study: ReportData) -> list[Block]:
    """Return failed jobs, and trainings without a result."""
    blocks: list[Block] = []
    rows = [
        TableRow([[node[key].text or NOTHING] for key in ("title", "error", "log")])
        for node in study.root["failures"]
    ]
    if rows:
        columns = [TableColumn(title, "words") for title in ("job", "error", "log")]
        blocks.append(Table("Failed jobs", columns, rows))
    missing = [run for run in study.root["runs"] if run["status"].text != "done"]
    if missing:
        titles = ("arm", "N", "draw", "seed", "status", "error")
        rows = [
            TableRow(
                [
                    [study.title(run["arm"].text)],
                    *([whole(run[key])] for key in ("n", "draw", "seed")),
                    *([run[key].text or NOTHING] for key in ("status", "error")),
                ],
                pointer=run.pointer,
            )
            for run in missing
        ]
        columns = [TableColumn(t, "words" if t in ("arm", "error") else "short") for t in titles]
        blocks.append(Table("Trainings without a result", columns, rows))
    return blocks or [Paragraph(["Nothing failed."], "note")]


def plan(study: ReportData) -> list[Block]:
    """Return the plan with its remarks, and the machine."""
    import yaml

    remarks = [node.text for node in study.root["open"] if node.text]
    blocks: list[Block] = [Paragraph([remark], "note") for remark in remarks]
    for key, title in (("plan", "The plan"), ("machine", "The machine")):
        node = study.root[key]
        text = yaml.safe_dump(node.value, sort_keys=False, allow_unicode=True, width=96)
        blocks.append(Details(title, [CodeBlock(text, node.pointer)]))
    return blocks
