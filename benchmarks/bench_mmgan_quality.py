"""MM-GAN's figure 7: do segmenters of one sequence, taught by real images, understand its samples?

A 3D U-Net for each sequence learns from the real training cases, and is asked about these, about
real held-out cases, and about synthetic images of the training cases' own label maps, drawn with
and without the pool of earlier samples. Dice of whole tumour, tumour core and enhancing tumour.

    python benchmarks/bench_mmgan_quality.py --data nifti:brats/ [--scale tiny] [-o FOLDER]
        [--steps N] [--fit-set KEY=VALUE] [--host-set KEY=VALUE] [--seed 0] [--name mmgan_quality]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import print_table, write

from gansynth import fill_bank
from gansynth.bank import BankReader
from gansynth.papers.commands import Asked, Commands
from gansynth.papers.plan import Host, Plan, find_plan
from gansynth.papers.running import Table
from gansynth.settings import overlay
from gansynth_segmenter import judge

GENERATORS = {"with pool": "pool", "without pool": "no-pool"}
JUDGE = Host(
    title="3D U-Net of one sequence",
    target="segmenter",
    # Sec. V-B: of the generator's architecture, 16 features, three levels down, Adam at 2e-4.
    set={
        **{"network": "unet", "width": 16, "levels": 4, "epochs": 200},
        **{"learning_rate": "2e-4", "beta1": 0.5},
    },
)
OPEN = (
    "How long the segmenters train is not said. Here 200 passes through the real cases.",
    "The segmenter has the generator's architecture without its spectral normalisation.",
    "The paper asks about cases of the training set alone; here also about real held-out ones.",
)
PAPER = (
    "Figure 7 is drawn and has no numbers. The text: whole tumour 'approximate to 0.8' in all four "
    "sequences with the pool, enhancing tumour below 0.4 in T1, T2 and FLAIR; without the pool "
    "'relatively poor', but for some of T1 and T2"
)
MOST_DRAWS = 16
"""Samples for each training case, at most, until every label map has come."""


def plan_of() -> Plan:
    """The plan of table I, with both generators and the judge in place of its hosts."""
    plan = find_plan("mmgan2020")
    return plan.model_copy(update={"generators": GENERATORS, "hosts": {"unet": JUDGE}})


def real_cases(source: Any, ids: Sequence[str]) -> Iterator[tuple[str, Any, Any]]:
    """Id, image and labels of real cases."""
    for case_id in ids:
        case = source.load(case_id)
        yield case_id, case.image, case.labels


def synthetic_cases(
    run: Path, folder: Path, ids: Sequence[str], seed: int
) -> dict[str, tuple[Any, Any]]:
    """A synthetic image of every training case's own label map: id -> image (C, ...), labels.

    Raises:
        SystemExit: some label map did not come in ``MOST_DRAWS`` samples a case.
    """
    count, found = len(ids), {}
    while len(found) < len(ids):
        if count > MOST_DRAWS * len(ids):
            raise SystemExit(f"{run}: no sample of {', '.join(sorted(set(ids) - set(found)))}")
        bank = folder / str(count)
        fill_bank(run, bank, count, edits=("identity",), seed=seed, judged=False, dtype="float32")
        reader = BankReader(bank)
        for sample_id in reader.ids():
            sample = reader.read(sample_id)
            found.setdefault(sample.provenance["case"], (sample.image, sample.labels))
        count *= 2
    return {case: found[case] for case in ids}


class Quality:
    """All sequences' judges, asked about real and synthetic images.

    Args:
        asked: data, scale and settings.
        seed: of everything.
    """

    def __init__(self, asked: Asked, seed: int) -> None:
        self.plan, self.asked, self.seed = plan_of(), asked, seed
        self.commands = Commands(self.plan, asked)
        self.real = self.plan.arms[0]
        self.table = Table(self.commands, ["unet"], [self.real], [seed])
        self.sheets: dict[str, dict[str, Any]] = {}

    def _settings(self, commands: Commands) -> dict[str, str]:
        """Of the judge, with how long it learns."""
        lengths = commands.lengths("unet", [self.real])
        return overlay(commands.settings("unet"), lengths[self.real.name])

    def run(self) -> None:
        """Fit, teach, ask."""
        self.table.call(self.commands.fit(list(GENERATORS)))
        source = self.commands.source
        drawn = {
            name: synthetic_cases(
                self.commands.run(name),
                self.asked.out / "banks" / GENERATORS[name],
                source.train_ids,
                self.seed,
            )
            for name in GENERATORS
        }
        for index, channel in enumerate(source.schema.channels):
            self.sheets[channel] = self.ask(channel, index, drawn)
            print_table(rows(self.sheets, list(self.plan.regions)))

    def ask(
        self, channel: str, index: int, drawn: Mapping[str, Mapping[str, tuple[Any, Any]]]
    ) -> dict[str, Any]:
        """Teach the judge of a sequence; its Dice on real and on synthetic images of it."""
        out = self.asked.out / channel
        asked = replace(self.asked, out=out, read={**self.asked.read, "channels": channel})
        commands = Commands(self.plan, asked)
        table = Table(commands, ["unet"], [self.real], [self.seed])
        settings = self._settings(commands)
        told = table.train("unet", self.real, self.seed, settings)
        self.table.ran += table.ran
        source, folder = commands.source, commands.folder("unet", self.real, self.seed)
        sides = {
            "real training": list(real_cases(source, source.train_ids)),
            "real held-out": list(real_cases(source, source.held_out_ids)),
            **{
                name: [(case, image[[index]], labels) for case, (image, labels) in of.items()]
                for name, of in drawn.items()
            },
        }
        return {"steps": told["steps"], **{k: judged(folder, v) for k, v in sides.items()}}

    def document(self) -> dict[str, Any]:
        """What is written to the results."""
        source = self.commands.source
        return {
            "paper": "Sun et al. 2020 (MM-GAN), figure 7",
            "paper_says": PAPER,
            "scale": self.asked.scale or "the paper's",
            "fit_settings": dict(self.asked.fit),
            "settings": self._settings(self.commands),
            "data": source.name,
            "training_cases": len(source.train_ids),
            "held_out_cases": len(source.held_out_ids),
            "regions": self.commands.regions,
            "seed": self.seed,
            "left_open": list(OPEN),
            "sequences": self.sheets,
            "commands": self.table.ran,
        }


def judged(folder: Path, cases: Sequence[tuple[str, Any, Any]]) -> dict[str, Any]:
    """Mean and every case's Dice of a judge."""
    found = judge(folder, [(image, labels) for _, image, labels in cases])
    names = [case for case, _, _ in cases]
    return {
        "dice": found["dice"],
        "per_case": {
            name: case["dice"] for name, case in zip(names, found["per_case"], strict=True)
        },
    }


