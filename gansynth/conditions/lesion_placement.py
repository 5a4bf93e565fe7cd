"""Lesions put into real images: choice of the donor, edits, and the place.

A lesion of one training case (the donor) is cut out with its image and changed by edits. It is put
into another case's image (the background). The condition holds the new voxels, the donor's image
there, and the label map of both. The generator draws the lesion into the background.

A lesion is cut from the whole case, with a margin, so that a crop's border does not cut edits off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from gansynth.conditions.edit_chain import drawn_edits
from gansynth.conditions.edits.donors import DonorEditOptions, donor_ids, draw_plane
from gansynth.conditions.edits.warps import WarpEdit, maps_space
from gansynth.conditions.location_prior import (
    BARE,
    LesionSurroundings,
    PlacementPrior,
    depth_of,
    frame_of,
    learning_cases,
    least_body,
    native_case,
    place_drawer,
    whole_frame,
)
from gansynth.conditions.removal import UNLIKE, Tissue, fill, similar_place
from gansynth.core.case_pool import CaseContext, CasePool, annotated
from gansynth.core.edit import Edit, EditContext
from gansynth.core.geometry import (
    Matrix,
    Rng,
    affine_coordinates,
    bounding_box,
    centroid,
    mask_of,
    nearest_voxels,
)
from gansynth.core.kept import Kept
from gansynth.core.resample import crop_edge, crop_pad
from gansynth.core.schema import OUTSIDE, Case, FloatArray, LabelArray, Mask, Schema
from gansynth.core.small_matrices import product
from gansynth.core.space import Placement
from gansynth.data.connected_components import LabelComponents, large_parts, parts
from gansynth.imaging.body_box import BodyBox
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import Needs, OptionModel, read_options

MARGIN_OF_SHAPES = 2.0  # mm around a lesion whose shape alone is taken, besides GROWS
GROWS = 0.15  # share of the lesion's extent that is added to the requested margin on each side
OWN = 1 / 3  # least share of a class in a voxel for the image to show the class there
OTHER = 0.6  # least share of lesion in a voxel for the image to show a lesion that the labels lack
CUBIC: Literal[3] = 3  # spline order for images; linear interpolation would lose half of the noise
CUT = 1 << 28  # bytes of lesions that were cut out and are kept
WHOLLY = 0.99  # least share of known voxels in a pulled voxel that counts as known


@dataclass(frozen=True)
class LesionDonor:
    """A lesion with its surroundings; its case is bare."""

    labels: LabelArray  # int16 (D, H, W) or (H, W): the lesion alone, 0 elsewhere
    image: FloatArray  # float32 (C, ...)
    known: Mask  # bool, where the image shows this lesion or a body without other lesions
    case: Case  # its case; only id and subject are used
    whole: tuple[int, ...]  # shape of the whole case in its source's voxels
    # of the lesion, in voxels of the whole case (of a slice: of the slice)
    centre: tuple[float, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays, the splines included."""
        return 2 * self.image.nbytes + self.labels.nbytes + self.known.nbytes

    @cached_property
    def splines(self) -> FloatArray:
        """Coefficients of cubic splines through the image, float32 (C, ...)."""
        from scipy.ndimage import spline_filter

        found = [spline_filter(channel, CUBIC, mode="nearest") for channel in self.image]
        return np.stack(found).astype(np.float32)


