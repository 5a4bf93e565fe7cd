"""The table of a Visual Turing Test (Han et al. 2018): what raters said, beside the paper's.

The sets of a recipe are fitted and measured by a classifier two-sample test, which the paper names
as what should follow. People rate in ``gansynth turing-test RUN``; the same command then shows
their answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gansynth.benchmark.command_lines import each, source_words
from gansynth.benchmark.papers.commands import PaperArguments
from gansynth.benchmark.papers.table_run import run_command
from gansynth.core.source import SourceRequest
from gansynth.fitting.recipe import Recipe

REPORT = "visual_turing_test"
"""Key of a recipe's report whose figures are of raters."""
C2ST = "c2st-knn"
COUNTS = (
    *("real_as_real", "real_as_synthetic"),
    *("synthetic_as_real", "synthetic_as_synthetic"),
)
HEAD = (
    *("set", "rater", "accuracy, %", *(key.replace("_", " ") for key in COUNTS)),
    "C2ST accuracy (.5 is best)",
)
ALIASES = {"t1ce": "t1c", "t1gd": "t1c"}
"""Names of sequences in data sets -> the paper's."""


class RaterTable:
    """Fits the sets of a recipe, and gathers what raters have said of them."""

    def __init__(self, recipe: Recipe, options: PaperArguments, say: Callable[[str], None]) -> None:
        self.recipe, self.options, self.say = recipe, options, say
        self.figures: Mapping[str, Any] = recipe.spec.reports[REPORT]
        self.ran: list[str] = []

    def commands(self, runs: Mapping[str, str]) -> list[list[str]]:
        """Return the fit's words, then those of each run's test and of its study for raters."""
        options, spec = self.options, self.recipe.spec
        keys = {"fold": options.fold, "subjects": options.subjects, "root": options.root}
        request = SourceRequest.parse(options.data, read=options.read, **keys)
        words = ["fit", spec.generator, "--recipe", self.recipe.name, *source_words(request)]
        words += [] if options.scale is None else ["--scale", options.scale]
        words += [*each("--set", options.fit), "-o", str(options.out / "generators")]
        only = ["--only", "realism", "--metric", C2ST, "--no-pictures"]
        only += [] if options.scale is None else ["--preset", "quick"]
        return [words, *(["evaluate", run, *only] for run in runs.values())]

    def run(self) -> dict[str, Any]:
        """Fit and measure; return the document with a row for each set."""
        (fit,) = self.commands({})
        report = json.loads(run_command(fit, self.options.out, self.say, self.ran))
        runs = {name: entry["run"] for name, entry in report["sets"].items()}
        results = {}
        for (name, run), words in zip(runs.items(), self.commands(runs)[1:], strict=True):
            document = json.loads(run_command(words, self.options.out, self.say, self.ran))
            (found,) = (f["value"] for f in document["figures"] if f["metric"] == C2ST)
            results[name] = {"run": run, "c2st": found, "raters": _raters(Path(run))}
        return {**self.document(), "results": results, "commands": self.ran}

    def document(self) -> dict[str, Any]:
        """Return the paper's side of the document."""
        figures = {name: row for name, row in self.figures.items() if name != "about"}
        return {"recipe": self.recipe.name, "about": self.figures["about"], "papers": figures}


def _raters(run: Path) -> list[dict[str, Any]]:
    """Return name, accuracy and counts of each rater of a run's finished studies."""
    documents = [
        json.loads(p.read_text("utf-8")) for p in sorted(run.glob("turing/*/results.json"))
    ]
    raters = [(rater["name"], rater["table"]) for doc in documents for rater in doc["raters"]]
    return [
        {
            "name": name,
            "accuracy": 100 * table["accuracy"]["value"],
            **{k: table[k] for k in COUNTS},
        }
        for name, table in raters
        if table["accuracy"]["value"] is not None
    ]


def rows(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the paper's row of each set, and below it a row for each rater here."""
    results = {_paper_name(name): row for name, row in document.get("results", {}).items()}
    lines = [HEAD]
    for name, figures in document["papers"].items():
        lines.append((name, "paper's physician", *_cells(figures), ""))
        ours = results.pop(name.casefold(), None)
        lines += [] if ours is None else _ours(ours)
    for name, ours in results.items():
        lines += [(name, *row[1:]) for row in _ours(ours)]
    return lines


def _ours(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    measured = f"{result['c2st']:.2f}"
    named = [(r["name"], *_cells(r)) for r in result["raters"]]
    return [("", *row, measured) for row in named or [("not rated yet", *"-----")]]


def _cells(figures: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"{figures['accuracy']:.0f}", *(str(figures[key]) for key in COUNTS))


def _paper_name(name: str) -> str:
    channel, _, size = name.casefold().rpartition("-")
    return f"{ALIASES.get(channel, channel)}-{size}"
