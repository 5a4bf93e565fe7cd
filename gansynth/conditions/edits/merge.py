"""Merge: a tissue map of one case and a tumour map of another become one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from gansynth.conditions.edits.borrowing import (
    Borrowing,
    LenderOptions,
    Loan,
    lend,
    lenders,
    loans,
)
from gansynth.conditions.edits.nesting import keeps_nesting
from gansynth.conditions.edits.shared import Classes, chosen_classes, keeps_classes, replaced
from gansynth.conditions.location_prior import frame_of
from gansynth.core.edit import EditContext, EditOptions, EditResult
from gansynth.core.geometry import Mask, affine_coordinates, centroid, mask_of, pull_labels
from gansynth.core.scene import Scene
from gansynth.core.schema import OUTSIDE, LabelArray


class MergeOptions(LenderOptions):
    """Classes from the other case; by default its whole foreground fills the background."""

    tissues: Classes = Field(
        None, min_length=1, description="label values that fill the background of the case's map"
    )
    tumour: Classes = Field(
        None, min_length=1, description="label values that come on top of the case's tissues"
    )

    @model_validator(mode="after")
    def _one(self) -> MergeOptions:
        if self.tissues is not None and self.tumour is not None:
            raise ValueError("tissues and tumour are both given, expected one: merge twice")
        return self


class Merge(Borrowing):
    """Fills a tumour map with another case's tissues, or puts a tumour on a tissue map.

    Tissues are stretched from body box to body box and written on background only. A tumour keeps
    its size and its place relative to the body. It does not overwrite the case's own voxels of its
    classes.
    """

    name: ClassVar[str] = "merge"
    Options: ClassVar[type[EditOptions]] = MergeOptions
    options: MergeOptions

    def draw(self, context: EditContext, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the lending case (``donor``, ``plane``); ``matrix`` maps voxels to its map."""
        schema, scene = context.schema, self.scene(context)
        over = self.options.tumour is not None
        values = self.options.tumour or self.options.tissues
        classes = chosen_classes(self.name, values, schema, "tumour" if over else "tissues")
        if classes is None:
            classes = list(schema.foreground)
        donors = lenders(self.options, scene, classes, rng)
        for tries, pull, loan in loans(scene, donors, classes, rng):
            params = {
                "strength": 1.0,
                "tries": tries,
                "classes": classes,
                "over": over,
                "donor": loan.case_id,
                "plane": loan.plane,
                "matrix": _shifted(loan, scene, pull) if over else _stretched(loan, scene),
            }
            if _good(context.labels, loan, _lent(context, loan, params), over):
                return params
        why = "no room in the body, or nobody lends these classes"
        return {"strength": 0.0, "donor": donors[0] if donors else None, "why": why}

    def apply(self, context: EditContext, params: Mapping[str, Any]) -> EditResult:
        """See ``Edit.apply``."""
        if params["strength"] == 0:
            return replaced(context, context.labels.copy())
        room = self.scene(context).room
        lent = _lent(
            context, lend(room, params["donor"], params["plane"], params["classes"]), params
        )
        return replaced(context, np.where(lent > 0, lent, context.labels))


def _lent(context: EditContext, loan: Loan, params: Mapping[str, Any]) -> LabelArray:
    """Return the part of the loan that is written: int16, 0 elsewhere."""
    labels, matrix = context.labels, np.array(params["matrix"])
    pull = affine_coordinates(labels.shape, matrix, (0.0,) * labels.ndim)
    free: Mask = labels == 0
    if params["over"]:
        free = (labels != OUTSIDE) & ~mask_of(labels, params["classes"])
    return np.where(free & context.body, pull_labels(loan.labels, pull), np.int16(0))


def _good(labels: LabelArray, loan: Loan, lent: LabelArray, over: bool) -> bool:
    """Whether something is lent, classes keep enough voxels, and a tumour's stay nested."""
    if not over:
        return bool(lent.any())
    after = np.where(lent > 0, lent, labels)
    complete = keeps_classes(labels, after) and keeps_classes(loan.labels, lent)
    return complete and keeps_nesting(loan.labels, after)


def _stretched(loan: Loan, scene: Scene) -> list[list[float]]:
    """The pull (n, n + 1), in voxels, that brings body box to body box."""
    frame = frame_of(scene)
    factor = loan.frame.size / frame.size
    origin = np.zeros((1, scene.labels.ndim))
    shift = loan.frame.voxels(frame.relative(origin))[0]
    rows: list[list[float]] = np.column_stack([np.diag(factor), shift]).tolist()
    return rows


def _shifted(loan: Loan, scene: Scene, pull: float) -> list[list[float]]:
    """The pull by whole voxels to the same place, or as much nearer to the body's middle."""
    middle = np.array(loan.middle)
    same = frame_of(scene).voxels(loan.frame.relative(middle[None]))[0]
    target = (1 - pull) * same + pull * np.array(centroid(scene.body))
    shift = np.rint(middle - target)
    rows: list[list[float]] = np.column_stack([np.eye(len(shift)), shift]).tolist()
    return rows
