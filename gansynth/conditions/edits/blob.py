"""Blob: a lesion's shape replaced by a random smooth one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.nesting import keeps_nesting
from gansynth.conditions.edits.pieces import PieceOptions, lesions, taken
from gansynth.conditions.edits.shared import chosen_classes, keeps_classes, settled, unchanged
from gansynth.core.edit import Edit, EditContext, EditOptions, EditResult
from gansynth.core.geometry import bounding_box
from gansynth.core.schema import LabelArray
from gansynth.data.connected_components import LabelComponents
from gansynth.data.lesions import LesionPart


class BlobOptions(PieceOptions):
    """Which lesions, and how uneven their new shape."""

    rough: float = Field(
        0.4, ge=0, le=2, description="deviation of the surface from an ellipsoid, in mean radii"
    )


class Blob(Edit):
    """Gives each lesion the shape of an ellipsoid with smooth noise on its surface.

    It has the lesion's moments and volume; nested classes become layers, in order of their depth.
    The noise is halved until no lesion comes apart, loses a class or a wrapping layer.
    """

    name: ClassVar[str] = "blob"
    Options: ClassVar[type[EditOptions]] = BlobOptions
    options: BlobOptions

    def draw(self, context: EditContext, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the ``seed`` of the noise; ``rough`` is the largest that keeps lesions whole."""
        classes = chosen_classes(self.name, self.options.classes, context.schema)
        params = {"strength": 1.0, "classes": classes, "seed": int(rng.integers(2**32))}
        for strength in (1.0, 0.5, 0.25, 0.0):
            params["rough"] = strength * self.options.rough
            after = self.apply(context, params).labels
            pieces = [LabelComponents.of(m > 0).sizes.size for m in (context.labels, after)]
            kept = keeps_classes(context.labels, after) and keeps_nesting(context.labels, after)
            if kept and pieces[0] == pieces[1]:
                return params
        return unchanged("no room for an ellipsoid")

    def apply(self, context: EditContext, params: Mapping[str, Any]) -> EditResult:
        """See ``Edit.apply``."""
        after = context.labels.copy()
        if params["strength"] == 0:
            return EditResult(after)
        for number, part in enumerate(lesions(after, context.schema, params["classes"], each=True)):
            after = _reshaped(context, after, part, params["rough"], [params["seed"], number])
        return settled(context, after, after != context.labels)


def _reshaped(
    context: EditContext, labels: LabelArray, part: LesionPart, rough: float, seed: list[int]
) -> LabelArray:
    """Replace one lesion's shape, within the body and the labels around it."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    whole, mm, rng = part.whole(), np.array(part.spacing), np.random.default_rng(seed)
    points = np.argwhere(whole > 0) * mm
    moments = (np.cov(points.T, bias=True) + np.diag(mm**2) / 12) * (len(mm) + 2)
    radius = float(np.sqrt(np.trace(moments) / len(mm)))
    box = bounding_box(whole > 0, margin=int(np.ceil(radius / mm.min())) + 1)
    held, out = whole[box], taken(labels, part)
    inside, around = held > 0, out[box]
    off = (np.argwhere(np.ones(held.shape)) + [side.start for side in box]) * mm - points.mean(0)
    away = np.sqrt((off @ np.linalg.inv(moments) * off).sum(axis=1)).reshape(held.shape)
    noise = gaussian_filter(rng.standard_normal(held.shape), radius / 2 / mm)
    away -= rough * noise / max(noise.std(), 1e-9)
    room = np.flatnonzero(context.body[box] & np.isin(around, around[inside & (around >= 0)]))
    nearest = room[np.argsort(away.ravel()[room], kind="stable")[: part.voxels]]
    depth = distance_transform_edt(inside, sampling=part.spacing)
    values = sorted(np.unique(held[inside]), key=lambda value: -depth[held == value].mean())
    layers = np.repeat(values, [np.count_nonzero(held == value) for value in values])
    around[np.unravel_index(nearest, held.shape)] = layers[: len(nearest)]  # a view of out
    return out
