"""Results of each test subject, and variance components of the differences to the control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from gansynth.benchmark.report.study import ReportArm, ReportData
from gansynth.report.blocks import (
    Block,
    Definitions,
    Details,
    Legend,
    Panels,
    Paragraph,
    Table,
    TableColumn,
    TableRow,
)
from gansynth.report.document import JsonNode, pattern
from gansynth.report.numbers import NOTHING, Line, LinkedNumber, derived, index_of, rounded, whole
from gansynth.report.svg import (
    BOTTOM,
    HEIGHT,
    TOP,
    Axis,
    Drawings,
    block,
    frame,
    line,
    mark,
    sourced,
)
from gansynth.report.svg import words as text

BEFORE, AFTER = 30.0, 82.0
KEY = Legend((("rise", "better with the arm"), ("fall", "worse, or the same")))
BAR = 30.0
WRITTEN = 0.14  # minimum share for a label on a part of a bar
PARTS = {
    "draw": ("draw", "which real cases were drawn for training"),
    "seed": ("seed", "the random numbers of one training"),
    "case": ("subject", "test subjects for whom an arm does more than for others"),
    "draw_case": ("draw × subject", "subjects for whom one draw does more than another"),
    "rest": ("rest", "all else: the same subject, draw and arm under another seed"),
}
"""Key in the document -> its name and meaning."""


@dataclass(frozen=True)
class PairedSubjects:
    """An arm and the control on the same test subjects."""

    study: ReportData
    arm: ReportArm
    n: int
    controls: Sequence[JsonNode]
    runs: Sequence[JsonNode]  # the arm's, of the same draws and seeds in the same order

    @cached_property
    def subjects(self) -> Mapping[str, Sequence[str]]:
        """Test subjects with their cases that have a score in all runs."""
        return subjects(self.study, [*self.controls, *self.runs])

    @cached_property
    def ends(self) -> dict[str, tuple[LinkedNumber, LinkedNumber]]:
        """Means of the control and the arm by subject."""
        return {
            subject: (mean(self.study, self.controls, cases), mean(self.study, self.runs, cases))
            for subject, cases in self.subjects.items()
        }

    def rises(self, subject: str) -> bool:
        """Whether a subject's mean is better with the arm."""
        control, arm = self.ends[subject]
        return self.study.show.better(arm.value - control.value) > 0

    def counts(self) -> tuple[LinkedNumber, LinkedNumber]:
        """Return the number of subjects that are better with the arm, and of all subjects."""
        cases = [case for group in self.subjects.values() for case in group]
        of = _scores(self.study, [*self.controls, *self.runs], cases)
        better = sum(map(self.rises, self.subjects))
        counts = {"better": better, "subjects": len(self.subjects)}
        first, second = (
            LinkedNumber(str(count), count, "/runs", 1.0, how, of) for how, count in counts.items()
        )
        return first, second


def subjects(study: ReportData, runs: Sequence[JsonNode]) -> dict[str, list[str]]:
    """Return test subjects, each with its cases that have a score in all runs."""
    scores = [run["scores"][study.primary] for run in runs]
    subject_of = study.root["subjects"]
    groups: dict[str, list[str]] = {}
    for case, _ in scores[0].members() if scores else ():
        if all(score[case].number is not None for score in scores):
            groups.setdefault(subject_of[case].text or case, []).append(case)
    return groups


def mean(study: ReportData, runs: Sequence[JsonNode], cases: Sequence[str]) -> LinkedNumber:
    """Return a subject's mean of the primary measure over runs and cases."""
    nodes = [run["scores"][study.primary][case] for run in runs for case in cases]
    show, of = study.show, _scores(study, runs, cases)
    return derived("mean", nodes, show.decimals, of=of, holder="/runs", scale=show.scale)


def _scores(study: ReportData, runs: Sequence[JsonNode], cases: Sequence[str]) -> str:
    return pattern("runs", [index_of(run) for run in runs], "scores", study.primary, cases)


def slopes(study: ReportData, drawings: Drawings) -> list[Block]:
    """Return, for each arm and size, lines from the control to the arm for each test subject."""
    comparisons = []
    for arm, n in study.places(study.others):
        pairs = study.pairs(arm.key, n)
        comparisons.append(
            PairedSubjects(study, arm, n, [c for c, _ in pairs], [r for _, r in pairs])
        )
    comparisons = [paired for paired in comparisons if paired.subjects]
    if not comparisons:
        return [Paragraph(["No arm was finished together with the control."], "note")]
    scale = study.show.scale
    values = [end.value * scale for p in comparisons for ends in p.ends.values() for end in ends]
    down = Axis.over(values, BOTTOM, TOP, about=6, tight=True)
    panels = [_panel(drawings, down, paired) for paired in comparisons]
    way = "higher" if study.show.up else "lower"
    note = f"{study.show.title}, {study.show.unit}, {way} is better; all panels have the same axes."
    return [Paragraph([note], "note"), Panels(panels), KEY, *_tables(study)]


