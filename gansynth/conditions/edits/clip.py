"""Foreground only where a body is."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.shared import keeps_classes
from gansynth.core.edit import Edit, EditContext, EditOptions, EditResult, Params
from gansynth.core.geometry import Rng
from gansynth.core.schema import OUTSIDE, LabelArray, Mask, Schema
from gansynth.data.connected_components import LabelComponents


class ClipOptions(EditOptions):
    """Where foreground may lie."""

    margin_mm: float = Field(
        0.0, ge=0, le=200, description="least distance of foreground from the body's edge, mm"
    )
    border: bool = Field(
        False,
        description="the array's border is an edge too; right for whole images, wrong for crops, "
        "where foreground runs on beyond it",
    )
    to: Literal["labels", "image"] = Field(
        "labels",
        description="labels: the body is what is not labelled outside (-1); image: what the case's "
        "image shows, too, e.g. of skull-stripped brains",
    )


class Clip(Edit):
    """Keeps foreground in the largest connected body of voxels that are not ``OUTSIDE``.

    Meant for the end of a chain: earlier edits may have pushed labels into a detached part of the
    body, or closer to its edge than in any case. Foreground elsewhere becomes background. Context
    stays. Where the data has no ``OUTSIDE``, the body is the whole array, unless ``to=image``.
    """

    name: ClassVar[str] = "clip"
    Options: ClassVar[type[EditOptions]] = ClipOptions
    options: ClipOptions

    def draw(self, context: EditContext, rng: Rng) -> dict[str, Any]:
        """Find the margin to use; no randomness.

        Returns:
            ``margin_mm``: the option's, halved until every class keeps at least 30 % of its voxels.
            The last of 8 tries has no margin. None clips nothing.
        """
        by_image = self.options.to == "image" and context.case_context is not None
        params: dict[str, Any] = {"margin_mm": None, "border": self.options.border}
        if by_image:
            params["to"] = "image"
        labels = _shown(context) if by_image else context.labels
        widest = self.options.margin_mm
        margins = [widest * 0.5**k for k in range(7)] if widest > 0 else []
        for margin in (*margins, 0.0):
            if keeps_classes(labels, _clipped(labels, margin, params["border"], context.schema)):
                params["margin_mm"] = margin
                break
        return params

    def apply(self, context: EditContext, params: Params) -> EditResult:
        labels, margin = context.labels, params["margin_mm"]
        if params.get("to") == "image":
            labels = _shown(context)
        if margin is None:
            return EditResult(labels.copy())
        return EditResult(_clipped(labels, margin, params["border"], context.schema))


def _clipped(labels: LabelArray, margin: float, border: bool, schema: Schema) -> LabelArray:
    """Remove foreground off the largest body, or within a margin in mm of its edge."""
    body = _largest_body(labels != OUTSIDE)
    if margin > 0:
        body = _off_the_edge(body, margin, schema, border=border)
    return np.where((labels > 0) & ~body, np.int16(0), labels)


def _shown(context: EditContext) -> LabelArray:
    """Remove foreground outside of the image's body; foreground of the case counts as body."""
    labels, case_context = context.labels, context.case_context
    if case_context is None:
        return labels
    outside = ~case_context.body & (case_context.labels <= 0)
    placement, seen = case_context.placement, outside
    if placement.corner:
        beyond = case_context.case_pool.space.padding(case_context.shape, placement)
        if beyond is not None:
            seen = outside & ~beyond
    if not seen.any():
        return labels
    return np.where((labels > 0) & outside, np.int16(0), labels)


def _largest_body(inside: Mask) -> Mask:
    if inside.all() or not inside.any():
        return inside
    bodies = LabelComponents.of(inside, corners=False)
    return np.asarray(bodies.numbered == bodies.numbers[0])


def _off_the_edge(body: Mask, margin: float, schema: Schema, *, border: bool) -> Mask:
    """Mark voxels of a body that lie more than ``margin`` mm from any voxel beyond it."""
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(body, 1, constant_values=not border)
    if padded.all():
        return body
    distance = distance_transform_edt(padded, sampling=schema.spacing)
    unpadded = (slice(1, -1),) * body.ndim
    return np.asarray(distance[unpadded] > margin)