@dataclass(frozen=True)
class LesionCrop:
    """Which lesion to cut out, and how."""

    case_id: str
    slice_index: int | None  # of a space of slices
    part: int | None  # number of the connected part; None for all
    classes: tuple[int, ...]  # label values of lesions
    into: tuple[int, ...]  # label values around lesions, besides 0
    margin_mm: float

    def __call__(self, case_pool: CasePool) -> LesionDonor:
        """Cut the lesion out of the whole case, or return it as it was cut before."""
        kept = case_pool.learnt("donors", lambda _: Kept[LesionDonor](CUT, lambda d: d.nbytes))
        return kept(self, lambda: self._cut(case_pool))

    def _cut(self, case_pool: CasePool) -> LesionDonor:
        case = case_pool.uncut(self.case_id, self.slice_index)
        assert case.labels is not None, "donors are labelled"
        lesion = self._lesion(case.labels, case_pool.schema)
        shape = tuple(case_pool.cases(self.case_id).image.shape[1:])
        spacing = case_pool.space.schema_of(case_pool.cases.schema, shape).spacing
        corner, size = self._box(lesion > 0, spacing)
        around = annotated(case, mask_of(case.labels, (0, *self.into))) | (lesion > 0)
        held = np.argwhere(lesion > 0)
        return LesionDonor(
            labels=crop_pad(lesion, corner, size, 0),
            image=crop_edge(case.image, corner, size),
            known=crop_pad(around, corner, size, False),
            case=Case(case.id, case.subject, np.empty((0, 0), np.float32)),
            whole=shape,
            centre=tuple(held.mean(axis=0).tolist()),
        )

    def _lesion(self, labels: LabelArray, schema: Schema) -> LabelArray:
        if self.part is not None:
            return parts(labels, schema, self.classes)[self.part].whole()
        return np.where(mask_of(labels, self.classes), labels, np.int16(0))

    def _box(self, mask: Mask, spacing: Sequence[float]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        corner, size = [], []
        for side, mm in zip(bounding_box(mask), spacing, strict=True):
            extent = side.stop - side.start
            margin = int(np.ceil(self.margin_mm / mm + GROWS * extent)) + 1
            corner.append(side.start - margin)
            size.append(extent + 2 * margin)
        return tuple(corner), tuple(size)


class EditedLesion:
    """A label map on which edits are drawn, with an image that moves along.

    The image is moved when it is first read, because most tried lesions are not used. The mask of
    ``known`` voxels and each class's share of a voxel move with it.
    """

    def __init__(
        self,
        case_context: CaseContext,
        usable: Mask,
        donor: LesionDonor | None = None,
        reach_mm: float | None = None,
    ) -> None:
        self._donor = donor  # whose image it is, if it is one's
        self._reach_mm = reach_mm  # how far from its labels the image is needed; None: everywhere
        self.case_context, self.schema = case_context, case_context.schema
        self.values = (0, *self.schema.foreground)
        self.steps: list[dict[str, Any]] = []  # edits with their parameters
        self._context = EditContext(case_context.labels, self.schema, case_context)
        self._known = usable
        self._done: list[tuple[Edit, Mapping[str, Any], LabelArray]] = []

    @property
    def labels(self) -> LabelArray:
        """The labels after all edits so far."""
        return self._context.labels

    def draw(self, edits: Sequence[Edit], rng: Rng) -> EditedLesion:
        """Draw and apply edits in order."""
        for edit, params, after in drawn_edits(self._context, edits, rng):
            # What leaves the labels as they were, such as `clip` mostly, leaves the image, too.
            if maps_space(edit) or not np.array_equal(after.labels, self.labels):
                self._done.append((edit, params, self.labels))
            self.steps.append({"edit": edit.name, "params": dict(params)})
            self._context = after
        return self

    @property
    def touches(self) -> bool:
        """Whether foreground reaches a face of the array."""
        box = bounding_box(self.labels > 0)
        for part, length in zip(box, self.labels.shape, strict=True):
            if part.start == 0 or part.stop == length:
                return True
        return False

    @cached_property
    def together(self) -> bool:
        """Whether all edits move labels and image alike, so that the two fit."""
        return all(
            maps_space(edit) and params.get("classes") is None for edit, params, _ in self._done
        )

    @cached_property
    def _near(self) -> Mask | None:
        """Where the image is needed; None for everywhere, as where its classes are looked up."""
        from scipy.ndimage import maximum_filter1d

        if not self.together or self._reach_mm is None:
            return None
        near = (self.labels > 0).astype(np.uint8)
        for axis, mm in enumerate(self.schema.spacing):
            near = maximum_filter1d(near, 2 * math.ceil(self._reach_mm / mm) + 1, axis)
        return near.astype(bool)

    @cached_property
    def _stack(self) -> FloatArray:
        """The moved image, its known voxels and, unless ``together``, the share of each class."""
        image, labels = self.case_context.case.image, self.case_context.labels
        classes = [] if self.together else [labels == value for value in self.values]
        stack = np.stack([*image, self._known, *classes], dtype=np.float32)
        # The image grows as if all were body, even where the labels do not.
        open_scene = replace(self.case_context, find_body=lambda: np.ones(labels.shape, bool))
        pull, splines = _Pull(labels.shape), None if self._donor is None else self._donor.splines
        for edit, params, before in self._done:
            if maps_space(edit):
                if params["strength"] != 0:
                    pull.append(edit, self.schema, params)
                continue
            stack = _pulled(stack, pull.at(None), len(image), splines, None)
            pull, splines = _Pull(labels.shape), None
            context = EditContext(before, self.schema, open_scene, image=stack)
            shown_after = edit.apply(context, params).image
            stack = stack if shown_after is None else shown_after
        return _pulled(stack, pull.at(self._near), len(image), splines, self._near)

    @property
    def image(self) -> FloatArray:
        """The moved image, float32 (C, ...)."""
        return self._stack[: len(self.case_context.case.image)]

    @property
    def known(self) -> Mask:
        """Mask of voxels that come from known ones, and show no lesion that the labels lack."""
        usable = self._stack[len(self.case_context.case.image)] >= WHOLLY
        if self.together:
            return np.asarray(usable if self._near is None else usable & self._near)
        lesion_share = self._shares[1:].sum(axis=0)
        return np.asarray(usable & ((self.labels > 0) | (lesion_share < OTHER)))

    @property
    def shown(self) -> LabelArray:
        """Labels of the classes that the image shows: the edited labels wherever they fit."""
        if self.together:
            return self.labels
        likeliest = np.array(self.values, np.int16)[self._shares.argmax(axis=0)]
        for value, share in zip(self.values, self._shares, strict=True):
            likeliest[(self.labels == value) & (share >= OWN)] = value
        labels: LabelArray = likeliest
        return labels

    @property
    def _shares(self) -> FloatArray:
        return self._stack[len(self.case_context.case.image) + 1 :]


class _Pull:
    """Maps of space composed to one: interpolating once keeps an image's noise.

    Matrices that follow one another are multiplied; only a field before them is interpolated.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape, self._none = shape, np.eye(len(shape), len(shape) + 1)
        self._field: FloatArray | None = None  # a map of the voxels where the matrix leads
        self._matrix = self._none

    def append(self, edit: WarpEdit, schema: Schema, params: Mapping[str, Any]) -> None:
        """Take in the next map: of the result's voxels to those of what was before."""
        affine = edit.affine(schema, params)
        if affine is not None:
            turned, shift = self._matrix[:, :-1], self._matrix[:, -1]
            moved = product(turned, affine)
            moved[:, -1] += shift
            self._matrix = moved
            return
        at = edit.coordinates(self._shape, schema, params)
        if self._matrix is not self._none:
            at = _led(self._matrix, at)
        self._field, self._matrix = self._looked_up(at), self._none

    def at(self, near: Mask | None) -> FloatArray | None:
        """Where each voxel, or each of a mask, comes from; None if nothing moves.

        float32 (n, *shape), or (n, voxels).
        """
        field = self._field
        if self._matrix is self._none:
            return field if near is None or field is None else field[:, near]
        led = affine_coordinates(self._shape, self._matrix, (0.0,) * len(self._shape))
        return self._looked_up(led if near is None else led[:, near])

    def _looked_up(self, at: FloatArray) -> FloatArray:
        from scipy.ndimage import map_coordinates

        if self._field is None:
            return at
        axes = [map_coordinates(axis, at, order=1, mode="nearest") for axis in self._field]
        return np.stack(axes)


def _led(matrix: Matrix, points: FloatArray) -> FloatArray:
    """Apply a matrix (n, n + 1) to points (n, ...), with the same bits in any number of threads."""
    out = np.empty_like(points)
    for row, numbers in zip(out, matrix.astype(np.float32), strict=True):
        row[:] = numbers[-1]
        for number, axis in zip(numbers, points, strict=False):
            row += number * axis
    return out


def _pulled(
    stack: FloatArray,
    points: FloatArray | None,
    images: int,
    splines: FloatArray | None,
    near: Mask | None,
) -> FloatArray:
    """Pull channels from points: images by cubic splines, later masks linearly.

    ``splines``: coefficients of the images, if they are known. ``near``: the mask of the voxels
    that the points are of, elsewhere channels are 0; None: everywhere.
    """
    if points is None:
        return stack
    from scipy.ndimage import map_coordinates

    out = np.zeros_like(stack)
    at: Any = ... if near is None else near
    for number, channel in enumerate(stack[:images]):
        known = splines is not None
        source = channel if splines is None else splines[number]
        moved = map_coordinates(source, points, order=CUBIC, mode="nearest", prefilter=not known)
        # Splines overshoot at sharp edges.
        out[number][at] = np.clip(moved, channel.min(), channel.max())
    for number, channel in enumerate(stack[images:], start=images):
        moved = map_coordinates(channel, points, order=1, mode="nearest")
        out[number][at] = np.clip(moved, channel.min(), channel.max())
    return out


def matched_intensities(change: EditedLesion, seed: int) -> tuple[FloatArray, Mask]:
    """Fit the image to the edited labels: float32 (C, ...), and a bool mask of usable voxels.

    ``seed`` seeds the noise where a class is filled in.
    """
    import torch

    from gansynth.imaging.blending import dress

    image, image_labels = change.image, change.shown
    lesion = change.labels > 0
    if change.together:
        return image, np.asarray(change.known | lesion)
    missing = lesion & (image_labels != change.labels)
    usable = np.asarray(change.known | lesion)
    if not missing.any():
        return image, usable
    values = change.schema.foreground
    asked, shown = np.unique(change.labels[missing]), np.unique(image_labels)
    lacking = set(asked.tolist()) - set(shown.tolist())
    means = deviations = np.zeros((len(values), len(image)), np.float32)
    if lacking:
        means, deviations = class_statistics(change.case_context.case_pool)
    noise = np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    filled = dress(
        torch.from_numpy(change.labels.astype(np.int64))[None],
        torch.from_numpy(np.ascontiguousarray(image))[None],
        torch.from_numpy(image_labels.astype(np.int64))[None],
        values,
        torch.from_numpy(means),
        deviations=torch.from_numpy(deviations),
        noise=torch.from_numpy(noise)[None],
    )
    return filled[0].numpy(), usable


def class_statistics(case_pool: CasePool) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of each foreground class over training cases, computed once.

    Both are float32 (classes, C), in the generator's intensities; 0 for a class without voxels.
    """
    return case_pool.learnt("statistics of classes", _statistics)


def _statistics(case_pool: CasePool) -> tuple[FloatArray, FloatArray]:
    values = case_pool.schema.foreground
    sums = np.zeros((3, len(values), len(case_pool.schema.channels)))
    for case_id in learning_cases(case_pool):
        case = native_case(case_pool, case_id)
        if case.labels is None:
            continue
        for row, value in enumerate(values):
            held = case.image[:, case.labels == value].astype(np.float64)
            sums[0, row] += held.shape[1]
            sums[1:, row] += held.sum(axis=1), np.square(held).sum(axis=1)
    count = np.maximum(sums[0], 1)
    means = sums[1] / count
    spread = np.sqrt(np.maximum(sums[2] / count - means**2, 0))
    return means.astype(np.float32), spread.astype(np.float32)


def scene_of(donor: LesionDonor, index: int, case_pool: CasePool) -> CaseContext:
    """Return the scene in which a donor's lesion is edited: its own array, which is all body."""
    case = replace(donor.case, image=donor.image, labels=donor.labels, boxes=None)
    shape = donor.labels.shape
    whole = donor.whole if case_pool.space.typical else shape  # tells the size of its voxels
    return CaseContext(
        case, Placement(), whole, index, case_pool, find_body=lambda: np.ones(shape, bool)
    )


# -- places for a lesion in a real case ------------------------------------------------------------


Where = Literal["prior", "anywhere", "same", "own"]
HALF = 0.5  # share of mixed regions that are smaller than the lesion
LOOKED_AT = 1 << 13  # voxels of a lesion by which a place is judged, at most about twice as many
LARGEST_SHARE = 0.1  # share of the array to which the size of larger lesions is limited


ROOM = 0.25  # share of the array where lesions may lie that is enough, or the training cases' own


@dataclass(frozen=True)
class PlacementRegion:
    """The places in a scene where lesions may lie."""

    case_context: CaseContext  # the background
    classes: tuple[int, ...]  # label values of lesions
    # label values on which a lesion may lie, besides 0; None for all but `classes`
    into: tuple[int, ...] | None
    apart_mm: float  # distance kept from the scene's own lesions
    where: Where = "anywhere"  # how places are chosen; `prior` learns of real lesions' surroundings
    replaces: bool = False  # whether a lesion lies where the largest one was taken out
    carves: bool = False  # whether what is around lesions comes along, so none ends at the surface

    @cached_property
    def allowed(self) -> Mask:
        """The body, or its requested parts, as deep below the surface as real lesions lie."""
        allowed = self.case_context.body
        if self.into is not None:
            allowed = allowed & mask_of(self.case_context.labels, self.into)
        known = self.surroundings
        if known is None or self.carves:
            return allowed
        # The body stays as it is, whichever of a case's lesions were taken out, and how.
        scene = self.case_context.case.id, self.case_context.placement
        deep = self._kept("deep", scene, partial(known.deep, self.case_context))
        return np.asarray(allowed & deep)

    def _kept(self, name: str, scene: Hashable, find: Callable[[], Mask]) -> Mask:
        """Find a mask of a scene once, if the pool knows this background again."""
        if self.case_context.key is None:
            return find()
        key, shape = (name, self.classes, scene), self.case_context.body.shape
        return self.case_context.case_pool.mask(key, shape, find)

    @cached_property
    def taken(self) -> Mask:
        """The scene's own lesions, and what is near them."""
        import torch

        from gansynth.imaging.blending import hole, rim_voxels

        lesions = mask_of(self.case_context.labels, self.classes)
        if not lesions.any():
            return lesions
        rim = rim_voxels(self.apart_mm, self.case_context.schema.spacing)
        near: Mask = hole(torch.from_numpy(lesions)[None, None], rim)[0, 0].numpy()
        return near

    @cached_property
    def free(self) -> Mask:
        """Mask of voxels for a lesion's centre."""
        return np.asarray(self.allowed & ~self.taken)

    @cached_property
    def surroundings(self) -> LesionSurroundings | None:
        """Tissue and depth at real lesions, if places are learnt and images show it."""
        if self.where != "prior" or not len(self.case_context.case.image):
            return None
        return LesionSurroundings.learn(self.case_context.case_pool, self.classes)

    @cached_property
    def likely(self) -> Mask:
        """Mask of voxels like those at real lesions; all if nothing is known of these."""
        if self.surroundings is None:
            return np.ones(self.free.shape, bool)
        find = partial(self.surroundings.likely, self.case_context, self.classes)
        return self._kept("likely", self.case_context.key, find)

    @cached_property
    def bare(self) -> bool:
        """Whether the background never had a lesion, so that it need not be tissue at all."""
        none_out = self.case_context.emptied is None
        return none_out and not mask_of(self.case_context.labels, self.classes).any()

    @cached_property
    def frame(self) -> BodyBox:
        """The box around the whole body, in the scene's voxels."""
        return frame_of(self.case_context)

    @cached_property
    def ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The first voxel of the whole case along each axis, and the one beyond its last.

        In voxels of the scene, which may be a crop.
        """
        scene, shape = self.case_context, self.free.shape
        if not scene.case_pool.space.cuts or not scene.placement.corner:
            return (0,) * len(shape), shape
        corner = scene.placement.corner
        whole = zip(scene.shape[-len(shape) :], corner, strict=True)
        return tuple([-first for first in corner]), tuple([edge - first for edge, first in whole])

    def keeps_aside(self, lesions: Sequence[Matrix]) -> bool:
        """Whether none of some lesions, positions (N, n), is too much across the body's middle."""
        if self.where != "prior":
            return True
        prior = PlacementPrior.learn(self.case_context.case_pool, self.classes)
        aside = [prior.keeps_aside(self.frame.relative(lesion)) for lesion in lesions]
        return all(aside)

    @property
    def least_likely(self) -> float:
        """Least share of a lesion on likely ground; 0 if nothing is known of real ones."""
        known = self.surroundings
        if known is None:
            return 0.0
        return BARE if self.bare else known.share

    @property
    def room(self) -> float:
        """Room for lesions, as a share of what is enough: 0 to 1."""
        least = min(ROOM, least_body(self.case_context.case_pool, self.classes) or ROOM)
        enough, known = min(1.0, float(self.free.mean()) / least), self.surroundings
        bare = self.case_context.body & ~mask_of(self.case_context.labels, self.classes)
        if known is None or not known.room or not bare.any():
            return enough
        return enough * min(1.0, float(self.likely[bare].mean()) / known.room)

    def share(
        self,
        held: npt.NDArray[np.intp],
        least: float,
        least_in_array: float,
        *,
        each: int = 1,
        tight: bool = False,
    ) -> tuple[float, float] | None:
        """Return the shares of a lesion's voxels on allowed and on likely ground; None: no room.

        What a crop cuts off of a lesion is not judged. What lies beyond the whole case is not on
        allowed ground: a picture's edge cuts no lesion that training pictures show whole.

        Args:
            held: int (N, n), its voxels; some may lie beyond the array.
            least: required share, of the voxels in the array.
            least_in_array: share of all voxels that must lie in the array.
            each: how many of the lesion's voxels one of ``held`` stands for.
            tight: it may overlap the scene's own lesions, and is clipped there.
        """
        shown = ((held >= 0) & (held < self.free.shape)).all(axis=1)
        in_array = held[shown]
        low, high = self.ends
        beyond = int((((held < low) | (held >= high)).any(axis=1) & ~shown).sum())
        fewest = least_in_array * min(len(held), LARGEST_SHARE * self.free.size / each)
        if not len(in_array) or len(in_array) < fewest:
            return None
        at = tuple(in_array.T)
        allowed = int((self.free if tight else self.allowed)[at].sum())
        inside = allowed / (len(in_array) + beyond)
        if inside < least or (not tight and self.taken[at].any()):
            return None
        return inside, float(self.likely[at].mean())


def centres(
    ground: PlacementRegion, donor: LesionDonor, voxels: int, tries: int, rng: Rng
) -> Iterator[tuple[int, ...]]:
    """Yield places for the middle of a donor's lesion of ``voxels``, in the order to try.

    By ``ground.where``: ``prior``, ``anywhere`` (``tries`` places each) or ``same`` (one place).
    """
    case_context = ground.case_context
    likely = ground.free & ground.likely
    free = likely if likely.any() or ground.bare else ground.free
    if ground.replaces and case_context.emptied is not None:
        largest = LabelComponents.of(case_context.emptied)
        yield tuple(map(round, centroid(largest.numbered == largest.numbers[0])))
        return
    if ground.where == "same":
        donor_frame = whole_frame(case_context.case_pool, donor.case.id).last(free.ndim)
        there = frame_of(case_context).voxels(donor_frame.relative(np.array([donor.centre])))[0]
        yield tuple(np.rint(there).astype(int).tolist())
        return
    if not free.any():
        return
    draw = place_drawer(case_context, ground.classes, ground.where, free, rng, voxels)
    for _ in range(tries):
        yield draw()


def put(
    ground: PlacementRegion,
    labels: LabelArray,
    image: FloatArray,
    usable: Mask,
    known: Mask,
    corner: Sequence[int],
) -> tuple[LabelArray, FloatArray]:
    """Put a lesion and its image into the background's arrays, starting at ``corner``.

    The lesion is clipped to free ground. The image is the background's own where the donor's is not
    ``usable``, outside the body, and where a clipped lesion shows what is not ``known``.
    """
    case_context = ground.case_context
    donor = case_context.case.image.copy()
    here, there = [], []  # the overlap of both, in the background and in the lesion's array
    for start, length, edge in zip(corner, labels.shape, donor.shape[1:], strict=True):
        first, end = max(start, 0), max(min(start + length, edge), 0)
        here.append(slice(first, end))
        there.append(slice(first - start, max(end - start, 0)))
    lesion = _landed(ground, labels, corner)
    useful = usable[tuple(there)] & case_context.body[tuple(here)]
    useful &= known[tuple(there)] | (lesion[tuple(here)] > 0)
    np.copyto(donor[(slice(None), *here)], image[(slice(None), *there)], where=useful)
    return lesion, donor


def _landed(ground: PlacementRegion, labels: LabelArray, corner: Sequence[int]) -> LabelArray:
    """Put a lesion into the background's array, clipped to free ground."""
    shape = ground.case_context.labels.shape
    lesion = crop_pad(labels, [-start for start in corner], shape, 0)
    lesion[~ground.free | (ground.case_context.labels == OUTSIDE)] = 0
    return lesion


def signed_distance(mask: Mask, spacing: Sequence[float]) -> npt.NDArray[np.float64]:
    """Distance from a mask's surface in mm, negative in the mask."""
    from scipy.ndimage import distance_transform_edt

    within = distance_transform_edt(mask, sampling=spacing)
    return np.asarray(distance_transform_edt(~mask, sampling=spacing) - within)


def draw_distance(labels: LabelArray, schema: Schema, rng: Rng) -> float:
    """Draw the distance of the cut from a lesion's surface, mm (Zhang et al. 2021, CarveMix).

    Half of the draws cut within the lesion, down to half its depth. The others cut around it, as
    far out as it is deep. No cut reaches a face of the array.
    """
    distance = signed_distance(labels > 0, schema.spacing)
    deepest = -float(distance.min())
    drawn = rng.uniform(-deepest / 2, 0) if rng.random() < HALF else rng.uniform(0, deepest)
    faces = [np.take(distance, end, axis) for axis in range(labels.ndim) for end in (0, -1)]
    nearest = min([float(face.min()) for face in faces])
    return float(min(drawn, nearest - min(schema.spacing)))


def fill_emptied(
    image: FloatArray, usable: Mask, emptied: Mask, case_context: CaseContext
) -> FloatArray:
    """Fill an image with the nearest background where it still shows removed foreground."""
    gaps, bare = emptied & ~usable, usable & (case_context.labels == 0) & ~emptied
    bare = annotated(case_context.case, bare)
    if not gaps.any() or not bare.any():
        return image
    nearest: Any = nearest_voxels(bare, case_context.schema.spacing)
    sources = [axis[gaps] for axis in nearest]
    out = image.copy()
    out[:, gaps] = case_context.case.image[:, *sources]
    return out


# -- donor, edits and place, drawn -----------------------------------------------------------------


SHAM = 1  # second part of the seeds of shams
PLACES = 2  # samples, one after the other, that an edited lesion is put into
EDITED, EDITED_BYTES = 2, 1 << 26
"""Second part of the seeds of edited lesions; bytes of the last ones, which are kept."""
CUTS = 3  # margins that are tried, each twice as wide, until one holds the edited lesion
CLIPPED = 2 / 3  # share of `inside` that suffices where no lesion has room, as in small crops
WHOLE = 0.995  # share of a lesion in the body from which no other place is tried
DONORS = 4  # lesions that are tried until one has room
OF_PLACES = (
    "number",
    "sham",
    "what",
    "into",
    "inside",
    "shown",
    "apart_mm",
    "margin_mm",
    "mixing",
    "tries",
)
Number = Literal["swap", "add", "in-place"]
NUMBERS = get_args(Number)
_FORM = f"one of {', '.join(NUMBERS)}, and KEY=VALUE,KEY=VALUE,..."
Shows = Literal["lesion", "sham", "nothing"]
"""What a sample shows: a new lesion, a sham (see ``LesionOptions``), or nothing new."""


@dataclass(frozen=True)
class _Attempt:
    """A lesion that was cut out and edited, for which a place is sought."""

    donor: LesionDonor
    change: EditedLesion
    provenance: dict[str, Any]  # provenance of the cut

    @cached_property
    def voxels(self) -> npt.NDArray[np.intp]:
        """All of the lesion's, (N, n)."""
        return np.argwhere(self.change.labels > 0)

    @cached_property
    def each(self) -> int:
        """How many voxels one stands for that is looked at."""
        return len(self.voxels) // LOOKED_AT + 1

    @cached_property
    def middle(self) -> list[float]:
        """Of its voxels."""
        middle: list[float] = self.voxels.mean(axis=0).tolist()
        return middle

    @cached_property
    def lesions(self) -> list[Matrix]:
        """Positions (N, n) of voxels of each of its large parts, of those that are looked at."""
        schema = self.change.schema
        return [part.positions[:: self.each] for part in large_parts(self.change.labels, schema)]


class LesionOptions(OptionModel):
    """How lesions are put into real images."""

    needs: ClassVar[Needs] = dict.fromkeys(OF_PLACES, "where!=own")
    number: Number = Field(
        "swap",
        description="swap: as many lesions as training cases have, so the background's own are "
        "taken out first; add: they stay; in-place: the new one lies where the largest one was. A "
        "word without KEY= is this one",
    )
    sham: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of samples with a sham: tissue is drawn as a lesion would be, and "
        "labelled background",
    )
    what: Literal["all", "one"] = Field(
        "all", description="all lesions of the donor in their arrangement, or one connected lesion"
    )
    classes: tuple[Annotated[int, Field(ge=1)] | str, ...] | None = Field(
        None, min_length=1, description="labels of lesions, values or names; none: all foreground"
    )
    into: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None,
        min_length=1,
        description="label values of the background that a lesion may lie on (the liver, say); "
        "none: anywhere in the body",
    )
    pairs: Literal["any", "ordered", "nearest"] = Field(
        "any",
        description="donor: any case of another subject; ordered: every case borrows from every "
        "other, pair by pair; nearest: the one with the most similar body",
    )
    where: Where = Field(
        "prior",
        description="place: prior, learnt from training cases; anywhere in the body; same as in "
        "the donor's body; own: the case's own foreground, redrawn in its place (organs)",
    )
    inside: float = Field(
        0.9,
        gt=0,
        le=1,
        description="least share of a lesion in the body; the rest is clipped. Where none has "
        "room, two thirds of that suffice, clear of other lesions",
    )
    shown: float = Field(
        0.5, gt=0, le=1, description="least share of a lesion that lies in the crop"
    )
    apart_mm: float = Field(
        3.0, ge=0, le=100, description="distance kept from the background's own lesions, mm"
    )
    margin_mm: float = Field(
        8.0, ge=0, le=100, description="margin of the donor's image on each side, mm"
    )
    mixing: Literal["lesion", "carve"] = Field(
        "lesion",
        description="what is taken: the lesion, or (carve: CarveMix) all within a distance from "
        "its surface, inside or outside, that is drawn for each sample",
    )
    tries: int = Field(24, ge=1, le=1000, description="places tried for each of 4 lesions")


