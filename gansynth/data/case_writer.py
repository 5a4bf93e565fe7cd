"""Cases as files: volumes on the grid of their own, 2D maps as PNG, boxes as CSV or for YOLO."""

from __future__ import annotations

import csv
import gzip
import io
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.resample import pick
from gansynth.core.schema import Boxes, FloatArray, LabelArray, Schema
from gansynth.core.source import CaseSource
from gansynth.core.synthetic import marked
from gansynth.core.volumes import ending_of, reader_of
from gansynth.core.writer import Item, Writer
from gansynth.data.listing import FILE
from gansynth.runtime.files import disk_errors, write_bytes_atomic, write_json_atomic
from gansynth.runtime.tables import cell

THICKNESS = 999.0
"""Millimetres of a picture's third axis, as nnU-Net's own reader of pictures says: it must be the
longest, so that nnU-Net trains across the other two."""
ENDING = ".nii.gz"


def write_prediction(
    source: CaseSource,
    case_id: str,
    labels: LabelArray,
    folder: Path,
    *,
    numbers: Mapping[int, int] | None = None,
) -> Path | None:
    """Write a predicted label map on the grid of its case's own file.

    Args:
        labels: int16 (D, H, W) or (H, W), on the grid of ``source.load``; each voxel of the file
            takes the nearest label.
        numbers: label -> its number in a PNG, where they differ; None for those of the source's own
            masks.

    Returns:
        The path; None for a case without a file of its own, of which nothing is written.
    """
    files = source.files(case_id)
    if files is None or files.shape is None or files.affine is None or not files.own_labels:
        return None
    whole = pick(labels, files.shape)
    if len(files.shape) == 3:
        return write_volume(folder / f"{own_name(case_id)}{files.ending}", whole, files.affine)
    *folders, name = map(own_name, case_id.split("/"))
    path = folder.joinpath(*folders, f"{name}.png")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    written = whole.copy()
    for label, number in (files.numbers if numbers is None else numbers).items():
        written[whole == label] = number
    write_bytes_atomic(path, _png(written.astype(np.uint16)))
    return path


def own_name(case_id: str) -> str:
    """Return a case's name as that of its file, as it is where a file can be called so."""
    return case_id if Path(case_id).name == case_id else file_name(case_id)


def file_name(case_id: str) -> str:
    """Return a case's name without characters that a file's name must not have."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", case_id)


def affine_of(spacing: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the affine of a picture (H, W) or volume (D, H, W), in millimetres."""
    sides = [*reversed(spacing), *[THICKNESS] * (3 - len(spacing))]
    return np.diag([*sides, 1.0])


def write_volume(
    path: Path,
    array: LabelArray | FloatArray,
    affine: np.ndarray[Any, np.dtype[np.float64]],
    *,
    synthetic: bool = False,
) -> Path:
    """Write a volume (D, H, W) of ``space.ORIENTATION``, turned to the axes of an affine's file.

    Equal arrays give equal bytes. Label maps alone are written in another format than NIfTI.
    """
    from nibabel import orientations

    turn = orientations.io_orientation(affine)
    unturned = np.array([[0, 1], [1, 1], [2, 1]])  # axes in order, none flipped
    back = orientations.ornt_transform(unturned, turn)
    stored = orientations.apply_orientation(array.T, back)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    ending = ending_of(path.name) or ENDING
    if ending == ENDING:
        write_bytes_atomic(path, stored_bytes(stored, affine, synthetic=synthetic))
        return path
    with disk_errors(path), tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        reader_of(path).write(Path(scratch) / path.name, np.ascontiguousarray(stored), affine)
        for file in Path(scratch).iterdir():  # voxels, or their size, may lie beside a header
            file.replace(path.with_name(file.name))
    return path


