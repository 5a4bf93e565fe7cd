"""The whole report: its head, and its sections in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gansynth.benchmark.report import comparing, records, subjects, tables
from gansynth.benchmark.report.curves import curves
from gansynth.benchmark.report.overlays import Overlay
from gansynth.benchmark.report.study import ReportData
from gansynth.benchmark.report.verdict import numbers, said, verdict_of
from gansynth.report.blocks import (
    RESULTS,
    Definitions,
    Details,
    Marker,
    Paragraph,
    PartSummary,
    Report,
    Section,
)
from gansynth.report.document import JsonNode
from gansynth.report.numbers import Line, LinkedNumber, derived, of_runs, plain, whole
from gansynth.report.svg import Drawings

STATISTICS = "docs/statistics.md"


def compose(document: Mapping[str, Any], overlays: Sequence[Overlay] = ()) -> Report:
    """Compose a report from a results document."""
    study, drawings = ReportData(document), Drawings()
    root = study.root
    words = verdict_of(study)
    arms = []
    for arm in study.others:
        stored, lines = root["verdict"]["per_arm"][arm.key], words.per_arm[arm.key]
        matches = not stored.text or stored.text == said(lines)
        sentences: Sequence[tuple[Marker | None, Line]] = lines
        if not matches:
            sentences = [(None, [LinkedNumber(stored.text, stored.text, stored.pointer)])]
        arms.append(PartSummary(arm.title, arm.node["what"].text, sentences))
    return Report(
        name=root["title"].text or root["name"].text or "benchmark",
        sentence=_said(root["verdict"]["sentence"], words.sentence),
        scope=_scope(study),
        warnings=_warnings(study),
        parts=arms,
        sections=_sections(study, drawings, overlays),
        footer=_footer(root),
    )


def _said(stored: JsonNode, worked_out: Line) -> Line:
    """Return the stored sentence; with links for its numbers if it equals the computed one."""
    if not stored.text or stored.text == plain(worked_out):
        return worked_out
    return [LinkedNumber(stored.text, stored.text, stored.pointer)]


def _scope(study: ReportData) -> Line:
    """Return the setting of the comparison in one line."""
    root = study.root
    data, host, look = root["data"], root["host"], root["look"]
    line: list[str | LinkedNumber] = [host["title"].text or host["target"].text or "A host unknown"]
    if host["steps"]:
        line += [", ", whole(host["steps"]), " optimiser steps in every arm"]
    if data["name"]:
        line.append(f" · {data['name'].text}")
    if study.sizes:
        line += [" · N = ", *numbers([study.size_node(n) for n in study.sizes])]
        line.append(" training subjects")
    if root["draws"]:
        line += [" · ", whole(root["draws"]), " draws × ", whole(root["seeds"]), " seeds"]
    if data["test_subjects"]:
        line += [" · ", whole(data["test_subjects"]), " test subjects"]
    if data["test_cases"]:
        line += [" with ", whole(data["test_cases"]), " cases"]
    if look["split"]:
        line += [f" · {look['split'].text} split, look ", whole(look["number"])]
        line.append(" of this plan")
    return [*line, *_finished(study), "."]


def _finished(study: ReportData) -> Line:
    runs = list(study.root["runs"])
    done = [run for run in runs if run["status"].text == "done"]
    if not runs:
        return [" · no trainings"]
    total = derived("count", runs, of=of_runs(runs, "status"), holder="/runs")
    if len(done) == len(runs):
        return [" · ", total, " trainings, all finished"]
    count: Line = ["none"]
    if done:
        count = [derived("count", done, of=of_runs(done, "status"), holder="/runs")]
    return [" · ", *count, " of ", total, " trainings finished"]


def _warnings(study: ReportData) -> list[Line]:
    """Return warnings that precede all numbers."""
    root, warnings = study.root, list[Line]()
    log = list(root["look"]["log"])
    sealed = [entry for entry in log if entry["split"].text == "sealed"]
    if study.development:
        warnings.append(
            [
                "This is a look at the development split. Settings may have been chosen on these "
                "subjects: nothing here is a test result."
            ]
        )
    elif not root["look"]["split"]:
        warnings.append(["The results do not say which split was looked at."])
    elif len(sealed) > 1:
        last = sealed[-1]["look"]
        warnings.append(
            [
                "The sealed split was looked at more than once: this is look ",
                whole(last if last else root["look"]["number"]),
                ". With every look the numbers mean less; the log is below.",
            ]
        )
    missing = [run for run in root["runs"] if run["status"].text != "done"]
    if missing:
        count = derived("count", missing, of=of_runs(missing, "status"), holder="/runs")
        word = " training has" if len(missing) == 1 else " trainings have"
        warnings.append([count, f"{word} no result; comparisons go without. See failures, below."])
    return [*warnings, *([node.text] for node in root["warnings"] if node.text)]


def _footer(root: JsonNode) -> Line:
    line: list[str | LinkedNumber] = [
        f"gansynth {root['gansynth'].text or 'of an unknown version'}"
    ]
    if root["plan_hash"]:
        line.append(f" · plan {root['plan_hash'].text}")
    return line


def _sections(
    study: ReportData, drawings: Drawings, overlays: Sequence[Overlay]
) -> tuple[Section, ...]:
    compared = comparing.differences(study, drawings)
    everything = tables.comparisons(study)
    if everything:
        compared.append(Details("Every number of every comparison", everything))
    drawn = [*tables.ratios(study), *tables.chosen(study)]
    sections = [
        Section("differences", "Difference to the control", "Differences", compared),
        Section(
            "worth", "Worth how many extra real cases", "Worth", comparing.worth(study, drawings)
        ),
        Section("curves", "Learning curves", "Curves", curves(study, drawings)),
        Section(
            "subjects", "Test subjects one by one", "Subjects", subjects.slopes(study, drawings)
        ),
        Section(
            "spread", "Where the differences spread", "Spread", subjects.spread(study, drawings)
        ),
        Section("measures", "All measures", "Measures", tables.means(study)),
        Section("ratios", "Synthetic samples, asked and drawn", "Ratios", drawn),
        Section("costs", "Costs", "Costs", tables.costs(study)),
        Section("worst", "Worst cases", "Worst cases", records.worst(study, overlays)),
        Section("paper", "The paper's numbers beside ours", "Paper", records.paper(study)),
        Section("looks", "Looks at the test data", "Looks", records.looks(study)),
        Section("failures", "Failures", "Failures", records.failures(study)),
        Section("plan", "Plan", "Plan", records.plan(study)),
        Section("reading", "How to read this", "How to read", _reading(study)),
    ]
    return tuple(section for section in sections if section.blocks)


def _reading(study: ReportData) -> tuple[Paragraph | Definitions, ...]:
    lines = (
        "Every arm trains the same host for as many steps on the same real cases; each difference "
        "is paired by test case, draw and seed, and its interval holds the true one in 95 % of "
        "such benchmarks.",
        "A gain or a loss counts as shown if the interval leaves zero out and p, corrected after "
        "Holm for all comparisons, is below 0.05; no effect is a finding of its own, if a test of "
        "equivalence shows the difference to lie within the margin; all else is not shown, either "
        "way.",
        "What is not shown may still be there: the minimum detectable effect (MDE) is the true "
        "difference that such a benchmark would find in 80 % of attempts.",
    )
    terms = (
        ("N", ["training subjects; a draw is one choice of them"]),
        ("points", ["hundredths: a Dice of 0.84 is 84 points"]),
    )
    links = (
        ("numbers", [f"each is a link to its place in {RESULTS}, named by its JSON pointer"]),
        ("{a,b}", ["in a name: several places, which the number is the mean, sum or the like of"]),
    )
    note = f"How all this is computed and checked: {STATISTICS}."
    return (
        *(Paragraph([line]) for line in lines),
        Definitions((*terms, *links), links),
        Paragraph([note], "note"),
    )
