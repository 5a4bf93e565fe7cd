"""Rows of a table whose figures are of raters (Han et al. 2018): theirs here beside the paper's.

People rate in ``gansynth turing-test RUN``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gansynth.runtime.files import read_json
from gansynth_benchmark.papers.plan import PaperTablePlan

COUNTS = ("real_as_real", "real_as_synthetic", "synthetic_as_real", "synthetic_as_synthetic")
ALIASES = {"t1ce": "t1c", "t1gd": "t1c"}
"""Names of sequences in data sets -> the paper's."""
NOT_RATED = "not rated: gansynth turing-test"


def rater_rows(plan: PaperTablePlan, generators: Path) -> list[tuple[object, ...]]:
    """Return the paper's row of each set, below it one for each rater of the fitted set."""
    counts = (key.replace("_", " ") for key in COUNTS)
    lines: list[tuple[object, ...]] = [("set", "rater", "accuracy, %", *counts)]
    runs = {
        _paper_name(path.parent.name): path.parent for path in generators.glob("*/manifest.json")
    }
    papers = {k: v for k, v in plan.spec.spec.reports[plan.raters].items() if k != "about"}
    known = {name.casefold(): name for name in papers}
    for name in dict.fromkeys([*known, *sorted(runs)]):
        if name in known:
            lines.append((known[name], "paper's physician", *_cells(papers[known[name]])))
        if name in runs:
            lines += [(runs[name].name, *row) for row in _rated(runs[name])]
    return lines


def _rated(run: Path) -> Iterator[tuple[object, ...]]:
    documents = [
        read_json(p, hint="make it again") for p in sorted(run.glob("turing/*/results.json"))
    ]
    raters = [rater for document in documents for rater in document["raters"]]
    for rater in raters:
        table = rater["table"]
        accuracy = 100 * (table["accuracy"]["value"] or 0)
        yield rater["name"], *_cells({**table, "accuracy": accuracy})
    if not raters:
        yield NOT_RATED, *"-----"


def _cells(figures: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"{figures['accuracy']:.0f}", *(str(figures[key]) for key in COUNTS))


def _paper_name(name: str) -> str:
    channel, _, size = name.casefold().rpartition("-")
    return f"{ALIASES.get(channel, channel)}-{size}"