@dataclass(frozen=True)
class PlacedLesion:
    """A lesion at its place in a scene.

    Attributes:
        labels: int16 (D, H, W) or (H, W), of the background with the lesion in it.
        lesion: int16, the same shape: the new lesion alone, 0 elsewhere; all 0 without one. The
            labels of a sham are those without it.
        donor: float32 (C, ...), the donor's image at and around the lesion; the background's own
            where the donor's is not usable.
        region: bool, the same shape: all replaced voxels; None for the lesion alone.
        steps: the edits with their drawn parameters, in order.
        told: provenance as JSON.
    """

    labels: LabelArray
    lesion: LabelArray
    donor: FloatArray
    region: Mask | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)


class LesionDrawer:
    """Draws lesions and their places: seeded and recorded.

    Cutting a lesion out and editing it takes a quarter of a sample's time, so ``PLACES`` samples in
    a row share edited lesions where these do not depend on the background. Which lesions these are
    follows from the seed and the number of the first of the samples, whoever draws them.

    ``images``: whether a donor's image is moved with its lesion; without, the background stands
    there, but where ``where`` or ``mixing`` needs the image.
    """

    def __init__(self, options: LesionOptions | None = None, *, images: bool = True) -> None:
        self.options, self.images = options or LesionOptions.model_validate({}), images
        self._edited = Kept[_Attempt | None](
            EDITED_BYTES, lambda attempt: 0 if attempt is None else attempt.donor.nbytes
        )

    @property
    def in_turns(self) -> bool:
        """Whether backgrounds come one after the other, so that all pairs occur."""
        return self.options.pairs == "ordered"

    @property
    def _shows_donors(self) -> bool:
        return self.images or self.options.mixing == "carve"

    def room_in(self, case_context: CaseContext) -> float:
        """Room for lesions in a background, as a share of what is enough: 0 to 1."""
        classes = self.classes(case_context.case_pool.schema)
        if self.options.where == "own":
            return float(mask_of(case_context.labels, classes).any())
        return self._ground(case_context, classes).room

    def draw(
        self,
        case_context: CaseContext,
        edits: Sequence[Edit],
        rng: Rng,
        *,
        sampler_seed: int = 0,
        shows: Shows = "lesion",
        removal: Mapping[str, Any] | None = None,
    ) -> PlacedLesion:
        """Draw a lesion, changed by edits, for a background; or what else the sample shows.

        ``sampler_seed``: with the number of the sample, the seed of the edited lesion; ``rng`` is
        of the rest. ``removal``: provenance of how the background's own lesions were taken out.
        """
        seed = int(rng.integers(2**32))
        classes = self.classes(case_context.case_pool.schema)
        provenance: dict[str, Any] = {
            "where": self.options.where,
            "classes": list(classes),
            "seed": seed,
        }
        provenance.update(removal or {})
        if shows != "lesion":
            provenance["shows"] = shows
        if "stays" in provenance or shows == "nothing":
            provenance["room"] = "stays" not in provenance
            return _nothing(case_context, provenance)
        if self.options.where == "own":
            if not mask_of(case_context.labels, classes).any():
                provenance["room"] = False
                return _nothing(case_context, provenance)
            inside = np.asarray(case_context.labels != OUTSIDE)
            own = EditedLesion(case_context, annotated(case_context.case, inside))
            return _redrawn(case_context, own.draw(edits, rng), provenance)
        ground = self._ground(case_context, classes)
        provenance["into"] = None if self.options.into is None else list(self.options.into)
        provenance["apart_mm"] = self.options.apart_mm
        for attempt, placement in self._places(ground, edits, sampler_seed, rng):
            record = provenance | attempt.provenance | placement
            record["room"] = True
            if self.options.mixing == "carve":
                record["carve_mm"] = draw_distance(attempt.change.labels, case_context.schema, rng)
            if self._shows_donors:
                inserted = _brought(ground, attempt.change, record)
            else:
                inserted = _shaped(ground, attempt.change, record)
            if shows == "sham":
                inserted = _sham(inserted, case_context, seed)
            if inserted.lesion.any():
                return inserted
        provenance["room"] = shows == "sham"
        if shows == "sham":
            provenance["shows"] = "nothing"
        return _nothing(case_context, provenance)

    def fits(
        self, case_context: CaseContext, edits: Sequence[Edit], rng: Rng, sampler_seed: int
    ) -> bool:
        """Return whether ``draw`` would find a place for the first lesion that it tries."""
        rng.integers(2**32)  # as ``draw`` does
        ground = self._ground(case_context, self.classes(case_context.case_pool.schema))
        for attempt, tight in self._attempts(case_context, edits, sampler_seed):
            placement = self._place(ground, attempt, rng, tight=tight)
            return placement is not None and not _second_choice(placement)
        return False

    def classes(self, schema: Schema) -> tuple[int, ...]:
        """Return the label values of lesions; UsageFault: values that are no labels."""
        names: dict[Any, int] = {value: value for value in schema.foreground}
        names.update(schema.labels)
        asked = self.options.classes or schema.foreground
        chosen = tuple(sorted({names[each] for each in asked if names.get(each)}))
        for key, labels, known in (
            ("classes", asked, names),
            ("into", self.options.into or (), (0, *schema.foreground)),
        ):
            unknown = [each for each in labels if each not in known]
            if unknown:
                raise UsageFault(
                    "conditions.lesion-labels-unknown",
                    f"--lesions {key}={'+'.join(map(str, labels))}: {unknown} are no labels, "
                    f"expected values among {[0, *schema.foreground]}",
                )
        return chosen

    def _ground(self, case_context: CaseContext, classes: tuple[int, ...]) -> PlacementRegion:
        options = self.options
        return PlacementRegion(
            case_context,
            classes,
            options.into,
            options.apart_mm,
            options.where,
            replaces=options.number == "in-place",
            carves=options.mixing == "carve",
        )

    def _first(self, case_context: CaseContext) -> int:
        """Return the number of the first of the samples that share edited lesions."""
        for_all = self.options.pairs == "any" and depth_of(case_context) is None
        return case_context.index - (case_context.index % PLACES if for_all else 0)

    def _attempts(
        self, case_context: CaseContext, edits: Sequence[Edit], sampler_seed: int
    ) -> Iterator[tuple[_Attempt, bool]]:
        """Yield edited lesions to try; then all again, for places that clip them."""
        options = DonorEditOptions.model_validate({"pairs": self.options.pairs})
        classes = self.classes(case_context.case_pool.schema)
        key = (sampler_seed, self._first(case_context), EDITED)
        ids = donor_ids(options, case_context, classes, seeded(*key), DONORS)
        tried = []
        for number in range(DONORS if ids else 0):
            case_id, again = ids[number % len(ids)], number // len(ids)
            own_key = (*key, case_context.case_pool.ids.index(case_id), again)
            find = partial(self._edit, case_context, case_id, edits, seeded(*own_key))
            attempt = self._edited(own_key, find)
            if attempt is not None:
                tried.append(attempt)
                yield attempt, False
        for attempt in tried:
            yield attempt, True

    def _edit(
        self, case_context: CaseContext, case_id: str, edits: Sequence[Edit], rng: Rng
    ) -> _Attempt | None:
        """Draw a lesion of a case, and its edits; None if it has none, or edits leave none."""
        case_pool, classes = case_context.case_pool, self.classes(case_context.case_pool.schema)
        asked = self.options.into
        around = case_pool.schema.foreground if asked is None else asked
        into = tuple([value for value in around if value > 0 and value not in classes])
        margin_mm = self.options.margin_mm if self._shows_donors else MARGIN_OF_SHAPES
        plane = draw_plane(case_pool, case_id, classes, depth_of(case_context), rng)
        labels = case_pool.label_map(case_id)  # kept, so the case need not be read
        labels = labels if plane is None else labels[plane]
        if not mask_of(labels, classes).any():
            return None
        part = None
        if self.options.what == "one":
            part = int(rng.integers(len(parts(labels, case_pool.schema, classes))))
        cut = LesionCrop(case_id, plane, part, classes, into, margin_mm)
        carved = self.options.mixing == "carve"  # it may take what is far from the lesion
        return _change(cut, case_pool, self._first(case_context), edits, rng, carved=carved)

    def _places(
        self, ground: PlacementRegion, edits: Sequence[Edit], sampler_seed: int, rng: Rng
    ) -> Iterator[tuple[_Attempt, dict[str, Any]]]:
        """Yield edited lesions with room, and their places; second choices last."""
        second = []
        for attempt, tight in self._attempts(ground.case_context, edits, sampler_seed):
            placement = self._place(ground, attempt, rng, tight=tight)
            if placement is None:
                continue
            if _second_choice(placement):
                second.append((attempt, placement))
            else:
                yield attempt, placement
        yield from sorted(second, key=lambda at: _preference(at[1]), reverse=True)

    def _place(
        self, ground: PlacementRegion, attempt: _Attempt, rng: Rng, *, tight: bool
    ) -> dict[str, Any] | None:
        """Find a likely place that holds all of an edited lesion, or else the best one found.

        Where training lesions keep to one side of the body's middle, new ones do if they can.
        """
        options = self.options
        least = options.inside * (CLIPPED if tight else 1)
        looked_at = attempt.voxels[:: attempt.each]
        best: dict[str, Any] | None = None
        places = centres(ground, attempt.donor, len(attempt.voxels), options.tries, rng)
        for tried, centre in enumerate(places, start=1):
            corner = np.array(centre) - np.round(attempt.middle).astype(int)
            shares = ground.share(
                looked_at + corner, least, options.shown, each=attempt.each, tight=tight
            )
            if shares is None:
                continue
            inside, likely = round(shares[0], 4), round(shares[1], 4)
            placement: dict[str, Any] = {"corner": corner.tolist(), "tries": tried}
            placement["inside"] = inside
            if tight:
                placement["clipped"] = True
            if ground.surroundings is not None:
                placement["likely"] = likely
            if likely < ground.least_likely:
                if ground.bare:
                    continue
                placement["unlikely"] = True
            if not ground.keeps_aside([lesion + corner for lesion in attempt.lesions]):
                placement["astride"] = True
            if inside >= WHOLE and not _second_choice(placement):
                return placement
            if best is None or _preference(placement) > _preference(best):
                best = placement
        return best


