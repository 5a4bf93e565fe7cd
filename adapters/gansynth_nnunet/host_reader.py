"""nnU-Net's own readers, for raw files other than NIfTI."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth import DataFault
from gansynth.data.check import VolumeReader
from gansynth.runtime.files import NiftiVolume, reading
from gansynth_nnunet.dataset import RawSet


def reader_of(raw: RawSet) -> VolumeReader:
    """Return a reader of the files of a raw data set, as volumes (x, y, z) or (x, y, z, channel).

    Raises DataFault: nnU-Net has no reader of such files, or none that opens the first image.
    """
    from nnunetv2.imageio import reader_writer_registry as readers

    images = [str(file) for entry in raw.listing.entries for file in entry.images]
    first = next(filter(os.path.isfile, images), None)
    try:
        with _quiet():
            kind = readers.determine_reader_writer_from_dataset_json(
                dict(raw.doc), first, verbose=False
            )
    except RuntimeError:
        known = {end for each in readers.LIST_OF_IO_CLASSES for end in each.supported_file_endings}
        raise DataFault(
            "nnunet.reader-does-not-know-file",
            f"{first or raw.listing.where}: nnU-Net does not read it, expected a whole file that "
            f"ends in one of {', '.join(sorted(known))}; convert the files, and name their "
            f"file_ending in {raw.listing.where.name}",
        ) from None

    def read(path: Path, *, ndim: Collection[int], labels: bool) -> NiftiVolume:
        with reading(path):
            path.open("rb").close()
        try:
            with _quiet():
                name, reader = str(path), kind()
                array, about = reader.read_seg(name) if labels else reader.read_images([name])
        except MemoryError:
            raise
        except Exception as error:  # it asserts, and its decoders raise whatever they meet
            words = " ".join(str(error).split()).rpartition("ERROR: ")[2] or type(error).__name__
            raise DataFault(
                "nnunet.reader-fails-on-file",
                f"{path}: {kind.__name__} of nnU-Net does not read it: {words:.300}; copy it from "
                "its source again, or convert it",
            ) from error
        volume = (array if len(array) > 1 else array[0]).T  # of (C, D, H, W)
        if volume.ndim not in ndim:
            raise DataFault(
                "nnunet.label-map-of-several-channels",
                f"{path}: {len(array)} channels of shape {volume.shape[:3]}, expected a label map, "
                "of one; store the numbers of the labels, not colours",
            )
        odd = int(volume.size - np.isfinite(volume).sum())
        if odd:
            raise DataFault(
                "nnunet.voxels-not-finite",
                f"{path}: {odd} NaN or infinite voxel(s), expected finite values; replace them, or "
                "leave the case out",
            )
        z, y, x = map(float, about["spacing"])
        affine = _affine(about, (x, y, z))
        return NiftiVolume(volume, affine, (x, y, z), affine, ())

    return read


def _affine(
    about: Mapping[str, Any], spacing: tuple[float, float, float]
) -> npt.NDArray[np.float64]:
    """Return voxel to mm, (4, 4), by what a reader tells of a file."""
    affine = np.diag([*spacing, 1.0])
    if "nibabel_stuff" in about:
        affine[:] = about["nibabel_stuff"]["original_affine"]
    place = about.get("sitk_stuff", {})
    if len(place.get("origin", ())) == 3:
        affine[:3, :3] = np.reshape(place["direction"], (3, 3)) * spacing
        affine[:3, 3] = place["origin"]
    return affine


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    said = io.StringIO()
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        yield
