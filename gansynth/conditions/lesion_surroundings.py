"""Where lesions may lie, by what surrounds those of training cases: tissue and depth.

A tissue is a rank among the intensities of its case's body, so cases' grey scales may differ. Large
arrays are looked at in steps (``CELLS``), since neither tissue nor depth needs every voxel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
from gansynth.core.geometry import Mask, Matrix, mask_of
from gansynth.core.schema import FloatArray

CELLS = 64
"""An axis of twice as many voxels is looked at in steps of two, and so on."""
RANKS = np.linspace(0, 1, 65)
"""Ranks whose intensities are known of a body; between them they are interpolated."""
NEAREST, RING = 1.0, 0.04
"""Surroundings: farther than so many steps from a lesion, up to this share of the body's length."""
TAIL = 0.05
"""Share of lesions' surroundings below their range of tissue, above it, and of lesions too shallow.

The range is widened at each end by half of it over the number of subjects.
"""
POOR = 0.1
"""Share of training cases that have less of likely ground than is required."""
PLANES, CASES = 8, 16
"""Largest number of slices of a volume that are learnt from, and of cases of a subject."""


@dataclass(frozen=True)
class LesionSurroundings:
    """Tissue and depth at real lesions.

    Attributes:
        low: float64 (C,), ranks; darker tissue does not surround lesions.
        high: float64 (C,), the same of brighter tissue.
        depth: least depth in lengths of the body's box, as ``location_prior.depths`` has it.
        share: least share of a lesion's ground that is likely.
        room: least share of a body without its lesions that is likely.
    """

    low: Matrix
    high: Matrix
    depth: float
    share: float = 0.0
    room: float = 0.0

    @classmethod
    def learn(cls, case_pool: CasePool, classes: Sequence[int]) -> LesionSurroundings | None:
        """Learn from training cases, once for each pool; None if no lesion shows surroundings."""
        chosen = tuple(sorted(classes))
        return case_pool.learnt(f"surroundings of {chosen}", lambda pool: _learnt(pool, chosen))

    def likely(self, case_context: CaseContext, classes: Sequence[int]) -> Mask:
        """Return the voxels of a scene with such tissue at such depth: bool (D, H, W) or (H, W)."""
        case_pool, image = case_context.case_pool, case_context.case.image
        shape = case_context.shape[-case_context.labels.ndim :]
        steps = _steps(shape if case_pool.space.cuts else image.shape[1:])
        lesions = mask_of(case_context.labels, classes)
        if cached_prior(case_context):
            levels = _levels_of(case_pool, case_context.case.id, tuple(classes))
        else:
            levels = _levels(image, case_context.body & ~lesions)
        ground = _Ground.of(
            image, lesions, case_context.body, frame_of(case_context), levels, steps
        )
        cells = zip(image.shape[1:], steps, strict=True)
        whole = np.ix_(*(np.arange(length) // (step.step or 1) for length, step in cells))
        return np.asarray(self._tissue(ground) & (ground.depth >= self.depth))[whole]

    def _tissue(self, ground: _Ground) -> Mask:
        ranks = np.moveaxis(ground.ranks, 0, -1)
        return np.asarray(((ranks >= self.low) & (ranks <= self.high)).all(axis=-1))


@dataclass(frozen=True)
class _Ground:
    """A case in steps: smoothed ranks (C, ...), depth, lesions, the body but these, their ring."""

    ranks: Matrix
    depth: Matrix
    lesions: Mask
    bare: Mask
    around: Mask

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
        from scipy.ndimage import distance_transform_edt, uniform_filter

        image, lesions, body = image[(slice(None), *steps)], lesions[steps], body[steps]
        bare = body & ~lesions
        weight = np.maximum(uniform_filter(bare.astype(np.float64), 3), 1e-6)
        pairs = zip(image, levels, strict=True)
        ranks = [uniform_filter(np.interp(c, at, RANKS) * bare, 3) / weight for c, at in pairs]
        coarse = np.array([step.step for step in steps], np.float64)
        deep = depths(body, BodyBox((0.0,) * body.ndim, tuple(frame.size / coarse)))
        away = distance_transform_edt(~lesions) if lesions.any() else np.full(body.shape, np.inf)
        width = max(RING * float((frame.size / coarse).max()), 1.5)
        around = (away > NEAREST) & (away <= NEAREST + width) & body
        return cls(np.stack(ranks), deep, lesions, bare, around)


def _learnt(case_pool: CasePool, classes: Sequence[int]) -> LesionSurroundings | None:
    found = list(_grounds(case_pool, classes))
    deep = [g.depth[g.lesions][None] for _, g in found if np.isfinite(g.depth).all()]
    depth = float(np.quantile(_pooled(deep), TAIL)) if deep else 0.0
    rings = [(case_id, g, g.around & (g.depth >= depth)) for case_id, g in found]
    rings = [row for row in rings if row[2].any()]
    if not rings:
        return None
    low, high = np.quantile(_pooled([g.ranks[:, at] for _, g, at in rings]), (TAIL, 1 - TAIL), 1)
    more = (high - low) / (2 * len({case_pool.source.subject(case_id) for case_id, *_ in rings}))
    learnt = LesionSurroundings(low - more, high + more, depth)
    shares, rooms = [], []
    for _, ground, ring in rings:
        tissue, deep = learnt._tissue(ground), ground.depth >= depth
        shares.append(tissue[ring].mean() * deep[ground.lesions].mean())
        rooms.append((tissue & deep)[ground.bare].mean())
    share, room = (float(np.quantile(values, POOR)) for values in (shares, rooms))
    return replace(learnt, share=share, room=room)


def _pooled(values: Sequence[Matrix]) -> Matrix:
    """Quantiles (C, ...) of each case's values (C, N), so that cases of any size count alike."""
    return np.concatenate([np.quantile(v, RANKS, axis=1).T for v in values], axis=1)


def _grounds(case_pool: CasePool, classes: Sequence[int]) -> Iterator[tuple[str, _Ground]]:
    """Yield training cases (some slices of each, in a space of slices) that show surroundings."""
    for case_id in learning_cases(case_pool):
        lesions = mask_of(case_pool.label_map(case_id), classes)
        if not lesions.any():
            continue
        case = native_case(case_pool, case_id)
        body, levels = body_of(case), _levels_of(case_pool, case_id, tuple(classes))
        frame, image = BodyBox.of(body), case.image
        planes: list[tuple[int, ...]] = [()]
        if case_pool.space.grid == "slice":
            held = np.flatnonzero(lesions.any(axis=(1, 2))).tolist()
            planes, frame = [(plane,) for plane in some(held, PLANES)], frame.last(2)
        for at in planes:
            cut = lesions[at], body[at], frame, levels
            ground = _Ground.of(image[(slice(None), *at)], *cut, _steps(lesions[at].shape))
            if ground.lesions.any() and ground.around.any():
                yield case_id, ground


def _levels_of(case_pool: CasePool, case_id: str, classes: tuple[int, ...]) -> Matrix:
    """Intensities (C, ranks) of a subject's bodies, computed once: the median of its cases."""
    subject = case_pool.source.subject(case_id)

    def find(pool: CasePool) -> Matrix:
        ids = [i for i in pool.ids if pool.source.subject(i) == subject]
        return np.median([_levels_in(pool, i, classes) for i in some(ids, CASES)], axis=0)

    return case_pool.learnt(f"intensities of {subject} but {classes}", find)


def _levels_in(case_pool: CasePool, case_id: str, classes: tuple[int, ...]) -> Matrix:
    case = native_case(case_pool, case_id)
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
