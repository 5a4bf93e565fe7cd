"""Runs a plan whose unlabelled scans may hold lesions: all of them, or those where none is found.

Labels of the pool's other people are hidden. For each draw, the plan's control is trained and asked
to find lesions in their slices; an arm of ``--filtered`` uses those where it marks no pixel, an arm
of ``--all`` uses them all. Slices of the draw's own people without a lesion are in both, for their
labels are known. What the filter left out and missed is in ``filter.json``.

    python benchmarks/measure/gain_suspicious.py PLAN --data FOLDER -o OUT --all ARM --filtered ARM
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from gain_unlabelled import copy_pictures, shows_tissue
from PIL import Image

from gansynth_benchmark import study
from gansynth_benchmark.functions import benchmark
from gansynth_benchmark.plan_file import read_plan
from gansynth_benchmark.study import BenchmarkStudy, JobFactory, TrainingPoint
from gansynth_benchmark.subject_split import DEVELOPMENT
from gansynth_benchmark.worker import PREDICTIONS, run_job


class Pool:
    """The pool's slices: who is in a draw, which show a lesion, what a draw's host found."""

    def __init__(self, plan: Path, data: Path, out: Path) -> None:
        self.plan = read_plan(plan, f"pictures:{data}")
        self.study = BenchmarkStudy(self.plan, DEVELOPMENT, out / "predicted")
        self.data, self.out = data, out
        self.cases: list[str] = []
        self.with_lesion: set[str] = set()
        division = self.study.division
        for case in division.cases_of(division.pool):
            read = self.study.source.load(case)
            assert read.labels is not None
            if shows_tissue(read.image):
                self.cases.append(case)
                if read.labels.any():
                    self.with_lesion.add(case)

    def draw(self, number: int) -> dict[str, Any]:
        """Write the folders of a draw, and return what its filter left out and missed."""
        own = set(self.study.training_cases(self.plan.sizes[0], number))
        others = [case for case in self.cases if case not in own]
        known = [case for case in self.cases if case in own and case not in self.with_lesion]
        found = self.found(number, others)
        self.write(self.out / f"all_{number:02d}", [*known, *others])
        left = [case for case in others if case not in found]
        self.write(self.out / f"filtered_{number:02d}", [*known, *left])
        ill = self.with_lesion.intersection(others)
        return {
            "draw": number,
            "own_slices_without_lesion": len(known),
            "others_slices": len(others),
            "others_slices_with_lesion": len(ill),
            "left_out": len(found),
            "left_out_without_lesion": len(found - ill),
            "kept": len(left),
            "missed": len(ill - found),
        }

    def found(self, number: int, others: list[str]) -> set[str]:
        """Return the slices where the control, trained on a draw, marks a lesion."""
        self.study.test_cases = tuple(others)
        point = TrainingPoint(self.plan.compared_with, self.plan.sizes[0], number, 0)
        spec = self.study.train(point)
        request = self.study.request.to_json()
        job = JobFactory(self.study.folder, self.study.store, request, {}).of(spec, others)
        folder = self.out / "predicted" / f"{number:02d}"
        result = folder / "result.json"
        if not result.exists():
            document = run_job(job.document, folder)
            result.write_text(json.dumps(document))
        files = json.loads(result.read_text())["predictions"]
        assert set(files) == set(others)
        return {case for case, file in files.items() if marked(folder / PREDICTIONS / file)}

    def write(self, folder: Path, cases: list[str]) -> None:
        """Copy pictures, without labels."""
        folder.mkdir(parents=True, exist_ok=True)
        copy_pictures(self.data, cases, folder)


def marked(file: Path) -> bool:
    """Return whether a label map has a lesion's pixel."""
    with Image.open(file) as image:
        return bool(np.asarray(image).any())


def use_scans_of_draws(folders: dict[str, str], out: Path) -> None:
    """Have an arm take the scans of its draw; ``folders`` says of which name."""
    of_plan = study.BenchmarkStudy.train

    def train(self: BenchmarkStudy, place: TrainingPoint) -> study.ComputationSpec:
        spec = of_plan(self, place)
        if place.arm in folders:
            where = out / f"{folders[place.arm]}_{place.draw:02d}"
            spec.document["augment"]["unlabelled"] = [f"pictures:{where.absolute()}"]
        return spec

    study.BenchmarkStudy.train = train  # type: ignore[method-assign]


def main() -> None:
    """Predict, filter, run the plan; a second time it goes on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and labels/")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--all", nargs="*", default=[], help="arms with all scans")
    parser.add_argument("--filtered", nargs="*", default=[], help="arms with those left")
    parser.add_argument("--executor", default="local:1")
    parser.add_argument("--cache", type=Path, action="append", default=[])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pool = Pool(args.plan, args.data, args.out)
    rows = []
    for number in range(pool.plan.draws):
        rows.append(pool.draw(number))
        print(rows[-1], flush=True)
    (args.out / "filter.json").write_text(json.dumps(rows, indent=1) + "\n")
    slices, ill, out, missed, healthy = [
        sum([row[key] for row in rows])
        for key in (
            "others_slices",
            "others_slices_with_lesion",
            "left_out",
            "missed",
            "left_out_without_lesion",
        )
    ]
    print(f"{ill / slices:.0%} of {slices} slices show a lesion; the filter leaves out {out}:")
    print(f"{1 - missed / ill:.0%} of these, {healthy / (slices - ill):.0%} of the others")
    folders = dict.fromkeys(args.all, "all") | dict.fromkeys(args.filtered, "filtered")
    use_scans_of_draws(folders, args.out)
    benchmark(
        args.plan,
        data=f"pictures:{args.data}",
        out=args.out / "out",
        executor=args.executor,
        cache=args.cache,
        pictures=False,
    )


if __name__ == "__main__":
    main()
