"""Location prior of lesions in training cases: relative coordinates, and a density over a body.

A relative coordinate of 0 is the lower face of the box around a body, on each axis, and 1 its upper
face. So places in bodies of different size, or in a crop and the whole case, can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from gansynth.core.case_pool import CaseContext, CasePool, body_of, own_labels
from gansynth.core.geometry import Mask, Matrix, bounding_box
from gansynth.core.schema import Case
from gansynth.data.lesions import parts

T = TypeVar("T")
KERNEL = 0.04
"""Widest kernel around each centre: its standard deviation, as a share of the body's length."""
CLOSEST = 0.1  # quantile of the depth of a class's boxes below which none is placed
FLOOR = 0.05  # share of the density that is uniform over the body, so that every place is possible
DRAWS = 64  # draws around learnt centres until one lies in the body
LOOKED_AT = 64  # largest number of training cases that statistics are learnt from
LIKE = np.log(2)
"""Kernel on the logarithm of a lesion's diameter: lesions half or twice as large count little."""


@dataclass(frozen=True)
class PlacementPrior:
    """Centres of lesions, relative to the box around the body."""

    # float64 (N, n) with n the axes of whole cases, (N, 3) for slices too; 0 to 1 within the body's
    # box. Without any (N = 0), every place is alike.
    centres: Matrix
    clearance: float = 0.0  # least distance from the body's outline, in lengths of that box
    diameters: Matrix | None = None  # float64 (N,) of the lesions (see `diameter`); None if unknown

    @classmethod
    def learn(cls, case_pool: CasePool, classes: Sequence[int] | None = None) -> PlacementPrior:
        """Learn from (at most ``LOOKED_AT``) training cases, once for each room.

        A lesion is a connected part of the chosen classes together (None: of all foreground). Parts
        of less than a tenth of the case's largest are left out.
        """
        chosen = tuple(sorted(classes or case_pool.schema.foreground))
        return case_pool.learnt(f"placement prior of {chosen}", lambda r: _of_lesions(r, chosen))

    @classmethod
    def learn_boxes(cls, case_pool: CasePool, label: int) -> PlacementPrior:
        """Learn from boxes of a class of ``Schema.box_classes``, as ``learn`` does of lesions."""
        return case_pool.learnt(f"placement prior of boxes {label}", lambda r: _of_boxes(r, label))

    def kernel(self, ndim: int) -> Matrix:
        """Standard deviation of the kernel (ndim,), in lengths of the body's box.

        Scott's rule (Scott 1992, 6.2), no wider than ``KERNEL``.
        """
        count = max(len(self.centres), 1)
        spread = self.centres[:, -ndim:].var(axis=0) if len(self.centres) else np.zeros(ndim)
        deviation = np.sqrt((count * spread + KERNEL**2) / (count + 1))
        return np.asarray(np.minimum(KERNEL, deviation * count ** (-1 / (ndim + 4))))

    def allowed(self, depth: Matrix) -> Mask:
        """Mask of voxels for lesions, by the depth of each voxel (see ``depths``)."""
        return np.asarray((depth > 0) & (depth >= self.clearance))

    def spread(
        self,
        count: int,
        ndim: int,
        rng: np.random.Generator,
        *,
        depth: float | None = None,
        diameter: float | None = None,
    ) -> Matrix:
        """Draw relative coordinates (count, ndim), in the body or not; options as in ``draw``."""
        points, weights = self._at(ndim, depth, diameter)
        if not len(points):
            return rng.random((count, ndim))
        picked = points[rng.choice(len(points), count, p=weights / weights.sum())]
        return picked + self.kernel(ndim) * rng.standard_normal(picked.shape)

    def draw(
        self,
        body: Mask,
        rng: np.random.Generator,
        *,
        frame: BodyBox | None = None,
        depth: float | None = None,
        diameter: float | None = None,
    ) -> tuple[int, ...]:
        """Draw a voxel of a non-empty body by the density of lesions' centres.

        Args:
            frame: box around the whole body in the array's voxels (``frame_of(case_context)``);
                that around ``body`` if None.
            depth: of a slice, ``depth_of(case_context)``: lesions at about that depth count. None
                counts those of all slices alike.
            diameter: of the lesion to place; centres of lesions about as large count more.
        """
        frame = frame or BodyBox.of(body)
        if len(self.centres) and rng.random() >= FLOOR:
            spread = self.spread(DRAWS, body.ndim, rng, depth=depth, diameter=diameter)
            voxels = np.rint(frame.voxels(spread)).astype(int)
            inside = ((voxels >= 0) & (voxels < body.shape)).all(axis=1)
            for voxel in voxels[inside].tolist():
                if body[tuple(voxel)]:
                    return tuple(voxel)
        return anywhere(body, rng)

    def _at(
        self, ndim: int, depth: float | None, diameter: float | None = None
    ) -> tuple[Matrix, Matrix]:
        """Centres (N, ndim) and their weights (N,)."""
        away = np.zeros(len(self.centres))
        if depth is not None and self.centres.shape[1] != ndim:
            away += np.square((self.centres[:, 0] - depth) / KERNEL) / 2
        if diameter is not None and self.diameters is not None:
            away += np.square(np.log(self.diameters / diameter) / LIKE) / 2
        return self.centres[:, -ndim:], np.exp(away.min(initial=np.inf) - away)


