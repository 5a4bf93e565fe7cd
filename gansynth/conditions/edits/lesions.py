"""Edits of lesions one by one, or of all as one: their size and shape."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from gansynth.conditions.edits.shared import (
    Classes,
    chosen_classes,
    close_left,
    keeps_classes,
    keeps_nesting,
    replaced,
    settled,
    unchanged,
)
from gansynth.conditions.location_prior import learning_cases, whole
from gansynth.core.case_pool import CasePool
from gansynth.core.edit import CaseEdit, Edit, EditContext, EditOptions, EditResult, Params
from gansynth.core.geometry import (
    Matrix,
    Rng,
    affine_coordinates,
    bounding_box,
    mask_of,
    nearest_voxels,
    pull_labels,
)
from gansynth.core.resample import resample
from gansynth.core.schema import FloatArray, LabelArray, Mask, Schema
from gansynth.core.small_matrices import covariance, of_axes, principal_axes, product
from gansynth.data.connected_components import LabelComponents, LesionPart, parts
from gansynth.runtime.options import Needs

SMALLEST_LESION = 4  # lesions of fewer voxels are left as they are
CRUMB = 0.01
"""Share of the largest lesion; smaller pieces are fragments and no lesions of their own."""
MOST_LESIONS = 64  # lesions that an edit changes, the largest first; more stay as they are
CELLS = 3  # least cells of a coarse grid that a width of its noise has
Landing = tuple[tuple[slice, ...], Mask, Matrix, Sequence[float]]
"""A lesion's box in the array, its voxels there, and where they come from: a matrix (n, n + 1)
about a centre (see ``geometry.affine_coordinates``)."""


class PieceOptions(EditOptions):
    """Which lesions."""

    classes: Classes = Field(
        None, min_length=1, description="label values of lesions; None takes the whole foreground"
    )


def lesions(
    labels: LabelArray, schema: Schema, classes: Sequence[int] | None, each: bool
) -> list[LesionPart]:
    """Return connected pieces of chosen classes, the largest first, or all of them as one.

    With ``each`` there are at most ``MOST_LESIONS``, of at least ``SMALLEST_LESION`` voxels,
    without fragments.
    """
    if each:
        pieces = parts(labels, schema, classes, least=SMALLEST_LESION)[:MOST_LESIONS]
        return [part for part in pieces if part.voxels >= CRUMB * pieces[0].voxels]
    components = parts(labels, schema, classes)
    if not components:
        return []
    mask = np.zeros(labels.shape, bool)
    for part in components:
        mask[part.box] |= part.mask
    box = bounding_box(mask)
    cut = np.where(mask[box], labels[box], np.int16(0))
    return [LesionPart(cut, box, labels.shape, schema.spacing)]


def taken(labels: LabelArray, part: LesionPart) -> LabelArray:
    """Remove a part from labels; the class it was nested in fills the gap."""
    mask = np.zeros(labels.shape, bool)
    mask[part.box] = part.mask
    return close_left(labels, mask, part.spacing)


def pull_image(context: EditContext, landings: Iterable[Landing]) -> FloatArray | None:
    """Move the context's image along: each voxel moves with the lesion nearest to it.

    The image is interpolated linearly; its border's values lie beyond it.
    """
    from scipy.ndimage import map_coordinates

    image = context.image
    if image is None:
        return None
    landed, pulls = np.zeros(context.labels.shape, np.int16), []
    for number, (box, mask, matrix, centre) in enumerate(landings, start=1):
        landed[box][mask] = number
        pulls.append((matrix, np.asarray(centre)[:, None]))
    out = image.copy()
    if not landed.any():
        return out
    nearest = landed[nearest_voxels(landed > 0, context.schema.spacing)]
    for number, (matrix, middle) in enumerate(pulls, start=1):
        mine, n = nearest == number, len(middle)
        away = np.array(np.nonzero(mine)) - middle
        there = product(matrix[:, :n], away) + middle + matrix[:, n:]
        for channel, source in zip(out, image, strict=True):
            channel[mine] = map_coordinates(source, there, order=1, mode="nearest")
    return out


# -- lesions scaled to sizes of training cases, or to small ones more often ------------------------


TRIES = 8  # sizes that are drawn for a lesion until there is room for one
SPREAD = 0.1  # standard deviation of the logarithm of a volume around one that a training case has
LEAST_ROOM = 0.7  # least share of a resized lesion that must have room
PLANES = 16  # slices of a case whose lesions are measured


class SizeOptions(PieceOptions):
    """Which lesions, and which sizes."""

    needs: ClassVar[Needs] = {"bias": "like=small"}

    like: str = Field(
        "training",
        pattern=r"^(training|small|[1-9]\d*\.\.[1-9]\d*)$",
        description="sizes as the training cases' lesions have them; small: small ones more often; "
        "20..200: from 20 to 200 voxels, each factor equally often",
    )
    bias: float = Field(
        1.0, ge=0, le=4, description="of like=small: sizes are drawn by volume to minus this power"
    )
    each: bool = Field(True, description="every connected lesion by itself; no: all as one")
    max_factor: float = Field(
        3.0, gt=1, le=8, description="longest factor on lengths, and one over it the shortest"
    )
    min_mm3: float = Field(
        0.0, ge=0, description="lesions of less mm^3 (2D: mm^2) stay, and do not count as sizes"
    )


class Size(CaseEdit):
    """Scales lesions about their centroids, nested classes together, to sizes drawn for them.

    A lesion grows within the body and around other foreground. Where a drawn size has no room, or
    would lose a class, another size is drawn. If none fits, the lesion stays as it is. A lesion
    that a crop cuts off stays too, because its size is unknown.
    """

    name: ClassVar[str] = "size"
    Options: ClassVar[type[EditOptions]] = SizeOptions
    options: SizeOptions

    def draw(self, context: EditContext, rng: Rng) -> dict[str, Any]:
        """Draw ``factors`` on lengths, one for each lesion; 1 of those that stay.

        Of a range of voxels, ``asked`` and ``voxels`` are what was drawn at first, and the result.
        """
        labels, schema, case_context = context.labels, context.schema, self.case_context(context)
        options = self.options
        chosen = chosen_classes(self.name, options.classes, schema)
        pieces = lesions(labels, schema, chosen, options.each)
        sizes = learnt_sizes(case_context.case_pool, chosen, options.each)
        sizes = sizes[sizes >= options.min_mm3]
        if not pieces or not sizes.size:
            return unchanged("no lesion here, or none in training cases")
        weights = sizes ** -(options.bias if options.like == "small" else 0.0)
        ends = [float(end) for end in options.like.split("..") if ".." in options.like]
        now, factors = labels, list[float]()
        asked: list[int | None] = [None] * len(pieces)  # of those that are left as they are
        voxels = [part.voxels for part in pieces]
        for number, part in enumerate(pieces):
            factors.append(1.0)
            cut = case_context.placement.corner and part.cut_off  # it may go on beyond the crop
            if cut or part.volume < options.min_mm3:
                continue
            left = taken(now, part)
            for _ in range(TRIES):
                if ends:
                    wanted = round(math.exp(rng.uniform(*np.log(sorted(ends)))))
                    asked[number] = asked[number] or wanted
                    factor = self._factor(part, part.volume * wanted / part.voxels)
                else:
                    drawn = rng.choice(sizes, p=weights / weights.sum())
                    factor = self._factor(part, drawn * math.exp(SPREAD * rng.standard_normal()))
                if _has_room(part, factor, left, case_context.body):
                    written = _written(left, part, factor, case_context.body)[2]
                    voxels[number] = int(np.count_nonzero(written))
                    factors[-1], now = factor, _resized(left, part, factor, case_context.body)
                    break
        if factors == [1.0] * len(factors):
            return unchanged("no room")
        params = {"strength": 1.0, "classes": chosen, "each": options.each, "factors": factors}
        return params | ({"asked": asked, "voxels": voxels} if ends else {})

    def apply(self, context: EditContext, params: Params) -> EditResult:
        """Scale lesions; every voxel of the image is scaled with the lesion nearest to it."""
        if params["strength"] == 0:
            return replaced(context, context.labels.copy())
        pieces = lesions(context.labels, context.schema, params["classes"], params["each"])
        resized, now = list(zip(pieces, params["factors"], strict=True)), context.labels
        for part, factor in resized:
            if factor != 1:
                now = _resized(taken(now, part), part, factor, context.body)
        return replaced(context, now, pull_image(context, itertools.starmap(_landing, resized)))

    def _factor(self, part: LesionPart, volume: float) -> float:
        limit = self.options.max_factor
        factor = (volume / part.volume) ** (1 / len(part.shape))
        return float(np.clip(factor, 1 / limit, limit))


def learnt_sizes(case_pool: CasePool, classes: Sequence[int] | None, each: bool) -> Matrix:
    """Volumes in mm^3 (2D: areas in mm^2) of training cases' lesions, sorted: float64 (N,).

    At most ``LOOKED_AT`` cases are read. Without ``each``, all lesions of a case, or of a slice,
    count as one.
    """
    chosen = sorted(classes or case_pool.schema.foreground)

    def learn(case_pool: CasePool) -> Matrix:
        volumes: list[float] = []
        for case_id in learning_cases(case_pool):
            for labels in _maps(case_pool, case_id, chosen):
                parts = lesions(labels, case_pool.schema, chosen, each)
                volumes += [part.volume for part in parts if part.voxels >= SMALLEST_LESION]
        return np.sort(np.array(volumes, np.float64))

    return case_pool.learnt(f"sizes of {chosen}, each {each}", learn)


def _maps(case_pool: CasePool, case_id: str, classes: Sequence[int]) -> list[LabelArray]:
    """A case's label map, or those of some of its slices that hold the classes."""
    labels = whole(case_pool, case_id).labels
    if labels is None:
        return []
    if case_pool.space.grid != "slice":
        return [labels]
    planes = np.flatnonzero(np.isin(labels, list(classes)).any(axis=(1, 2)))
    steps = np.linspace(0, len(planes) - 1, min(PLANES, len(planes))).round().astype(int)
    return [labels[plane] for plane in planes[steps].tolist()]


