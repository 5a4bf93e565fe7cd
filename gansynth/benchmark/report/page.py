"""The whole report: its head, and its sections in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gansynth.benchmark.report import comparing, records, subjects, tables
from gansynth.benchmark.report.curves import curves
from gansynth.benchmark.report.overlays import Overlay
from gansynth.benchmark.report.study import ReportData
from gansynth.benchmark.report.verdict import numbers, verdict_of
from gansynth.report.blocks import (
    RESULTS,
    Definitions,
    Details,
    Paragraph,
    PartSummary,
    Report,
    Section,
)
from gansynth.report.numbers import Line, derived, of_runs, whole
from gansynth.report.svg import Drawings

STATISTICS = "docs/statistics.md"


def compose(document: Mapping[str, Any], overlays: Sequence[Overlay] = ()) -> Report:
    """Compose a report from a results document."""
    study, drawings = ReportData(document), Drawings()
    root = study.root
    words = verdict_of(study)
    return Report(
        name=root["title"].text or root["name"].text,
        sentence=words.sentence,
        scope=_scope(study),
        warnings=_warnings(study),
        parts=[
            PartSummary(arm.title, arm.node["what"].text, words.per_arm[arm.key])
            for arm in study.others
        ],
        sections=_sections(study, drawings, overlays),
        footer=[f"gansynth {root['gansynth'].text} · plan {root['plan_hash'].text}"],
    )


def _scope(study: ReportData) -> Line:
    """Return the setting of the comparison in one line."""
    root = study.root
    data, host, look = root["data"], root["host"], root["look"]
    return [
        *(host["title"].text, ", ", whole(host["steps"]), " optimiser steps in every arm"),
        *(f" · {data['name'].text} · N = ", *numbers([study.size_node(n) for n in study.sizes])),
        *(" training subjects · ", whole(root["draws"]), " draws × ", whole(root["seeds"])),
        " seed · " if root["seeds"].value == 1 else " seeds · ",
        *(whole(data["test_subjects"]), " test subjects with "),
        *(whole(data["test_cases"]), f" cases · {look['split'].text} split, look "),
        *(whole(look["number"]), " of this plan", *_finished(study), "."),
    ]


def _finished(study: ReportData) -> Line:
    runs = list(study.root["runs"])
    done = [run for run in runs if run["status"].text == "done"]
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
    elif len(sealed) > 1:
        warnings.append(
            [
                "The sealed split was looked at more than once: this is look ",
                whole(sealed[-1]["look"]),
                ". With every look the numbers mean less; the log is below.",
            ]
        )
    missing = [run for run in root["runs"] if run["status"].text != "done"]
    if missing:
        count = derived("count", missing, of=of_runs(missing, "status"), holder="/runs")
        word = " training has" if len(missing) == 1 else " trainings have"
        warnings.append([count, f"{word} no result; comparisons go without. See failures, below."])
    return [*warnings, *([node.text] for node in root["warnings"])]


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
