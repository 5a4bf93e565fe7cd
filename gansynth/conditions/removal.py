"""Take lesions out of a real image: tissue from another place of the same image stands there.

A lesion is taken out with what is left of it beyond its mask. The place is lesion-free tissue as
deep below the surface, most similar to what is around the lesion: anywhere, or, mirrored, on the
other side of the body. A lesion for which there is none stays. Gradients of that tissue continue
the lesion's rim (Perez et al. 2003), so level and grain both fit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.case_pool import CaseContext
from gansynth.core.case_store import Arrays
from gansynth.core.geometry import Matrix, Rng, bounding_box, fill_nearest, mask_of
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Mask
from gansynth.data.connected_components import LabelComponents
from gansynth.imaging.blending import Donor, poisson_of_many
from gansynth.imaging.lesion_grain import value_limits, within

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
tissue, and that where smaller pieces are no more alike; ``benchmarks/measure/bench_removal.py``
measures fills."""
FOUND = 1  # of kept removals: raised when what is found of a case changes
DEEPER = 0.2  # difference in depth, of the deepest, that counts as one deviation
STRANGE, BEYOND = 0.1, 0.5
"""Largest share of a place's voxels beyond the values around the lesion, by so many deviations."""


Voxels = npt.NDArray[np.intp]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Source:
    """Where tissue comes from: voxel x from x + shift; from -x + shift along a mirrored axis."""

    shift: tuple[int, ...]
    mirrored: int | None = None

    def of(self, voxels: Voxels) -> Voxels:
        """Return the voxels (..., n) that these come from."""
        signs = [-1 if axis == self.mirrored else 1 for axis in range(len(self.shift))]
        return np.asarray(voxels * signs + self.shift)

    def in_whole(self, corner: Sequence[int]) -> Source:
        """Return it in voxels of the whole case, of which ``corner`` is the first one here."""
        shift = list(self.shift)
        if self.mirrored is not None:
            shift[self.mirrored] += 2 * corner[self.mirrored]
        return Source(tuple(shift), self.mirrored)

    def to_json(self) -> list[int]:
        """Its shift, and the mirrored axis after that if there is one."""
        numbers = list(self.shift)
        if self.mirrored is not None:
            numbers.append(self.mirrored)
        return numbers

    @classmethod
    def from_json(cls, numbers: Sequence[int], axes: int) -> Source:
        """Return what ``to_json`` was of, in an image of so many axes."""
        return cls(tuple(numbers[:axes]), *numbers[axes:])


Piece = tuple[Mask, Source]
"""What is filled, bool (D, H, W) or (H, W), and from where."""


@dataclass(frozen=True)
class Tissue:
    """What may be copied in an image, and what is found of it once for all lesions.

    ``image``: float32 (C, ...), in which only voxels beyond ``free`` may change. ``free``: bool,
    tissue that may be copied. ``inside``: bool, all that lies below the surface.
    """

    image: FloatArray
    free: Mask
    inside: Mask

    @cached_property
    def deep(self) -> Matrix:
        """About how deep each voxel lies below the surface."""
        return _depth(self.inside)

    @cached_property
    def deepest(self) -> float:
        """How deep the deepest voxel lies."""
        return float(self.deep.max())

    @cached_property
    def voxels(self) -> Voxels:
        """Those that may be copied, (N, n)."""
        return np.argwhere(self.free)

    @cached_property
    def spreads(self) -> Matrix:
        """A robust deviation of each channel (C,)."""
        return _spread(self.image[:, self.free])


