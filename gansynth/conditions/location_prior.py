"""Where lesions lie in training cases: relative coordinates, and a density over another body.

A relative coordinate of 0 is the lower face of the box around a body and 1 its upper one, on each
axis by itself, so that places in bodies of different size, and in a crop and the whole case, can be
compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gansynth.core.geometry import Mask, Matrix, bounding_box
from gansynth.core.scene import CasePool, Scene, body_of, own_labels
from gansynth.core.schema import Case
from gansynth.data.lesion_parts import parts

KERNEL = 0.04
"""Widest kernel around each centre: its standard deviation, as a share of the body's length."""
CLOSEST = 0.1
"""Share of a class's boxes that lie nearer to the body's outline than others may."""
FLOOR = 0.05
"""Share of the density that is even over the body: nowhere in it is impossible."""
DRAWS = 64
"""Draws around learnt centres for one that lies in the body."""
LOOKED_AT = 64
"""Training cases that are looked at to learn something of all of them."""


@dataclass(frozen=True)
class PlacementPrior:
    """Centres of lesions, relative to the box around the body.

    Attributes:
        centres: float64 (N, n) with n the axes of whole cases, (N, 3) for slices too; 0 to 1
            within the body's box. Without any (N = 0), every place is alike.
        clearance: how far from the body's outline lesions stay, in lengths of that box.
    """

    centres: Matrix
    clearance: float = 0.0

    @classmethod
    def learn(cls, room: CasePool, classes: Sequence[int] | None = None) -> PlacementPrior:
        """Learn from (at most ``LOOKED_AT``) training cases, once for each room.

        A lesion is a connected part of the chosen classes together (None: of all foreground). Parts
        of less than a tenth of the case's largest are crumbs and left out.
        """
        chosen = tuple(sorted(classes or room.schema.foreground))
        return room.learnt(f"placement prior of {chosen}", lambda r: cls(_centres(r, chosen)))

    @classmethod
    def learn_boxes(cls, room: CasePool, label: int) -> PlacementPrior:
        """Learn from boxes of a class of ``Schema.box_classes``, as ``learn`` does of lesions."""
        return room.learnt(f"placement prior of boxes {label}", lambda r: _of_boxes(r, label))

    def kernel(self, ndim: int) -> Matrix:
        """Standard deviation of the kernel (ndim,), in lengths of the body's box.

        Scott's rule (Scott 1992, 6.2), no wider than ``KERNEL``.
        """
        count = max(len(self.centres), 1)
        spread = self.centres[:, -ndim:].var(axis=0) if len(self.centres) else np.zeros(ndim)
        deviation = np.sqrt((count * spread + KERNEL**2) / (count + 1))
        return np.asarray(np.minimum(KERNEL, deviation * count ** (-1 / (ndim + 4))))

    def allowed(self, depth: Matrix) -> Mask:
        """Where in a body lesions may lie, by the depth of each voxel (see ``depths``)."""
        return np.asarray((depth > 0) & (depth >= self.clearance))

    def spread(
        self, count: int, ndim: int, rng: np.random.Generator, *, depth: float | None = None
    ) -> Matrix:
        """Draw relative coordinates (count, ndim), in the body or not; ``depth`` as below."""
        points, weights = self._at(ndim, depth)
        if not len(points):
            return rng.random((count, ndim))
        picked = points[rng.choice(len(points), count, p=weights / weights.sum())]
        return picked + self.kernel(ndim) * rng.standard_normal(picked.shape)

    def draw(
        self,
        body: Mask,
        rng: np.random.Generator,
        *,
        frame: Frame | None = None,
        depth: float | None = None,
    ) -> tuple[int, ...]:
        """Draw a voxel of a body, which is not empty: where lesions' centres are likely.

        Args:
            frame: box around the whole body in the array's voxels (``frame_of(scene)``);
                that around ``body`` if None.
            depth: of a slice, ``depth_of(scene)``: lesions at about that depth count. None
                counts those of all slices alike.
        """
        frame = frame or Frame.of(body)
        if len(self.centres) and rng.random() >= FLOOR:
            spread = self.spread(DRAWS, body.ndim, rng, depth=depth)
            voxels = np.rint(frame.voxels(spread)).astype(int)
            inside = ((voxels >= 0) & (voxels < body.shape)).all(axis=1)
            for voxel in voxels[inside].tolist():
                if body[tuple(voxel)]:
                    return tuple(voxel)
        return anywhere(body, rng)

    def _at(self, ndim: int, depth: float | None) -> tuple[Matrix, Matrix]:
        """Centres (N, ndim) and their weights (N,)."""
        if self.centres.shape[1] == ndim:
            return self.centres, np.ones(len(self.centres))
        weights = np.ones(len(self.centres))
        if depth is not None and len(weights):
            away = np.square((self.centres[:, 0] - depth) / KERNEL) / 2
            weights = np.exp(away.min() - away)
        return self.centres[:, 1:], weights


