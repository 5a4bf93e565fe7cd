"""Interpolate: a shape between those of two cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from gansynth.conditions.edits.donor_selection import (
    DonorCase,
    DonorEdit,
    DonorEditOptions,
    choose_donor,
    donor_ids,
    draw_plane,
)
from gansynth.conditions.edits.nesting import keeps_nesting
from gansynth.conditions.edits.shared import (
    chosen_classes,
    close_left,
    keeps_classes,
    ordered,
    replaced,
)
from gansynth.conditions.location_prior import depth_of, frame_of
from gansynth.core.case_pool import CaseContext
from gansynth.core.edit import EditContext, EditOptions, EditResult
from gansynth.core.geometry import (
    Mask,
    Matrix,
    affine_coordinates,
    bounding_box,
    centroid,
    mask_of,
    pull_labels,
)
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Schema
from gansynth.data.connected_components import LabelComponents

WEAKER = (1.0, 0.5, 0.25, 0.125)  # shares of the drawn weight that are tried, in order
TURN = np.cos(np.deg2rad(60))  # cosine of the widest angle that a principal axis is turned by


class InterpolateOptions(DonorEditOptions):
    """Which case lends its shape, and the range of its weight."""

    low: float = Field(0.2, ge=0, le=1, description="smallest weight of the other's shape")
    high: float = Field(0.8, ge=0, le=1, description="largest weight of the other's shape")

    _ordered = model_validator(mode="after")(ordered)


class Interpolate(DonorEdit):
    """Interpolates shapes of two subjects by signed distances (Raya and Udupa 1990), by class.

    The other shape is first aligned with the case's. Of three alignments the one with most overlap
    counts: centroid on centroid, with principal axes turned as well, or the same place in the body.
    Distances to the border of every class, also of background, are then mixed. A voxel takes the
    class it is deepest in. A weight of 0 gives the case's own shape, 1 the other's. A mixture is
    drawn again, nearer to the own shape, if a class is lost, exposed or in more pieces than in both
    subjects. If none is good, nothing is changed.
    """

    name: ClassVar[str] = "interpolate"
    Options: ClassVar[type[EditOptions]] = InterpolateOptions
    options: InterpolateOptions

    def draw(self, context: EditContext, rng: np.random.Generator) -> dict[str, Any]:
        """Draw ``weight`` and the lending case (``donor``, ``plane``); ``matrix`` aligns it."""
        labels, case_context = context.labels, self.case_context(context)
        chosen = chosen_classes(self.name, self.options.classes, context.schema)
        classes = chosen or list(context.schema.foreground)
        own_labels = np.where(mask_of(labels, classes), labels, np.int16(0))
        weight = float(rng.uniform(self.options.low, self.options.high))
        tries = 0
        for donor in (
            donor_ids(self.options, case_context, classes, rng) if own_labels.any() else ()
        ):
            plane = draw_plane(case_context.case_pool, donor, classes, depth_of(case_context), rng)
            loan = choose_donor(case_context.case_pool, donor, plane, classes)
            if set(np.unique(loan.labels)) != set(np.unique(own_labels)) | {0}:
                continue
            matrix, centre = _aligned(own_labels, loan, context.schema, case_context)
            params: dict[str, Any] = {"classes": chosen, "donor": donor, "plane": plane}
            params |= {"matrix": matrix.tolist(), "centre": list(centre)}
            mixer = _ShapeInterpolator(
                own_labels, _brought(loan, params, own_labels.shape), context.schema.spacing
            )
            for share in WEAKER:
                tries += 1
                params |= {"strength": share, "tries": tries, "weight": weight * share}
                after = _written(context, mixer(weight * share), params)
                if _good(labels, own_labels, loan, after):
                    return params
        return {"strength": 0.0, "tries": tries}

    def apply(self, context: EditContext, params: Mapping[str, Any]) -> EditResult:
        """See ``Edit.apply``."""
        labels, schema = context.labels, context.schema
        if params["strength"] == 0:
            return replaced(context, labels.copy())
        classes = params["classes"] or schema.foreground
        own_labels = np.where(mask_of(labels, classes), labels, np.int16(0))
        loan = choose_donor(
            self.case_context(context).case_pool, params["donor"], params["plane"], classes
        )
        mixer = _ShapeInterpolator(
            own_labels, _brought(loan, params, own_labels.shape), schema.spacing
        )
        return replaced(context, _written(context, mixer(params["weight"]), params))


class _ShapeInterpolator:
    """Mixes two label maps of one shape; distances are measured once."""

    def __init__(self, own_labels: LabelArray, lent: LabelArray, spacing: Sequence[float]) -> None:
        self.box = bounding_box((own_labels > 0) | (lent > 0), margin=1)
        self.shape = own_labels.shape
        a, b = own_labels[self.box], lent[self.box]
        self.values = np.unique(np.concatenate([np.unique(a), np.unique(b), [0]]))
        self.ends = [
            np.stack([_signed(cut == value, spacing) for value in self.values]) for cut in (a, b)
        ]

    def __call__(self, weight: float) -> LabelArray:
        mixed = (1 - weight) * self.ends[0] + weight * self.ends[1]
        out = np.zeros(self.shape, np.int16)
        out[self.box] = self.values[mixed.argmin(axis=0)]
        return out


def _signed(mask: Mask, spacing: Sequence[float]) -> FloatArray:
    """Distance in mm to the border of a mask: below 0 inside, above 0 outside."""
    far = float(np.linalg.norm(np.multiply(mask.shape, spacing)))
    if mask.all() or not mask.any():
        return np.full(mask.shape, -far if mask.any() else far, np.float32)
    return _to_border(~mask, spacing) - _to_border(mask, spacing)


def _to_border(mask: Mask, spacing: Sequence[float]) -> FloatArray:
    """Distance in mm of a mask's voxels to its border, half a voxel before the next voxel."""
    from scipy.ndimage import distance_transform_edt

    away, there = distance_transform_edt(mask, sampling=spacing, return_indices=True)
    half = np.zeros(mask.shape)
    for axis, mm in enumerate(spacing):
        here = np.arange(mask.shape[axis]).reshape(
            [-1 if a == axis else 1 for a in range(mask.ndim)]
        )
        half += np.square((there[axis] - here) * mm**2)
    half = np.sqrt(half) / np.maximum(away, 1e-9) / 2
    return np.asarray(np.where(mask, away - half, 0), np.float32)


