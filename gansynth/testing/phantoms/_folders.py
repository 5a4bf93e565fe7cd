"""Phantoms as folders of NIfTI files: healthy brains, livers, and gliomas in BraTS's layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gansynth.testing.phantoms._livers import LIVER_LABELS, LiverOptions, LiverPhantom, make_liver
from gansynth.testing.phantoms._nnunet import (
    DESCRIPTION,
    LICENCE,
    Progress,
    counted,
    new_folder,
    nifti_bytes,
    write_json,
)
from gansynth.testing.phantoms._options import CHANNELS, PhantomOptions
from gansynth.testing.phantoms._phantom import TISSUES, make_phantom, make_tissues

BRATS_CHANNELS = dict(zip(CHANNELS, ("t1", "t1ce", "t2", "flair"), strict=True))
BRATS_LABELS = {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}
BRATS_VALUES = np.array([0, 2, 1, 4], np.uint8)
"""BraTS's value of each of our labels: background, oedema, core (necrosis), enhancing."""
TISSUES_DESCRIPTION = DESCRIPTION.replace("with simulated gliomas", "of healthy subjects")
LIVERS_DESCRIPTION = (
    "PHANTOMS, NOT PATIENTS: simulated abdominal CT with simulated lesions of the liver, made by "
    "gansynth. For demonstrations and software tests only; nothing here has any clinical meaning."
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
    with new_folder(folder, n, 1, "subject") as building:
        for index in counted(n, progress):
            phantom = make_tissues(index, seed, options)
            case = f"healthy_{index:03d}"
            for channel, volume in enumerate(phantom.image):
                path = building / "images" / f"{case}_{channel:04d}.nii.gz"
                _write(path, volume, phantom.affine)
            labels = phantom.labels.astype(np.uint8)
            _write(building / "labels" / f"{case}.nii.gz", labels, phantom.affine)
        about = _about(TISSUES_DESCRIPTION, TISSUES, seed, asdict(options))
        _write_names(building, options.channels, {**about, "licence": LICENCE})
    return folder


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
    with new_folder(folder, n, 1, "subject") as building:
        for index in counted(n, progress):
            phantom = make_phantom(index, seed, options)
            case = f"phantom_{index:03d}"
            for channel, volume in zip(options.channels, phantom.image, strict=True):
                path = building / case / f"{case}_{BRATS_CHANNELS[channel]}.nii.gz"
                _write(path, volume, phantom.affine)
            labels = BRATS_VALUES[phantom.labels]
            _write(building / case / f"{case}_seg.nii.gz", labels, phantom.affine)
        about = _about(DESCRIPTION, BRATS_LABELS, seed, asdict(options))
        write_json(building / "phantoms.json", {**about, "licence": LICENCE})
    return folder


def write_livers(
    folder: Path,
    n: int,
    seed: int = 0,
    options: LiverOptions | None = None,
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
    options = options or LiverOptions()
    with new_folder(folder, n, 1, "subject") as building:
        for index in counted(n, progress):
            phantom = make_liver(index, seed, options)
            case = f"liver_{index:03d}"
            volumes: dict[str, NDArray[Any]] = {
                f"images/{case}_0000": phantom.image,
                f"labels/{case}": draw_labels(phantom, options).astype(np.uint8),
                f"truth/{case}": phantom.labels.astype(np.uint8),
            }
            for name, volume in volumes.items():
                _write(building / f"{name}.nii.gz", volume, phantom.affine, code=1)
        about = _about(LIVERS_DESCRIPTION, LIVER_LABELS, seed, asdict(options))
        _write_names(building, ("CT",), about)
    return folder


def draw_labels(phantom: LiverPhantom, options: LiverOptions) -> NDArray[np.int16]:
    """Return labels `(D, H, W)` of a reader who draws the largest slice and every n-th from there.

    Other slices are interpolated if `options.completed`, else empty.
    """
    from gansynth.data.slice_interpolation import interpolate_slices

    first = int(phantom.labels.sum(axis=(1, 2)).argmax()) % options.every
    drawn = np.zeros_like(phantom.labels)
    drawn[first :: options.every] = phantom.labels[first :: options.every]
    return interpolate_slices(drawn, every=options.every) if options.completed else drawn


def _write(path: Path, volume: NDArray[Any], affine: NDArray[np.float64], code: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(nifti_bytes(volume, affine, code))


def _about(
    description: str, labels: Mapping[str, int], seed: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    return {"description": description, "labels": labels, "phantoms": {"seed": seed, **options}}


def _write_names(folder: Path, channels: tuple[str, ...], about: Mapping[str, Any]) -> None:
    names = {str(number): channel for number, channel in enumerate(channels)}
    write_json(folder / "dataset.json", {"channel_names": names, **about})
