"""Phantoms as an nnU-Net v2 raw data set."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import disk_errors, whole_folder, write_bytes_atomic
from gansynth.testing.phantoms._atlas import load_atlas
from gansynth.testing.phantoms._options import LABELS, PhantomOptions
from gansynth.testing.phantoms._phantom import make_phantom

DESCRIPTION = (
    "PHANTOMS, NOT PATIENTS: simulated brain MR with simulated gliomas, made by gansynth. "
    "For demonstrations and software tests only; nothing here has any clinical meaning. "
    "Anatomy derived from the MNI152 maps as shipped by nilearn; Copyright (C) 1993-2009 Louis "
    "Collins, McConnell Brain Imaging Centre, MNI, McGill University."
)
LICENCE = (
    "Derived from the MNI152 maps, whose licence nilearn states as unknown; other distributors of "
    "them carry the McGill notice, which permits use, copying, modification and distribution for "
    "any purpose and without fee, provided that the copyright notice appears in all copies."
)


Progress = Callable[[int, int], None]
"""Called after each subject with the number done, and the total."""


@contextmanager
def new_folder(folder: Path, n: int, least: int, subjects: str) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``folder`` when it is complete.

    Raises:
        UsageFault: `n` is below `least` subjects, or the folder exists and is not empty.
    """
    if n < least:
        raise UsageFault(f"n {n}; expected at least {least} {subjects}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageFault(f"{folder}: exists already, expected a new folder; choose another")
    with whole_folder(folder) as building, disk_errors(folder):
        yield building


def counted(n: int, progress: Progress | None) -> Iterator[int]:
    """Yield the numbers of `n` subjects; each is reported before the next one."""
    for index in range(n):
        yield index
        if progress is not None:
            progress(index + 1, n)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file with a final newline."""
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def nifti_bytes(volume: NDArray[Any], affine: NDArray[np.float64], code: int = 4) -> bytes:
    """Return `volume (D, H, W)` as a gzipped NIfTI, the same bytes at every call.

    `code` is the space of the affine: 4 is MNI152's, 1 the scanner's.
    """
    # NIfTI wants (x, y, z). Any: nibabel is typed in part only.
    image: Any = nib.Nifti1Image(np.ascontiguousarray(volume.T), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=code)  # SimpleITK looks here first
    image.set_sform(affine, code=code)
    # The time stamp which gzip would add changes from run to run.
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)


def _make_folders(base: Path, cases: list[str], channels: int) -> None:
    """Create the two folders; refuse if they contain files of another data set."""
    expected = {
        base / "imagesTr": {f"{case}_{c:04d}.nii.gz" for case in cases for c in range(channels)},
        base / "labelsTr": {f"{case}.nii.gz" for case in cases},
    }
    for part, names in expected.items():
        strangers = sorted({path.name for path in part.glob("*.nii.gz")} - names)
        if strangers:
            raise UsageFault(
                f"{part}: {len(strangers)} file(s) do not belong to this data set ({strangers[0]}, "
                "...); choose another folder or dataset_id, or remove them"
            )
    for part in expected:
        part.mkdir(parents=True, exist_ok=True)


def write_nnunet_raw(
    folder: Path,
    n: int,
    seed: int = 0,
    options: PhantomOptions | None = None,
    dataset_id: int = 999,
    name: str = "Phantom",
    progress: Progress | None = None,
) -> Path:
    """Write `n` phantoms below `folder` (nnU-Net's raw folder) and return the data set's folder.

    Cases are `phantom_000`, `phantom_001`, ... The same arguments give the same bytes. A second
    call overwrites. `dataset.json` is written last: if it exists, the cases are complete.

    Raises:
        UsageFault: `n` is below 1, `dataset_id` is not within 1 to 999, or the folder holds cases
            that this call would not overwrite.
    """
    options = options or PhantomOptions()
    if n < 1 or not 1 <= dataset_id <= 999:
        raise UsageFault(f"n {n}, dataset_id {dataset_id}; expected n >= 1 and an id of 1 to 999")
    load_atlas(options.spacing_mm, options.margin_mm)
    base = folder / f"Dataset{dataset_id:03d}_{name}"
    cases = [f"phantom_{index:03d}" for index in range(n)]
    _make_folders(base, cases, len(options.channels))
    (base / "dataset.json").unlink(missing_ok=True)
    for index in counted(n, progress):
        phantom = make_phantom(index, seed, options)
        for channel, volume in enumerate(phantom.image):
            path = base / "imagesTr" / f"{cases[index]}_{channel:04d}.nii.gz"
            write_bytes_atomic(path, nifti_bytes(volume, phantom.affine))
        labels = nifti_bytes(phantom.labels.astype(np.uint8), phantom.affine)
        write_bytes_atomic(base / "labelsTr" / f"{cases[index]}.nii.gz", labels)
    content = {
        "name": name,
        "description": DESCRIPTION,
        "licence": LICENCE,
        "channel_names": {str(i): channel for i, channel in enumerate(options.channels)},
        "labels": LABELS,
        "numTraining": n,
        "file_ending": ".nii.gz",
        "phantoms": {"seed": seed, **asdict(options)},
    }
    write_bytes_atomic(base / "dataset.json", (json.dumps(content, indent=2) + "\n").encode())
    return base
