"""A case's label map, made of its files of labels: the one place that reads them.

One file is a label map as it is. Several are joined: a file for each label, where later labels win
(as TotalSegmentator joins its own), parts of one map, and maps of several raters, of which most
decide. A file of four axes, as 3D Slicer writes segments that overlap, has a map in each layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.volumes import read_volume
from gansynth.data.grid import mismatches, values_of
from gansynth.runtime.errors import DataFault
from gansynth.runtime.volumes import Volume

LAYER = 1000
"""What labels of a layer are above those of the one before: 2 of the layer after the first is 1002.
"""
OVERLAP = (
    "files of labels overlap; where they do, the later label is taken. They are ordered by their "
    "numbers: --read labels=NAME:NUMBER,..."
)
Map = npt.NDArray[Any]


@dataclass(frozen=True)
class LabelFile:
    """A file of labels; ``label`` and ``value``: of which alone it is, else None."""

    file: Path
    label: str | None = None
    value: int | None = None
    rater: str = ""


def read_label_map(files: Sequence[LabelFile], *, layered: bool = False) -> Volume:
    """Return the label map that some files hold, on the grid of the first; see the module.

    ``files``: in the order of labels; later ones win. ``layered``: whether a file may have layers.
    Raises DataFault: damaged, of other grids, or a file of one label that holds several.
    """
    first = files[0]
    volume = read_volume(first.file, ndim=(3, 4) if layered else (3,), labels=True)
    if volume.array.ndim == 4:
        volume = _layers_joined(first.file, volume)
    if len(files) == 1 and first.label is None:
        return volume
    joined: dict[str, Map] = {}
    notes = list(volume.notes)
    hidden: dict[str, LabelFile] = {}
    for each in files:
        own = volume if each is first else read_volume(each.file, ndim=(3,), labels=True)
        for problem in mismatches(each.file, own, first.file, volume):
            raise DataFault("label-files.grid-differs", problem)
        if each.value is None:
            earlier = joined.get(each.rater, own.array)
            joined[each.rater] = np.maximum(earlier, own.array)
            continue
        so_far = joined.setdefault(each.rater, np.zeros(volume.array.shape, np.int16))
        mask = _of_one_label(each, own.array)
        covered = set(np.unique(so_far[mask]).tolist()) - {0, each.value}
        so_far[mask] = each.value
        notes += [OVERLAP] * (bool(covered) and OVERLAP not in notes)
        for other in files:
            if other.value in covered and not (so_far == other.value).any():
                hidden[other.label or ""] = other
    if hidden:
        notes.append(_hidden(files, hidden))
    array = next(iter(joined.values())) if len(joined) == 1 else _of_most(list(joined.values()))
    return volume._replace(array=array, notes=tuple(notes))


def _of_one_label(each: LabelFile, array: Map) -> npt.NDArray[np.bool_]:
    values = values_of(array)
    if values[0] < 0 or len(values[values > 0]) > 1:
        raise DataFault(
            "label-files.file-of-several-labels",
            f"{each.file}: holds the numbers {values[:8].tolist()}, expected 0 and one other, for "
            f"it is read as label {each.label!r} alone; if it is a whole label map, write its name "
            "instead of {label} in --read label=",
        )
    return np.asarray(array > 0)


def _hidden(files: Sequence[LabelFile], hidden: Mapping[str, LabelFile]) -> str:
    """Return a note on labels of which nothing is left, with an order that leaves something."""
    names = list(dict.fromkeys([each.label for each in files if each.label not in hidden]))
    names += list(hidden)
    order = ",".join([f"{name}:{number}" for number, name in enumerate(names, start=1)])
    return (
        f"{' and '.join(hidden)} lie(s) wholly under later labels, so nothing is left; name what "
        f"lies inside last: --read labels='{order}'"
    )


def _of_most(maps: Sequence[Map]) -> Map:
    """Return the label that most maps have at each voxel; of equally many, the lowest."""
    values = np.unique(np.concatenate([np.unique(each) for each in maps]))
    counts = [np.sum([each == value for each in maps], axis=0, dtype=np.int16) for value in values]
    return np.asarray(values[np.argmax(counts, axis=0)])


def _layers_joined(file: Path, volume: Volume) -> Volume:
    """Join the layers of a file (x, y, z, layer); later ones win, and their labels are apart."""
    layers = np.moveaxis(volume.array, -1, 0)
    joined = np.zeros(layers.shape[1:], np.int16)
    for number, layer in enumerate(layers):
        values = values_of(layer)
        if values[0] < 0 or values[-1] >= LAYER or np.any(values % 1) or number * LAYER >= 2**15:
            raise DataFault(
                "label-files.layers-no-labels",
                f"{file}: layer {number} of {len(layers)} holds {values[0]} to {values[-1]}, "
                f"expected labels from 0 to {LAYER - 1} in each; a label map has three axes, and "
                "one of 3D Slicer a fourth for layers. Write one file per label",
            )
        drawn = layer > 0
        joined[drawn] = layer[drawn].astype(np.int16) + number * LAYER
    note = (
        f"its labels lie in {len(layers)} layers; those of the second are read as {LAYER + 1}, "
        f"{LAYER + 2}, ..., and so on, and where layers overlap the later one is taken"
    )
    return volume._replace(array=joined, notes=(*volume.notes, note))