def anywhere(body: Mask, rng: np.random.Generator) -> tuple[int, ...]:
    """A voxel of a mask that is not empty, each alike."""
    found = np.flatnonzero(body)
    return tuple(int(i) for i in np.unravel_index(found[rng.integers(found.size)], body.shape))


def place_drawer(
    scene: Scene,
    classes: Sequence[int] | None,
    where: str,
    allowed: Mask,
    rng: np.random.Generator,
) -> Callable[[], tuple[int, ...]]:
    """Draws voxels of a mask in a scene: where training cases have theirs (prior), or anywhere."""
    if where == "anywhere":
        return lambda: anywhere(allowed, rng)
    prior = PlacementPrior.learn(scene.room, classes)
    frame, depth = frame_of(scene), depth_of(scene)
    return lambda: prior.draw(allowed, rng, frame=frame, depth=depth)


def depths(body: Mask, frame: Frame) -> Matrix:
    """How deep voxels lie in a body: float64 of its shape, 0 beyond it; in lengths of its box.

    The array's border is no outline; in a body that fills the array all are infinitely deep.
    """
    from scipy.ndimage import distance_transform_edt

    if body.all():
        return np.full(body.shape, np.inf)
    return np.asarray(distance_transform_edt(body, sampling=1 / frame.size))


def ball_in(row: Matrix, shape: Sequence[int]) -> tuple[tuple[slice, ...], Mask]:
    """A box ``min..., max...`` in an array, and which of its voxels the ellipsoid in it has.

    Lesions are round, the corners of their boxes are something else.
    """
    n = len(shape)
    low = np.clip(np.floor(row[:n]), 0, np.array(shape) - 1).astype(int)
    high = np.clip(np.ceil(row[n:]), low + 1, shape).astype(int)
    at = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    middle, half = (row[:n] + row[n:]) / 2, (row[n:] - row[:n]) / 2
    grid = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in at), indexing="ij"), -1)
    inside: Mask = (((grid + 0.5 - middle) / half) ** 2).sum(-1) <= 1
    return at, inside if inside.any() else np.ones_like(inside)


def _of_boxes(room: CasePool, label: int) -> PlacementPrior:
    rows, free, cases = [np.empty((0, room.source.schema.ndim))], [], 0
    first = looked_at(room)
    for case_id in (*first, *sorted(set(room.ids) - set(first))):
        case = whole(room, case_id)
        held = None if case.boxes is None else case.boxes.coords[case.boxes.labels == label]
        if held is None or not len(held):
            continue
        body = body_of(case)
        frame = Frame.of(body)
        deep = depths(body, frame)
        for row in held.astype(np.float64):
            at, inside = ball_in(row, body.shape)
            rows.append(frame.relative((row[: body.ndim] + row[body.ndim :])[None] / 2 - 0.5))
            free.append(float(deep[at][inside].min()))
        cases += 1
        if cases == LOOKED_AT:
            break
    known = [depth for depth in free if np.isfinite(depth)]
    return PlacementPrior(np.concatenate(rows), float(np.quantile(known, CLOSEST)) if known else 0)


def _centres(room: CasePool, classes: Sequence[int]) -> Matrix:
    rows = [np.empty((0, room.source.schema.ndim))]
    for case_id in looked_at(room):
        labels = whole(room, case_id).labels
        if labels is None:
            continue
        found = parts(labels, room.source.schema, classes)
        centres = [one.centroid for one in found if one.voxels * 10 >= found[0].voxels]
        if centres:
            rows.append(whole_frame(room, case_id).relative(np.array(centres)))
    return np.concatenate(rows)


