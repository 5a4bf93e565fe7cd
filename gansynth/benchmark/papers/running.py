"""A paper's table: its recipe fitted, its arms trained, by the documented commands.

Every arm of a host trains for as many optimiser steps and is judged on the real held-out cases.
What is done is taken up by the same command; our table stands beside the paper's after every arm.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from gansynth.benchmark.papers.commands import Commands, bare, said
from gansynth.benchmark.papers.plan import ALL, Arm, Plan
from gansynth.runtime.errors import FAULTS, GansynthError
from gansynth.runtime.files import disk_errors, write_json_atomic
from gansynth.runtime.options import overlay

KEPT = (
    *("ratio", "schedule", "drawn_real", "drawn_synthetic", "realised_synthetic_share"),
    *("asked_synthetic_share", "fell_back", "metrics_on_real_cases"),
)
"""What is kept of ``augment``'s own report."""


class Table:
    """All arms of a plan, trained one after the other."""

    def __init__(
        self,
        commands: Commands,
        hosts: Sequence[str],
        arms: Sequence[Arm],
        seeds: Sequence[int],
        say: Callable[[str], None] = print,
    ) -> None:
        self.commands, self.hosts, self.arms, self.seeds = commands, hosts, arms, seeds
        self.say = say
        self.ran: list[str] = []
        self.results: list[dict[str, Any]] = []

    @property
    def plan(self) -> Plan:
        """The table."""
        return self.commands.plan

    def listed(self) -> list[list[str]]:
        """All commands, in order."""
        words = [self.commands.fit(self.generators)] if self.generators else []
        for host in self.hosts:
            for arm, settings in self._settings(host).items():
                words += [self.commands.augment(host, arm, seed, settings) for seed in self.seeds]
        return words

    def _settings(self, host: str) -> dict[Arm, dict[str, str]]:
        """What each arm of a host is set to."""
        common, lengths = self.commands.settings(host), self.commands.lengths(host, self.arms)
        return {arm: overlay(common, lengths[arm.name]) for arm in self.arms}

    @property
    def generators(self) -> list[str]:
        """Those that the arms need; for the space of real cases alone the plan's first."""
        needed = {arm.generator for arm in self.arms}
        found = [name for name in self.plan.generators if name in needed]
        squeezed = any(map(self.commands.squeezes, self.hosts))
        return found or list(self.plan.generators)[: int(squeezed)]

    def call(self, words: Sequence[str]) -> str:
        """Run a command; its output.

        Raises:
            GansynthError: it failed, with its exit code; it has said why.
        """
        told = said(words, self.commands.asked.out)
        self.say(f"$ {told}")
        line = [sys.executable, "-m", "gansynth_cli", *words, "--json"]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            kind = FAULTS.get(done.returncode, GansynthError)
            raise kind(f"{told}: ended with exit code {done.returncode}; see above")
        self.ran.append(told)
        return done.stdout

    def run(self) -> None:
        """Fit and train everything; the table after each arm."""
        if self.generators:
            self.call(self.commands.fit(self.generators))
        for host in self.hosts:
            for arm, settings in self._settings(host).items():
                for seed in self.seeds:
                    self.results.append(self.train(host, arm, seed, settings))
                self.say("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Our table so far, beside the paper's, and what is to be said of it."""
        cells = rows(self.plan, self.results, self.commands.regions, self.arms)
        widths = [max(len(str(cell)) for cell in column) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        return [*lines, *notes(self.plan), *steps_of(self.results)]

    def train(self, host: str, arm: Arm, seed: int, settings: Mapping[str, str]) -> dict[str, Any]:
        """Train one arm, or take up what the same command has left."""
        words = self.commands.augment(host, arm, seed, settings)
        folder = self.commands.folder(host, arm, seed)
        record, out = folder.with_suffix(".json"), self.commands.asked.out
        plain = [word.replace(f"{out}/", "") for word in words]  # the folder may have been moved
        if "--generator" in words:  # and may not have been fitted otherwise meanwhile
            plain += self.commands.fitted
        kept = json.loads(record.read_text("utf-8")) if record.is_file() else {}
        if kept.get("command") == plain:
            self.ran.append(said(words, out))
            return dict(kept["result"])
        report = json.loads(self.call(words))
        target = str(self.plan.hosts[host].target)
        result = {
            "host": host,
            "arm": arm.name,
            "seed": seed,
            **{key: report[key] for key in KEPT},
            **READERS[target](folder),
        }
        write_json_atomic(record, {"command": plain, "result": result})
        return result

    def settings(self, host: str) -> dict[str, str]:
        """A host's settings that all arms share, as they may be written down."""
        first, *others = self._settings(host).values()
        return {k: bare(v) for k, v in first.items() if all(o.get(k) == v for o in others)}

    def document(self) -> dict[str, Any]:
        """What is written to the results."""
        plan, asked = self.plan, self.commands.asked
        source = self.commands.source
        squeezed = any(map(self.commands.squeezes, self.hosts))
        return {
            "plan": plan.name,
            "paper": plan.table,
            "scale": asked.scale or "the paper's",
            "fit_settings": dict(asked.fit),
            "data": source.name,
            "training_cases": len(source.train_ids),
            "held_out_cases": len(source.held_out_ids),
            "hosts": {name: plan.hosts[name].title for name in self.hosts},
            "settings": {name: self.settings(name) for name in self.hosts},
            "real_cases": "in the generator's space" if squeezed else "as stored",
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
        }


def papers(plan: Plan) -> dict[str, Any]:
    """The paper's figures: host -> arm -> region or column -> mean and deviation."""
    found: dict[str, Any] = {}
    for host in plan.hosts:
        for arm in plan.arms:
            for measure in plan.measures:
                figure = plan.figure(host, arm, measure)
                if figure is not None:
                    own = found.setdefault(host, {}).setdefault(arm.name, {})
                    own[measure] = figure.model_dump(exclude_none=True)
    return found


def of_segmenter(folder: Path) -> dict[str, Any]:
    """Steps and every case's Dice of a segmenter's training."""
    doc = json.loads((folder / "metrics.json").read_text("utf-8"))
    each = {case: found["dice"] for case, found in doc["per_case"].items()}
    return {"steps": doc["steps"], "per_case": each}


def of_deepmedic(folder: Path) -> dict[str, Any]:
    """Steps and every case's Dice of the torch engine's training."""
    doc = json.loads((folder / "validation.json").read_text("utf-8"))
    sessions = json.loads((folder / "gansynth_session.json").read_text("utf-8"))["sessions"]
    trained = [k for one in sessions for k in one["per_subepoch"] if k["trained"]]
    segments = (k["segments_real"] + k["segments_synthetic"] for k in trained)
    return {
        "steps": sum(count // sessions[-1]["batch"] for count in segments),
        "per_case": {case["name"]: case["dice"] for case in doc["cases"]},
    }


def of_detector(folder: Path) -> dict[str, Any]:
    """Steps and figures of a detector's training, on test images where there are any."""
    from gansynth.metrics.detection.measuring import summary
    from gansynth.metrics.detection.record import FILE, read_detections

    file = folder / FILE.replace(".json", "_test.json")
    test = file.is_file()
    sessions = json.loads((folder / "gansynth_session.json").read_text("utf-8"))["sessions"]
    epochs = [(one["batch"], epoch) for one in sessions for epoch in one["per_epoch"]]
    places = ((batch, e["places_real"] + e["places_synthetic"]) for batch, e in epochs)
    return {
        "steps": sum(ceil(count / batch) for batch, count in places),
        "judged_on": "test" if test else "val",
        "figures": summary(read_detections(file if test else folder / FILE)),
        "per_case": {},
    }


READERS = {"segmenter": of_segmenter, "deepmedic": of_deepmedic, "yolo": of_detector}


def write(table: Table, name: str, command: str) -> Path:
    """Write all results of a table to ``NAME.json`` in its folder, with the machine's description.

    Raises:
        EnvironmentFault: the disk refuses.
    """
    import torch

    from gansynth.benchmark.running import machine

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    path = table.commands.asked.out / f"{name}.json"
    head = {"benchmark": name, "command": command, "date": time.strftime("%Y-%m-%d")}
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    document = {**head, "machine": {**machine(), "cuda": cuda}, **table.document()}
    write_json_atomic(path, document)
    return path


# -- the table -------------------------------------------------------------------------------------

NOT_RUN = "not run: others' code"
Result = Mapping[str, Any]


def key_of(region: str, formula: str) -> str:
    """What a host calls a region in its report."""
    return "foreground" if formula == ALL else region


def dice_of(results: Sequence[Result], key: str) -> str:
    """Mean and deviation over held-out cases, those of all seeds together; a dash for none."""
    each = [case.get(key) for one in results for case in one["per_case"].values()]
    known = [value for value in each if value is not None]
    if not known:
        return "-"
    more = f" ± {pstdev(known):.2f}" if len(known) > 1 else ""
    return f"{fmean(known):.3f}{more}"


def figure_of(results: Sequence[Result], key: str) -> str:
    """Mean over seeds of a detector's figure; a dash for none."""
    known = [one["figures"][key] for one in results if one["figures"][key] is not None]
    return f"{fmean(known):.3f}" if known else "-"


def rows(
    plan: Plan,
    results: Sequence[Result],
    regions: Mapping[str, str],
    arms: Sequence[Arm] | None = None,
) -> list[tuple[object, ...]]:
    """A line for each arm of each host: what was drawn, Dice or figures, and the paper's.

    Args:
        results: as ``gansynth papers`` writes them.
        regions: name -> formula, as they were asked for; none of a detector's table.
        arms: shown of others' code; all of the plan's if None. Of ours, those with results; all
            before there are any.
    """
    names = plan.measures
    head = ("host", "arm", "real", "synthetic", *names, *(f"paper {name}" for name in names))
    lines: list[tuple[object, ...]] = [head]
    for host, told in plan.hosts.items():
        for arm in plan.arms:
            found = [one for one in results if (one["host"], one["arm"]) == (host, arm.name)]
            papers = [plan.figure(host, arm, name) or "-" for name in names]
            if found:
                drawn = [
                    sum(one[key] for one in found) for key in ("drawn_real", "drawn_synthetic")
                ]
                ours = [dice_of(found, key_of(*item)) for item in regions.items()]
                ours += [figure_of(found, key) for key in plan.columns.values()]
                lines.append((told.title, arm.name, *drawn, *ours, *papers))
            elif arm in (arms or plan.arms) and (told.code == "others" or not results):
                not_run = NOT_RUN if told.code == "others" else "-"
                ours = [not_run, *("" for _ in names[1:])]
                lines.append((told.title, arm.name, "-", "-", *ours, *papers))
    return lines


def notes(plan: Plan) -> list[str]:
    """What is said below the table: of hosts that are not run, and of those that stand in."""
    lines = []
    for name in plan.others():
        host = plan.hosts[name]
        lines.append(f"{host.title}: {host.why} Instead: {host.instead}.")
    return lines


def steps_of(results: Sequence[Result]) -> list[str]:
    """How many optimiser steps the arms of each host had, if they had not as many."""
    lines = []
    for host in dict.fromkeys(one["host"] for one in results):
        steps = sorted({one["steps"] for one in results if one["host"] == host})
        if len(steps) > 1:
            lines.append(f"{host}: its arms had {', '.join(map(str, steps))} steps, not as many")
    return lines