def _second_choice(placement: Mapping[str, Any]) -> bool:
    """Whether a place is taken only if no better one is found."""
    return "unlikely" in placement or "astride" in placement


def _preference(placement: Mapping[str, Any]) -> tuple[bool, bool, float]:
    """Order of places, the best last."""
    likely, aside = "unlikely" not in placement, "astride" not in placement
    return likely, aside, placement["inside"] * placement.get("likely", 1.0)


def seeded(*numbers: int) -> Rng:
    """Return a generator of random numbers that these numbers seed."""
    return np.random.default_rng(np.random.SeedSequence(numbers))


def _change(
    cut: LesionCrop,
    case_pool: CasePool,
    index: int,
    edits: Sequence[Edit],
    rng: Rng,
    *,
    carved: bool,
) -> _Attempt | None:
    """Cut a lesion out and draw its edits; None if edits leave nothing."""
    for widened in range(CUTS):
        wide = replace(cut, margin_mm=cut.margin_mm * 2**widened)
        donor = wide(case_pool)
        reach = None if carved else cut.margin_mm
        scene = scene_of(donor, index, case_pool)
        change = EditedLesion(scene, donor.known, donor, reach).draw(edits, rng)
        if not (change.labels > 0).any():
            return None
        if not change.touches:
            break
    provenance: dict[str, Any] = {"donor": cut.case_id, "slice": cut.slice_index, "part": cut.part}
    provenance["margin_mm"] = wide.margin_mm
    return _Attempt(donor, change, provenance)


