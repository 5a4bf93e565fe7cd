"""Take lesions out of a real image: tissue from another place of the same image stands there.

The place is lesion-free, and its tissue is the most similar to what is around the lesion. A lesion
that is too large for any place is filled with the tissue around it, mirrored at its rim. Gradients
of that tissue continue the lesion's rim (Perez et al. 2003), so level and grain both fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.case_pool import CaseContext, annotated
from gansynth.core.geometry import Mask, Rng, bounding_box, fill_nearest, mask_of, nearest_voxels
from gansynth.core.resample import crop_pad
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray
from gansynth.data.blending import poisson
from gansynth.data.connected_components import LabelComponents
from gansynth.data.lesion_grain import value_limits, within

BORDER, RIM = 1, 2
"""Voxels around a lesion that are taken out with it, and those beyond that are compared."""
SHIFTS, COMPARED = 256, 1024  # places that are tried for each lesion; most voxels compared
UNLIKE = 1.0
"""Largest difference (root mean square) of a place's rim from the lesion's, in deviations of the
body, measured by ``benchmarks/scripts/bench_removal.py``."""
MIRRORED = 0.75
"""Least share of a lesion that mirrored tissue covers; others stay. The rest is flat, and with more
of it fills show, to the eye, as blobs, though errors are no larger."""
Shift = list[int]  # from a lesion to tissue, in voxels; empty for tissue mirrored at the rim


@dataclass(frozen=True)
class Removal:
    """What differs in a case whose lesions are taken out: so little that many can be kept.

    ``at``: int64 (N,), the voxels that differ, as indices of the flat array. ``image``: float32
    (C, N), ``labels``: int16 (N,), what they hold. ``ignored``: bool, of the whole array; None
    without an ignore label. ``shifts``: where the tissue of each lesion is from, the largest first.
    """

    classes: tuple[int, ...]
    at: npt.NDArray[np.intp]
    image: FloatArray
    labels: LabelArray
    ignored: Mask | None
    shifts: tuple[Shift, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        held = self.at, self.image, self.labels, self.ignored
        return sum(array.nbytes for array in held if array is not None)

    def made_in(self, case_context: CaseContext) -> CaseContext:
        """Return the scene that it was found in, without its lesions."""
        if not self.shifts:
            return case_context
        case, body = case_context.case, case_context.body
        image, labels = case.image.copy(), case_context.labels.copy()
        image.reshape(len(image), -1)[:, self.at] = self.image
        labels.reshape(-1)[self.at] = self.labels
        emptied = mask_of(case_context.labels, self.classes)
        case = replace(case, image=image, labels=labels, ignored=self.ignored)
        return replace(case_context, case=case, find_body=lambda: body, emptied=emptied)


def without_lesions(
    case_context: CaseContext, classes: Sequence[int], seed: Sequence[int]
) -> Removal | None:
    """Find what replaces the lesions of a scene; None if one has to stay.

    Voxels of lesions get the nearest label that is none of ``classes``.
    """
    labels, body, case = case_context.labels, case_context.body, case_context.case
    lesions = mask_of(labels, classes)
    rng, shifts, image = np.random.default_rng(seed), list[Shift](), case.image
    components = LabelComponents.of(grown(lesions) & (labels != OUTSIDE))
    free = np.asarray(body & (components.numbered == 0))
    known, ignored = annotated(case, free), case.ignored
    for number in components.numbers:
        hole = components.numbered == number
        tissue, shift = known, find_tissue(case.image, hole, known, rng)
        if shift is None and ignored is not None:  # what it shows is unknown, and stays so
            tissue, shift, ignored = free, find_tissue(case.image, hole, free, rng), ignored | hole
        if shift is None:
            return None
        shifts.append(shift)
        image = filled(image, hole, shift, tissue)
    staying = ~lesions & (labels != OUTSIDE)
    shown = fill_nearest(labels, lesions, staying, case_context.schema.spacing)
    at = np.flatnonzero((image != case.image).any(axis=0) | (shown != labels))
    values = image.reshape(len(image), -1)[:, at]
    told = tuple(classes), at, values, shown.ravel()[at], ignored
    return Removal(*told, tuple(shifts))


def filled(image: FloatArray, where: Mask, shift: Shift, free: Mask) -> FloatArray:
    """Return an image (C, ...) with free tissue in place of a mask, from a shift or mirrored.

    It stays within the image's values.
    """
    box, known = bounding_box(where, margin=1), None
    here = (slice(None), *box)
    if shift:
        corner = [side.start + step for side, step in zip(box, shift, strict=True)]
        tissue = crop_pad(image, corner, where[box].shape, 0.0)
    else:
        at, covered = mirrored(where, free)
        tissue, known = image[:, *at], covered | ~where[box]
    out = image.copy()
    out[here] = within(poisson(image[here], tissue, where[box], known), value_limits([image]))
    return out


def find_tissue(image: FloatArray, where: Mask, free: Mask, rng: Rng) -> Shift | None:
    """Return where the tissue for a mask comes from; None if none fits. See ``similar_place``."""
    found = similar_place(image, where, free, rng)
    if found is not None:
        return found[0]
    inside = where[bounding_box(where, margin=1)]
    return [] if mirrored(where, free)[1][inside].mean() >= MIRRORED else None


def similar_place(
    image: FloatArray, where: Mask, free: Mask, rng: Rng, most: float = UNLIKE
) -> tuple[Shift, float] | None:
    """Return the shift from a mask to free tissue most like its rim, and by how much they differ.

    None if there is no such tissue, or none that is like it.

    Args:
        image: float32 (C, ...).
        where: bool (D, H, W) or (H, W), what is to be filled.
        free: bool, tissue that may be copied.
        most: largest difference.
    """
    from scipy.ndimage import binary_dilation

    box = bounding_box(where, margin=RIM)
    low = [side.start for side in box]
    rim = np.asarray(binary_dilation(where[box], iterations=RIM) & ~where[box] & free[box])
    at = np.flatnonzero(free)
    if not rim.any() or not len(at):
        return None
    inside, around = _some(np.argwhere(where[box]) + low), _some(np.argwhere(rim) + low)
    tried = np.stack(np.unravel_index(at[rng.integers(len(at), size=SHIFTS)], free.shape), axis=1)
    shifts = tried - inside[rng.integers(len(inside), size=SHIFTS)]
    for voxels in (inside, around):
        shifts = shifts[_in(free, shifts[:, None] + voxels)]
    if not len(shifts):
        return None
    spread = np.maximum(image[:, free].std(axis=1), 1e-6)[:, None]
    there = image[:, *np.moveaxis(shifts[:, None] + around, -1, 0)]
    apart = (there - image[:, None, *around.T]) / spread[..., None]
    unlike = np.sqrt(np.square(apart).mean(axis=(0, 2)))
    best = int(unlike.argmin())
    return (shifts[best].tolist(), float(unlike[best])) if unlike[best] <= most else None


def mirrored(where: Mask, free: Mask) -> tuple[tuple[Any, ...], Mask]:
    """Return where the tissue of each voxel around a mask comes from, and where that is free.

    Both are of the box around the mask, with a margin of 1: beyond it, tissue is its own.
    """
    box = bounding_box(where, margin=1)
    low = np.array([side.start for side in box]).reshape(-1, *[1] * where.ndim)
    size = np.array(where.shape).reshape(low.shape)
    nearest = np.stack(nearest_voxels((free | ~where)[box], (1,) * where.ndim)) + low
    at = 2 * nearest - (np.indices(where[box].shape) + low)
    inside = ((at >= 0) & (at < size)).all(axis=0)
    source = tuple(np.clip(at, 0, size - 1))
    return source, inside & free[source]


def grown(lesions: Mask) -> Mask:
    """Return lesions with the border that is taken out with them."""
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(lesions, iterations=BORDER))


def _some(voxels: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    return voxels[:: len(voxels) // COMPARED + 1]


def _in(mask: Mask, voxels: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Whether all voxels (S, N, n) lie in a mask: bool (S,)."""
    inside = ((voxels >= 0) & (voxels < mask.shape)).all(axis=(1, 2))
    held = np.zeros(len(voxels), bool)
    held[inside] = mask[*np.moveaxis(voxels[inside], -1, 0)].all(axis=1)
    return held