@dataclass(frozen=True)
class Frame:
    """A box in an array's voxels; it may reach beyond the array, as a whole case does of its crop.

    Attributes:
        low: where it begins, one number per axis.
        high: where it ends, exclusive.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, mask: Mask) -> Frame:
        """The bounding box of a mask; the whole array's if the mask is empty."""
        box = bounding_box(mask if mask.any() else np.ones_like(mask))
        return cls(tuple(float(s.start) for s in box), tuple(float(s.stop) for s in box))

    @property
    def size(self) -> Matrix:
        """Voxels per axis: float64 (n,)."""
        return np.subtract(self.high, self.low, dtype=np.float64)

    def relative(self, voxels: Matrix) -> Matrix:
        """Relative coordinates (N, n) of positions (N, n) in voxels."""
        return np.asarray((voxels + 0.5 - np.asarray(self.low)) / self.size)

    def voxels(self, relative: Matrix) -> Matrix:
        """Positions (N, n) in voxels of relative coordinates (N, n)."""
        return np.asarray(relative * self.size + np.asarray(self.low) - 0.5)

    def last(self, n: int) -> Frame:
        """Along the last ``n`` axes, as a slice has it."""
        return Frame(self.low[-n:], self.high[-n:])

    def moved(self, by: Sequence[float]) -> Frame:
        """The same box in an array that begins at ``by``."""
        return Frame(
            tuple(a - b for a, b in zip(self.low, by, strict=True)),
            tuple(a - b for a, b in zip(self.high, by, strict=True)),
        )


def looked_at(room: CasePool) -> tuple[str, ...]:
    """Training cases to learn from: all, or ``LOOKED_AT`` of them spread over the sorted ids."""
    count = len(room.ids)
    if count <= LOOKED_AT:
        return room.ids
    return tuple(room.ids[i * count // LOOKED_AT] for i in range(LOOKED_AT))


def whole(room: CasePool, case_id: str) -> Case:
    """A training case before a slice or a crop is cut: labels without the ignore value."""
    if room.space.grid == "resample":
        return room.uncut(case_id)
    return own_labels(room.cache(case_id), room.schema)


def whole_frame(room: CasePool, case_id: str) -> Frame:
    """The box around the body of what ``whole`` gives; looked for once."""
    return room.learnt(f"frame of {case_id}", lambda r: Frame.of(body_of(whole(r, case_id))))


def frame_of(scene: Scene) -> Frame:
    """The box around the body of a scene's whole case, in the scene's own voxels.

    Of a cut case that is not in the room, and of which only a part is seen, nothing but the shape
    is known: the box is then that of the array.
    """
    corner, cut = scene.placement.corner, scene.case.image.shape[1:]
    n = len(cut)
    if not scene.room.space.cuts or not corner:
        return Frame.of(scene.body)
    if at_hand(scene):
        return whole_frame(scene.room, scene.case.id).last(n).moved(corner)
    shape = scene.shape[-n:]
    seen = zip(corner, cut, shape, strict=True)
    if all(first <= 0 and first + size >= length for first, size, length in seen):
        return Frame.of(scene.body)
    return Frame((0.0,) * n, tuple(map(float, shape))).moved(corner)


def depth_of(scene: Scene) -> float | None:
    """Of a slice, its relative coordinate along the axis it was cut from; None of other scenes."""
    plane = scene.placement.slice_index
    if plane is None:
        return None
    low, high = 0.0, float(scene.shape[0])
    if at_hand(scene):
        known = whole_frame(scene.room, scene.case.id)
        low, high = known.low[0], known.high[0]
    return (plane + 0.5 - low) / (high - low)


def at_hand(scene: Scene) -> bool:
    """Whether the whole case of a scene is one of its room's; not asked of a resampled one."""
    room, case_id = scene.room, scene.case.id
    if case_id not in room.ids or room.space.grid == "resample":
        return False
    return tuple(room.cache(case_id).image.shape[1:]) == tuple(scene.shape)
