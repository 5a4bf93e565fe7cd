"""Reproduction of a paper's table: fit the recipe and train the arms by the documented commands.

All arms of a host train for the same number of optimiser steps. They are evaluated on the real
held-out cases. The same command resumes a table. Our table is printed beside the paper's after
every arm.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from gansynth.hosts.deciding.trials import trials_of
from gansynth.runtime.errors import GansynthError
from gansynth.runtime.files import disk_errors, read_json, write_json_atomic
from gansynth.runtime.options import overlay
from gansynth_benchmark.papers.commands import PaperCommands, bare, said
from gansynth_benchmark.papers.pictures import PictureWriter
from gansynth_benchmark.papers.plan import ALL, PaperArm, PaperTablePlan
from gansynth_cli.common import WIDTH, table

KEPT_KEYS = (
    "ratio",
    "schedule",
    "drawn_real",
    "drawn_synthetic",
    "realised_synthetic_share",
    "asked_synthetic_share",
    "fell_back",
    "metrics_on_real_cases",
)
"""Keys kept from the report of ``augment``."""


class PaperTableRun:
    """All arms of a plan, trained one after the other."""

    def __init__(
        self,
        commands: PaperCommands,
        hosts: Sequence[str],
        arms: Sequence[PaperArm],
        seeds: Sequence[int],
        say: Callable[[str], None] = print,
    ) -> None:
        self.commands, self.hosts, self.arms, self.seeds = commands, hosts, arms, seeds
        self.say = say
        self.ran: list[str] = []
        self.results: list[dict[str, Any]] = []
        self.pictures: dict[str, str] = {}  # file in the results' folder -> what it shows

    @property
    def plan(self) -> PaperTablePlan:
        return self.commands.plan

    def listed(self) -> list[list[str]]:
        """Return all commands in order."""
        words = [self.commands.fit(self.generators)] if self._fits else []
        for host in self.hosts:
            for arm, settings in self._settings(host).items():
                words += [self.commands.augment(host, arm, seed, settings) for seed in self.seeds]
        return words

    def _settings(self, host: str) -> dict[PaperArm, dict[str, str]]:
        common, lengths = self.commands.settings(host), self.commands.lengths(host, self.arms)
        return {arm: overlay(common, lengths[arm.name]) for arm in self.arms}

    @property
    def _fits(self) -> bool:
        return bool(self.generators or self.plan.raters)

    @property
    def generators(self) -> list[str]:
        """Generators of the arms, and of the pictures if these are drawn."""
        needed = {arm.generator for arm in self.arms}
        if self.commands.asked.figures:
            needed |= {row.generator for row in self.plan.picture_rows}
        return [name for name in self.plan.generators if name in needed]

    def call(self, words: Sequence[str]) -> str:
        """Run a command and return its output."""
        text = said(words, self.commands.out)
        self.say(f"$ {text}")
        line = [sys.executable, "-m", "gansynth_cli", *words, "--json"]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            message = f"{text}: ended with exit code {done.returncode}; see above"
            raise GansynthError.printed(done.returncode, message)
        self.ran.append(text)
        return done.stdout

    def run(self) -> None:
        """Fit and train everything; print the table after each arm."""
        if self._fits:
            self.call(self.commands.fit(self.generators))
        self._draw_pictures(detected=False)
        for host in self.hosts:
            for arm, settings in self._settings(host).items():
                for seed in self.seeds:
                    self.results.append(self.train(host, arm, seed, settings))
                self.say("\n".join(self.lines()))
        self._draw_pictures(detected=True)

    def _draw_pictures(self, *, detected: bool) -> None:
        """Write the paper's figures, if asked: of samples, or of what hosts have detected."""
        if self.commands.asked.figures:
            host = self.hosts[0] if self.hosts else None
            writer = PictureWriter(self.commands, host, self.seeds[0])
            self.pictures.update(writer.write(detected=detected))

    def lines(self) -> list[str]:
        """Return our table so far beside the paper's, and notes on it."""
        if self.plan.raters:
            cells = rater_rows(self.plan, self.commands.generators)
            return [*table(cells, WIDTH), RATED, *notes(self.plan)]
        head, *cells = rows(self.plan, self.results, self.commands.regions, self.arms)
        count, lines = len(self.plan.measures), list[str]()
        hosts = [row[0] for row in cells]
        for host in dict.fromkeys(hosts):
            shown = [head[1 : 4 + count]]
            for row in cells:
                if row[0] == host:
                    both = zip(row[4 : 4 + count], row[4 + count :], strict=True)
                    pairs = [f"{ours or '-'} / {paper}" for ours, paper in both]
                    shown.append((*row[1:4], *pairs))
            lines += [f"{host}, ours / the paper's:", *table(shown, WIDTH), ""]
        return [*lines, *notes(self.plan), *steps_of(self.results)]

    def train(
        self, host: str, arm: PaperArm, seed: int, settings: Mapping[str, str]
    ) -> dict[str, Any]:
        """Train one arm, or reuse the result of the same command."""
        words = self.commands.augment(host, arm, seed, settings)
        folder = self.commands.folder(host, arm, seed)
        record, out = folder.with_suffix(".json"), self.commands.out
        plain = [word.replace(f"{out}/", "") for word in words]  # the folder may have been moved
        if "--generator" in words:  # the generator's fit must be the same, too
            plain += self.commands.fitted
        previous = json.loads(record.read_text("utf-8")) if record.is_file() else {}
        if previous.get("command") == plain:
            self.ran.append(said(words, out))
            return dict(previous["result"])
        report = json.loads(self.call(words))
        result = {"host": host, "arm": arm.name, "seed": seed}
        for key in KEPT_KEYS:
            result[key] = report[key]
        result.update(trials_of(str(self.plan.hosts[host].target)).scores(folder))
        write_json_atomic(record, {"command": plain, "result": result})
        return result

    def settings(self, host: str) -> dict[str, str]:
        """Return a host's settings that all arms share, without this machine's folders."""
        first, *others = self._settings(host).values()
        return {k: bare(v) for k, v in first.items() if all(o.get(k) == v for o in others)}

    def document(self) -> dict[str, Any]:
        """Return the results document."""
        plan, options = self.plan, self.commands.asked
        source = self.commands.source
        return {
            "plan": plan.name,
            "paper": plan.table,
            "scale": options.scale or "the paper's",
            "fit_settings": dict(options.fit_set),
            "data": source.name,
            "training_cases": len(source.train_ids),
            "held_out_cases": len(source.held_out_ids),
            "hosts": {name: plan.hosts[name].title for name in self.hosts},
            "settings": {name: self.settings(name) for name in self.hosts},
            "regions": self.commands.regions,
            "columns": dict(plan.columns),
            "papers": papers(plan),
            "not_run": {
                name: {"title": host.title, "why": host.why, "instead": host.instead}
                for name, host in plan.hosts.items()
                if host.code == "others"
            },
            "left_open": list(plan.open),
            "results": self.results,
            "commands": self.ran,
            "pictures": self.pictures,
        }


