"""Where lesions may lie, by what surrounds those of training cases: tissue, depth, the whole view.

Tissue is known by the mean and the spread of intensities around a voxel, as ranks in its subject's
bodies, so grey scales may differ. Large arrays are looked at in steps (``CELLS``): neither tissue
nor depth needs every voxel. Tissue alone does not tell a brain from a face: a
background without a lesion must look, as a whole, like training cases with one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gansynth.conditions.location_prior import (
    BodyBox,
    cached_prior,
    depths,
    frame_of,
    learning_cases,
    native_case,
    some,
)
from gansynth.core.case_pool import CaseContext, CasePool, body_of
from gansynth.core.geometry import Mask, Matrix, bounding_box, mask_of
from gansynth.core.resample import resample
from gansynth.core.schema import Case, FloatArray

CELLS = 64  # an axis of twice as many voxels is looked at in steps of two, and so on
RANKS = np.linspace(0, 1, 65)
"""Ranks whose intensities are known of a subject; between them they are interpolated."""
WINDOW = 3  # steps along each axis over which tissue is averaged
NEAREST, RING = 1.0, 0.04
"""Surroundings: farther than so many steps from a lesion, up to this share of the body's length."""
TAIL = 0.05
"""Share of lesions' surroundings below the range of tissue, above it, and of lesions too shallow.

The range is widened at each end by half of it over the number of subjects.
"""
POOR = 0.1  # share of training cases that have less of likely ground than is required
VIEW = 16  # cells per axis of a body's box in which whole images are compared
ALIKE, SMALL = 3, 0.05
"""Training cases that count, the most similar ones; share whose body is too small to be likely."""
UNLIKE = 0.5  # share of training cases that look less than required like other subjects' ones
BARE = 0.95  # least share of a lesion's ground that is likely in a background without a lesion
PLANES, CASES = 8, 16
"""Largest number of slices of a volume that are learnt from, and of cases of a subject."""