def _written(context: EditContext, mixed: LabelArray, params: Mapping[str, Any]) -> LabelArray:
    """Replace the case's own shape by the mixed one, within the body."""
    own_mask = mask_of(context.labels, params["classes"] or context.schema.foreground)
    left = close_left(context.labels, own_mask, context.schema.spacing)
    within = (context.labels != OUTSIDE) & (context.body | own_mask)
    return np.where((mixed > 0) & within, mixed, left)


def _good(labels: LabelArray, own_labels: LabelArray, loan: DonorCase, after: LabelArray) -> bool:
    """Whether classes are kept, nested as before, and in no more pieces than in both cases."""

    def pieces(label_map: LabelArray, value: int) -> int:
        return int(LabelComponents.of(label_map == value).sizes.size)

    values = np.unique(own_labels[own_labels > 0]).tolist()
    return (
        keeps_classes(labels, after)
        and keeps_nesting(labels, after)
        and all(
            pieces(after, v) <= max(pieces(own_labels, v), pieces(loan.labels, v)) for v in values
        )
    )


# -- bringing one shape onto another --------------------------------------------------------------


def _aligned(
    own_labels: LabelArray, loan: DonorCase, schema: Schema, case_context: CaseContext
) -> tuple[Matrix, tuple[float, ...]]:
    """Return the matrix (n, n + 1) about a centre, in voxels, with which the loan overlaps most."""
    here, there = own_labels > 0, loan.labels > 0
    middle, lent_middle = np.array(centroid(here)), np.array(centroid(there))
    mm = np.array(schema.spacing)
    turned = np.diag(1 / mm) @ _turn(here, there, mm) @ np.diag(mm)
    at_same = loan.frame.voxels(frame_of(case_context).relative(middle[None]))[0]
    pulls = [
        (np.eye(len(mm)), np.rint(lent_middle - middle)),
        (turned, lent_middle - middle),
        (np.eye(len(mm)), np.rint(at_same - middle)),
    ]
    centre = tuple(float(c) for c in middle)
    matrices = [np.column_stack(pull) for pull in pulls]
    return max(matrices, key=lambda m: _overlap(here, there, m, centre)), centre


def _overlap(here: Mask, there: Mask, matrix: Matrix, centre: tuple[float, ...]) -> float:
    lent = there.astype(np.int16)
    pulled = pull_labels(lent, affine_coordinates(here.shape, matrix, centre)) > 0
    both = int(here.sum()) + int(pulled.sum())
    return 2 * float((here & pulled).sum()) / both


def _turn(here: Mask, there: Mask, mm: Matrix) -> Matrix:
    """The rotation (n, n), in mm, from one mask's principal axes to another's."""
    axes = [_axes(mask, mm) for mask in (here, there)]
    best = np.eye(len(mm))
    if axes[0] is None or axes[1] is None:
        return best
    for signs in product((1.0, -1.0), repeat=len(mm)):
        turn = axes[1] @ np.diag(signs) @ axes[0].T
        if np.linalg.det(turn) > 0 and np.all(np.diag(axes[0].T @ turn @ axes[0]) >= TURN):
            return np.asarray(turn)
    return best


def _axes(mask: Mask, mm: Matrix) -> Matrix | None:
    """Principal axes (n, n) in columns; None of a mask too flat to have them all."""
    points = np.argwhere(mask) * mm
    if len(points) <= len(mm):
        return None
    return np.asarray(np.linalg.eigh(np.cov(points.T))[1])


def _brought(loan: DonorCase, params: Mapping[str, Any], shape: Sequence[int]) -> LabelArray:
    """The loan in the scene's array, int16; 0 elsewhere."""
    pull = affine_coordinates(shape, np.array(params["matrix"]), params["centre"])
    return pull_labels(loan.labels, pull)
