"""Writes slices of a plan's pool without labels, lesion-free ones or all: ``--unlabelled``.

People who are judged, in development or sealed, are left out. The plan draws its training patients
from the same pool, so a draw's own slices are among them.

    python gain_unlabelled.py PLAN --data pictures:FOLDER -o FOLDER
    python gain_unlabelled.py PLAN --data pictures:FOLDER --all -o FOLDER    # nobody's vow needed
    python gain_unlabelled.py PLAN --data nnunet:077 -o FOLDER    # a plan with `root`

Of nnU-Net's volumes, the lesion-free slices of a person are stacked: ``CASE_0000.nii.gz``.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gansynth.core.schema import FloatArray
from gansynth.core.source import CaseSource
from gansynth.sampling.run_source import open_source
from gansynth_benchmark.plan_file import read_plan
from gansynth_benchmark.study import request_of
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


def write_pictures(
    source: CaseSource, data: Path, cases: Sequence[str], out: Path, *, every: bool
) -> int:
    """Copy the lesion-free pictures among some cases, or all; return how many."""
    chosen = []
    for case in cases:
        read = source.load(case)
        assert read.labels is not None
        if shows_tissue(read.image) and (every or not read.labels.any()):
            chosen.append(case)
    copy_pictures(data, chosen, out)
    return len(chosen)


def write_stacks(raw: Path, cases: Sequence[str], out: Path) -> int:
    """Write the lesion-free slices of some volumes of raw nnU-Net data; return how many slices."""
    import nibabel

    count = 0
    for case in cases:
        volume = nibabel.load(raw / "imagesTr" / f"{case}_0000.nii.gz")
        image = np.asanyarray(volume.dataobj)
        labels = np.asanyarray(nibabel.load(raw / "labelsTr" / f"{case}.nii.gz").dataobj)
        chosen = [
            place
            for place in range(image.shape[2])
            if shows_tissue(image[..., place]) and not labels[..., place].any()
        ]
        if not chosen:
            continue
        stack = nibabel.Nifti1Image(image[..., chosen], volume.affine)
        nibabel.save(stack, out / f"{case}_0000.nii.gz")
        count += len(chosen)
    return count


def main() -> None:
    """Write the scans."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", required=True, help="KIND:WHERE, in place of the plan's")
    parser.add_argument("--all", action="store_true", help="pictures: with a lesion, too")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    plan = read_plan(args.plan, args.data)
    request = request_of(plan)
    source = open_source(request)
    division = split_subjects(source, plan)
    cases = division.cases_of(division.pool)
    args.out.mkdir(parents=True)
    if request.kind == "nnunet":
        assert request.root is not None
        [raw] = Path(request.root, "nnUNet_raw").glob(f"Dataset{request.where}_*")
        count = write_stacks(raw, cases, args.out)
    else:
        count = write_pictures(source, Path(request.where), cases, args.out, every=args.all)
    print(f"{count} slices of {len(division.pool)} people in {args.out}")


if __name__ == "__main__":
    main()
