"""Where lesions lie: their places relative to the body, and what surrounds them in training cases.

A relative coordinate of 0 is the lower face of the box around a body, on each axis, and 1 its upper
face. So places in bodies of different size, or in a crop and the whole case, can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from gansynth.core.case_pool import CaseContext, CasePool, body_of, own_labels
from gansynth.core.foreground import ForegroundIndex
from gansynth.core.geometry import Matrix, Rng, bounding_box, mask_of
from gansynth.core.resample import resample
from gansynth.core.schema import Case, FloatArray, Mask, known_labels
from gansynth.core.small_matrices import product
from gansynth.core.space import Placement
from gansynth.data.connected_components import large_parts
from gansynth.imaging.body_box import BodyBox, across_middle, depths

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
    # float64 (n,), on each axis: the most of a lesion that lies across the middle of the body, as
    # `across_middle` has it; None if unknown
    across: Matrix | None = None

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

    def keeps_aside(self, lesion: Matrix) -> bool:
        """Whether a lesion, relative coordinates (N, n), is no more across the middle than learnt.

        So no lesion lies astride the midline of a brain where training lesions do not.
        """
        if self.across is None:
            return True
        return bool((across_middle(lesion) <= self.across[-lesion.shape[1] :]).all())

    def allowed(self, depth: Matrix) -> Mask:
        """Mask of voxels for lesions, by the depth of each voxel (see ``depths``)."""
        return np.asarray((depth > 0) & (depth >= self.clearance))

    def spread(
        self,
        count: int,
        ndim: int,
        rng: Rng,
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
        rng: Rng,
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


def anywhere(body: Mask, rng: Rng) -> tuple[int, ...]:
    """Draw a voxel of a non-empty mask, uniformly."""
    voxels = np.flatnonzero(body)
    voxel = np.unravel_index(voxels[rng.integers(voxels.size)], body.shape)
    return tuple(map(int, voxel))


def place_drawer(
    case_context: CaseContext,
    classes: Sequence[int] | None,
    where: str,
    allowed: Mask,
    rng: Rng,
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


def ball_in(row: Matrix, shape: Sequence[int]) -> tuple[tuple[slice, ...], Mask]:
    """Return the slices of a box ``min..., max...`` in an array, and a mask of its ellipsoid.

    Lesions are round, so the corners of their boxes do not count.
    """
    n = len(shape)
    low = np.clip(np.floor(row[:n]), 0, np.array(shape) - 1).astype(int)
    high = np.clip(np.ceil(row[n:]), low + 1, shape).astype(int)
    at = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    middle, half = (row[:n] + row[n:]) / 2, (row[n:] - row[:n]) / 2
    sides = [np.arange(side.start, side.stop) for side in at]
    grid = np.stack(np.meshgrid(*sides, indexing="ij"), -1)
    inside: Mask = (((grid + 0.5 - middle) / half) ** 2).sum(-1) <= 1
    return at, inside if inside.any() else np.ones_like(inside)


def _of_boxes(case_pool: CasePool, label: int) -> PlacementPrior:
    rows, free, cases = [np.empty((0, case_pool.cases.schema.ndim))], [], 0
    first = learning_cases(case_pool)
    others = sorted(set(case_pool.ids) - set(first))
    for case_id in (*first, *others):
        case = whole(case_pool, case_id)
        if case.boxes is None or not (case.boxes.labels == label).any():
            continue
        held = case.boxes.coords[case.boxes.labels == label]
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
    clearance = float(np.quantile(finite, CLOSEST)) if finite else 0
    return PlacementPrior(np.concatenate(rows), clearance)


def _of_lesions(case_pool: CasePool, classes: Sequence[int]) -> PlacementPrior:
    ndim = case_pool.cases.schema.ndim
    rows, diameters, people = [np.empty((0, ndim))], [], set()
    across = np.zeros(ndim)
    for case_id in learning_cases(case_pool):
        labels = whole(case_pool, case_id).labels
        if labels is None:
            continue
        lesions = large_parts(labels, case_pool.cases.schema, classes)
        if lesions:
            frame = whole_frame(case_pool, case_id)
            rows.append(frame.relative(np.array([lesion.centroid for lesion in lesions])))
            diameters += [frame.diameter(lesion.voxels) for lesion in lesions]
            people.add(case_pool.cases.subject(case_id))
            for lesion in lesions:
                across = np.maximum(across, across_middle(frame.relative(lesion.positions)))
    # The next lesion may reach farther: the less is known, the more.
    across += (0.5 - across) / (len(people) + 1)
    return PlacementPrior(np.concatenate(rows), diameters=np.array(diameters), across=across)


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
    return case_pool.learnt(f"frame of {case_id}", lambda r: BodyBox.of(whole_body(r, case_id)))


def whole_body(case_pool: CasePool, case_id: str, *, windowed: bool = False) -> Mask:
    """The body of a ``whole`` case, or of a ``native_case``, whose intensities are windowed."""
    windowed = windowed and case_pool.space.window is not None
    case = native_case(case_pool, case_id) if windowed else whole(case_pool, case_id)
    key = "body", case_id, windowed
    return case_pool.mask(key, case.image.shape[1:], lambda: body_of(case))


def labelled_places(case_pool: CasePool) -> Iterator[tuple[Placement, Case]]:
    """Yield places in training cases, ``PLACES`` or more where crops are cut, without images."""
    rng, space = np.random.default_rng(0), case_pool.space
    case_ids = learning_cases(case_pool)
    places = math.ceil(PLACES / len(case_ids)) if space.cuts else 1
    for case_id in case_ids:
        case = known_labels(case_pool.cases(case_id), case_pool.cases.schema)
        bare, outline = replace(case, image=case.image[:0]), ForegroundIndex.of(case)
        for _ in range(places):
            placement = space.place(outline, rng)
            yield placement, space.to_generator(bare, placement)


def least_body(case_pool: CasePool, classes: Sequence[int]) -> float:
    """Return the share of a crop that is body in nearly all training crops with a lesion.

    0 if no crop has one.
    """

    def learn(pool: CasePool) -> float:
        shares = []
        for placement, case in labelled_places(pool):
            if case.labels is not None and mask_of(case.labels, chosen).any():
                shares.append(pool.space.cut_mask(whole_body(pool, case.id), placement).mean())
        return float(np.quantile(shares, POOR)) if shares else 0.0

    chosen = tuple(sorted(classes))
    return case_pool.learnt(f"least body around {chosen}", learn)


def frame_of(case_context: CaseContext) -> BodyBox:
    """The box around the body of a scene's whole case, in the scene's own voxels.

    Of a cut case that is not in the room, and not wholly in the crop, only the shape is known. The
    box is then that of the case's array.
    """
    corner, cut = case_context.placement.corner, case_context.case.image.shape[1:]
    n = len(cut)
    if not case_context.case_pool.space.cuts or not corner:
        return BodyBox.of(case_context.body)
    whole = _known_frame(case_context)
    if whole is not None:
        return whole.last(n).moved(corner)
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
    whole = _known_frame(case_context)
    if whole is not None:
        low, high = whole.low[0], whole.high[0]
    return (plane + 0.5 - low) / (high - low)


def _known_frame(case_context: CaseContext) -> BodyBox | None:
    if cached_prior(case_context):
        return whole_frame(case_context.case_pool, case_context.case.id)
    if case_context.whole_body is None or case_context.case_pool.space.grid == "resample":
        return None
    return BodyBox.of(case_context.whole_body())


def cached_prior(case_context: CaseContext) -> bool:
    """Whether the whole case of a scene is one of its room's; False in resampled spaces."""
    case_pool, case_id = case_context.case_pool, case_context.case.id
    if case_id not in case_pool.ids or case_pool.space.grid == "resample":
        return False
    return tuple(case_pool.cases(case_id).image.shape[1:]) == tuple(case_context.shape)


