"""Enlarging and shrinking by distance in mm, to a requested volume.

A body grows by the voxels nearest to it, and shrinks by those nearest to its surroundings, until
the volume is reached. So lines grow by as many millimetres as balls. Growth takes background and,
around a nested body, the class around it. Where a nested body shrinks, the class around it fills
the gap. Classes that are wrapped in others stay wrapped, and bodies stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from gansynth.conditions.edits.shared import (
    Classes,
    beside,
    chosen_classes,
    classes_around,
    filled,
    keeps_classes,
    keeps_nesting,
    nested_bodies,
    ordered,
    settled,
    wrapped_classes,
)
from gansynth.core.edit import Edit, EditContext, EditOptions, EditResult, Params
from gansynth.core.geometry import Rng, bounding_box, fill_nearest, mask_of
from gansynth.core.schema import OUTSIDE, LabelArray, Mask
from gansynth.data.connected_components import LabelComponents

Indices = tuple[npt.NDArray[np.intp], ...]
STRENGTHS = tuple(0.5**k for k in range(8))  # factors on the logarithm that are tried, in order
ROUNDS = 6  # rounds in which voxels that lie apart from their body are replaced by others
CRUMB = 0.1  # pieces below this share of the largest one are removed where a body shrinks
SMOOTH = 2.0
"""Width of the Gaussian, voxels, that ranks voxels at equal distance by their enclosure."""


class VolumeEditOptions(EditOptions):
    """Which classes change their volume, and how much."""

    classes: Classes = Field(
        None, min_length=1, description="label values to change; None takes the whole foreground"
    )
    low: float
    high: float

    _ordered = model_validator(mode="after")(ordered)


class VolumeEdit(Edit):
    """An edit that changes the volume of chosen classes by a drawn factor.

    The factor is drawn log-uniformly. Its logarithm is halved until every class keeps at least 30 %
    of its voxels (less only if requested) and no wrapped class is exposed. After 8 tries
    ``strength`` is 0: no change. Changed voxels take the channels of the nearest voxel of their new
    label, and the image mirrored at its border.
    """

    options: VolumeEditOptions

    def draw(self, context: EditContext, rng: Rng) -> dict[str, Any]:
        """Draw ``factor`` on the volume (2D: on the area)."""
        labels, schema = context.labels, context.schema
        classes = chosen_classes(self.name, self.options.classes, schema)
        chosen = mask_of(labels, classes or schema.foreground)
        if not chosen.any():
            return {"strength": 0.0, "tries": 0}
        log_factor = rng.uniform(math.log(self.options.low), math.log(self.options.high))
        for tries, strength in enumerate(STRENGTHS, start=1):
            factor = math.exp(strength * log_factor)
            after = change_volume(labels, chosen, factor, schema.spacing, context.body)
            if keeps_classes(labels, after, chosen, factor) and keeps_nesting(labels, after):
                return {"strength": strength, "tries": tries, "classes": classes, "factor": factor}
        return {"strength": 0.0, "tries": len(STRENGTHS)}

    def apply(self, context: EditContext, params: Params) -> EditResult:
        labels, schema = context.labels, context.schema
        if params["strength"] == 0:
            return EditResult(labels.copy())
        chosen = mask_of(labels, params["classes"] or schema.foreground)
        after = change_volume(labels, chosen, params["factor"], schema.spacing, context.body)
        return settled(context, after, after != labels)


class EnlargeOptions(VolumeEditOptions):
    """How much to enlarge."""

    low: float = Field(1.2, ge=1, le=16, description="smallest factor on the volume, no unit")
    high: float = Field(2.0, ge=1, le=16, description="largest factor on the volume, no unit")


class Enlarge(VolumeEdit):
    """Grows chosen classes outwards, as far as there is room in the body.

    They grow over background, and over the class around them where they are nested; a class that
    is wrapped in another stays wrapped. New voxels take the nearest chosen label.
    """

    name: ClassVar[str] = "enlarge"
    Options: ClassVar[type[EditOptions]] = EnlargeOptions


class ShrinkOptions(VolumeEditOptions):
    """How much to shrink."""

    low: float = Field(0.5, ge=0.05, le=1, description="smallest factor on the volume, no unit")
    high: float = Field(0.8, ge=0.05, le=1, description="largest factor on the volume, no unit")


class Shrink(VolumeEdit):
    """Erodes chosen classes from the outside.

    Their voxels become the class around them where they are nested, else background. No body
    vanishes, and no small fragments stay. Where the layer around a wrapped class is eroded, the
    wrapped class becomes that layer.
    """

    name: ClassVar[str] = "shrink"
    Options: ClassVar[type[EditOptions]] = ShrinkOptions


def change_volume(
    labels: LabelArray,
    chosen: Mask,
    factor: float,
    spacing: Sequence[float],
    body: Mask | None = None,
) -> LabelArray:
    """Grow or shrink some voxels, whole classes or parts above background, as one body.

    Their number is multiplied by ``factor``, as far as there is room in ``body``. None allows all
    but ``OUTSIDE``. Spacing is in mm.
    """
    count = round((factor - 1) * int(chosen.sum()))
    if count > 0:
        return _grow(labels, chosen, count, spacing, body)
    return _shrink(labels, chosen, -count, spacing) if count < 0 else labels.copy()


def _grow(
    labels: LabelArray, chosen: Mask, count: int, spacing: Sequence[float], body: Mask | None
) -> LabelArray:
    """Label ``count`` more voxels, or as many as there is room for."""
    free = labels != OUTSIDE if body is None else body & (labels != OUTSIDE)
    wrapped = mask_of(labels, wrapped_classes(labels))
    around = mask_of(labels, classes_around(labels, filled(chosen)))
    out, volume_mm = labels.copy(), count * float(np.prod(spacing))
    # Only a box around the body is searched, which is faster. It grows until all voxels are found.
    # A ball whose volume that is reaches farther than any body grows by it in the open.
    reach_mm = max(volume_mm ** (1 / labels.ndim), 2 * max(spacing))
    while True:
        box = bounding_box(chosen, margin=math.ceil(reach_mm / min(spacing)) + 1)
        is_whole = chosen[box].shape == chosen.shape
        limit_mm = np.inf if is_whole else reach_mm
        crops = (labels[box], chosen[box], free[box], wrapped[box], around[box])
        growth = _growth(*crops, count, spacing, limit_mm)
        if is_whole or int((growth > 0).sum()) == count:
            out[box][growth > 0] = growth[growth > 0]
            return out
        reach_mm *= 2


def _growth(
    labels: LabelArray,
    chosen: Mask,
    free: Mask,
    wrapped: Mask,
    around: Mask,
    count: int,
    spacing: Sequence[float],
    limit_mm: float,
) -> LabelArray:
    """Return labels of new voxels, at most ``count`` of them; 0 elsewhere.

    Args:
        free: voxels that may change.
        wrapped: classes that touch no background.
        around: classes around the chosen body, which a nested body grows over.
        limit_mm: distance from the body up to which it may grow.
    """
    from scipy.ndimage import binary_propagation

    solid = filled(chosen)
    distance, nearest = _distance(solid, spacing)
    new_label, of_wrapped = labels[nearest], wrapped[nearest]
    bodies = LabelComponents.of(solid).numbered
    of_nested_body = nested_bodies(labels, bodies)[bodies[nearest]]
    background = labels == 0
    # A wrapped class grows neither into background nor up to it, so that it stays wrapped.
    over_class_around = around & of_nested_body & ~(of_wrapped & beside(background))
    over_background = background & ~of_wrapped
    allowed = over_class_around | over_background
    allowed &= free & ~solid & (distance <= limit_mm) & ~_between(bodies, nearest)
    order = _order(distance, solid, allowed)
    taken = np.zeros(labels.shape, bool)
    also_by_corners = np.ones((3,) * labels.ndim, bool)
    for _ in range(ROUNDS):
        taken[:] = False
        taken.ravel()[order[:count]] = True
        # What no path of taken voxels joins to its body gives way to the next ones in order.
        joined = binary_propagation(solid, also_by_corners, mask=solid | taken)
        loose = taken & ~joined
        taken &= joined
        if not loose.any():
            break
        order = order[~loose.ravel()[order]]
    return np.where(taken, new_label, np.int16(0))


def _shrink(labels: LabelArray, chosen: Mask, count: int, spacing: Sequence[float]) -> LabelArray:
    """Take ``count`` voxels from the chosen ones, or as many as may go."""
    from scipy.ndimage import maximum_position

    box = bounding_box(chosen, margin=1)
    cut, own_mask = labels[box], chosen[box]
    solid = filled(own_mask)
    components = LabelComponents.of(solid)
    bodies = components.numbered
    nested = nested_bodies(cut, bodies)
    surroundings = cut == 0
    if nested.any():
        surroundings |= mask_of(cut, classes_around(labels, filled(chosen)))
    surroundings &= ~solid
    if not surroundings.any():
        return labels.copy()
    depth, nearest = _distance(surroundings, spacing)
    new_label = np.where(nested[bodies], cut[nearest], np.int16(0))
    becomes_background = new_label == 0
    wrapped = mask_of(cut, wrapped_classes(labels))
    # A wrapped class that is not chosen must not come to touch background.
    may_go = own_mask & ~(becomes_background & beside(wrapped & ~own_mask))
    for deepest in maximum_position(np.where(own_mask, depth, -1), bodies, components.numbers):
        may_go[deepest] = False  # a small body is not to vanish beside a large one
    taken = _worn(solid, may_go, _order(depth, ~solid, may_go), count)
    after = np.where(taken, new_label, cut)
    # Where a chosen layer went, the chosen wrapped class behind it becomes that layer.
    exposed = own_mask & ~taken & wrapped & beside(taken & becomes_background)
    layer = own_mask & ~wrapped
    out = labels.copy()
    out[box] = np.where(exposed, fill_nearest(cut, exposed, layer, spacing), after)
    return out


def _worn(solid: Mask, may_go: Mask, order: npt.NDArray[np.intp], count: int) -> Mask:
    """Take the first voxels of an order; fragments that would break off go first."""
    taken = np.zeros(solid.shape, bool)
    for _ in range(ROUNDS):
        taken[:] = False
        taken.ravel()[order[:count]] = True
        remaining = LabelComponents.of(solid & ~taken)
        must_stay = np.isin(remaining.numbers, np.unique(remaining.numbered[solid & ~may_go]))
        small = remaining.sizes < CRUMB * remaining.sizes.max(initial=0)
        fragments = remaining.numbers[~must_stay & small]
        if not fragments.size:
            return taken
        first = np.isin(remaining.numbered.ravel()[order], fragments)
        order = np.concatenate([order[first], order[~first]])
    taken |= np.isin(remaining.numbered, fragments)
    return taken


def _between(bodies: npt.NDArray[np.int32], nearest: Indices) -> Mask:
    """Mark voxels at which bodies would merge: a neighbour is nearer to another body."""
    from scipy.ndimage import maximum_filter, minimum_filter

    if bodies.max(initial=0) < 2:
        return np.zeros(bodies.shape, bool)
    nearest_body = bodies[nearest]
    return np.asarray(maximum_filter(nearest_body, 3) != minimum_filter(nearest_body, 3))


def _distance(mask: Mask, spacing: Sequence[float]) -> tuple[npt.NDArray[np.float64], Indices]:
    """Return the distance in mm to the nearest voxel of a mask, and that voxel's indices."""
    from scipy.ndimage import distance_transform_edt

    distance, index = distance_transform_edt(~mask, sampling=spacing, return_indices=True)
    return np.asarray(distance), tuple(index)


def _order(distance: npt.NDArray[np.float64], solid: Mask, allowed: Mask) -> npt.NDArray[np.intp]:
    """Sort flat indices of voxels: the nearest first, at equal distance the most enclosed."""
    from scipy.ndimage import gaussian_filter

    enclosed = gaussian_filter(solid.astype(np.float32), SMOOTH, mode="nearest")
    voxels = np.flatnonzero(allowed)
    keys = (-enclosed.ravel()[voxels], distance.ravel()[voxels])  # the last key counts first
    return np.asarray(voxels[np.lexsort(keys)])
