"""Merge: a tissue map of one case and a tumour map of another become one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from gansynth.conditions.edits.donor_selection import (
    DonorCase,
    DonorEdit,
    DonorOptions,
    choose_donor,
    donor_cases,
    donor_ids,
)
from gansynth.conditions.edits.nesting import keeps_nesting
from gansynth.conditions.edits.shared import Classes, chosen_classes, keeps_classes, replaced
from gansynth.conditions.location_prior import frame_of
from gansynth.core.case_pool import CaseContext
from gansynth.core.edit import EditContext, EditOptions, EditResult
from gansynth.core.geometry import Mask, affine_coordinates, centroid, mask_of, pull_labels
from gansynth.core.schema import OUTSIDE, LabelArray


class MergeOptions(DonorOptions):
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


class Merge(DonorEdit):
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
        schema, case_context = context.schema, self.case_context(context)
        over = self.options.tumour is not None
        values = self.options.tumour or self.options.tissues
        classes = chosen_classes(self.name, values, schema, "tumour" if over else "tissues")
        if classes is None:
            classes = list(schema.foreground)
        donors = donor_ids(self.options, case_context, classes, rng)
        for tries, pull, loan in donor_cases(case_context, donors, classes, rng):
            params = {
                "strength": 1.0,
                "tries": tries,
                "classes": classes,
                "over": over,
                "donor": loan.case_id,
                "plane": loan.plane,
                "matrix": _shifted(loan, case_context, pull)
                if over
                else _stretched(loan, case_context),
            }
            if _good(context.labels, loan, _lent(context, loan, params), over):
                return params
        why = "no room in the body, or nobody lends these classes"
        return {"strength": 0.0, "donor": donors[0] if donors else None, "why": why}

    def apply(self, context: EditContext, params: Mapping[str, Any]) -> EditResult:
        """See ``Edit.apply``."""
        if params["strength"] == 0:
            return replaced(context, context.labels.copy())
        case_pool = self.case_context(context).case_pool
        lent = _lent(
            context,
            choose_donor(case_pool, params["donor"], params["plane"], params["classes"]),
            params,
        )
        return replaced(context, np.where(lent > 0, lent, context.labels))


def _lent(context: EditContext, loan: DonorCase, params: Mapping[str, Any]) -> LabelArray:
    """Return the part of the loan that is written: int16, 0 elsewhere."""
    labels, matrix = context.labels, np.array(params["matrix"])
    pull = affine_coordinates(labels.shape, matrix, (0.0,) * labels.ndim)
    free: Mask = labels == 0
    if params["over"]:
        free = (labels != OUTSIDE) & ~mask_of(labels, params["classes"])
    return np.where(free & context.body, pull_labels(loan.labels, pull), np.int16(0))


def _good(labels: LabelArray, loan: DonorCase, lent: LabelArray, over: bool) -> bool:
    """Whether something is lent, classes keep enough voxels, and a tumour's stay nested."""
    if not over:
        return bool(lent.any())
    after = np.where(lent > 0, lent, labels)
    complete = keeps_classes(labels, after) and keeps_classes(loan.labels, lent)
    return complete and keeps_nesting(loan.labels, after)


def _stretched(loan: DonorCase, case_context: CaseContext) -> list[list[float]]:
    """The pull (n, n + 1), in voxels, that brings body box to body box."""
    frame = frame_of(case_context)
    factor = loan.frame.size / frame.size
    origin = np.zeros((1, case_context.labels.ndim))
    shift = loan.frame.voxels(frame.relative(origin))[0]
    rows: list[list[float]] = np.column_stack([np.diag(factor), shift]).tolist()
    return rows


def _shifted(loan: DonorCase, case_context: CaseContext, pull: float) -> list[list[float]]:
    """The pull by whole voxels to the same place, or as much nearer to the body's middle."""
    middle = np.array(loan.middle)
    same = frame_of(case_context).voxels(loan.frame.relative(middle[None]))[0]
    target = (1 - pull) * same + pull * np.array(centroid(case_context.body))
    shift = np.rint(middle - target)
    rows: list[list[float]] = np.column_stack([np.eye(len(shift)), shift]).tolist()
    return rows
