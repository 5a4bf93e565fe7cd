"""Connected components of a label map ("parts"): their boxes, their removal; lesions among them.

Parts of a label are connected across corners. Parts of background and outside are connected across
faces only, so that a closed label encloses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.geometry import Matrix, bounding_box, centroid, mask_of
from gansynth.core.schema import Boxes, Case, LabelArray, Mask, Schema
from gansynth.data.read_options import BoxesAsked
from gansynth.runtime.errors import DataFault, UsageFault

Numbered = npt.NDArray[np.int32]


@dataclass(frozen=True)
class LabelComponents:
    """The parts of one value of a label map, the largest first.

    ``numbered``: int32 (D, H, W) or (H, W), the number of a voxel's part, 0 for none. ``numbers``,
    ``sizes``: int64 (N,), of each part its number and its voxels.
    """

    numbered: Numbered
    numbers: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, mask: Mask, corners: bool = True) -> LabelComponents:
        """Return the parts of a mask, connected across corners or across faces only."""
        from scipy.ndimage import generate_binary_structure, label

        joined = generate_binary_structure(mask.ndim, mask.ndim if corners else 1)
        numbered = np.zeros(mask.shape, np.int32)
        count = int(label(mask, joined, output=numbered))
        sizes = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
        order = np.argsort(-sizes, kind="stable")
        return cls(numbered, order + 1, sizes[order])

    def enclosed(self) -> LabelComponents:
        """Return the parts that do not reach an edge of the map."""
        faces = [np.take(self.numbered, end, axis) for axis in range(self.numbered.ndim)
                 for end in (0, -1)]  # fmt: skip
        reaching = np.unique(np.concatenate([face.ravel() for face in faces]))
        inside = ~np.isin(self.numbers, reaching)
        return LabelComponents(self.numbered, self.numbers[inside], self.sizes[inside])


def parts_of(labels: LabelArray, value: int) -> LabelComponents:
    """Return the parts of a label; of background or outside (value <= 0), the enclosed ones."""
    return (
        LabelComponents.of(labels == value)
        if value > 0
        else LabelComponents.of(labels == value, False).enclosed()
    )


def remove_component(
    labels: LabelArray, parts: LabelComponents, doomed: npt.NDArray[np.int64]
) -> None:
    """Set the voxels of some parts to their neighbours' commonest label (int16), in place."""
    from scipy.ndimage import binary_dilation, find_objects

    places = find_objects(parts.numbered)
    for number in doomed.tolist():
        window = tuple([slice(max(0, s.start - 1), s.stop + 1) for s in places[number - 1]])
        mask = parts.numbered[window] == number
        around = labels[window][binary_dilation(mask) & ~mask]
        if not around.size:  # it is the whole map
            continue
        values, votes = np.unique(around, return_counts=True)
        labels[window][mask] = values[votes.argmax()]


def boxes_of(labels: LabelArray, schema: Schema, least: int = 1) -> Boxes:
    """One box per part of each foreground label, in voxels, half-open, by label and then by size.

    ``labels``: int16 (D, H, W) or (H, W). Parts of fewer voxels than ``least`` have no box. Returns
    coords (N, 4) or (N, 6), labels' values.
    """
    parts = {value: parts_of(labels, value) for value in schema.foreground}
    return _boxes_around(parts, labels.ndim, least)


def _boxes_around(parts: Mapping[int, LabelComponents], axes: int, least: int) -> Boxes:
    from scipy.ndimage import find_objects

    coords: list[list[int]] = []
    classes: list[int] = []
    for value, components in parts.items():
        places: list[Any] = find_objects(components.numbered)
        for number in components.numbers[components.sizes >= least].tolist():
            box = places[number - 1]
            coords.append([s.start for s in box] + [s.stop for s in box])
            classes.append(value)
    shaped = np.array(coords, np.float32).reshape(-1, 2 * axes)
    return Boxes(shaped, np.array(classes, np.int16))


def box_record(boxes: BoxesAsked | None, least: int) -> dict[str, Any]:
    """Return the record of ``boxes`` and ``least``; empty without boxes."""
    return {} if boxes is None else {"boxes": {"of": boxes, "least": least}}