def stored_bytes(
    array: npt.NDArray[Any], affine: npt.NDArray[np.float64], *, synthetic: bool = False
) -> bytes:
    """Encode an array in the axes of its file (X, Y, Z), without texts, names or times."""
    import nibabel as nib

    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    # Noisy images hardly shrink beyond level 4, and take longer to unpack.
    return gzip.compress((marked(image) if synthetic else image).to_bytes(), 4, mtime=0)


def _png(numbers: npt.NDArray[np.uint16]) -> bytes:
    """Encode numbers (H, W) as a grey PNG of 8 bits, or of 16 where they need them."""
    from PIL import Image

    stream = io.BytesIO()
    small = numbers.max(initial=0) < 256
    Image.fromarray(numbers.astype(np.uint8) if small else numbers).save(stream, format="PNG")
    return stream.getvalue()


def csv_text(boxes: Boxes, names: Sequence[str]) -> str:
    """Return boxes as CSV, which ``--boxes file:`` reads.

    Columns are ``class,xmin,ymin,xmax,ymax``, of volumes with z, in voxels.
    """
    axes = boxes.coords.shape[1] // 2
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    columns = [f"{axis}{end}" for end in ("min", "max") for axis in "xyz"[:axes]]
    table.writerow(["class", *columns])
    for row, label in zip(boxes.coords, boxes.labels.tolist(), strict=True):
        name = names[label] if 0 <= label < len(names) else str(label)
        ends = [*row[:axes][::-1], *row[axes:][::-1]]  # array axes are the other way round
        table.writerow([cell(name)] + [f"{end:.9g}" for end in ends])
    return stream.getvalue()


def yolo_lines(boxes: Boxes, size: Sequence[int]) -> str:
    """Return boxes as lines ``class x_centre y_centre width height``; empty without boxes.

    Values are shares of the image's edges (``size``: rows and columns). They have six digits, and
    rounding does not move boxes beyond the image.
    """
    shares = boxes.coords.astype(np.float64) / np.tile(np.array(size, np.float64), 2)
    low, high = shares[:, [1, 0]], shares[:, [3, 2]]  # (N, 2), x before y
    rows = np.hstack([(low + high) / 2, high - low])
    lines = []
    for label, row in zip(boxes.labels.tolist(), rows, strict=True):
        numbers = [f"{number:.6f}" for number in row]
        lines.append(f"{label} {' '.join(numbers)}\n")
    return "".join(lines)


class NiftiWriter(Writer):
    """Volumes; slices are volumes of one slice."""

    name = "nifti"
    ndim = frozenset({3})
    reader = "nifti"
    images, labels = "images", "labels"  # folders
    cases, labelled = 0, False

    def add(self, item: Item) -> None:
        """Write a file for each channel, the label map, and a table of boxes."""
        assert item.affine is not None
        for number, channel in enumerate(item.image):
            path = self.folder / self.images / f"{item.name}_{number:04d}{ENDING}"
            write_volume(path, channel, item.affine, synthetic=item.synthetic)
        if item.mask is not None:
            self.labelled = True
            path = self.folder / self.labels / f"{item.name}{ENDING}"
            write_volume(path, item.mask, item.affine, synthetic=True)
        if item.boxes is not None and self.schema.box_classes:
            path = self.folder / "boxes" / f"{item.name}.csv"
            path.parent.mkdir(exist_ok=True)
            write_bytes_atomic(path, csv_text(item.boxes, self.schema.box_classes).encode())
        self.cases += 1

    def finish(self, about: Mapping[str, Any]) -> None:
        names = names_of(self.schema, self.labelled, self.cases, ENDING)
        write_json_atomic(self.folder / FILE, names | dict(about))


def names_of(schema: Schema, labelled: bool, cases: int, ending: str) -> dict[str, Any]:
    """Return the content of ``dataset.json``: names of channels and labels in nnU-Net's format."""
    names: dict[str, Any] = {
        "channel_names": {str(i): name for i, name in enumerate(schema.channels)}
    }
    if labelled:
        names["labels"] = dict(schema.labels)
    names |= {"numTraining": cases, "file_ending": ending}
    return names
