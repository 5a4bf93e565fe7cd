"""Take lesions out of a real image: tissue from another place of the same image stands there.

A lesion is taken out with what is left of it beyond its mask. The place is lesion-free tissue as
deep below the surface, most similar to what is around the lesion: anywhere, or, mirrored, on the
other side of the body. A lesion for which there is none stays. Gradients of that tissue continue
the lesion's rim (Perez et al. 2003), so level and grain both fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from gansynth.core.case_pool import CaseContext, annotated
from gansynth.core.geometry import Mask, Matrix, Rng, bounding_box, fill_nearest, mask_of
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray
from gansynth.data.blending import poisson
from gansynth.data.connected_components import LabelComponents
from gansynth.data.lesion_grain import value_limits, within

BORDER, RIM = 1, 2
"""Voxels around a lesion that are taken out with it, and those beyond that are compared."""
REACH, AWAY = 5, 9
"""Voxels beyond a mask to which its lesion may reach, and to which tissue around it is measured."""
LEFT, CLEAR = 0.4, 0.5
"""Share of its contrast from which a voxel beside a lesion is the lesion's; least such contrast, in
deviations of the tissue."""
SHIFTS, MIRRORS, OFF, COMPARED = 512, 96, 0.08, 1024
"""Places that are tried, and more that are mirrored along each axis; how far these may lie off the
middle of the body, as a share of it; most voxels compared."""
TISSUE, NEARBY = 0.97, 0.8
"""Least shares of free tissue in a place, and in its rim."""
PARTS = 16  # pieces, at most, of a lesion that is too large for one place
UNLIKE, LAST = 1.7, 3.4
"""Largest difference (root mean square) of a place's rim from the lesion's, in deviations of the
tissue, and that of the smallest pieces; ``benchmarks/scripts/bench_removal.py`` measures fills."""
DEEPER = 0.2  # difference in depth, of the deepest, that counts as one deviation
STRANGE, BEYOND = 0.1, 0.5
"""Largest share of a place's voxels beyond the values around the lesion, by so many deviations."""


Voxels = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Source:
    """Where tissue comes from: voxel x from x + shift; from -x + shift along a mirrored axis."""

    shift: tuple[int, ...]
    mirrored: int | None = None

    def of(self, voxels: Voxels) -> Voxels:
        """Return the voxels (..., n) that these come from."""
        signs = [-1 if axis == self.mirrored else 1 for axis in range(len(self.shift))]
        return np.asarray(voxels * signs + self.shift)

    def to_json(self) -> list[int]:
        """Its shift, and the mirrored axis after that if there is one."""
        numbers = list(self.shift)
        if self.mirrored is not None:
            numbers.append(self.mirrored)
        return numbers


Piece = tuple[Mask, Source]
"""What is filled, bool (D, H, W) or (H, W), and from where."""


