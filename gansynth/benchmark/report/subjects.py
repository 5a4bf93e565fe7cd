"""Test subjects one by one: what an arm does for each of them, in the mean over its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from gansynth.benchmark.report.study import Arm, Study
from gansynth.report.blocks import Block, Column, Key, More, Panels, Row, Table, Words
from gansynth.report.document import Node, pattern
from gansynth.report.svg import BOTTOM, HEIGHT, TOP, Axis, Drawings, frame, line, mark, sourced
from gansynth.report.words import NOTHING, Line, Linked, derived, index_of, whole

BEFORE, AFTER = 30.0, 82.0
KEY = Key((("rise", "better with the arm"), ("fall", "worse, or the same")))


@dataclass(frozen=True)
class Paired:
    """An arm and the control on the same test subjects.

    Attributes:
        runs: the arm's, of the same draws and seeds in the same order.
    """

    study: Study
    arm: Arm
    n: int
    controls: Sequence[Node]
    runs: Sequence[Node]

    @cached_property
    def subjects(self) -> Mapping[str, Sequence[str]]:
        """Test subjects with their cases that all runs have a score of."""
        return subjects(self.study, [*self.controls, *self.runs])

    @cached_property
    def ends(self) -> dict[str, tuple[Linked, Linked]]:
        """Of each subject the control's mean and the arm's."""
        return {
            subject: (mean(self.study, self.controls, cases), mean(self.study, self.runs, cases))
            for subject, cases in self.subjects.items()
        }

    def rises(self, subject: str) -> bool:
        """Whether a subject's mean is better with the arm."""
        control, arm = self.ends[subject]
        return self.study.show.better(arm.value - control.value) > 0

    def counts(self) -> tuple[Linked, Linked]:
        """How many subjects are better with the arm, and how many there are."""
        cases = [case for own in self.subjects.values() for case in own]
        of = _scores(self.study, [*self.controls, *self.runs], cases)
        better = sum(map(self.rises, self.subjects))
        counts = {"better": better, "subjects": len(self.subjects)}
        first, second = (
            Linked(str(found), found, "/runs", 1.0, how, of) for how, found in counts.items()
        )
        return first, second


def subjects(study: Study, runs: Sequence[Node]) -> dict[str, list[str]]:
    """Test subjects, each with the cases that all of the runs have a score of."""
    scores = [run["scores"][study.primary] for run in runs]
    known = study.root["subjects"]
    found: dict[str, list[str]] = {}
    for case, _ in scores[0].members() if scores else ():
        if all(own[case].number is not None for own in scores):
            found.setdefault(known[case].text or case, []).append(case)
    return found


def mean(study: Study, runs: Sequence[Node], cases: Sequence[str]) -> Linked:
    """One subject's mean of the primary measure over runs and cases."""
    nodes = [run["scores"][study.primary][case] for run in runs for case in cases]
    show, of = study.show, _scores(study, runs, cases)
    return derived("mean", nodes, show.decimals, of=of, holder="/runs", scale=show.scale)


def _scores(study: Study, runs: Sequence[Node], cases: Sequence[str]) -> str:
    return pattern("runs", [index_of(run) for run in runs], "scores", study.primary, cases)


def slopes(study: Study, drawings: Drawings) -> list[Block]:
    """A line for each test subject, from the control to the arm, for each arm and size."""
    found = []
    for arm in study.others:
        for n in study.sizes:
            pairs = study.pairs(arm.key, n)
            found.append(Paired(study, arm, n, [c for c, _ in pairs], [r for _, r in pairs]))
    found = [paired for paired in found if paired.subjects]
    if not found:
        return [Words(["No arm was finished together with the control."], "note")]
    scale = study.show.scale
    values = [end.value * scale for p in found for ends in p.ends.values() for end in ends]
    down = Axis.over(values, BOTTOM, TOP, about=6, tight=True)
    panels = [_panel(drawings, down, paired) for paired in found]
    way = "higher" if study.show.up else "lower"
    note = f"{study.show.title}, {study.show.unit}, {way} is better; all panels have the same axes."
    return [Words([note], "note"), Panels(panels), KEY, *_tables(study)]


def _panel(drawings: Drawings, down: Axis, paired: Paired) -> tuple[Line, Markup]:
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
    said = f"Better than the control in {better.text} of {total.text} test subjects."
    name = f"{paired.arm.title}, N = {paired.n}"
    return [*title, *counts], drawings.drawing(name, said, HEIGHT, *drawn)


def _tables(study: Study) -> list[Block]:
    """The numbers behind the lines, over all finished runs of an arm at a size."""
    rows = []
    for n in study.sizes:
        runs = {arm.key: study.runs(arm.key, n, status="done") for arm in study.arms}
        known = subjects(study, [run for own in runs.values() for run in own])
        for subject, cases in known.items():
            ends: list[Line] = [
                [mean(study, own, cases)] if own else [NOTHING] for own in runs.values()
            ]
            rows.append(Row([[subject], [whole(study.size_node(n))], *ends]))
    columns = [Column("subject", "words"), Column("N", "short")]
    columns += [Column(arm.title) for arm in study.arms]
    caption = f"{study.show.title}, {study.show.unit}: mean over all finished runs"
    return [More("Numbers of every test subject", [Table(caption, columns, rows)])] if rows else []
