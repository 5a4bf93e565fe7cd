"""Transplant: another case's tumour on the brain at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.borrowing import (
    TRIES,
    Borrowing,
    BorrowOptions,
    Loan,
    draw_plane,
    lend,
    lenders,
    put,
)
from gansynth.conditions.edits.moving import chosen_classes, close_left, keeps_classes
from gansynth.conditions.edits.nesting import keeps_nesting
from gansynth.conditions.location_prior import PlacementPrior, anywhere, depth_of, frame_of
from gansynth.core.edit import EditOptions
from gansynth.core.geometry import centroid, mask_of
from gansynth.core.scene import Scene
from gansynth.core.schema import OUTSIDE, LabelArray, Schema


class TransplantOptions(BorrowOptions):
    """Whose tumour, where to, and what becomes of the case's own."""

    own: Literal["remove", "keep"] = Field(
        "remove", description="the case's own voxels of these classes: remove or keep"
    )
    where: Literal["same", "prior", "anywhere"] = Field(
        "same",
        description="same place relative to the body's box; prior: where training cases have "
        "theirs; anywhere in the body",
    )


class Transplant(Borrowing):
    """Puts the tumour of case A on the brain of case B (Shin et al. 2018; Doncenco 2022).

    It keeps its size and shape and is cut where B's body ends. It lands at the same place relative
    to the body, moved towards the body's middle if too little of it were left; if there is no such
    place either, nothing is changed and ``why`` says so. B may be free of tumours.
    """

    name: ClassVar[str] = "transplant"
    Options: ClassVar[type[EditOptions]] = TransplantOptions
    options: TransplantOptions

    def draw_in(
        self, labels: LabelArray, schema: Schema, rng: np.random.Generator, scene: Scene
    ) -> dict[str, Any]:
        """Draw whose tumour (``donor``, ``plane``) comes where (``shift``, in voxels)."""
        chosen = chosen_classes(self.name, self.options.classes, schema)
        classes = chosen or list(schema.foreground)
        donors = lenders(self.options, scene, classes, rng)
        held = False
        for tries in range(TRIES if donors and scene.body.any() else 0):
            donor = donors[tries % len(donors)]
            plane = draw_plane(scene.room, donor, classes, depth_of(scene), rng)
            loan = lend(scene.room, donor, plane, classes)
            if not loan.labels.any():
                continue
            held = True
            pull = tries // len(donors) / max(1, TRIES // len(donors) - 1)
            params = {
                "strength": 1.0,
                "tries": tries + 1,
                "classes": chosen,
                "own": self.options.own,
                "donor": donor,
                "plane": plane,
                "shift": self._shift(loan, scene, classes, pull, rng),
            }
            if _fits(labels, loan, schema, params, scene):
                return params
        why = "too little of it lies in the body" if held else "nobody lends these classes"
        return {"strength": 0.0, "donor": donors[0] if donors else None, "why": why}

    def apply_in(
        self, labels: LabelArray, schema: Schema, params: Mapping[str, Any], scene: Scene
    ) -> LabelArray:
        """See ``Edit.apply_in``."""
        if params["strength"] == 0:
            return labels.copy()
        classes = params["classes"] or schema.foreground
        loan = lend(scene.room, params["donor"], params["plane"], classes)
        bare = _bare(labels, schema, params)
        landed = _landed(labels, loan, params, scene)
        return np.where(landed > 0, landed, bare)

    def _shift(
        self,
        loan: Loan,
        scene: Scene,
        classes: list[int],
        pull: float,
        rng: np.random.Generator,
    ) -> list[int]:
        frame = frame_of(scene)
        if self.options.where == "same":
            relative = loan.frame.relative(np.array([loan.middle]))
            middle = np.array(centroid(scene.body))
            target = (1 - pull) * frame.voxels(relative)[0] + pull * middle
        elif self.options.where == "prior":
            prior = PlacementPrior.learn(scene.room, classes)
            place = prior.draw(scene.body, rng, frame=frame, depth=depth_of(scene))
            target = np.array(place, float)
        else:
            target = np.array(anywhere(scene.body, rng), float)
        shift: list[int] = np.rint(target - np.array(loan.middle)).astype(int).tolist()
        return shift


def _bare(labels: LabelArray, schema: Schema, params: Mapping[str, Any]) -> LabelArray:
    """The labels without the case's own tumour, if it is to be removed."""
    own = mask_of(labels, params["classes"] or schema.foreground)
    if params["own"] == "keep" or not own.any():
        return labels
    return close_left(labels, own, own, schema.spacing)


def _landed(labels: LabelArray, loan: Loan, params: Mapping[str, Any], scene: Scene) -> LabelArray:
    """What of the loan lies in the body: int16, 0 elsewhere."""
    placed = put(loan.labels, params["shift"], labels.shape)
    return np.where(scene.body & (labels != OUTSIDE), placed, np.int16(0))


def _fits(
    labels: LabelArray, loan: Loan, schema: Schema, params: Mapping[str, Any], scene: Scene
) -> bool:
    """Whether enough is left of every class of the loan, and of those that stay."""
    landed, bare = _landed(labels, loan, params, scene), _bare(labels, schema, params)
    staying = np.where((bare > 0) & (labels == bare), bare, np.int16(0))
    over = np.where(landed > 0, landed, bare)
    kept = keeps_classes(loan.labels, landed) and keeps_classes(staying, over)
    return kept and keeps_nesting(loan.labels, over)
