"""Connected lesions of the foreground, each with what is nested in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gansynth.core.geometry import Mask, bounding_box, centroid, mask_of
from gansynth.core.schema import LabelArray, Schema
from gansynth.data.connected_components import LabelComponents
from gansynth.runtime.errors import UsageFault, did_you_mean


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
        starts = (part.start for part in self.box)
        return tuple(c + s for c, s in zip(centroid(self.mask), starts, strict=True))

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
        whole = tuple(
            slice(a.start + b.start, a.start + b.stop) for a, b in zip(near, box, strict=True)
        )
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


def lesion_values(schema: Schema, names: Sequence[str]) -> tuple[int, ...]:
    """Return label values by lesion name, all foreground if no name; UsageFault: none exists."""
    lesions = {name: value for name, value in schema.labels.items() if value in schema.foreground}
    if not lesions:
        raise UsageFault("lesions: labels have no foreground, expected lesion labels")
    for name in names:
        if name not in lesions:
            raise UsageFault(
                f"lesions: {name!r} is no foreground label, expected one of {', '.join(lesions)}."
                f"{did_you_mean(name, list(lesions))}"
            )
    return tuple(sorted(lesions[name] for name in names or lesions))