def papers(plan: PaperTablePlan) -> dict[str, Any]:
    """Return the paper's figures: host -> arm -> region or column -> mean and deviation."""
    figures: dict[str, Any] = {}
    for host in plan.hosts:
        for arm in plan.arms:
            for measure in plan.measures:
                figure = plan.figure(host, arm, measure)
                if figure is not None:
                    cells = figures.setdefault(host, {}).setdefault(arm.name, {})
                    cells[measure] = figure.model_dump(exclude_none=True)
    return figures


def write(table: PaperTableRun, command: str) -> Path:
    """Write a table's results to ``NAME.json`` in its folder, with the machine's description."""
    import torch

    from gansynth_benchmark.running import machine

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    name = table.commands.name
    path = table.commands.out / f"{name}.json"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "benchmark": name,
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "machine": dict(machine(), cuda=cuda),
    }
    document.update(table.document())
    write_json_atomic(path, document)
    return path


# -- the table -------------------------------------------------------------------------------------

NOT_RUN = "not run"  # others' code; a note below the table says what to run instead
Result = Mapping[str, Any]


def key_of(region: str, formula: str) -> str:
    """Return the name of a region in a host's report."""
    return "foreground" if formula == ALL else region


def dice_of(results: Sequence[Result], key: str) -> str:
    """Return mean ± deviation over held-out cases of all seeds; a dash without values."""
    each = [case.get(key) for result in results for case in result["per_case"].values()]
    values = [value for value in each if value is not None]
    if not values:
        return "-"
    suffix = f" ± {pstdev(values):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{suffix}"