# -- what surrounds lesions of training cases: tissue, depth, the whole view -----------------------
# Tissue is known by the mean and the spread of intensities around a voxel, as ranks in its
# subject's bodies, so grey scales may differ. Large arrays are looked at in steps (``CELLS``):
# neither tissue nor depth needs every voxel. Tissue alone does not tell a brain from a face: a
# background without a lesion must look, as a whole, like training cases with one.


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
SHALLOW = 0.01  # share of lesions' voxels that lie so near the surface that new ones do not
POOR = 0.1  # share of training cases, or crops, that have less ground than is required
PLACES = 256  # places in training cases that say how often these show a lesion, and how much body
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
    shallowest: float = 0.0  # depth that all but `SHALLOW` of lesions' voxels have
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
        frame, likely = frame_of(case_context), np.zeros(body.shape, bool)
        coarsest = max([step.step for step in steps])
        box = _stepped(bounding_box(body, margin=coarsest), steps)
        shown = image[(slice(None), *box)]
        ground = _Ground.of(shown, lesions[box], body[box], frame, levels, steps)
        uncut = min(frame.low) >= 0 and (np.array(frame.high) <= body.shape).all()
        unseen = case_context.emptied is None and not lesions.any()
        if uncut and unseen and not self.like(ground):
            return likely
        axes = zip(likely[box].shape, steps, strict=True)
        numbers = [np.arange(length) // step.step for length, step in axes]  # each voxel's step
        likely[box] = self.fits(ground)[np.ix_(*numbers)]
        return likely

    def deep(self, case_context: CaseContext) -> Mask:
        """Return the voxels of a scene no shallower than lesions lie: bool (D, H, W) or (H, W)."""
        if self.shallowest <= 0:
            return np.ones(case_context.body.shape, bool)
        return np.asarray(depths(case_context.body, frame_of(case_context)) >= self.shallowest)

    def like(self, ground: _Ground) -> bool:
        """Whether a case looks as a whole like training cases with a lesion."""
        if not len(self.views):  # learnt from one subject
            return True
        nearest = np.sort(product(self.views, ground.view))[-ALIKE:]
        return bool(nearest.mean() >= self.alike and ground.bare.sum() >= self.body)

    def fits(self, ground: _Ground) -> Mask:
        """Return where tissue and depth are in the range."""
        tissue = np.moveaxis(ground.tissue, 0, -1)
        alike = ((tissue >= self.low) & (tissue <= self.high)).all(axis=-1)
        return np.asarray(alike & (ground.depth >= self.depth))


@dataclass(frozen=True)
class _Ground:
    """A case in steps: tissue (2 C, ...), depth, lesions, and the body in an image (C, ...)."""

    tissue: Matrix
    depth: Matrix
    lesions: Mask
    body: Mask
    image: FloatArray
    reach: float  # width of the ring, in steps

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
        image, lesions, body = image[(slice(None), *steps)], lesions[steps], body[steps]
        size = frame.size / [step.step for step in steps]
        deep = depths(body, BodyBox((0.0,) * body.ndim, tuple(size)))
        reach = max(RING * float(size.max()), 1.5)
        return cls(_tissue(image, levels, body & ~lesions), deep, lesions, body, image, reach)

    @cached_property
    def bare(self) -> Mask:
        """The body without lesions."""
        return self.body & ~self.lesions

    @cached_property
    def view(self) -> Matrix:
        """See `_view`."""
        return _view(self.image, self.body)

    @cached_property
    def ring(self) -> Mask:
        """The body around the lesions."""
        from scipy.ndimage import distance_transform_edt

        if not self.lesions.any():
            return self.lesions
        away = distance_transform_edt(~self.lesions)
        return np.asarray((away > NEAREST) & (away <= NEAREST + self.reach) & self.body)


def _tissue(image: FloatArray, levels: Matrix, bare: Mask) -> Matrix:
    """Means and spreads of ranks (2 C, ...) around each voxel, of voxels of a mask."""
    from scipy.ndimage import uniform_filter

    weight = np.maximum(uniform_filter(bare.astype(np.float64), WINDOW), 1e-6)
    means, spreads = [], []
    for channel, at in zip(image, levels, strict=True):
        ranks = np.zeros(bare.shape)
        ranks[bare] = np.interp(channel[bare], at, RANKS)
        means.append(uniform_filter(ranks, WINDOW) / weight)
        squares = uniform_filter(ranks**2, WINDOW) / weight
        spreads.append(np.sqrt(np.maximum(squares - means[-1] ** 2, 0)))
    return np.stack(means + spreads)


def _learnt(case_pool: CasePool, classes: tuple[int, ...]) -> LesionSurroundings | None:
    found = list(_grounds(case_pool, classes))
    deep = [g.depth[g.lesions][None] for _, g in found if np.isfinite(g.depth).all()]
    depth = shallowest = 0.0
    if deep:
        depth, shallowest = np.quantile(_pooled(deep), (TAIL, SHALLOW)).tolist()
    rings, tissue, subjects = [], [], set()
    for case_id, ground in found:
        ring = ground.ring & (ground.depth >= depth)
        if ring.any():
            rings.append((ground, ring))
            tissue.append(ground.tissue[:, ring])
            subjects.add(case_pool.cases.subject(case_id))
    if not rings:
        return None
    low, high = np.quantile(_pooled(tissue), (TAIL, 1 - TAIL), axis=1)
    more = (high - low) / (2 * len(subjects))
    learnt = LesionSurroundings(low - more, high + more, depth, shallowest)
    shares, rooms = [], []
    for ground, ring in rings:
        fits = learnt.fits(ground)
        shares.append(fits[ring].mean() * (ground.depth[ground.lesions] >= depth).mean())
        rooms.append(fits[ground.bare].mean())
    share, room = float(np.quantile(shares, POOR)), float(np.quantile(rooms, POOR))
    learnt = replace(learnt, share=share, room=room)
    views = np.stack([ground.view for _, ground in found])
    people = np.array([case_pool.cases.subject(case_id) for case_id, _ in found])
    likenesses = []  # of each view, to the most similar ones of other subjects
    for person, view in zip(people, views, strict=True):
        nearest = np.sort(product(views[people != person], view))[-ALIKE:]
        if not len(nearest):  # one subject
            return learnt
        likenesses.append(nearest.mean())
    alike = float(np.quantile(likenesses, UNLIKE))
    body = float(np.quantile([ground.bare.sum() for _, ground in found], SMALL))
    return replace(learnt, views=views, alike=alike, body=body)


def _view(image: FloatArray, body: Mask) -> Matrix:
    """An image (C, ...) in the cells of its body's box, as ranks: a vector of mean 0, length 1.

    The product of two is Spearman's correlation, the mean of all channels.
    """
    box = bounding_box(body) if body.any() else (slice(None),) * body.ndim
    cells, _ = resample(image[(slice(None), *box)], None, (VIEW,) * body.ndim)
    ranks = np.stack([_ranks(channel) for channel in cells])
    ranks -= ranks.mean(axis=1, keepdims=True)
    ranks /= np.maximum(np.linalg.norm(ranks, axis=1, keepdims=True), 1e-6) * np.sqrt(len(image))
    return np.asarray(ranks.ravel())


def _ranks(values: FloatArray) -> Matrix:
    """Ranks of values, flat; equal ones share their mean. scipy.stats takes seconds to import."""
    _, place, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


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
        body = whole_body(case_pool, case_id, windowed=True)
        levels = _levels_of(case_pool, case_id, classes)
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


def _stepped(box: Sequence[slice], steps: Sequence[slice]) -> tuple[slice, ...]:
    """Let a box begin at one of the steps, so that these are those of the whole array."""
    stepped = []
    for side, step in zip(box, steps, strict=True):
        first = side.start // step.step * step.step
        stepped.append(slice(first, side.stop))
    return tuple(stepped)


def _steps(shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(None, None, max(1, length // CELLS)) for length in shape)