def _landing(part: LesionPart, factor: float) -> Landing:
    (box, cut), n = _scaled(part, factor), len(part.shape)
    return box, cut > 0, np.column_stack([np.eye(n) / factor, np.zeros(n)]), part.centroid


def _scaled(part: LesionPart, factor: float) -> tuple[tuple[slice, ...], LabelArray]:
    """A part scaled about its centroid: where in the array, and its labels there."""
    box = []
    for cut, centre, length in zip(part.box, part.centroid, part.shape, strict=True):
        first = int(np.floor(centre + factor * (cut.start - 1 - centre)))
        last = int(np.ceil(centre + factor * (cut.stop - centre))) + 1
        box.append(slice(min(max(first, 0), length - 1), max(min(last, length), 1)))
    starts = np.array([s.start for s in box])
    shift = starts - [s.start for s in part.box]
    matrix = np.column_stack([np.eye(len(box)) / factor, shift])
    shape = [s.stop - s.start for s in box]
    pull = affine_coordinates(shape, matrix, tuple(np.array(part.centroid) - starts))
    return tuple(box), pull_labels(part.labels, pull)


def _written(
    left: LabelArray, part: LesionPart, factor: float, body: Mask
) -> tuple[tuple[slice, ...], LabelArray, LabelArray]:
    """Where a scaled part lies, its labels there, and those of them that have room."""
    box, cut = _scaled(part, factor)
    own_mask = np.zeros(part.shape, bool)
    own_mask[part.box] = part.mask
    free = own_mask[box] & (left[box] >= 0) | (left[box] == 0) & body[box]
    return box, cut, np.where(free, cut, np.int16(0))