def rows(
    sheets: Mapping[str, Mapping[str, Any]], regions: Sequence[str]
) -> list[tuple[object, ...]]:
    """A line for each sequence and side."""
    lines: list[tuple[object, ...]] = [("sequence", "images", *regions)]
    for channel, sides in sheets.items():
        for name, found in sides.items():
            if name != "steps":
                dice = (found["dice"].get(region) for region in regions)
                cells = ("-" if value is None else f"{value:.3f}" for value in dice)
                lines.append((channel, name, *cells))
    return lines


def main() -> None:
    """Fit, teach, ask, print, write."""
    if not sys.argv[1:]:  # make bench, which names no data
        print(__doc__)
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="KIND:WHERE")
    parser.add_argument("--fold", default="0")
    parser.add_argument("--subjects", help="CSV or regular expression, as gansynth fit has it")
    parser.add_argument("--root", help="folder of nnU-Net's folders, of nnunet-raw:")
    parser.add_argument("--scale", help="tiny; the paper's own without")
    parser.add_argument("--steps", type=int, help="optimiser steps of every segmenter")
    parser.add_argument("--fit-set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--host-set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--regions", default="", help="of other labels: WT:1+2+3,TC:1+3,ET:3")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, help="keep everything here")
    parser.add_argument("--name", default="mmgan_quality")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        asked = Asked(
            data=args.data,
            out=Path(args.out or scratch).absolute(),
            scale=args.scale,
            fold=args.fold,
            subjects=args.subjects,
            root=args.root,
            fit=dict(pair.split("=", 1) for pair in args.fit_set),
            host=dict(pair.split("=", 1) for pair in args.host_set),
            steps=args.steps,
            regions=args.regions,
        )
        quality = Quality(asked, args.seed)
        quality.run()
        document = quality.document()
    print(write(args.name, document).name)


if __name__ == "__main__":
    main()
