"""Transplant: another case's tumour on the brain of this case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.donor_selection import (
    DonorCase,
    DonorEdit,
    DonorEditOptions,
    choose_donor,
    donor_cases,
    donor_ids,
)
from gansynth.conditions.edits.nesting import keeps_nesting
from gansynth.conditions.edits.shared import chosen_classes, close_left, keeps_classes, replaced
from gansynth.conditions.location_prior import frame_of, place_drawer
from gansynth.core.case_pool import CaseContext
from gansynth.core.edit import EditContext, EditOptions, EditResult
from gansynth.core.geometry import centroid, mask_of
from gansynth.core.resample import crop_pad
from gansynth.core.schema import OUTSIDE, LabelArray


class TransplantOptions(DonorEditOptions):
    """Which case lends its tumour, its new place, and the fate of the case's own tumour."""

    own: Literal["remove", "keep"] = Field(
        "remove", description="the case's own voxels of these classes: remove or keep"
    )
    where: Literal["same", "prior", "anywhere"] = Field(
        "same",
        description="same place relative to the body's box; prior: where training cases have "
        "theirs; anywhere in the body",
    )


class Transplant(DonorEdit):
    """Puts the tumour of case A on the brain of case B (Shin et al. 2018; Doncenco 2022).

    The tumour keeps its size and shape and is cut where B's body ends. It lands at the same place
    relative to the body. If too little of it is left, it is moved towards the body's middle. If
    that fails, nothing is changed, and ``why`` gives the reason. B may be free of tumours.
    """

    name: ClassVar[str] = "transplant"
    Options: ClassVar[type[EditOptions]] = TransplantOptions
    options: TransplantOptions

    def draw(self, context: EditContext, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the lending case (``donor``, ``plane``) and the ``shift`` in voxels."""
        case_context = self.case_context(context)
        chosen = chosen_classes(self.name, self.options.classes, context.schema)
        classes = chosen or list(context.schema.foreground)
        donors = donor_ids(self.options, case_context, classes, rng)
        held = False
        for tries, pull, loan in donor_cases(case_context, donors, classes, rng):
            held = True
            params = {
                "strength": 1.0,
                "tries": tries,
                "classes": chosen,
                "own": self.options.own,
                "donor": loan.case_id,
                "plane": loan.plane,
                "shift": self._shift(loan, case_context, classes, pull, rng),
            }
            if _fits(context, loan, params):
                return params
        why = "too little of it lies in the body" if held else "nobody lends these classes"
        return {"strength": 0.0, "donor": donors[0] if donors else None, "why": why}

    def apply(self, context: EditContext, params: Mapping[str, Any]) -> EditResult:
        """See ``Edit.apply``."""
        if params["strength"] == 0:
            return replaced(context, context.labels.copy())
        classes, case_pool = (
            params["classes"] or context.schema.foreground,
            self.case_context(context).case_pool,
        )
        loan = choose_donor(case_pool, params["donor"], params["plane"], classes)
        landed = _landed(context, loan, params)
        return replaced(context, np.where(landed > 0, landed, _bare(context, params)))

    def _shift(
        self,
        loan: DonorCase,
        case_context: CaseContext,
        classes: list[int],
        pull: float,
        rng: np.random.Generator,
    ) -> list[int]:
        if self.options.where == "same":
            relative = loan.frame.relative(np.array([loan.middle]))
            middle = np.array(centroid(case_context.body))
            target = (1 - pull) * frame_of(case_context).voxels(relative)[0] + pull * middle
        else:
            draw = place_drawer(case_context, classes, self.options.where, case_context.body, rng)
            target = np.array(draw(), float)
        shift: list[int] = np.rint(target - np.array(loan.middle)).astype(int).tolist()
        return shift


def _bare(context: EditContext, params: Mapping[str, Any]) -> LabelArray:
    """The labels without the case's own tumour, if it is to be removed."""
    own_mask = mask_of(context.labels, params["classes"] or context.schema.foreground)
    if params["own"] == "keep" or not own_mask.any():
        return context.labels
    return close_left(context.labels, own_mask, context.schema.spacing)


def _landed(context: EditContext, loan: DonorCase, params: Mapping[str, Any]) -> LabelArray:
    """Return the part of the loan that lies in the body: int16, 0 elsewhere."""
    labels = context.labels
    placed = crop_pad(loan.labels, [-by for by in params["shift"]], labels.shape, 0)
    return np.where(context.body & (labels != OUTSIDE), placed, np.int16(0))


def _fits(context: EditContext, loan: DonorCase, params: Mapping[str, Any]) -> bool:
    """Whether enough is left of every class of the loan, and of those that stay."""
    landed, bare = _landed(context, loan, params), _bare(context, params)
    staying = np.where((bare > 0) & (context.labels == bare), bare, np.int16(0))
    over = np.where(landed > 0, landed, bare)
    complete = keeps_classes(loan.labels, landed) and keeps_classes(staying, over)
    return complete and keeps_nesting(loan.labels, over)