def _has_room(part: LesionPart, factor: float, left: LabelArray, body: Mask) -> bool:
    box, cut, written = _written(left, part, factor, body)
    if factor == 1 or np.count_nonzero(written) < LEAST_ROOM * np.count_nonzero(cut):
        return False
    volume = factor ** len(part.shape)
    complete = keeps_classes(part.labels, written, part.mask, volume)
    return complete and keeps_nesting(part.labels, np.where(written > 0, written, left[box]))


def _resized(left: LabelArray, part: LesionPart, factor: float, body: Mask) -> LabelArray:
    box, _, written = _written(left, part, factor, body)
    out = left.copy()
    out[box] = np.where(written > 0, written, out[box])
    return out


# -- a lesion's shape replaced by a random smooth one ----------------------------------------------


class BlobOptions(PieceOptions):
    """Which lesions, and how uneven their new shape."""

    rough: float = Field(
        0.4, ge=0, le=2, description="deviation of the surface from an ellipsoid, in mean radii"
    )


class Blob(Edit):
    """Gives each lesion the shape of an ellipsoid with smooth noise on its surface.

    It has the lesion's moments and volume; nested classes become layers, in order of their depth.
    The noise is halved until no lesion comes apart, loses a class or a wrapping layer.
    """

    name: ClassVar[str] = "blob"
    Options: ClassVar[type[EditOptions]] = BlobOptions
    options: BlobOptions
    _kept: tuple[EditContext, Params, EditResult] | None = None  # of the last draw, until it is

    def draw(self, context: EditContext, rng: Rng) -> dict[str, Any]:
        """Draw the ``seed`` of the noise; ``rough`` is the largest that keeps lesions whole."""
        classes = chosen_classes(self.name, self.options.classes, context.schema)
        params = {"strength": 1.0, "classes": classes, "seed": int(rng.integers(2**32))}
        for strength in (1.0, 0.5, 0.25, 0.0):
            params["rough"] = strength * self.options.rough
            drawn = self.apply(context, params)
            before, after = context.labels, drawn.labels
            pieces = [LabelComponents.of(m > 0).sizes.size for m in (before, after)]
            kept = keeps_classes(before, after) and keeps_nesting(before, after)
            if kept and pieces[0] == pieces[1]:
                self._kept = context, params, drawn
                return params
        return unchanged("no room for an ellipsoid")

    def apply(self, context: EditContext, params: Params) -> EditResult:
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] is context and kept[1] is params:
            return kept[2]
        after = context.labels.copy()
        if params["strength"] == 0:
            return EditResult(after)
        for number, part in enumerate(lesions(after, context.schema, params["classes"], each=True)):
            after = _reshaped(context, after, part, params["rough"], [params["seed"], number])
        return settled(context, after, after != context.labels)


