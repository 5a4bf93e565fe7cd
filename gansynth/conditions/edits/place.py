"""Place: lesions moved to where training cases have theirs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.pieces import (
    Landing,
    PieceOptions,
    cut_by_crop,
    lesions,
    pull_image,
    taken,
)
from gansynth.conditions.edits.shared import chosen_classes, replaced, unchanged
from gansynth.conditions.location_prior import place_drawer
from gansynth.core.edit import CaseEdit, EditContext, EditOptions, EditResult
from gansynth.core.geometry import Mask
from gansynth.core.schema import LabelArray
from gansynth.data.lesions import LesionPart

DRAWS = 64  # places that are drawn for a lesion until there is room at one


class PlaceOptions(PieceOptions):
    """Which lesions, and to where."""

    each: bool = Field(False, description="every connected lesion to a place of its own")
    where: Literal["prior", "anywhere"] = Field(
        "prior", description="prior: where training cases have theirs; anywhere in the body"
    )


class PlaceEdit(CaseEdit):
    """Moves lesions to places where there is room: in the body, off other foreground.

    Size and shape stay. A lesion without room stays where it is, and so does one that a crop cuts
    off.
    """

    name: ClassVar[str] = "place"
    Options: ClassVar[type[EditOptions]] = PlaceOptions
    options: PlaceOptions

    def draw(self, context: EditContext, rng: np.random.Generator) -> dict[str, Any]:
        """Draw ``shifts``, in voxels, of the lesions; zeros of those that stay."""
        labels, schema, case_context = context.labels, context.schema, self.case_context(context)
        chosen, each = chosen_classes(self.name, self.options.classes, schema), self.options.each
        pieces = lesions(labels, schema, chosen, each)
        if not pieces or not case_context.body.any():
            return unchanged("no lesion, or no body")
        draw = place_drawer(case_context, chosen, self.options.where, case_context.body, rng)
        now, shifts = labels, []
        for part in pieces:
            shifts.append([0] * labels.ndim)
            if cut_by_crop(part, case_context):
                continue
            left = taken(now, part)
            case_pool = case_context.body & (left == 0)
            least = float(case_context.body[part.box][part.mask].mean())
            for _ in range(DRAWS):
                shift = np.rint(np.subtract(draw(), part.centroid)).astype(int).tolist()
                if _has_room(part, shift, case_pool, left == 0, least):
                    shifts[-1], now = shift, _placed(left, part, shift)
                    break
        if not np.any(shifts):
            return unchanged("no room elsewhere")
        return {"strength": 1.0, "classes": chosen, "each": each, "shifts": shifts}

    def apply(self, context: EditContext, params: Mapping[str, Any]) -> EditResult:
        """Move lesions; every voxel of the image moves with the lesion landed nearest to it."""
        if params["strength"] == 0:
            return replaced(context, context.labels.copy())
        pieces = lesions(context.labels, context.schema, params["classes"], params["each"])
        moves, now = list(zip(pieces, params["shifts"], strict=True)), context.labels
        for part, shift in moves:
            if any(shift):
                now = _placed(taken(now, part), part, shift)
        return replaced(context, now, pull_image(context, itertools.starmap(_landing, moves)))


def _landing(part: LesionPart, shift: list[int]) -> Landing:
    here, there = _boxes(part, shift)
    n = len(shift)
    return there, part.mask[here], np.column_stack([np.eye(n), np.negative(shift)]), (0.0,) * n


def _boxes(part: LesionPart, shift: list[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What of a moved part lies in the array: within the part's box, and in the array."""
    here, there = [], []
    for cut, by, length in zip(part.box, shift, part.shape, strict=True):
        first, last = max(cut.start + by, 0), min(cut.stop + by, length)
        there.append(slice(first, max(first, last)))
        here.append(slice(first - cut.start - by, max(first, last) - cut.start - by))
    return tuple(here), tuple(there)


def _has_room(
    part: LesionPart, shift: list[int], case_pool: Mask, free: Mask, least: float
) -> bool:
    """Whether a moved part lies in the array, off others, and no less in the body than before."""
    if not any(shift):
        return False
    here, there = _boxes(part, shift)
    if part.mask[here].shape != part.labels.shape:
        return False
    inside = free[there][part.mask], case_pool[there][part.mask]
    return bool(inside[0].all() and inside[1].mean() >= least)


def _placed(left: LabelArray, part: LesionPart, shift: list[int]) -> LabelArray:
    """Labels with a part at its new place, as far as that is free."""
    out = left.copy()
    here, there = _boxes(part, shift)
    written = (part.labels[here] > 0) & (left[there] == 0)
    out[there] = np.where(written, part.labels[here], out[there])
    return out