@dataclass(frozen=True)
class Removal:
    """What differs in a case whose lesions are taken out: so little that many can be kept.

    Voxels are given as indices of the flat array of the whole case, or slice.

    Attributes:
        shape: of the whole case, or slice.
        classes: label values of lesions.
        at: int64 (N,), the voxels that differ.
        image: float32 (C, N), what they hold.
        labels: int16 (N,), their labels.
        number: int32 (N,), the lesion that each belonged to, from 0, the largest first.
        sources: of the tissue of each lesion.
        unknown: int64, voxels whose labels become unknown.
        staying: int64, the voxels of lesions for which there is no tissue.
    """

    shape: tuple[int, ...]
    classes: tuple[int, ...]
    at: Indices
    image: FloatArray
    labels: LabelArray
    number: npt.NDArray[np.int32]
    sources: tuple[tuple[Source, ...], ...]
    unknown: Indices
    staying: Indices

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        arrays = self.at, self.image, self.labels, self.number, self.unknown, self.staying
        return sum([array.nbytes for array in arrays])

    def to_arrays(self) -> Arrays:
        """Its fields as arrays, to be kept."""
        sources = [[source.to_json() for source in each] for each in self.sources]
        arrays = {
            name: np.asarray(value) for name, value in vars(self).items() if name != "sources"
        }
        return arrays | {"sources": np.array(json.dumps(sources))}

    @classmethod
    def from_arrays(cls, kept: Arrays) -> Removal:
        """Return what ``to_arrays`` was of."""
        shape = tuple(kept["shape"].tolist())
        sources = [
            tuple([Source.from_json(numbers, len(shape)) for numbers in each])
            for each in json.loads(str(kept["sources"]))
        ]
        fields = dict[str, Any](kept, shape=shape, sources=tuple(sources))
        return cls(**fields | {"classes": tuple(kept["classes"].tolist())})

    def made_in(
        self, case_context: CaseContext, corner: Sequence[int]
    ) -> tuple[CaseContext, list[Source]] | None:
        """Return a part of the case without its lesions, and where their tissue is from.

        ``corner``: the first voxel of the part in the whole. None if a lesion in it stays.
        """
        size = case_context.labels.shape
        if len(self._within(self.staying, corner, size)[1]):
            return None
        held, at = self._within(self.at, corner, size)
        if not len(at):
            return case_context, []
        body, case = case_context.body, case_context.case
        image, labels, ignored = case.image.copy(), case_context.labels.copy(), case.ignored
        image.reshape(len(image), -1)[:, at] = self.image[:, held]
        labels.reshape(-1)[at] = self.labels[held]
        if ignored is not None:
            ignored = ignored.copy()
            ignored.reshape(-1)[self._within(self.unknown, corner, size)[1]] = True
        lesions = mask_of(case_context.labels, self.classes)
        bare = replace(
            case_context,
            case=replace(case, image=image, labels=labels, ignored=ignored),
            find_body=lambda: body,
            emptied=lesions if lesions.any() else None,
        )
        numbers = np.unique(self.number[held])
        return bare, [source for number in numbers for source in self.sources[number]]

    def _within(
        self, at: Indices, corner: Sequence[int], size: Sequence[int]
    ) -> tuple[Indices, Indices]:
        """Return which voxels lie in a part of the case, and their indices there."""
        there = np.stack(np.unravel_index(at, self.shape), axis=-1) - np.array(corner)
        held = np.flatnonzero(((there >= 0) & (there < size)).all(axis=1))
        return held, np.ravel_multi_index(tuple(there[held].T), tuple(size))


def without_lesions(
    case_context: CaseContext, classes: Sequence[int], seed: Sequence[int]
) -> Removal:
    """Find what replaces the lesions of a whole case, or slice.

    Voxels of lesions get the nearest label that is none of ``classes``.
    """
    labels, body, case = case_context.labels, case_context.body, case_context.case
    lesions = mask_of(labels, classes)
    # What is far from the body and from lesions takes time for nothing.
    box = bounding_box(body | lesions, margin=AWAY)
    corner = [side.start for side in box]
    image, body, labels = case.image[(slice(None), *box)].copy(), body[box], labels[box]
    find = partial(whole_lesions, image, lesions[box], body)
    if case_context.key is None:
        whole = find()
    else:
        key = "whole lesions", tuple(classes), case_context.key
        whole = case_context.case_pool.mask(key, labels.shape, find)
    components = LabelComponents.of(whole & (labels != OUTSIDE))
    rng, free = np.random.default_rng(seed), np.asarray(body & (components.numbered == 0))
    known = Tissue(image, free if case.ignored is None else free & ~case.ignored[box], body | whole)
    every = Tissue(image, free, body | whole)
    number = np.full(labels.shape, -1, np.int32)
    unknown, staying = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
    sources: list[tuple[Source, ...]] = []
    for component in components.numbers:
        hole = components.numbered == component
        tissue, pieces = known, find_pieces(known, hole, rng)
        if pieces is None and case.ignored is not None:  # what it shows is unknown, and stays so
            tissue, pieces = every, find_pieces(every, hole, rng)
            if pieces is not None:
                unknown |= hole
        if pieces is None:
            staying |= hole
            continue
        number[hole] = len(sources)
        sources.append(tuple([source.in_whole(corner) for _, source in pieces]))
        fill(image, pieces, tissue.free, tissue.inside)
    gone = lesions[box] & (number >= 0)
    shown = fill_nearest(
        labels, gone, ~lesions[box] & (labels != OUTSIDE), case_context.schema.spacing
    )
    before = case.image[(slice(None), *box)]
    differs = (image != before).any(axis=0) | (shown != labels)
    indices = partial(_indices_in_whole, corner=corner, shape=lesions.shape)
    return Removal(
        shape=lesions.shape,
        classes=tuple(classes),
        at=indices(differs),
        image=image[:, differs],
        labels=shown[differs],
        number=number[differs],
        sources=tuple(sources),
        unknown=indices(unknown),
        staying=indices(staying),
    )