@dataclass(frozen=True)
class Removal:
    """What differs in a case whose lesions are taken out: so little that many can be kept.

    ``at``: int64 (N,), the voxels that differ, as indices of the flat array. ``image``: float32
    (C, N), ``labels``: int16 (N,), what they hold. ``ignored``: bool, of the whole array; None
    without an ignore label. ``sources``: of the tissue of each lesion, the largest first.
    """

    classes: tuple[int, ...]
    at: npt.NDArray[np.intp]
    image: FloatArray
    labels: LabelArray
    ignored: Mask | None
    sources: tuple[Source, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        ignored = 0 if self.ignored is None else self.ignored.nbytes
        return self.at.nbytes + self.image.nbytes + self.labels.nbytes + ignored

    def made_in(self, case_context: CaseContext) -> CaseContext:
        """Return the scene that it was found in, without its lesions."""
        if not self.sources:
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
    rng, sources, image = np.random.default_rng(seed), list[Source](), case.image
    find = partial(whole_lesions, image, lesions, body)
    if case_context.key is None:
        whole = find()
    else:
        key = "whole lesions", tuple(classes), case_context.key
        whole = case_context.case_pool.mask(key, lesions.shape, find)
    components = LabelComponents.of(whole & (labels != OUTSIDE))
    free = np.asarray(body & (components.numbered == 0))
    known, ignored = annotated(case, free), case.ignored
    for number in components.numbers:
        hole = components.numbered == number
        tissue = known
        pieces = find_pieces(case.image, hole, known, rng)
        if pieces is None and ignored is not None:  # what it shows is unknown, and stays so
            tissue, ignored = free, ignored | hole
            pieces = find_pieces(image, hole, free, rng)
        if pieces is None:
            return None
        sources += [source for _, source in pieces]
        image = filled(image, pieces, tissue)
    staying = ~lesions & (labels != OUTSIDE)
    shown = fill_nearest(labels, lesions, staying, case_context.schema.spacing)
    at = np.flatnonzero((image != case.image).any(axis=0) | (shown != labels))
    return Removal(
        classes=tuple(classes),
        at=at,
        image=image.reshape(len(image), -1)[:, at],
        labels=shown.ravel()[at],
        ignored=ignored,
        sources=tuple(sources),
    )


def whole_lesions(image: FloatArray, lesions: Mask, body: Mask) -> Mask:
    """Return lesions with what is left of them beyond their masks, and a border."""
    from scipy.ndimage import binary_dilation, binary_propagation, uniform_filter

    out = lesions.copy()
    components = LabelComponents.of(lesions)
    for number in components.numbers:
        box = bounding_box(components.numbered == number, margin=AWAY)
        lesion, free = components.numbered[box] == number, body[box] & ~lesions[box]
        beside = binary_dilation(lesion, iterations=REACH)
        around = binary_dilation(beside, iterations=AWAY - REACH) & ~beside & free
        if not around.any():
            continue
        local = image[(slice(None), *box)]
        tissue, spreads = np.median(local[:, around], axis=1), _spread(local[:, around])
        contrast = (local[:, lesion].mean(axis=1) - tissue) / spreads
        if np.abs(contrast).max() < CLEAR:
            continue
        weights = contrast / spreads / np.square(contrast).sum()
        level = np.einsum("c,c...->...", weights, local) - weights @ tissue
        level = uniform_filter(level, 3)  # 1 as in the lesion, 0 as in the tissue
        # Skull and skin are bright as well: what lies well above the lesion is none of it.
        deep = _depth(body[box])
        like = (
            beside & free & (level > LEFT) & (level < 2 - LEFT) & (deep >= deep[lesion].min() / 2)
        )
        out[box] |= binary_propagation(lesion, mask=like | lesion)
    return np.asarray(binary_dilation(out, iterations=BORDER))


def find_pieces(
    image: FloatArray,
    where: Mask,
    free: Mask,
    rng: Rng,
    parts: int = PARTS,
    deep: Matrix | None = None,
) -> list[Piece] | None:
    """Return a mask with its source; or, where there is none, of its two halves, and so on.

    None if of one of up to ``parts`` pieces there is no source. See ``similar_place``.
    """
    deep = _depth(free | where) if deep is None else deep
    found = similar_place(image, where, free, rng, UNLIKE if parts > 1 else LAST, deep)
    if found is not None:
        return [(where, found[0])]
    box = bounding_box(where)
    axis = int(np.argmax([side.stop - side.start for side in box]))
    at = np.arange(where.shape[axis]).reshape([-1 if a == axis else 1 for a in range(where.ndim)])
    half = where & (at < np.median(np.argwhere(where)[:, axis]))
    if parts == 1 or not half.any():
        return None
    pieces: list[Piece] = []
    for part in (half, where & ~half):
        found_pieces = find_pieces(image, part, free, rng, parts // 2, deep)
        if found_pieces is None:
            return None
        pieces += found_pieces
    return pieces


def filled(image: FloatArray, pieces: Sequence[Piece], free: Mask) -> FloatArray:
    """Return an image (C, ...) with free tissue in place of masks that touch each other.

    It stays within the values of that tissue, and of what is around the masks.
    """
    where = np.logical_or.reduce([mask for mask, _ in pieces])
    box = bounding_box(where, margin=1)
    low, hole = [side.start for side in box], where[box]
    here = image[(slice(None), *box)]
    voxels, last = np.moveaxis(np.indices(hole.shape), 0, -1) + low, np.array(where.shape) - 1
    tissue, known = here.copy(), np.zeros(hole.shape, bool)
    for number, (mask, source) in enumerate(pieces):
        at = source.of(voxels)
        inside = ((at >= 0) & (at <= last)).all(axis=-1)
        index = tuple(np.moveaxis(np.clip(at, 0, last), -1, 0))
        # The first piece lends what is around all of them, too.
        taken = mask[box] | (~hole if number == 0 else False)
        tissue = np.where(taken, image[:, *index], tissue)
        known |= taken & inside & free[index]
    shown = [here[:, ~hole]]
    if known.any():
        shown.append(tissue[:, known])
    limits = value_limits(shown)
    seams = _seams([mask[box] for mask, _ in pieces])
    new = within(poisson(here, tissue, hole, known & ~seams), limits)
    out = image.copy()
    out[(slice(None), *box)] = np.where(hole, new, here)
    return out


def _seams(masks: Sequence[Mask]) -> Mask:
    """Voxels of masks that touch another one of them: no gradient is known across."""
    from scipy.ndimage import binary_dilation

    seams = np.zeros(masks[0].shape, bool)
    for mask in masks if len(masks) > 1 else ():
        others = np.logical_or.reduce([other for other in masks if other is not mask])
        seams |= mask & binary_dilation(others)
    return seams


def similar_place(
    image: FloatArray,
    where: Mask,
    free: Mask,
    rng: Rng,
    most: float = UNLIKE,
    deep: Matrix | None = None,
) -> tuple[Source, float] | None:
    """Return the source of free tissue most like a mask's rim, and by how much they differ.

    None if there is no such tissue, or none that is like it.

    Args:
        image: float32 (C, ...).
        where: bool (D, H, W) or (H, W), what is to be filled.
        free: bool, tissue that may be copied.
        most: largest difference.
        deep: how deep each voxel lies below the surface; None: below that of ``free`` and the mask.
    """
    from scipy.ndimage import binary_dilation

    width, rim = RIM, np.zeros_like(where)
    while not rim.any() and width < 2 * max(where.shape):  # a piece may lie within a lesion
        box = bounding_box(where, margin=width)
        rim[box] = binary_dilation(where[box], iterations=width) & ~where[box] & free[box]
        width *= 2
    if not rim.any():
        return None
    inside, around = _some(np.argwhere(where)), _some(np.argwhere(rim))
    signs, shifts = _tried(inside, free, rng)
    for voxels, least in ((inside, TISSUE), (around, NEARBY)):
        fits = _share(free, signs[:, None] * voxels + shifts[:, None]) >= least
        signs, shifts = signs[fits], shifts[fits]
    if not len(shifts):
        return None
    spreads = _spread(image[:, free])
    deep = _depth(free | where) if deep is None else deep
    # Indices (n, S, N) of the places' voxels.
    at_inside = np.moveaxis(signs[:, None] * inside + shifts[:, None], -1, 0)
    at_around = np.moveaxis(signs[:, None] * around + shifts[:, None], -1, 0)
    # How much rims (C, S, N) and depths (S,) differ, both in deviations.
    rim_values = image[:, *around.T]
    apart = (image[:, *at_around] - rim_values[:, None]) / spreads[:, None, None]
    deeper = deep[*at_inside].mean(axis=1) - deep[*inside.T].mean()
    deeper /= DEEPER * deep.max()
    unlike = np.sqrt(np.square(apart).mean(axis=(0, 2)) + np.square(deeper))
    # What lies above the lesion, such as its skull, is no example of the tissue within.
    as_deep = deep[*around.T] >= deep[*inside.T].min()
    usual = rim_values[:, as_deep] if as_deep.any() else rim_values
    low, high = np.quantile(usual, (STRANGE / 4, 1 - STRANGE / 4), axis=1)
    low, high = low - BEYOND * spreads, high + BEYOND * spreads
    there = image[:, *at_inside].transpose(1, 2, 0)
    strange = ((there < low) | (there > high)).any(axis=2).mean(axis=1)
    unlike[strange > STRANGE] = np.inf
    best = int(unlike.argmin())
    if not np.isfinite(unlike[best]) or unlike[best] > most:
        return None
    mirrored = np.flatnonzero(signs[best] < 0)
    axis = int(mirrored[0]) if len(mirrored) else None
    return Source(tuple(shifts[best].tolist()), axis), float(unlike[best])


def _tried(inside: Voxels, free: Mask, rng: Rng) -> tuple[Voxels, Voxels]:
    """Draw signs and shifts (S, n) of sources that are tried for a hole's voxels."""
    axes, at = free.ndim, np.argwhere(free)
    if not len(at):
        return np.ones((0, axes), np.intp), np.ones((0, axes), np.intp)
    shifts = [
        at[rng.integers(len(at), size=SHIFTS)] - inside[rng.integers(len(inside), size=SHIFTS)]
    ]
    signs = [np.ones((SHIFTS, axes), np.intp)]
    ends = at.min(axis=0), at.max(axis=0)
    off = np.ceil(OFF * (ends[1] - ends[0])).astype(int)
    for axis in range(axes):
        shift = rng.integers(-off, off + 1, size=(MIRRORS, axes))
        shift[:, axis] += ends[0][axis] + ends[1][axis]
        shifts.append(shift)
        sign = np.ones((MIRRORS, axes), np.intp)
        sign[:, axis] = -1
        signs.append(sign)
    return np.concatenate(signs), np.concatenate(shifts)


def _spread(values: FloatArray) -> Matrix:
    """A robust deviation of each channel (C, N): (C,)."""
    low, high = np.quantile(values, (0.16, 0.84), axis=1)
    return np.asarray(np.maximum((high - low) / 2, 1e-6), np.float64)


def _depth(body: Mask) -> Matrix:
    """About how deep each voxel lies below the body's surface; every second one is measured."""
    from scipy.ndimage import distance_transform_edt

    thin, unpadded = (slice(None, None, 2),) * body.ndim, (slice(1, -1),) * body.ndim
    deep = 2 * distance_transform_edt(np.pad(body[thin], 1))[unpadded]
    for axis, length in enumerate(body.shape):
        deep = np.repeat(deep, 2, axis=axis).take(range(length), axis=axis)
    return np.asarray(deep, np.float64)


def _some(voxels: Voxels) -> Voxels:
    return voxels[:: len(voxels) // COMPARED + 1]


def _share(mask: Mask, voxels: Voxels) -> Matrix:
    """Share of voxels (S, N, n) that lie in a mask, (S,); 0 if one lies beyond the array."""
    inside = ((voxels >= 0) & (voxels < mask.shape)).all(axis=(1, 2))
    share = np.zeros(len(voxels))
    share[inside] = mask[*np.moveaxis(voxels[inside], -1, 0)].mean(axis=1)
    return share