def _brought(
    ground: PlacementRegion, change: EditedLesion, provenance: dict[str, Any]
) -> PlacedLesion:
    case_context = ground.case_context
    image, usable = matched_intensities(change, provenance["seed"])
    labels, taken = change.labels, None
    if "carve_mm" in provenance:
        carved = signed_distance(labels > 0, case_context.schema.spacing) <= provenance["carve_mm"]
        usable &= carved | (labels == 0)
        labels = np.where(carved, labels, np.int16(0))
        taken = carved & usable
    lesion, donor = put(ground, labels, image, usable, change.known, provenance["corner"])
    region = None
    if taken is not None:
        start = [-place for place in provenance["corner"]]
        landed = crop_pad(taken, start, ground.free.shape, False)
        region = (lesion > 0) | (landed & ground.free)
    labels = np.where(lesion > 0, lesion, case_context.labels)
    return PlacedLesion(labels, lesion, donor, region, change.steps, provenance)


def _shaped(
    ground: PlacementRegion, change: EditedLesion, provenance: dict[str, Any]
) -> PlacedLesion:
    case_context = ground.case_context
    lesion = _landed(ground, change.labels, provenance["corner"])
    labels = np.where(lesion > 0, lesion, case_context.labels)
    image = case_context.case.image
    return PlacedLesion(labels, lesion, image, steps=change.steps, provenance=provenance)