def _indices_in_whole(mask: Mask, corner: Sequence[int], shape: Sequence[int]) -> Indices:
    """Return the voxels of a mask of a part as indices of the whole array, flat."""
    voxels = np.argwhere(mask) + np.array(corner)
    return np.asarray(np.ravel_multi_index(tuple(voxels.T), tuple(shape)))


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
        level = np.einsum("c,c...->...", weights, local) - (weights * tissue).sum()
        level = uniform_filter(level, 3)  # 1 as in the lesion, 0 as in the tissue
        # Skull and skin are bright as well: what lies well above the lesion is none of it.
        deep = _depth(body[box])
        like = (
            beside & free & (level > LEFT) & (level < 2 - LEFT) & (deep >= deep[lesion].min() / 2)
        )
        out[box] |= binary_propagation(lesion, mask=like | lesion)
    return np.asarray(binary_dilation(out, iterations=BORDER) & (body | lesions))


def find_pieces(tissue: Tissue, where: Mask, rng: Rng, parts: int = PARTS) -> list[Piece] | None:
    """Return a mask with its source, or its two halves with theirs if these are alike, and so on.

    There are up to ``parts`` pieces. None if one of them has no source. See ``similar_place``.
    """
    found = similar_place(tissue, where, rng)
    if parts > 1 and (found is None or found[1] > UNLIKE):
        pieces = _halved(tissue, where, rng, parts // 2)
        if pieces is not None:
            return pieces
    return None if found is None else [(where, found[0])]


def _halved(tissue: Tissue, where: Mask, rng: Rng, parts: int) -> list[Piece] | None:
    """Return the pieces of both halves of a mask, of up to ``parts`` each; None if one has none."""
    box = bounding_box(where)
    axis = int(np.argmax([side.stop - side.start for side in box]))
    at = np.arange(where.shape[axis]).reshape([-1 if a == axis else 1 for a in range(where.ndim)])
    half = where & (at < np.median(np.argwhere(where)[:, axis]))
    if not half.any():
        return None
    pieces: list[Piece] = []
    for part in (half, where & ~half):
        found = find_pieces(tissue, part, rng, parts)
        if found is None:
            return None
        pieces += found
    return pieces


def fill(image: FloatArray, pieces: Sequence[Piece], free: Mask, inside: Mask) -> None:
    """Put free tissue into an image (C, ...) in place of masks that touch each other.

    It stays within the values of that tissue, and of what is around the masks. It is joined to what
    is ``inside`` the body alone; what has nothing of it around is as the tissue is.
    """
    where = np.logical_or.reduce([mask for mask, _ in pieces])
    box = bounding_box(where, margin=1)
    corner, hole, here = [side.start for side in box], where[box], image[:, *box]
    donors = [_donor(image, mask[box], source, free, corner) for mask, source in pieces]
    known = [donor.image[:, donor.mask & donor.usable] for donor in donors]
    limits = value_limits([np.concatenate([here[:, ~hole], *known], axis=1)])
    image[:, *box] = within(poisson_of_many(here, donors, inside[box]), limits)


def _donor(
    image: FloatArray, mask: Mask, source: Source, free: Mask, corner: Sequence[int]
) -> Donor:
    """Return what a source lends to a mask of a part of an image that begins at ``corner``."""
    box = bounding_box(mask, margin=1)
    low = [side.start + at for side, at in zip(box, corner, strict=True)]
    local = mask[box]
    at = source.of(np.moveaxis(np.indices(local.shape), 0, -1) + low)
    last = np.array(free.shape) - 1
    inside = ((at >= 0) & (at <= last)).all(axis=-1)
    index = tuple(np.moveaxis(np.clip(at, 0, last), -1, 0))
    return Donor(box, image[:, *index], local, inside & free[index])


def similar_place(tissue: Tissue, where: Mask, rng: Rng) -> tuple[Source, float] | None:
    """Return the source of free tissue most like a mask's rim, and by how much they differ.

    None if there is no such tissue, or none that is like it.

    ``where``: bool (D, H, W) or (H, W), what is to be filled.
    """
    from scipy.ndimage import binary_dilation

    image, free, deep = tissue.image, tissue.free, tissue.deep
    width, rim = RIM, np.zeros(0, bool)
    box = bounding_box(where)
    while not rim.any() and width < 2 * max(where.shape):  # a piece may lie within a lesion
        box = bounding_box(where, margin=width)
        rim = binary_dilation(where[box], iterations=width) & ~where[box] & free[box]
        width *= 2
    if not rim.any():
        return None
    spreads = tissue.spreads
    corner = [side.start for side in box]
    inside, around = _some(np.argwhere(where[box])) + corner, _some(np.argwhere(rim)) + corner
    signs, shifts = _tried(inside, tissue.voxels, rng)
    for voxels, least in ((inside, TISSUE), (around, NEARBY)):
        fits = _share(free, signs, voxels, shifts) >= least
        signs, shifts = signs[fits], shifts[fits]
    if not len(shifts):
        return None
    # Indices (S, N) of the places' voxels in the flat array.
    at_inside = _flat(signs, inside, shifts, free.shape)
    at_around = _flat(signs, around, shifts, free.shape)
    of_voxels = image.reshape(len(image), -1)
    # How much rims (C, S, N) and depths (S,) differ, both in deviations.
    rim_values = image[:, *around.T]
    differences = (of_voxels[:, at_around] - rim_values[:, None]) / spreads[:, None, None]
    deeper = deep.ravel()[at_inside].mean(axis=1) - deep[*inside.T].mean()
    deeper /= DEEPER * tissue.deepest
    unlike = np.sqrt(np.square(differences).mean(axis=(0, 2)) + np.square(deeper))
    # What lies above the lesion, such as its skull, is no example of the tissue within.
    as_deep = deep[*around.T] >= deep[*inside.T].min()
    usual = rim_values[:, as_deep] if as_deep.any() else rim_values
    low, high = np.quantile(usual, (STRANGE / 4, 1 - STRANGE / 4), axis=1)
    low, high = low - BEYOND * spreads, high + BEYOND * spreads
    there = of_voxels[:, at_inside].transpose(1, 2, 0)
    strange = ((there < low) | (there > high)).any(axis=2).mean(axis=1)
    unlike[strange > STRANGE] = np.inf
    best = int(unlike.argmin())
    if not np.isfinite(unlike[best]) or unlike[best] > LAST:
        return None
    mirrored = np.flatnonzero(signs[best] < 0)
    axis = int(mirrored[0]) if len(mirrored) else None
    return Source(tuple(shifts[best].tolist()), axis), float(unlike[best])


def _tried(inside: Voxels, at: Voxels, rng: Rng) -> tuple[Voxels, Voxels]:
    """Draw signs and shifts (S, n) of sources, among free voxels, for a hole's voxels."""
    axes = inside.shape[1]
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


def _share(mask: Mask, signs: Voxels, voxels: Voxels, shifts: Voxels) -> Matrix:
    """Share of a place's voxels that lie in a mask, (S,); 0 if one lies beyond the array.

    ``signs``, ``shifts``: (S, n), of each place. ``voxels``: (N, n), of what is to be filled.
    """
    ends = np.stack([signs * voxels.min(axis=0), signs * voxels.max(axis=0)]) + shifts
    inside = ((ends >= 0) & (ends < mask.shape)).all(axis=(0, 2))
    share = np.zeros(len(shifts))
    at = _flat(signs[inside], voxels, shifts[inside], mask.shape)
    share[inside] = mask.ravel()[at].mean(axis=1)
    return share


def _flat(signs: Voxels, voxels: Voxels, shifts: Voxels, shape: Sequence[int]) -> Indices:
    """Return the voxels of places as indices (S, N) of a flat array; see ``_share``."""
    strides = np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))])
    return np.asarray((signs * strides) @ voxels.T + (shifts @ strides)[:, None])
