"""Phantoms as folders of NIfTI files: nnU-Net raw data, BraTS folders, healthy brains, livers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gansynth.data.case_writer import write_volume
from gansynth.data.nifti import interpolate_slices
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import disk_errors, whole_folder
from gansynth.testing.phantoms._livers import LIVER_LABELS, Spacing, make_liver
from gansynth.testing.phantoms._options import CHANNELS, LABELS, PhantomOptions
from gansynth.testing.phantoms._phantom import TISSUES, Phantom, make_phantom, make_tissues

NOTE = (
    "PHANTOMS, NOT PATIENTS: simulated {}, made by gansynth. For demonstrations and software tests "
    "only; nothing here has any clinical meaning."
)
DESCRIPTION = NOTE.format("brain MR with simulated gliomas") + (
    " Anatomy derived from the MNI152 maps as shipped by nilearn; Copyright (C) 1993-2009 Louis "
    "Collins, McConnell Brain Imaging Centre, MNI, McGill University."
)
LICENCE = (
    "Derived from the MNI152 maps, whose licence nilearn states as unknown; other distributors of "
    "them carry the McGill notice, which permits use, copying, modification and distribution for "
    "any purpose and without fee, provided that the copyright notice appears in all copies."
)
BRATS_CHANNELS = dict(zip(CHANNELS, ("t1", "t1ce", "t2", "flair"), strict=True))
BRATS_LABELS = {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}
BRATS_VALUES = np.array([0, 2, 1, 4], np.int16)
"""BraTS's value of each of our labels: background, oedema, core (necrosis), enhancing."""
EVERY = 3
"""Every n-th slice of a liver is drawn by hand."""
Progress = Callable[[int, int], None]
"""Called after each subject with the number done, and the total."""
Volumes = Mapping[str, NDArray[Any]]


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


def write_nnunet_raw(
    folder: Path,
    n: int,
    seed: int = 0,
    options: PhantomOptions | None = None,
    dataset_id: int = 999,
    name: str = "Phantom",
    progress: Progress | None = None,
) -> Path:
    """Write `n` gliomas below `folder` (nnU-Net's raw folder) and return the data set's folder.

    Cases are `phantom_000`, `phantom_001`, ... The same arguments give the same bytes.

    Raises:
        UsageFault: `n` is below 1, or the data set's folder exists and is not empty.
    """
    options = options or PhantomOptions()
    names = {str(number): channel for number, channel in enumerate(options.channels)}
    about = {
        **{"name": name, "description": DESCRIPTION, "licence": LICENCE},
        **{"channel_names": names, "labels": LABELS, "numTraining": n, "file_ending": ".nii.gz"},
        "phantoms": {"seed": seed, **asdict(options)},
    }
    base = folder / f"Dataset{dataset_id:03d}_{name}"
    parts = "imagesTr/phantom_{:03d}", "labelsTr/phantom_{:03d}"
    return _write(
        base, n, lambda i: make_phantom(i, seed, options), _numbered(*parts), about, progress
    )