def _redrawn(
    case_context: CaseContext, change: EditedLesion, provenance: dict[str, Any]
) -> PlacedLesion:
    before, after, classes = case_context.labels, change.labels, provenance["classes"]
    changed = before != after
    chosen = mask_of(after, classes) | (changed & (after > 0))
    emptied = np.asarray(changed & (after == 0))
    image, usable = matched_intensities(change, provenance["seed"])
    image = fill_emptied(image, usable, emptied, case_context)
    donor = np.where(usable | emptied, image, case_context.case.image)
    shown = {"room": bool(chosen.any()), "changed": bool(changed.any())}
    return PlacedLesion(
        labels=after,
        lesion=np.where(chosen, after, np.int16(0)),
        donor=donor.astype(np.float32),
        region=chosen | emptied if emptied.any() else None,
        steps=change.steps,
        provenance=provenance | shown,
    )


def _sham(inserted: PlacedLesion, case_context: CaseContext, seed: int) -> PlacedLesion:
    """Give a lesion's voxels tissue of the background; without such tissue there is no lesion."""
    where, image = inserted.lesion > 0, case_context.case.image
    rng = np.random.default_rng((seed, SHAM))
    body = case_context.body
    free = annotated(case_context.case, body & ~where)
    found = similar_place(Tissue(image, free, free | where), where, rng)
    donor, lesion = image, np.zeros_like(inserted.lesion)
    if found is not None and found[1] <= UNLIKE:
        donor, lesion = image.copy(), inserted.lesion
        fill(donor, [(where, found[0])], free, body)
    return replace(inserted, labels=case_context.labels, lesion=lesion, donor=donor, region=None)


