"""Lesions cut out of a case together with their image, and edited with it.

A lesion is cut from the whole case, with a margin, so that a crop's border does not cut edits off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from gansynth.conditions.edit_chain import drawn_edits
from gansynth.conditions.edits.warp import maps_space
from gansynth.conditions.location_prior import learning_cases, native_case
from gansynth.core.case_pool import CaseContext, CasePool
from gansynth.core.edit import Edit, EditContext
from gansynth.core.geometry import Mask, bounding_box, mask_of
from gansynth.core.resample import crop_edge, crop_pad
from gansynth.core.schema import Case, FloatArray, LabelArray, Schema
from gansynth.core.space import Placement
from gansynth.data.lesions import parts

GROWS = 0.15  # share of the lesion's extent that is added to the requested margin on each side
OWN = 1 / 3  # least share of a class in a voxel for the image to show the class there
OTHER = 0.6  # least share of lesion in a voxel for the image to show a lesion that the labels lack
CUBIC: Literal[3] = 3  # spline order for images; linear interpolation would lose half of the noise
WHOLLY = 0.99  # least share of known voxels in a pulled voxel that counts as known


@dataclass(frozen=True)
class LesionDonor:
    """A lesion with its surroundings."""

    labels: LabelArray  # int16 (D, H, W) or (H, W): the lesion alone, 0 elsewhere
    image: FloatArray  # float32 (C, ...)
    known: Mask  # bool, where the image shows this lesion or a body without other lesions
    case: Case  # its case; only id and subject are used
    # of the lesion, in voxels of the whole case (of a slice: of the slice)
    centre: tuple[float, ...]


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
        """Cut the lesion out of the whole case."""
        case = case_pool.uncut(self.case_id, self.slice_index)
        assert case.labels is not None, "donors are labelled"
        lesion = self._lesion(case.labels, case_pool.schema)
        corner, size = self._box(lesion > 0, case_pool.schema.spacing)
        around = mask_of(case.labels, (0, *self.into)) | (lesion > 0)
        held = np.argwhere(lesion > 0)
        return LesionDonor(
            labels=crop_pad(lesion, corner, size, 0),
            image=crop_edge(case.image, corner, size),
            known=crop_pad(around, corner, size, False),
            case=case,
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
    """A label map on which edits are drawn or replayed, with an image that moves along.

    The image is moved when it is first read, because most tried lesions are not used. The mask of
    ``known`` voxels and each class's share of a voxel move with it.
    """

    def __init__(self, case_context: CaseContext, usable: Mask) -> None:
        self.case_context, self.schema = case_context, case_context.case_pool.schema
        self.values = (0, *self.schema.foreground)
        self.steps: list[dict[str, Any]] = []  # edits with their parameters
        self._context = EditContext(case_context.labels, self.schema, case_context)
        self._known = usable
        self._done: list[tuple[Edit, Mapping[str, Any], LabelArray]] = []

    @property
    def labels(self) -> LabelArray:
        """The labels after all edits so far."""
        return self._context.labels

    def draw(self, edits: Sequence[Edit], rng: np.random.Generator) -> EditedLesion:
        """Draw and apply edits in order."""
        for edit, params, after in drawn_edits(self._context, edits, rng):
            self._note(edit, params, after)
        return self

    def replay(self, edits: Mapping[str, Edit], steps: Sequence[Mapping[str, Any]]) -> EditedLesion:
        """Apply recorded edits in order."""
        for step in steps:
            edit, params = edits[step["edit"]], step["params"]
            self._note(edit, params, self._context.edited(edit, params))
        return self

    def _note(self, edit: Edit, params: Mapping[str, Any], after: EditContext) -> None:
        self._done.append((edit, params, self.labels))
        self.steps.append({"edit": edit.name, "params": dict(params)})
        self._context = after

    @property
    def touches(self) -> bool:
        """Whether foreground reaches a face of the array."""
        box = bounding_box(self.labels > 0)
        ends = zip(box, self.labels.shape, strict=True)
        return any(part.start == 0 or part.stop == length for part, length in ends)

    @cached_property
    def together(self) -> bool:
        """Whether all edits move labels and image alike, so that the two fit."""
        return all(
            maps_space(edit) and params.get("classes") is None for edit, params, _ in self._done
        )

    @cached_property
    def _stack(self) -> FloatArray:
        """The moved image, its known voxels and, unless ``together``, the share of each class."""
        image, labels = self.case_context.case.image, self.case_context.labels
        classes = [] if self.together else [labels == value for value in self.values]
        stack = np.stack([*image, self._known, *classes], dtype=np.float32)
        # The image grows as if all were body, even where the labels do not.
        open_scene = replace(self.case_context, find_body=lambda: np.ones(labels.shape, bool))
        pull: FloatArray | None = None
        for edit, params, before in self._done:
            if maps_space(edit):
                if params["strength"] != 0:
                    step_pull = edit.coordinates(before.shape, self.schema, params)
                    pull = step_pull if pull is None else _composed(pull, step_pull)
                continue
            stack, pull = _pulled(stack, pull, len(image)), None
            context = EditContext(before, self.schema, open_scene, image=stack)
            shown_after = edit.apply(context, params).image
            stack = stack if shown_after is None else shown_after
        return _pulled(stack, pull, len(image))

    @property
    def image(self) -> FloatArray:
        """The moved image, float32 (C, ...)."""
        return self._stack[: len(self.case_context.case.image)]

    @property
    def known(self) -> Mask:
        """Mask of voxels that come from known ones, and show no lesion that the labels lack."""
        usable = self._stack[len(self.case_context.case.image)] >= WHOLLY
        if self.together:
            return np.asarray(usable)
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


def _composed(first: FloatArray, then: FloatArray) -> FloatArray:
    """Compose two pulls to one: interpolating once keeps an image's noise."""
    from scipy.ndimage import map_coordinates

    return np.stack([map_coordinates(axis, then, order=1, mode="nearest") for axis in first])


def _pulled(stack: FloatArray, pull: FloatArray | None, images: int) -> FloatArray:
    """Pull channels through a map of space: images by cubic splines, later masks linearly."""
    if pull is None:
        return stack
    from scipy.ndimage import map_coordinates

    out = np.empty_like(stack)
    for number, channel in enumerate(stack):
        order: Literal[1, 3] = CUBIC if number < images else 1
        moved = map_coordinates(channel, pull, order=order, mode="nearest")
        # Splines overshoot at sharp edges.
        out[number] = np.clip(moved, channel.min(), channel.max())
    return out


def matched_intensities(change: EditedLesion, seed: int) -> tuple[FloatArray, Mask]:
    """Fit the image to the edited labels: float32 (C, ...), and a bool mask of usable voxels.

    ``seed`` seeds the noise where a class is filled in.
    """
    import torch

    from gansynth.data.blending import dress

    image, image_labels = change.image, change.shown
    lesion = change.labels > 0
    if change.together:
        return image, np.asarray(change.known | lesion)
    missing = lesion & (image_labels != change.labels)
    usable = np.asarray(change.known | lesion)
    if not missing.any():
        return image, usable
    values = change.schema.foreground
    lacking = set(np.unique(change.labels[missing]).tolist()) - set(
        np.unique(image_labels).tolist()
    )
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
    return CaseContext(
        case, Placement(), shape, index, case_pool, find_body=lambda: np.ones(shape, bool)
    )