def write_tissues(
    folder: Path,
    n: int,
    seed: int = 0,
    options: PhantomOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write `n` healthy brains with tissue labels, for `nifti:FOLDER`, and return the folder.

    Files are `images/healthy_000_0000.nii.gz` (T1, or a number per requested channel) and
    `labels/healthy_000.nii.gz` (CSF 1, GM 2, WM 3); `dataset.json` names channels and labels. The
    same arguments give the same bytes.

    Raises:
        UsageFault: `n` is below 1, or the folder exists and is not empty.
    """
    options = options or PhantomOptions(channels=("T1",))
    names = {str(number): channel for number, channel in enumerate(options.channels)}
    text = DESCRIPTION.replace("with simulated gliomas", "of healthy subjects")
    about = {"channel_names": names, "description": text, "labels": TISSUES}
    about |= {"phantoms": {"seed": seed, **asdict(options)}, "licence": LICENCE}
    parts = "images/healthy_{:03d}", "labels/healthy_{:03d}"
    return _write(
        folder, n, lambda i: make_tissues(i, seed, options), _numbered(*parts), about, progress
    )


def write_gliomas(
    folder: Path,
    n: int,
    seed: int = 0,
    options: PhantomOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write `n` gliomas in BraTS's layout, for `nifti:FOLDER`, and return the folder.

    Files are `phantom_000/phantom_000_flair.nii.gz`, `t1`, `t1ce`, `t2` and `seg` with BraTS's
    values: 1 necrosis, 2 oedema, 4 enhancing. The subjects are those of `make_phantom`. The same
    arguments give the same bytes.

    Raises:
        UsageFault: `n` is below 1, or the folder exists and is not empty.
    """
    options = options or PhantomOptions()

    def files(index: int, phantom: Phantom) -> Volumes:
        start = f"phantom_{index:03d}/phantom_{index:03d}_"
        named = zip(options.channels, phantom.image, strict=True)
        images = {start + BRATS_CHANNELS[channel]: volume for channel, volume in named}
        return {**images, f"{start}seg": BRATS_VALUES[phantom.labels]}

    about = {"description": DESCRIPTION, "labels": BRATS_LABELS}
    about |= {"phantoms": {"seed": seed, **asdict(options)}, "licence": LICENCE}
    return _write(
        folder, n, lambda i: make_phantom(i, seed, options), files, about, progress, "phantoms"
    )


def write_livers(
    folder: Path,
    n: int,
    seed: int = 0,
    spacing_mm: Spacing = (3.0, 2.0, 2.0),
    progress: Progress | None = None,
) -> Path:
    """Write `n` CT of livers with lesions, for `nifti:FOLDER`, and return the folder.

    Files are `images/liver_000_0000.nii.gz` (CT in HU) and `labels/liver_000.nii.gz` (tumour 1).
    `dataset.json` names both. Labels simulate a reader who draws the slice with the most tumour and
    every third slice from there; the others are interpolated. `truth/liver_000.nii.gz` has the
    exact labels. The same arguments give the same bytes.

    Raises:
        UsageFault: `n` is below 1, or the folder exists and is not empty.
    """

    def files(index: int, phantom: Phantom) -> Volumes:
        first = int(phantom.labels.sum(axis=(1, 2)).argmax()) % EVERY
        drawn = np.zeros_like(phantom.labels)
        drawn[first::EVERY] = phantom.labels[first::EVERY]
        return {
            f"images/liver_{index:03d}_0000": phantom.image[0],
            f"labels/liver_{index:03d}": interpolate_slices(drawn, every=EVERY),
            f"truth/liver_{index:03d}": phantom.labels,
        }

    text = NOTE.format("abdominal CT with simulated lesions of the liver")
    about = {"channel_names": {"0": "CT"}, "description": text, "labels": LIVER_LABELS}
    about |= {"phantoms": {"seed": seed, "spacing_mm": spacing_mm}}
    return _write(folder, n, lambda i: make_liver(i, seed, spacing_mm), files, about, progress)


def _numbered(images: str, labels: str) -> Callable[[int, Phantom], Volumes]:
    """Name files as nnU-Net does: ``_0000`` after a case's first channel."""
    return lambda index, phantom: {
        **{f"{images.format(index)}_{c:04d}": v for c, v in enumerate(phantom.image)},
        labels.format(index): phantom.labels,
    }


def _write(
    folder: Path,
    n: int,
    make: Callable[[int], Phantom],
    files: Callable[[int, Phantom], Volumes],
    about: Mapping[str, Any],
    progress: Progress | None,
    document: str = "dataset",
) -> Path:
    with new_folder(folder, n, 1, "subject") as building:
        for index in counted(n, progress):
            phantom = make(index)
            for name, volume in files(index, phantom).items():
                write_volume(building / f"{name}.nii.gz", volume, phantom.affine)
        write_json(building / f"{document}.json", about)
    return folder
