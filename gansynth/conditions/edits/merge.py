"""Merge: a tissue map of one case and a tumour map of another become one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from gansynth.conditions.edits.borrowing import (
    TRIES,
    Borrowing,
    LenderOptions,
    Loan,
    draw_plane,
    lend,
    lenders,
)
from gansynth.conditions.edits.moving import chosen_classes, keeps_classes
from gansynth.conditions.edits.nesting import keeps_nesting
from gansynth.conditions.location_prior import depth_of, frame_of
from gansynth.core.edit import EditOptions
from gansynth.core.geometry import Mask, affine_coordinates, centroid, mask_of, pull_labels
from gansynth.core.scene import Scene
from gansynth.core.schema import OUTSIDE, LabelArray, Schema

Values = tuple[Annotated[int, Field(ge=1)], ...]


class MergeOptions(LenderOptions):
    """What comes from the other case; by default its whole foreground fills the background."""

    tissues: Values | None = Field(
        None, min_length=1, description="label values that fill the background of the case's map"
    )
    tumour: Values | None = Field(
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
    its size and comes to the same place relative to the body; of its classes nothing that the case
    has already is overwritten.
    """

    name: ClassVar[str] = "merge"
    Options: ClassVar[type[EditOptions]] = MergeOptions
    options: MergeOptions

    def draw_in(
        self, labels: LabelArray, schema: Schema, rng: np.random.Generator, scene: Scene
    ) -> dict[str, Any]:
        """Draw whose map (``donor``, ``plane``); ``matrix`` says where its voxels are."""
        over = self.options.tumour is not None
        asked = self.options.tumour or self.options.tissues
        classes = chosen_classes(self.name, asked, schema, "tumour" if over else "tissues")
        if classes is None:
            classes = list(schema.foreground)
        donors = lenders(self.options, scene, classes, rng)
        for tries in range(TRIES if donors and scene.body.any() else 0):
            donor = donors[tries % len(donors)]
            plane = draw_plane(scene.room, donor, classes, depth_of(scene), rng)
            loan = lend(scene.room, donor, plane, classes)
            if not loan.labels.any():
                continue
            pull = tries // len(donors) / max(1, TRIES // len(donors) - 1)
            params = {
                "strength": 1.0,
                "tries": tries + 1,
                "classes": classes,
                "over": over,
                "donor": donor,
                "plane": plane,
                "matrix": _shifted(loan, scene, pull) if over else _stretched(loan, scene),
            }
            lent = _lent(labels, loan, params, scene)
            if _good(labels, loan, lent, over):
                return params
        why = "no room in the body, or nobody lends these classes"
        return {"strength": 0.0, "donor": donors[0] if donors else None, "why": why}

    def apply_in(
        self, labels: LabelArray, schema: Schema, params: Mapping[str, Any], scene: Scene
    ) -> LabelArray:
        """See ``Edit.apply_in``."""
        if params["strength"] == 0:
            return labels.copy()
        loan = lend(scene.room, params["donor"], params["plane"], params["classes"])
        lent = _lent(labels, loan, params, scene)
        return np.where(lent > 0, lent, labels)


def _lent(labels: LabelArray, loan: Loan, params: Mapping[str, Any], scene: Scene) -> LabelArray:
    """What of the loan is written: int16, 0 elsewhere."""
    matrix = np.array(params["matrix"])
    pull = affine_coordinates(labels.shape, matrix, (0.0,) * labels.ndim)
    free: Mask = labels == 0
    if params["over"]:
        free = (labels != OUTSIDE) & ~mask_of(labels, params["classes"])
    return np.where(free & scene.body, pull_labels(loan.labels, pull), np.int16(0))


def _good(labels: LabelArray, loan: Loan, lent: LabelArray, over: bool) -> bool:
    """Whether something is lent, and enough is left of all classes; a tumour's stay nested."""
    after = np.where(lent > 0, lent, labels)
    if not over:
        return bool(lent.any())
    kept = keeps_classes(labels, after) and keeps_classes(loan.labels, lent)
    return kept and keeps_nesting(loan.labels, after)


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
