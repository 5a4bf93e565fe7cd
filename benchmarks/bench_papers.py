"""A paper's table, by the documented commands: fit its recipe, train its arms, print both tables.

    python benchmarks/bench_papers.py shin2018 --data nifti:brats/ --with tissues=nifti:tissues/
    python benchmarks/bench_papers.py mmgan2020 --data nifti:brats/ --scale tiny --seeds 0 1 2
    python benchmarks/bench_papers.py mmgan2020-liver --data nifti:livers/
    python benchmarks/bench_papers.py doncenco2022 --data deepmedic:trainConfig.cfg

PLAN is one of ``plans/`` or a YAML file like these; ``paper_plan.py`` says what is in it. Every arm
of a host trains for as many optimiser steps and is judged on the real held-out cases. ``--dry-run``
prints the commands. With ``-o`` everything is kept: the same command again takes up generators and
trainings that are done. Our table stands beside the paper's after every arm, and all of it is
written to ``results/NAME.json``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import print_table, write
from paper_commands import Asked, Commands, bare, said
from paper_plan import Arm, Plan, find_plan
from paper_tables import notes, rows, steps_of

KEPT = (
    *("ratio", "schedule", "drawn_real", "drawn_synthetic", "realised_synthetic_share"),
    *("asked_synthetic_share", "fell_back", "metrics_on_real_cases"),
)
"""What is kept of ``augment``'s own report."""


class Table:
    """All arms of a plan, trained one after the other.

    Args:
        commands: what is to be run.
        hosts: by name.
        arms: of each of them.
        seeds: of each of these.
    """

    def __init__(
        self, commands: Commands, hosts: Sequence[str], arms: Sequence[Arm], seeds: Sequence[int]
    ) -> None:
        self.commands, self.hosts, self.arms, self.seeds = commands, hosts, arms, seeds
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
            settings = self.commands.settings(host, self.arms)
            for arm in self.arms:
                words += [self.commands.augment(host, arm, seed, settings) for seed in self.seeds]
        return words

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
            SystemExit: it failed.
        """
        told = said(words, self.commands.asked.out)
        print(f"$ {told}", flush=True)
        line = [sys.executable, "-m", "gansynth_cli", *words, "--json"]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{told}: exit code {done.returncode}")
        self.ran.append(told)
        return done.stdout

    def run(self) -> None:
        """Fit and train everything; the table after each arm."""
        if self.generators:
            self.call(self.commands.fit(self.generators))
        for host in self.hosts:
            settings = self.commands.settings(host, self.arms)
            for arm in self.arms:
                for seed in self.seeds:
                    self.results.append(self.train(host, arm, seed, settings))
                self.show()

    def show(self) -> None:
        """Print what there is."""
        print_table(rows(self.plan, self.results, self.commands.regions, self.arms))
        print("\n".join([*notes(self.plan), *steps_of(self.results)]), flush=True)

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
        record.write_text(json.dumps({"command": plain, "result": result}), encoding="utf-8")
        return result

    def settings(self, host: str) -> dict[str, str]:
        """A host's settings, as they may be written down."""
        return {k: bare(v) for k, v in self.commands.settings(host, self.arms).items()}

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
    """The paper's figures: host -> arm -> region -> mean and deviation."""
    found: dict[str, Any] = {}
    for host in plan.hosts:
        for arm in plan.arms:
            for region in plan.regions:
                figure = plan.figure(host, arm, region)
                if figure is not None:
                    own = found.setdefault(host, {}).setdefault(arm.name, {})
                    own[region] = figure.model_dump(exclude_none=True)
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


READERS = {"segmenter": of_segmenter, "deepmedic": of_deepmedic}


def pairs(values: Sequence[str]) -> dict[str, str]:
    """``key=value`` words."""
    for value in values:
        if "=" not in value:
            raise SystemExit(f"{value}: expected KEY=VALUE")
    return dict(value.split("=", 1) for value in values)


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", help="one of plans/, or a file")
    parser.add_argument("--data", required=True, metavar="KIND:WHERE")
    parser.add_argument("--with", dest="others", action="append", default=[], metavar="NAME=...")
    parser.add_argument("--read", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--fold", default="0")
    parser.add_argument("--subjects", help="CSV or regular expression, as gansynth fit has it")
    parser.add_argument("--root", help="folder of nnU-Net's folders, of nnunet-raw:")
    parser.add_argument("--scale", help="one of the plan's; the paper's own without")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", metavar="ARM", help="arms by name")
    parser.add_argument("--hosts", nargs="+", default=[], help="hosts by name")
    parser.add_argument("--steps", type=int, help="optimiser steps of every arm")
    parser.add_argument("--epochs", type=float, help="epochs of the hosts, instead")
    parser.add_argument("--fit-set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--host-set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--regions", default="", help="of other labels: WT:1+2+3,TC:2+3,ET:3")
    parser.add_argument("--model", help="modelConfig.cfg; else the one beside trainConfig.cfg")
    parser.add_argument(
        "--as-stored", action="store_true", help="leave real cases as they are, for comparison"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    parser.add_argument("-o", "--out", type=Path, help="keep everything here")
    parser.add_argument("--name", help="of the results; papers_PLAN without")
    return parser.parse_args(words)


def table_of(args: argparse.Namespace, out: Path) -> Table:
    """What a command line asks for.

    Raises:
        SystemExit: something that is not there, or does not fit.
    """
    plan = find_plan(args.plan)
    asked = Asked(
        data=args.data,
        out=out,
        scale=args.scale,
        others=tuple(args.others),
        read=pairs(args.read),
        fold=args.fold,
        subjects=args.subjects,
        root=args.root,
        model=args.model,
        fit=pairs(args.fit_set),
        host=pairs(args.host_set),
        steps=args.steps,
        epochs=args.epochs,
        regions=args.regions,
        as_stored=args.as_stored,
    )
    if args.steps is not None and args.epochs is not None:
        raise SystemExit("--steps and --epochs: expected one of them")
    names = {arm.name: arm for arm in plan.arms}
    for name in args.only or ():
        if name not in names:
            raise SystemExit(f"--only {name}: expected among: {', '.join(names)}")
    arms = [arm for name, arm in names.items() if not args.only or name in args.only]
    commands = Commands(plan, asked)
    assert commands.source is not None  # opened now: what is wrong with it is said before fitting
    return Table(commands, plan.hosts_for(asked.kind, args.hosts), arms, args.seeds)


def main(words: Sequence[str] | None = None) -> None:
    """Run the plan."""
    words = sys.argv[1:] if words is None else words
    if not words:  # make bench, which names no data
        print(__doc__)
        return
    args = parsed(words)
    if args.dry_run:
        out = args.out or Path("papers") / args.plan
        for line in table_of(args, out).listed():
            print(f"gansynth {shlex.join(line)}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        table = table_of(args, Path(args.out or scratch).absolute())
        table.run()
        document = table.document()
    print(write(args.name or f"papers_{table.plan.name.replace('-', '_')}", document).name)


if __name__ == "__main__":
    main()