def anywhere(body: Mask, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw a voxel of a non-empty mask, uniformly."""
    voxels = np.flatnonzero(body)
    return tuple(int(i) for i in np.unravel_index(voxels[rng.integers(voxels.size)], body.shape))


def place_drawer(
    case_context: CaseContext,
    classes: Sequence[int] | None,
    where: str,
    allowed: Mask,
    rng: np.random.Generator,
    voxels: int | None = None,
) -> Callable[[], tuple[int, ...]]:
    """Return a function that draws voxels of a mask, by the prior or anywhere.

    ``voxels`` of the lesion: by the prior, places of lesions about as large are preferred.
    """
    if where == "anywhere":
        return lambda: anywhere(allowed, rng)
    prior = PlacementPrior.learn(case_context.case_pool, classes)
    frame, depth = frame_of(case_context), depth_of(case_context)
    size = None if voxels is None else frame.diameter(voxels)
    return lambda: prior.draw(allowed, rng, frame=frame, depth=depth, diameter=size)


def depths(body: Mask, frame: BodyBox) -> Matrix:
    """Depth of voxels in a body: float64 of its shape, 0 beyond it; in lengths of its box.

    The array's border is no outline. In a body that fills the array, depths are infinite.
    """
    from scipy.ndimage import distance_transform_edt

    if body.all():
        return np.full(body.shape, np.inf)
    return np.asarray(distance_transform_edt(body, sampling=1 / frame.size))


def ball_in(row: Matrix, shape: Sequence[int]) -> tuple[tuple[slice, ...], Mask]:
    """Return the slices of a box ``min..., max...`` in an array, and a mask of its ellipsoid.

    Lesions are round, so the corners of their boxes do not count.
    """
    n = len(shape)
    low = np.clip(np.floor(row[:n]), 0, np.array(shape) - 1).astype(int)
    high = np.clip(np.ceil(row[n:]), low + 1, shape).astype(int)
    at = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    middle, half = (row[:n] + row[n:]) / 2, (row[n:] - row[:n]) / 2
    grid = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in at), indexing="ij"), -1)
    inside: Mask = (((grid + 0.5 - middle) / half) ** 2).sum(-1) <= 1
    return at, inside if inside.any() else np.ones_like(inside)


def _of_boxes(case_pool: CasePool, label: int) -> PlacementPrior:
    rows, free, cases = [np.empty((0, case_pool.cases.schema.ndim))], [], 0
    first = learning_cases(case_pool)
    for case_id in (*first, *sorted(set(case_pool.ids) - set(first))):
        case = whole(case_pool, case_id)
        held = None if case.boxes is None else case.boxes.coords[case.boxes.labels == label]
        if held is None or not len(held):
            continue
        body = body_of(case)
        frame = BodyBox.of(body)
        deep = depths(body, frame)
        for row in held.astype(np.float64):
            at, inside = ball_in(row, body.shape)
            rows.append(frame.relative((row[: body.ndim] + row[body.ndim :])[None] / 2 - 0.5))
            free.append(float(deep[at][inside].min()))
        cases += 1
        if cases == LOOKED_AT:
            break
    finite = [depth for depth in free if np.isfinite(depth)]
    return PlacementPrior(
        np.concatenate(rows), float(np.quantile(finite, CLOSEST)) if finite else 0
    )


def _of_lesions(case_pool: CasePool, classes: Sequence[int]) -> PlacementPrior:
    rows, diameters = [np.empty((0, case_pool.cases.schema.ndim))], []
    for case_id in learning_cases(case_pool):
        labels = whole(case_pool, case_id).labels
        if labels is None:
            continue
        lesions = parts(labels, case_pool.cases.schema, classes)
        lesions = [lesion for lesion in lesions if lesion.voxels * 10 >= lesions[0].voxels]
        if lesions:
            frame = whole_frame(case_pool, case_id)
            rows.append(frame.relative(np.array([lesion.centroid for lesion in lesions])))
            diameters += [frame.diameter(lesion.voxels) for lesion in lesions]
    return PlacementPrior(np.concatenate(rows), diameters=np.array(diameters))


@dataclass(frozen=True)
class BodyBox:
    """A box in an array's voxels; it may reach beyond the array."""

    low: tuple[float, ...]  # where it begins, one number per axis
    high: tuple[float, ...]  # where it ends, exclusive

    @classmethod
    def of(cls, mask: Mask) -> BodyBox:
        """The bounding box of a mask; the whole array's if the mask is empty."""
        box = bounding_box(mask if mask.any() else np.ones_like(mask))
        return cls(tuple(float(s.start) for s in box), tuple(float(s.stop) for s in box))

    @property
    def size(self) -> Matrix:
        """Voxels per axis: float64 (n,)."""
        return np.subtract(self.high, self.low, dtype=np.float64)

    def diameter(self, voxels: int) -> float:
        """Edge of a cube, or square, of so many voxels, in lengths of the box (their mean)."""
        return float((voxels / self.size.prod()) ** (1 / len(self.size)))

    def relative(self, voxels: Matrix) -> Matrix:
        """Relative coordinates (N, n) of positions (N, n) in voxels."""
        return np.asarray((voxels + 0.5 - np.asarray(self.low)) / self.size)

    def voxels(self, relative: Matrix) -> Matrix:
        """Positions (N, n) in voxels of relative coordinates (N, n)."""
        return np.asarray(relative * self.size + np.asarray(self.low) - 0.5)

    def last(self, n: int) -> BodyBox:
        """The box along the last ``n`` axes, for slices."""
        return BodyBox(self.low[-n:], self.high[-n:])

    def moved(self, by: Sequence[float]) -> BodyBox:
        """The same box in an array that begins at ``by``."""
        return BodyBox(
            tuple(a - b for a, b in zip(self.low, by, strict=True)),
            tuple(a - b for a, b in zip(self.high, by, strict=True)),
        )


def learning_cases(case_pool: CasePool) -> tuple[str, ...]:
    """Return the training cases to learn from: at most ``LOOKED_AT``, spread over sorted ids."""
    return tuple(some(case_pool.ids, LOOKED_AT))


def some(rows: Sequence[T], most: int) -> list[T]:
    """Return all rows, or ``most`` of them, evenly spread."""
    count = max(len(rows), most)
    return list(rows) if count == most else [rows[i * count // most] for i in range(most)]


def whole(case_pool: CasePool, case_id: str) -> Case:
    """A training case before a slice or a crop is cut: labels without the ignore value."""
    if case_pool.space.grid == "resample":
        return case_pool.uncut(case_id)
    return own_labels(case_pool.cases(case_id), case_pool.schema)


def native_case(case_pool: CasePool, case_id: str) -> Case:
    """A ``whole`` case in the generator's intensities."""
    if case_pool.space.grid != "slice":
        return case_pool.uncut(case_id)
    native = replace(case_pool.space, grid="native", size=())
    return own_labels(native.to_generator(case_pool.cases(case_id)), case_pool.schema)


def whole_frame(case_pool: CasePool, case_id: str) -> BodyBox:
    """The box around the body of a ``whole`` case, computed once."""
    return case_pool.learnt(f"frame of {case_id}", lambda r: BodyBox.of(body_of(whole(r, case_id))))


def frame_of(case_context: CaseContext) -> BodyBox:
    """The box around the body of a scene's whole case, in the scene's own voxels.

    Of a cut case that is not in the room, and not wholly in the crop, only the shape is known. The
    box is then that of the case's array.
    """
    corner, cut = case_context.placement.corner, case_context.case.image.shape[1:]
    n = len(cut)
    if not case_context.case_pool.space.cuts or not corner:
        return BodyBox.of(case_context.body)
    if cached_prior(case_context):
        return whole_frame(case_context.case_pool, case_context.case.id).last(n).moved(corner)
    shape = case_context.shape[-n:]
    axes = zip(corner, cut, shape, strict=True)
    if all(first <= 0 and first + size >= length for first, size, length in axes):
        return BodyBox.of(case_context.body)
    return BodyBox((0.0,) * n, tuple(map(float, shape))).moved(corner)


def depth_of(case_context: CaseContext) -> float | None:
    """Relative coordinate of a slice along the axis it was cut from; None for other scenes."""
    plane = case_context.placement.slice_index
    if plane is None:
        return None
    low, high = 0.0, float(case_context.shape[0])
    if cached_prior(case_context):
        frame = whole_frame(case_context.case_pool, case_context.case.id)
        low, high = frame.low[0], frame.high[0]
    return (plane + 0.5 - low) / (high - low)


def cached_prior(case_context: CaseContext) -> bool:
    """Whether the whole case of a scene is one of its room's; False in resampled spaces."""
    case_pool, case_id = case_context.case_pool, case_context.case.id
    if case_id not in case_pool.ids or case_pool.space.grid == "resample":
        return False
    return tuple(case_pool.cases(case_id).image.shape[1:]) == tuple(case_context.shape)
