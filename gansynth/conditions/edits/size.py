"""Size: lesions scaled to sizes of training cases, or to small ones more often."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.nesting import keeps_nesting
from gansynth.conditions.edits.pieces import (
    LEAST,
    Landing,
    PieceOptions,
    cut_by_crop,
    lesions,
    pull_image,
    taken,
)
from gansynth.conditions.edits.shared import chosen_classes, keeps_classes, replaced, unchanged
from gansynth.conditions.location_prior import learning_cases, whole
from gansynth.core.case_pool import CasePool
from gansynth.core.edit import CaseEdit, EditContext, EditOptions, EditResult
from gansynth.core.geometry import Mask, Matrix, affine_coordinates, pull_labels
from gansynth.core.schema import LabelArray
from gansynth.data.lesions import LesionPart
from gansynth.runtime.options import Needs

TRIES = 8  # sizes that are drawn for a lesion until there is room for one
SPREAD = 0.1  # standard deviation of the logarithm of a volume around one that a training case has
KEPT = 0.7  # least share of a resized lesion that must have room
PLANES = 16  # slices of a case whose lesions are measured


class SizeOptions(PieceOptions):
    """Which lesions, and which sizes."""

    needs: ClassVar[Needs] = {"bias": "like=small"}

    like: Literal["training", "small"] = Field(
        "training",
        description="sizes as the training cases' lesions have them; small: small ones more often",
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

    def draw(self, context: EditContext, rng: np.random.Generator) -> dict[str, Any]:
        """Draw ``factors`` on lengths, one for each lesion; 1 of those that stay."""
        labels, schema, case_context = context.labels, context.schema, self.case_context(context)
        options = self.options
        chosen = chosen_classes(self.name, options.classes, schema)
        pieces = lesions(labels, schema, chosen, options.each)
        sizes = learnt_sizes(case_context.case_pool, chosen, options.each)
        sizes = sizes[sizes >= options.min_mm3]
        if not pieces or not sizes.size:
            return unchanged("no lesion here, or none in training cases")
        weights = sizes ** -(options.bias if options.like == "small" else 0.0)
        now, factors = labels, []
        for part in pieces:
            factors.append(1.0)
            if cut_by_crop(part, case_context) or part.volume < options.min_mm3:
                continue
            left = taken(now, part)
            for _ in range(TRIES):
                drawn = rng.choice(sizes, p=weights / weights.sum())
                factor = self._factor(part, drawn * np.exp(SPREAD * rng.standard_normal()))
                if _has_room(part, factor, left, case_context.body):
                    factors[-1], now = factor, _resized(left, part, factor, case_context.body)
                    break
        if factors == [1.0] * len(factors):
            return unchanged("no room")
        return {"strength": 1.0, "classes": chosen, "each": options.each, "factors": factors}

    def apply(self, context: EditContext, params: Mapping[str, Any]) -> EditResult:
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
                volumes += [part.volume for part in parts if part.voxels >= LEAST]
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
    if factor == 1 or np.count_nonzero(written) < KEPT * np.count_nonzero(cut):
        return False
    volume = factor ** len(part.shape)
    complete = keeps_classes(part.labels, written, part.mask, volume)
    return complete and keeps_nesting(part.labels, np.where(written > 0, written, left[box]))


def _resized(left: LabelArray, part: LesionPart, factor: float, body: Mask) -> LabelArray:
    box, _, written = _written(left, part, factor, body)
    out = left.copy()
    out[box] = np.where(written > 0, written, out[box])
    return out