def _nothing(case_context: CaseContext, provenance: dict[str, Any]) -> PlacedLesion:
    return PlacedLesion(
        labels=case_context.labels,
        lesion=np.zeros_like(case_context.labels),
        donor=case_context.case.image,
        provenance=provenance,
    )


def no_room(provenance: Mapping[str, Any]) -> str:
    """Return why a sample without room for its lesion is rejected; empty for others."""
    placement = provenance.get("lesions")
    if placement is None or placement["room"]:
        return ""
    if "stays" in placement:
        return (
            "a lesion of the background cannot be taken out, expected tissue like its rim "
            "elsewhere in the image; set --lesions add"
        )
    return (
        "no room for a lesion, expected a background that looks like training cases with one, and "
        "a likely place: lower inside or apart_mm, raise tries, or set where=anywhere, of --lesions"
    )


def lesion_drawer(
    options: str | None, usual: str | None = None, *, images: bool = True
) -> LesionDrawer:
    """Return the drawer of ``--lesions KEY=VALUE,...``; ``usual`` has defaults of other keys.

    ``images``: see ``LesionDrawer``.
    """
    values: dict[str, Any] = {}
    for text in filter(None, (usual, options)):
        if text.partition(",")[0] in NUMBERS:
            text = f"number={text}"
        read = read_options(LesionOptions, text, f"--lesions {text}", _FORM)
        values.update({key: getattr(read, key) for key in read.model_fields_set})
    return LesionDrawer(LesionOptions(**values), images=images)
