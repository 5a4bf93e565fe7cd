"""Doncenco 2022, table 1, by the documented commands: real, real + synthetic, synthetic only.

The plan (``plans/doncenco2022.yaml``) names generators with and without spectral normalisation and
nine arms; each arm trains the torch engine (or the real DeepMedic's own program is left to the
user) by ``gansynth augment --target deepmedic --engine torch`` on the same cases for as many steps,
real cases brought through the generator's space, and is judged on the real validation cases: Dice
of whole tumour, tumour core, enhancing tumour, beside the paper's.

    python benchmarks/bench_doncenco.py --data deepmedic:trainConfig.cfg --model modelConfig.cfg
        [--scale tiny] [--regions WT:1+2+3,TC:2+3,ET:3] [--seeds 0 1 2] [--epochs N] [--only NAME]
        [--as-stored] [--plan FILE] [-o FOLDER] [--name doncenco]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from common import print_table, write
from pydantic import BaseModel, ConfigDict

PLANS = Path(__file__).parent / "plans"


class Closed(BaseModel):
    """Keys that are not known are refused."""

    model_config = ConfigDict(extra="forbid")


class Arm(Closed):
    """One training.

    Attributes:
        name: as in the table.
        ratio: real:synthetic.
        generator: one of the plan's; None for the real cases alone.
        bank: how many synthetic samples there are, finite.
        paper: its Dice in the paper, in the order of the plan's regions.
    """

    name: str
    ratio: str
    generator: str | None = None
    bank: str = "1x"
    paper: list[float]


class Scale(Closed):
    """Other settings, for another amount of work."""

    read: dict[str, str] = {}
    set: dict[str, str] = {}


class Plan(Closed):
    """A table of a paper."""

    name: str
    paper: str
    data: str
    generator: str
    read: dict[str, str]
    set: dict[str, Any]
    generators: dict[str, dict[str, str]]
    real_in_generator_space: bool
    regions: dict[str, list[int]]
    arms: list[Arm]
    left_open: list[str]
    scales: dict[str, Scale]


def read_plan(path: Path) -> Plan:
    """The plan in a file."""
    plan = Plan(**yaml.safe_load(path.read_text(encoding="utf-8")))
    unknown = {arm.generator for arm in plan.arms if arm.generator} - set(plan.generators)
    if unknown:
        raise SystemExit(f"{path}: arms name the generators {sorted(unknown)}, which it has not")
    return plan


class Table:
    """All arms of a plan on one data set."""

    def __init__(self, plan: Plan, home: Path, args: argparse.Namespace) -> None:
        self.plan, self.home, self.args = plan, home, args
        self.scale = plan.scales[args.scale] if args.scale else Scale()
        self.commands: list[str] = []

    @property
    def source(self) -> list[str]:
        """``--data`` and how it is read."""
        read = {**self.plan.read, **self.scale.read}
        words = ["--data", self.args.data, "--read", f"model={self.args.model}"]
        return words + [word for k, v in read.items() for word in ("--read", f"{k}={v}")]

    def call(self, *words: object) -> str:
        """Run a command and remember it, without this machine's folders."""
        said = " ".join(map(str, words)).replace(f"{self.home}/", "")
        for where in (self.args.data.partition(":")[2], self.args.model):
            said = said.replace(where, Path(where).name)
        self.commands.append(f"gansynth {said}")
        line = [sys.executable, "-m", "gansynth_cli", *map(str, words)]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"gansynth {said}: exit code {done.returncode}")
        return done.stdout

    def fit(self, name: str) -> Path:
        """Fit a generator, if it is not there."""
        run = self.home / f"run-{name}"
        if not (run / "manifest.json").exists():
            settings = {**self.plan.set, **self.plan.generators[name], **self.scale.set}
            options = [word for k, v in settings.items() for word in ("--set", f"{k}={v}")]
            self.call("fit", self.plan.generator, *self.source, "-o", run, *options)
        return run

    def train(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Train one arm; its Dice on real validation cases and what it was trained on."""
        out = self.home / f"{arm.name.lower().replace(' ', '_').replace('+', 'and')}-{seed}"
        # The real arm needs a generator too: for its space alone, and every generator has the same.
        run = self.fit(arm.generator or next(iter(self.plan.generators)))
        settings = {"model": self.args.model, "regions": self.args.regions or self.regions}
        if self.args.epochs:
            settings["epochs"] = self.args.epochs
        options = [word for k, v in settings.items() for word in ("--set", f"{k}={v}")]
        if self.plan.real_in_generator_space and not self.args.as_stored:
            options.append("--real-in-generator-space")
        if arm.generator:
            options += ["--frozen", "--bank-size", arm.bank]
        report = json.loads(
            self.call(
                "augment", "--target", "deepmedic", *self.source, "--engine", "torch",
                "--generator", run, "--ratio", arm.ratio, "--seed", seed, "-o", out, *options,
                "--json",
            )
        )  # fmt: skip
        keys = ("drawn_real", "drawn_synthetic", "fell_back", "metrics_on_real_cases")
        return {"arm": arm.name, "seed": seed, **{key: report[key] for key in keys}}

    @property
    def regions(self) -> str:
        """The plan's regions as ``--set regions=`` has them."""
        each = (f"{name}:{'+'.join(map(str, of))}" for name, of in self.plan.regions.items())
        return ",".join(each)

    def document(self) -> dict[str, Any]:
        """Every arm and seed."""
        arms = [arm for arm in self.plan.arms if not self.args.only or arm.name in self.args.only]
        results = []
        for arm in arms:
            for seed in self.args.seeds:
                results.append(self.train(arm, seed))
                print_table(rows(self.plan, results))
        return {
            "plan": self.plan.name,
            "paper": self.plan.paper,
            "scale": self.args.scale or "the paper's",
            "real_cases": "as stored" if self.args.as_stored else "in the generator's space",
            "regions": self.args.regions or self.regions,
            "left_open": self.plan.left_open,
            "results": results,
            "commands": self.commands,
        }


def rows(plan: Plan, results: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """A line for each arm: Dice over seeds, and the paper's."""
    names = list(plan.regions)
    head = ("arm", "real", "synthetic", *names, *(f"paper {name}" for name in names))
    lines: list[tuple[object, ...]] = [head]
    for arm in plan.arms:
        found = [one for one in results if one["arm"] == arm.name]
        if not found:
            continue
        drawn = [sum(one[key] for one in found) for key in ("drawn_real", "drawn_synthetic")]
        dice = [
            mean_of(one["metrics_on_real_cases"].get("dice", {}).get(n) for one in found)
            for n in names
        ]
        lines.append((arm.name, *drawn, *dice, *(f"{value:.3f}" for value in arm.paper)))
    return lines


def mean_of(values: Any) -> str:
    """Mean over seeds; a dash where one is missing."""
    known = list(values)
    return "-" if any(value is None for value in known) else f"{mean(known):.3f}"


def main() -> None:
    """Run the plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="deepmedic:trainConfig.cfg")
    parser.add_argument("--model", required=True, help="modelConfig.cfg")
    parser.add_argument("--plan", type=Path, default=PLANS / "doncenco2022.yaml")
    parser.add_argument("--scale", help="one of the plan's; the paper's own without")
    parser.add_argument("--regions", help="where labels are not BraTS's: WT:1+2+3,TC:2+3,ET:3")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="instead of trainConfig.cfg's")
    parser.add_argument(
        "--as-stored", action="store_true", help="leave real cases as they are, for comparison"
    )
    parser.add_argument("--only", nargs="+", help="arms by name")
    parser.add_argument("-o", "--out", type=Path, help="keep everything here")
    parser.add_argument("--name", default="doncenco")
    args = parser.parse_args()
    plan = read_plan(args.plan)
    with tempfile.TemporaryDirectory() as scratch:
        table = Table(plan, Path(args.out or scratch).absolute(), args)
        document = table.document()
    write(args.name, document)
    print_table(rows(plan, document["results"]))


if __name__ == "__main__":
    main()
