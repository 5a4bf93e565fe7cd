"""Writes the lesion-free slices of a plan's pool, without labels: scans for ``--unlabelled``.

People who are judged, in development or sealed, are left out. The plan draws its training patients
from the same pool, so a draw's own lesion-free slices are among them.

    python benchmarks/scripts/gain_unlabelled.py PLAN --data FOLDER -o FOLDER
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gansynth.core.schema import FloatArray
from gansynth.core.source import SourceRequest
from gansynth.sampling.run_source import open_source
from gansynth_benchmark.plan_file import read_plan
from gansynth_benchmark.subject_split import split_subjects

TISSUE = 0.05
"""Least share of a slice that is not air: slices above the head are no scans of anything."""


def shows_tissue(image: FloatArray) -> bool:
    """Return whether a slice (C, H, W) is more than air."""
    return bool(np.mean(image > image.min()) >= TISSUE)


def copy_pictures(data: Path, cases: Sequence[str], out: Path) -> None:
    """Copy the pictures of some cases into a folder, without labels."""
    for case in cases:
        [picture] = (data / "images").glob(f"{case}.*")
        shutil.copy(picture, out)


def main() -> None:
    """Copy the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and labels/")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    plan = read_plan(args.plan, f"pictures:{args.data}")
    source = open_source(SourceRequest("pictures", str(args.data), subjects=plan.subjects))
    division = split_subjects(source, plan)
    args.out.mkdir(parents=True)
    chosen = []
    for case in division.cases_of(division.pool):
        read = source.load(case)
        assert read.labels is not None
        if shows_tissue(read.image) and not read.labels.any():
            chosen.append(case)
    copy_pictures(args.data, chosen, args.out)
    print(f"{len(chosen)} pictures of {len(division.pool)} people in {args.out}")


if __name__ == "__main__":
    main()