def _panel(drawings: Drawings, down: Axis, paired: PairedSubjects) -> tuple[Line, Markup]:
    drawn = frame(down, [(BEFORE, "control"), (AFTER, "arm")])
    scale = paired.study.show.scale
    for subject, (control, arm) in paired.ends.items():
        class_ = "rise" if paired.rises(subject) else "fall"
        first, last = (down.at(end.value * scale) for end in (control, arm))
        drawn.append(line(BEFORE, first, AFTER, last, class_))
        for end, x, y in ((control, BEFORE, first), (arm, AFTER, last)):
            drawn.append(sourced(end, mark("speck", x, y, class_)))
    better, total = paired.counts()
    title: Line = [f"{paired.arm.title}, N = ", whole(paired.study.size_node(paired.n))]
    counts: Line = [": better in ", better, " of ", total]
    description = f"Better than the control in {better.text} of {total.text} test subjects."
    name = f"{paired.arm.title}, N = {paired.n}"
    return [*title, *counts], drawings.drawing(name, description, HEIGHT, *drawn)


def _tables(study: ReportData) -> list[Block]:
    """Return the numbers of the lines, over all finished runs of an arm at a size."""
    rows = []
    for n in study.sizes:
        runs = {arm.key: study.runs(arm.key, n, status="done") for arm in study.arms}
        groups = subjects(study, [run for arm_runs in runs.values() for run in arm_runs])
        for subject, cases in groups.items():
            ends: list[Line] = [
                [mean(study, arm_runs, cases)] if arm_runs else [NOTHING]
                for arm_runs in runs.values()
            ]
            rows.append(TableRow([[subject], [whole(study.size_node(n))], *ends]))
    columns = [TableColumn("subject", "words"), TableColumn("N", "short")]
    columns += [TableColumn(arm.title) for arm in study.arms]
    caption = f"{study.show.title}, {study.show.unit}: mean over all finished runs"
    return (
        [Details("Numbers of every test subject", [Table(caption, columns, rows)])] if rows else []
    )


# -- spread ---------------------------------------------------------------------------------------


def spread(study: ReportData, drawings: Drawings) -> list[Block]:
    """Return a bar for each comparison of the primary measure, in shares of the variance."""
    rows = []
    for arm, n, comparison in study.entries("comparisons", study.others, study.primary):
        node = comparison["variance"]
        if sum(spread_parts(node).values()) > 0:
            rows.append(_spread_row(study, drawings, arm, n, node))
    if not rows:
        return [Paragraph(["The variance could not be split."], "note")]
    columns = [TableColumn("N", "short"), TableColumn("shares of the variance, %", "drawing")]
    columns += [TableColumn(name) for name, _ in PARTS.values()]
    key = Legend(tuple((f"part {part}", name) for part, (name, _) in PARTS.items()))
    terms = Definitions([(name, [meaning]) for name, meaning in PARTS.values()])
    table = Table("Variance of the differences to the control, %", columns, rows, "spread")
    return [table, key, terms]


def spread_parts(node: JsonNode) -> dict[str, float]:
    """Return the parts of a variance; negative estimates count as zero."""
    return {part: max(0.0, node[part].number or 0.0) for part in PARTS}


def _spread_row(
    study: ReportData, drawings: Drawings, arm: ReportArm, n: int, node: JsonNode
) -> TableRow:
    values = spread_parts(node)
    shares = {part: value / sum(values.values()) for part, value in values.items()}
    of = pattern(*node.pointer.split("/")[1:], list(PARTS))
    links = [
        LinkedNumber(rounded(100 * s, 0), s, node[part].pointer, 100.0, "share", of)
        if node[part].number is not None
        else LinkedNumber(NOTHING, None, node[part].pointer)
        for part, s in shares.items()
    ]
    description = ", ".join(f"{PARTS[k][0]} {f.text} %" for k, f in zip(PARTS, links, strict=True))
    bar = drawings.drawing(f"{arm.title}, N = {n}", description, BAR, *_bar(links))
    cells: list[Line | Markup] = [[whole(study.size_node(n))], bar, *([f] for f in links)]
    return TableRow(cells, arm.title, pointer=node.pointer)


def _bar(shares: Sequence[LinkedNumber]) -> list[Markup]:
    drawn, start = [], 0.0
    for part, share in zip(PARTS, shares, strict=True):
        size = 100 * (share.value or 0.0)
        if size <= 0:
            continue
        inside = [block(start, start + size, 4, BAR - 8, f"part {part}")]
        if size >= 100 * WRITTEN:
            inside.append(text(start + size / 2, 19, share.text, f"on {part}"))
        drawn.append(sourced(share, *inside))
        start += size
    return drawn