@dataclass(frozen=True)
class LabelBoxes:
    """Makes boxes of label maps."""

    classes: Mapping[str, tuple[int, ...]]
    least: int

    @classmethod
    def asked(
        cls, boxes: BoxesAsked | None, least: int, schema: Schema, where: str
    ) -> LabelBoxes | None:
        """Return the maker of requested boxes, or None; UsageFault: no labels, or unknown ones."""
        if boxes is None:
            return None
        names = {number: name for name, number in schema.labels.items()
                 if number in schema.foreground}  # fmt: skip
        if not names:
            raise UsageFault(
                "connected-components.no-label-maps",
                f"--read boxes: {where} has no label maps, expected some to draw boxes around; add "
                "them, or leave that out",
            )
        if boxes == "yes":
            classes = {names[number]: (number,) for number in schema.foreground}
            return cls(classes, least)
        for name, numbers in boxes.items():
            for number in numbers:
                if number not in names:
                    expected = ", ".join([f"{n} {label}" for n, label in names.items()])
                    raise UsageFault(
                        "connected-components.box-label-unknown",
                        f"--read boxes={name}:{'+'.join(map(str, numbers))}: {where} has no label "
                        f"{number}, expected among {expected}; correct the number",
                    )
        return cls(boxes, least)

    def of(self, labels: LabelArray) -> Boxes:
        """Boxes of a label map int16 (D, H, W) or (H, W), by class and then by size."""
        parts = {
            number: LabelComponents.of(np.isin(labels, values))
            for number, values in enumerate(self.classes.values())
        }
        return _boxes_around(parts, labels.ndim, self.least)

    def of_case(self, case: Case) -> Boxes:
        """Boxes of a case. Raises DataFault: it has no label map."""
        if case.labels is None:
            raise DataFault(
                "connected-components.case-without-label-map",
                f"case {case.id!r}: has no label map, expected one to draw boxes around; leave "
                "--read boxes out",
            )
        return self.of(case.labels)


# -- lesions: connected pieces with what is nested in them -----------------------------------------


@dataclass(frozen=True)
class LesionPart:
    """One connected piece of chosen classes, with the foreground that it wraps completely.

    ``labels``: int16, cut to ``box``; 0 where the part is not. ``shape``: of the whole array.
    ``spacing``: mm.
    """

    labels: LabelArray
    box: tuple[slice, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]

    @property
    def mask(self) -> Mask:
        """Its voxels within ``box``."""
        return np.asarray(self.labels > 0)

    @property
    def voxels(self) -> int:
        """How many it has."""
        return int(np.count_nonzero(self.labels))

    @property
    def volume(self) -> float:
        """In mm^3; in 2D its area in mm^2."""
        return self.voxels * float(np.prod(self.spacing))

    @property
    def centroid(self) -> tuple[float, ...]:
        """Mean position of its voxels in the whole array, in voxels."""
        middle = zip(centroid(self.mask), self.box, strict=True)
        return tuple([within + part.start for within, part in middle])

    @property
    def positions(self) -> Matrix:
        """Positions (N, n) of its voxels in the whole array, in voxels."""
        corner = np.array([part.start for part in self.box])
        return np.asarray(np.argwhere(self.mask) + corner, np.float64)

    @property
    def cut_off(self) -> bool:
        """Whether it reaches the array's border, and so may go on beyond it."""
        ends = zip(self.box, self.shape, strict=True)
        return any(part.start == 0 or part.stop == length for part, length in ends)

    def whole(self) -> LabelArray:
        """Its labels in an array of the whole shape; 0 elsewhere."""
        out = np.zeros(self.shape, np.int16)
        out[self.box] = self.labels
        return out


def parts(
    labels: LabelArray, schema: Schema, classes: Sequence[int] | None = None, *, least: int = 1
) -> list[LesionPart]:
    """Return the connected pieces of chosen classes, the largest first, ties in array order.

    Pieces are connected by faces, edges and corners. Foreground that a piece wraps completely
    belongs to it. ``labels``: int16 (D, H, W) or (H, W). Pieces below ``least`` voxels are skipped.
    """
    chosen = labels > 0 if classes is None else mask_of(labels, classes)
    return pieces(labels, _with_nested(labels, chosen), schema.spacing, least=least)


def large_parts(
    labels: LabelArray, schema: Schema, classes: Sequence[int] | None = None
) -> list[LesionPart]:
    """Return the ``parts`` of at least a tenth of the largest one's voxels."""
    found = parts(labels, schema, classes)
    return [part for part in found if part.voxels * 10 >= found[0].voxels]


def pieces(
    labels: LabelArray, mask: Mask, spacing: tuple[float, ...], *, least: int = 1
) -> list[LesionPart]:
    """Return the connected pieces of a mask of foreground; order and ``least`` as in ``parts``."""
    from scipy.ndimage import find_objects

    if not mask.any():
        return []
    near = bounding_box(mask)
    components = LabelComponents.of(mask[near])
    boxes = find_objects(components.numbered)
    out = []
    for number in components.numbers[components.sizes >= least].tolist():
        box = boxes[number - 1]
        sides = []
        for outer, inner in zip(near, box, strict=True):
            sides.append(slice(outer.start + inner.start, outer.start + inner.stop))
        whole = tuple(sides)
        cut = np.where(components.numbered[box] == number, labels[whole], np.int16(0))
        out.append(LesionPart(cut, whole, labels.shape, spacing))
    return out


def _with_nested(labels: LabelArray, chosen: Mask) -> Mask:
    """A mask with the foreground in its holes."""
    from scipy.ndimage import binary_fill_holes

    box = bounding_box(chosen)
    out = chosen.copy()
    out[box] |= binary_fill_holes(chosen[box]) & (labels[box] > 0)
    return out