@dataclass(frozen=True)
class LesionSurroundings:
    """Tissue and depth at real lesions."""

    low: Matrix  # float64 (2 C,), least tissue: means of all channels, then spreads, both in ranks
    high: Matrix  # float64 (2 C,), the same of the most
    depth: float  # least depth in lengths of the body's box, as `location_prior.depths` has it
    share: float = 0.0  # least share of a lesion's ground that is likely
    room: float = 0.0  # least share of a body without its lesions that is likely
    views: Matrix = field(default_factory=lambda: np.empty((0, 0)))  # (N, C cells), see `_view`
    alike: float = 0.0  # least mean correlation with the `ALIKE` most similar views
    body: float = 0.0  # least size of a body, in steps

    @classmethod
    def learn(cls, case_pool: CasePool, classes: Sequence[int]) -> LesionSurroundings | None:
        """Learn from training cases, once for each pool; None if no lesion shows surroundings."""
        chosen = tuple(sorted(classes))
        return case_pool.learnt(f"surroundings of {chosen}", lambda pool: _learnt(pool, chosen))

    def likely(self, case_context: CaseContext, classes: Sequence[int]) -> Mask:
        """Return the voxels of a scene with such tissue at such depth: bool (D, H, W) or (H, W)."""
        image, body = case_context.case.image, case_context.body
        lesions = mask_of(case_context.labels, classes)
        if cached_prior(case_context):
            levels = _levels_of(case_context.case_pool, case_context.case.id, tuple(classes))
        else:
            levels = _levels(image, body & ~lesions)
        cut = case_context.case_pool.space.cuts
        steps = _steps(case_context.shape[-body.ndim :] if cut else body.shape)
        frame = frame_of(case_context)
        ground = _Ground.of(image, lesions, body, frame, levels, steps)
        uncut = min(frame.low) >= 0 and (np.array(frame.high) <= body.shape).all()
        unseen = case_context.emptied is None and not lesions.any()
        if uncut and unseen and not self.like(ground):
            return np.zeros(body.shape, bool)
        cells = zip(body.shape, steps, strict=True)
        whole = np.ix_(*(np.arange(length) // step.step for length, step in cells))
        return self.fits(ground)[whole]

    def like(self, ground: _Ground) -> bool:
        """Whether a case looks as a whole like training cases with a lesion."""
        if not len(self.views):  # learnt from one subject
            return True
        nearest = np.sort(self.views @ ground.view)[-ALIKE:]
        return bool(nearest.mean() >= self.alike and ground.bare.sum() >= self.body)

    def fits(self, ground: _Ground) -> Mask:
        """Return where tissue and depth are in the range."""
        tissue = np.moveaxis(ground.tissue, 0, -1)
        alike = ((tissue >= self.low) & (tissue <= self.high)).all(axis=-1)
        return np.asarray(alike & (ground.depth >= self.depth))


@dataclass(frozen=True)
class _Ground:
    """A case in steps: tissue (2 C, ...), depth, lesions, the body but these, ring and `_view`."""

    tissue: Matrix
    depth: Matrix
    lesions: Mask
    bare: Mask
    ring: Mask
    view: Matrix

    @classmethod
    def of(
        cls,
        image: FloatArray,
        lesions: Mask,
        body: Mask,
        frame: BodyBox,
        levels: Matrix,
        steps: tuple[slice, ...],
    ) -> _Ground:
        from scipy.ndimage import distance_transform_edt

        image, lesions, body = image[(slice(None), *steps)], lesions[steps], body[steps]
        size = frame.size / [step.step for step in steps]
        deep = depths(body, BodyBox((0.0,) * body.ndim, tuple(size)))
        away = distance_transform_edt(~lesions) if lesions.any() else np.full(body.shape, np.inf)
        ring = (away > NEAREST) & (away <= NEAREST + max(RING * size.max(), 1.5)) & body
        bare, view = body & ~lesions, _view(image, body)
        return cls(_tissue(image, levels, bare), deep, lesions, bare, ring, view)


def _tissue(image: FloatArray, levels: Matrix, bare: Mask) -> Matrix:
    """Means and spreads of ranks (2 C, ...) around each voxel, of voxels of a mask."""
    from scipy.ndimage import uniform_filter

    weight = np.maximum(uniform_filter(bare.astype(np.float64), WINDOW), 1e-6)
    means, spreads = [], []
    for channel, at in zip(image, levels, strict=True):
        ranks = np.interp(channel, at, RANKS) * bare
        means.append(uniform_filter(ranks, WINDOW) / weight)
        squares = uniform_filter(ranks**2, WINDOW) / weight
        spreads.append(np.sqrt(np.maximum(squares - means[-1] ** 2, 0)))
    return np.stack(means + spreads)


def _learnt(case_pool: CasePool, classes: tuple[int, ...]) -> LesionSurroundings | None:
    found = list(_grounds(case_pool, classes))
    deep = [g.depth[g.lesions][None] for _, g in found if np.isfinite(g.depth).all()]
    depth = float(np.quantile(_pooled(deep), TAIL)) if deep else 0.0
    rings = [(case_id, ground, ground.ring & (ground.depth >= depth)) for case_id, ground in found]
    rings = [row for row in rings if row[2].any()]
    if not rings:
        return None
    low, high = np.quantile(_pooled([g.tissue[:, at] for _, g, at in rings]), (TAIL, 1 - TAIL), 1)
    more = (high - low) / (2 * len({case_pool.cases.subject(case_id) for case_id, *_ in rings}))
    learnt = LesionSurroundings(low - more, high + more, depth)
    shares, rooms = [], []
    for _, ground, ring in rings:
        fits = learnt.fits(ground)
        shares.append(fits[ring].mean() * (ground.depth[ground.lesions] >= depth).mean())
        rooms.append(fits[ground.bare].mean())
    share, room = (float(np.quantile(values, POOR)) for values in (shares, rooms))
    learnt = replace(learnt, share=share, room=room)
    views = np.stack([ground.view for _, ground in found])
    people = np.array([case_pool.cases.subject(case_id) for case_id, _ in found])
    others = [
        np.sort(views[people != who] @ v)[-ALIKE:] for who, v in zip(people, views, strict=True)
    ]
    if not all(map(len, others)):  # one subject
        return learnt
    alike = float(np.quantile([nearest.mean() for nearest in others], UNLIKE))
    body = float(np.quantile([ground.bare.sum() for _, ground in found], SMALL))
    return replace(learnt, views=views, alike=alike, body=body)


def _view(image: FloatArray, body: Mask) -> Matrix:
    """An image (C, ...) in the cells of its body's box, as ranks: a vector of mean 0, length 1.

    The product of two is Spearman's correlation, the mean of all channels.
    """
    from scipy.stats import rankdata

    box = bounding_box(body) if body.any() else (slice(None),) * body.ndim
    cells, _ = resample(image[(slice(None), *box)], None, (VIEW,) * body.ndim)
    ranks = rankdata(cells.reshape(len(image), -1), axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    ranks /= np.maximum(np.linalg.norm(ranks, axis=1, keepdims=True), 1e-6) * np.sqrt(len(image))
    return np.asarray(ranks.ravel())


def _pooled(values: Sequence[Matrix]) -> Matrix:
    """Quantiles (R, ...) of each case's values (R, N), so that cases of any size count alike."""
    return np.concatenate([np.quantile(v, RANKS, axis=1).T for v in values], axis=1)


def _grounds(case_pool: CasePool, classes: tuple[int, ...]) -> Iterator[tuple[str, _Ground]]:
    """Yield training cases (some slices of each, in a space of slices) that show surroundings."""
    for case_id in learning_cases(case_pool):
        lesions = mask_of(case_pool.label_map(case_id), classes)
        if not lesions.any():
            continue
        case = native_case(case_pool, case_id)
        body, levels = body_of(case), _levels_of(case_pool, case_id, classes)
        frame = BodyBox.of(body)
        planes: list[tuple[Any, ...]] = [()]
        if case_pool.space.grid == "slice":
            held = np.flatnonzero(lesions.any(axis=(1, 2))).tolist()
            planes, frame = [(plane,) for plane in some(held, PLANES)], frame.last(2)
        for at in planes:
            image, steps = case.image[:, *at], _steps(body[at].shape)
            ground = _Ground.of(image, lesions[at], body[at], frame, levels, steps)
            if ground.lesions.any() and ground.ring.any():
                yield case_id, ground


def _levels_of(case_pool: CasePool, case_id: str, classes: tuple[int, ...]) -> Matrix:
    """Intensities (C, ranks) of a subject's bodies, computed once: the median of its cases."""
    subject = case_pool.cases.subject(case_id)

    def find(pool: CasePool) -> Matrix:
        ids = [i for i in pool.ids if pool.cases.subject(i) == subject]
        found = [_levels_in(native_case(pool, i), classes) for i in some(ids, CASES)]
        return np.asarray(np.median(found, axis=0))

    return case_pool.learnt(f"intensities of {subject} but {classes}", find)


def _levels_in(case: Case, classes: tuple[int, ...]) -> Matrix:
    steps = _steps(case.image.shape[1:])
    labels = None if case.labels is None else case.labels[steps]
    coarse = replace(case, image=case.image[(slice(None), *steps)], labels=labels, boxes=None)
    body = body_of(coarse)
    return _levels(coarse.image, body if labels is None else body & ~mask_of(labels, classes))


def _levels(image: FloatArray, body: Mask) -> Matrix:
    held = image[:, body] if body.any() else image.reshape(len(image), -1)
    return np.asarray(np.quantile(held, RANKS, axis=1).T, np.float64)


def _steps(shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(None, None, max(1, length // CELLS)) for length in shape)