def _reshaped(
    context: EditContext, labels: LabelArray, part: LesionPart, rough: float, seed: list[int]
) -> LabelArray:
    """Replace one lesion's shape, within the body and the labels around it."""
    from scipy.ndimage import distance_transform_edt

    whole, mm = part.whole(), np.array(part.spacing)
    points = np.argwhere(whole > 0) * mm
    # Of an ellipsoid x' M^-1 x <= 1 with the lesion's moments; a voxel has moments of its own.
    moments = (covariance(points) + np.diag(mm**2) / 12) * (len(mm) + 2)
    radius = float(np.sqrt(np.trace(moments) / len(mm)))
    box = bounding_box(whole > 0, margin=int(np.ceil(radius / mm.min())) + 1)
    held, out = whole[box], taken(labels, part)
    inside, around = held > 0, out[box]  # a view of out
    # Each voxel's distance from the middle, 1 on the ellipsoid, made uneven.
    ends = zip(box, mm, points.mean(0), strict=True)
    off = np.ix_(*[np.arange(side.start, side.stop) * edge - middle for side, edge, middle in ends])
    values, axes = principal_axes(moments)
    away = np.sqrt(_quadratic(of_axes(1 / values, axes), off))
    noise = _smooth_noise(held.shape, radius / 2 / mm, np.random.default_rng(seed))
    away -= rough * noise / max(noise.std(), 1e-9)
    # The nearest voxels with room, as many as the lesion has.
    beside = np.unique(around[inside & (around >= 0)])
    room = np.flatnonzero(context.body[box] & mask_of(around, beside.tolist()))
    count, far = min(part.voxels, len(room)), away.ravel()[room]
    within = _least(far, count)
    nearest = room[within[np.argsort(far[within], kind="stable")]]
    # The deepest class takes the first of them, and so on.
    alone = np.pad(part.labels, 1)
    depth = distance_transform_edt(alone > 0, sampling=part.spacing)
    classes = sorted(np.unique(part.labels[part.mask]), key=lambda v: -depth[alone == v].mean())
    layers = np.repeat(classes, [np.count_nonzero(alone == value) for value in classes])
    around[np.unravel_index(nearest, held.shape)] = layers[: len(nearest)]
    return out


def _least(far: Matrix, count: int) -> npt.NDArray[np.intp]:
    """Return the places of the least values, in array order; of equal ones the first.

    ``argpartition`` would take the equal ones that its CPU's kernel takes.
    """
    if not count:
        return np.zeros(0, np.intp)
    edge = np.partition(far, count - 1)[count - 1]
    nearer, ties = far < edge, np.flatnonzero(far == edge)
    nearer[ties[: count - np.count_nonzero(nearer)]] = True
    return np.flatnonzero(nearer)


def _quadratic(matrix: Any, off: Sequence[Matrix]) -> Matrix:
    """Return x' M x at all voxels; ``off``: x along each axis, as by ``np.ix_``."""
    found: Matrix = np.zeros(())
    for row, one in zip(matrix, off, strict=True):
        for weight, other in zip(row, off, strict=True):
            found = found + weight * one * other
    return found


def _smooth_noise(shape: Sequence[int], widths: Matrix, rng: Rng) -> FloatArray:
    """Draw noise of Gaussian widths, in voxels: on a coarse grid if these are wide."""
    from scipy.ndimage import gaussian_filter

    cells = np.maximum(1, widths / CELLS)
    coarse = np.maximum(1, np.rint(shape / cells)).astype(int)
    noise = rng.standard_normal(tuple(coarse), dtype=np.float32)
    smooth = gaussian_filter(noise, widths * coarse / shape)
    fine: FloatArray = resample(smooth[None], None, shape)[0][0]
    return fine
