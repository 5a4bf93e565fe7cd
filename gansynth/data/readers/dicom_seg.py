"""DICOM segmentations (SEG): frames are put where they lie on the grid of their series."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.volumes import VolumeReader
from gansynth.data.readers.dicom import slices_of
from gansynth.runtime.errors import DataFault, EnvironmentFault, extra_hint
from gansynth.runtime.nifti import DICOM, is_series
from gansynth.runtime.volumes import VolumeHeader

NEAR = 3  # folders above a file, below which its series is looked for, two deep
OFF = 0.1  # share of a voxel by which a frame may lie beside the series' voxels
CONVERT = "convert it: segimage2itkimage --inputDICOM {} --outputType nii --outputDirectory OUT"
NAMES = "labels are numbers of segments, here --read labels={}; all cases have to number them so"
OVERLAP = "segments overlap; where they do, the later one is taken"
LPS = (-1, -1, 1)  # DICOM's x runs to the left, its y to the back


class DicomSegmentation(VolumeReader):
    """A file of segments: labels of their numbers, where later ones lie on top.

    Frames without a voxel are usually left out, so a file alone does not say how large its grid is.
    """

    endings = (".dcm",)
    listed = False

    def header(self, path: Path) -> VolumeHeader:
        """Read the headers of the series that was segmented, and what segments are called."""
        found = _opened(path)
        _, shape, _, affine = slices_of(_series_of(path, found))
        x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
        names = list[str]()
        for one in found.SegmentSequence:
            name = re.sub("[^0-9A-Za-z]+", "_", one.SegmentLabel)
            names += [f"{name}:{one.SegmentNumber}"] if one.SegmentNumber else []
        notes = [NAMES.format(",".join(names))]
        notes += [OVERLAP] if found.get("SegmentsOverlap") == "YES" else []
        return VolumeHeader(shape[:3], np.dtype("i2"), affine, (x, y, z), affine, tuple(notes))

    def read(self, path: Path) -> npt.NDArray[Any]:
        """Read the frames; of fractions, more than a half is a segment's."""
        found = _opened(path)
        shape, _, affine, *_ = self.header(path)
        frames = np.reshape(found.pixel_array, (-1, found.Rows, found.Columns))
        if found.SegmentationType == "FRACTIONAL":
            frames = 2 * frames.astype("i4") > found.MaximumFractionalValue
        places = [_place(path, found, number, shape, affine) for number in range(len(frames))]
        labels = np.zeros(shape, np.int16)
        for segment, number in sorted((place[0], number) for number, place in enumerate(places)):
            _, (x, y, z) = places[number]
            drawn = frames[number].T
            there = labels[x : x + found.Columns, y : y + found.Rows, z]
            there[drawn > 0] = segment or drawn[drawn > 0]  # 0: a map of labels
        return labels


def _opened(path: Path) -> Any:
    try:
        import pydicom
    except ImportError:
        raise EnvironmentFault(
            "readers.dicom-seg-without-pydicom",
            f"{path}: is read by pydicom, which is not installed; {extra_hint('dicom')}",
        ) from None
    found: Any = pydicom.dcmread(path, defer_size="1 MB")  # voxels are read when asked for
    if found.Modality != "SEG":
        way_out = f"convert it: dcmrtstruct2nii convert -r {path} -d SERIES -o OUT"
        raise DataFault(
            "readers.dicom-file-no-segmentation",
            f"{path}: DICOM of modality {found.Modality}, expected SEG; "
            f"{way_out if found.Modality == 'RTSTRUCT' else f'an image is {DICOM}'}",
        )
    return found


def _place(
    path: Path, found: Any, number: int, shape: tuple[int, ...], affine: npt.NDArray[np.float64]
) -> tuple[int, tuple[int, ...]]:
    """Return a frame's segment, 0 where its values are segments' numbers, and its first voxel."""
    own = found.PerFrameFunctionalGroupsSequence[number]
    shared = found.SharedFunctionalGroupsSequence[0]

    def group(name: str) -> Any:
        return (getattr(own, name, None) or getattr(shared, name))[0]

    turns = np.array(group("PlaneOrientationSequence").ImageOrientationPatient, float)
    between_rows, between_columns = group("PixelMeasuresSequence").PixelSpacing
    steps = turns.reshape(2, 3) * [[between_columns], [between_rows]]
    first = np.array(group("PlanePositionSequence").ImagePositionPatient, float)
    ends = first, first + np.array([found.Columns - 1, found.Rows - 1]) @ steps
    voxels = np.linalg.solve(affine[:3, :3], (np.array(ends) * LPS - affine[:3, 3]).T).T
    size = np.array([found.Columns, found.Rows, 1])
    begin, end = np.rint(voxels).astype(int)
    inside = (begin >= 0).all() and (end < shape).all() and (end - begin + 1 == size).all()
    if not inside or np.abs(voxels - np.rint(voxels)).max() > OFF:
        raise DataFault(
            "readers.dicom-seg-off-its-series",
            f"{path}: frame {number} lies at voxels {voxels.round(2).tolist()} of its series, "
            f"expected whole ones within {shape}; {CONVERT.format(path)}",
        )
    segment = 0
    if found.SegmentationType != "LABELMAP":
        segment = int(group("SegmentIdentificationSequence").ReferencedSegmentNumber)
    return segment, tuple(begin.tolist())


def _series_of(path: Path, found: Any) -> Path:
    """Return the folder near a file that has the series which was segmented."""
    wanted = found.ReferencedSeriesSequence[0].SeriesInstanceUID
    for home in islice(path.absolute().parents, NEAR):
        for folder in _folders_near(home):
            if _uid_of(folder) == wanted:
                return folder
    raise DataFault(
        "readers.dicom-seg-without-series",
        f"{path}: segments the series {wanted}, expected its folder beside; copy that there, "
        f"or {CONVERT.format(path)}",
    )


def _folders_near(home: Path) -> Iterator[Path]:
    for pattern in ("*/", "*/*/"):
        yield from sorted(home.glob(pattern))


@lru_cache(maxsize=1 << 14)
def _uid_of(folder: Path) -> str:
    """Return the series of the first file in a folder; "" if that is no DICOM."""
    import pydicom

    if not is_series(folder):
        return ""
    file = next(each for each in folder.iterdir() if each.is_file() and each.name != "DICOMDIR")
    return str(pydicom.dcmread(file, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)