def figure_of(results: Sequence[Result], key: str) -> str:
    """Return the mean over seeds of a detector's figure; a dash without values."""
    values = [result["figures"][key] for result in results if result["figures"][key] is not None]
    return f"{fmean(values):.3f}" if values else "-"


def rows(
    plan: PaperTablePlan,
    results: Sequence[Result],
    regions: Mapping[str, str],
    arms: Sequence[PaperArm] | None = None,
) -> list[tuple[object, ...]]:
    """Return a row per arm and host: numbers of samples, Dice or figures, and the paper's.

    Args:
        results: as ``gansynth papers`` writes them.
        regions: name -> formula; empty for a detector's table.
        arms: rows of hosts that are not shipped; None for all arms of the plan. Other hosts show
            arms with results, or all arms before there are any.
    """
    names = plan.measures
    head = ("host", "arm", "real", "synthetic", *names, *[f"paper {name}" for name in names])
    lines: list[tuple[object, ...]] = [head]
    for host, entry in plan.hosts.items():
        for arm in plan.arms:
            trained = [
                result for result in results if (result["host"], result["arm"]) == (host, arm.name)
            ]
            papers = [plan.figure(host, arm, name) or "-" for name in names]
            if trained:
                real = sum([result["drawn_real"] for result in trained])
                synthetic = sum([result["drawn_synthetic"] for result in trained])
                ours = [dice_of(trained, key_of(*item)) for item in regions.items()]
                ours += [figure_of(trained, key) for key in plan.columns.values()]
                lines.append((entry.title, arm.name, real, synthetic, *ours, *papers))
            elif arm in (arms or plan.arms) and (entry.code == "others" or not results):
                not_run = NOT_RUN if entry.code == "others" else "-"
                ours = [not_run] + [""] * (len(names) - 1)
                lines.append((entry.title, arm.name, "-", "-", *ours, *papers))
    return lines


def notes(plan: PaperTablePlan) -> list[str]:
    """Return notes below the table on hosts that are not run."""
    lines = []
    for name in plan.others():
        host = plan.hosts[name]
        lines.append(f"{host.title}: {host.why} Instead: {host.instead}.")
    return lines


def steps_of(results: Sequence[Result]) -> list[str]:
    """Return a note for each host whose arms had different numbers of optimiser steps."""
    lines = []
    hosts = [result["host"] for result in results]
    for host in dict.fromkeys(hosts):
        steps = sorted({result["steps"] for result in results if result["host"] == host})
        if len(steps) > 1:
            lines.append(f"{host}: its arms had {', '.join(map(str, steps))} steps, not the same")
    return lines


COUNTS = ("real_as_real", "real_as_synthetic", "synthetic_as_real", "synthetic_as_synthetic")
RATED = "R as S: real images called synthetic, and so on, by a rater of gansynth turing-test"
ALIASES = {"t1ce": "t1c", "t1gd": "t1c"}
"""Names of sequences in data sets -> the paper's."""
NOT_RATED = "not rated"


def rater_rows(plan: PaperTablePlan, generators: Path) -> list[tuple[object, ...]]:
    """Return the paper's row of each set, below it one for each rater of the fitted set.

    Figures of raters are Han et al.'s (2018). People rate in ``gansynth turing-test RUN``.
    """
    counts = ("R as R", "R as S", "S as R", "S as S")
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
        yield rater["name"], *_cells(dict(table, accuracy=accuracy))
    if not raters:
        yield NOT_RATED, *"-----"


def _cells(figures: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"{figures['accuracy']:.0f}", *[str(figures[key]) for key in COUNTS])


def _paper_name(name: str) -> str:
    channel, _, size = name.casefold().rpartition("-")
    return f"{ALIASES.get(channel, channel)}-{size}"
