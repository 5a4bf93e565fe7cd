"""Shared parts of edits that move labels: drawing within bounds, moving, filling gaps.

``classes`` None moves the foreground as a whole: its old place becomes background. With chosen
classes the others stay. A chosen body overwrites what it lands on. Its old place takes the class it
was nested in, or becomes background. ``OUTSIDE`` never changes. Chosen classes that are wrapped in
others stay wrapped, unless ``nested`` is off.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeGuard

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.nesting import beside, filled, keeps_nesting, wrapped_classes
from gansynth.conditions.edits.shared import (
    NESTED_SHARE,
    Classes,
    chosen_classes,
    close_left,
    keeps_classes,
    settle_channels,
)
from gansynth.core.edit import Edit, EditContext, EditOptions, EditResult
from gansynth.core.geometry import Mask, mask_of, nearest_index, nearest_voxels, pull_labels
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Schema, keep_outside
from gansynth.runtime.options import Needs


class WarpOptions(EditOptions):
    """Options of all edits that move labels."""

    needs: ClassVar[Needs] = {"nested": "classes"}

    classes: Classes = Field(
        None, min_length=1, description="label values to move; None moves the whole foreground"
    )
    nested: bool = Field(
        True,
        description="chosen classes that are wrapped in others (a core in its oedema) stay within "
        "them. They move less, and what still comes out is cut off",
    )


class WarpEdit(Edit):
    """An edit that is a map of space, through which labels are pulled.

    ``draw`` tries up to ``len(STRENGTHS)`` times, each at half the strength of the one before. It
    keeps the first draw that leaves every class at least 30 % of its voxels, or less if a smaller
    volume was requested. If none does, it returns ``strength`` 0: no change. The other parameters
    are final: they are not multiplied by ``strength``. ``apply`` reads no options, so a recorded
    step replays with any options.
    """

    Options: ClassVar[type[EditOptions]] = WarpOptions
    STRENGTHS: ClassVar[tuple[float, ...]] = tuple(0.5**k for k in range(8))
    options: WarpOptions

    @abstractmethod
    def draw_move(
        self, moved: Mask, schema: Schema, rng: np.random.Generator, strength: float
    ) -> dict[str, Any]:
        """Draw the parameters of one move, as JSON; ``moved`` marks at least one voxel.

        A strength of 1 draws from the whole range of the options, 0.5 from half of it.
        """

    @abstractmethod
    def coordinates(
        self, shape: Sequence[int], schema: Schema, params: Mapping[str, Any]
    ) -> FloatArray:
        """Where each voxel of the result comes from: float32 (n, *shape), in voxels."""

    def volume_factor(self, schema: Schema, params: Mapping[str, Any]) -> float:
        """Requested factor on the volume; 1 unless the move scales."""
        return 1.0

    def draw(self, context: EditContext, rng: np.random.Generator) -> dict[str, Any]:
        """See ``Edit.draw``; the returned ``tries`` and ``strength`` say what was used.

        Raises:
            UsageFault: if the options name a class the schema lacks.
        """
        labels, schema = context.labels, context.schema
        chosen = chosen_classes(self.name, self.options.classes, schema)
        moved = mask_of(labels, schema.foreground if chosen is None else chosen)
        if not moved.any():
            return {"strength": 0.0, "tries": 0}
        nested = chosen is not None and self.options.nested
        for tries, strength in enumerate(self.STRENGTHS, start=1):
            drawn = self.draw_move(moved, schema, rng, strength)
            params = {"strength": strength, "tries": tries, "classes": chosen, **drawn}
            if nested:
                params["nested"] = True
            after = self.apply(context.with_labels(labels), params).labels
            factor = self.volume_factor(schema, params)
            if not keeps_classes(labels, after, moved, factor):
                continue
            if not nested or _keeps_nested(labels, after, moved, factor):
                return params
        return {"strength": 0.0, "tries": len(self.STRENGTHS)}

    def apply(self, context: EditContext, params: Mapping[str, Any]) -> EditResult:
        """Move labels, channels and image.

        With the whole foreground, all channels move, to the nearest voxel. Voxels whose source lies
        beyond the array or in ``OUTSIDE`` keep theirs. With chosen classes, only their channels
        move. Gaps take those of the nearest voxel of their new label that did not move. The image
        moves whole, interpolated linearly; its border's values lie beyond it.
        """
        labels, schema = context.labels, context.schema
        if params["strength"] == 0:
            return EditResult(labels.copy())
        pull = self.coordinates(labels.shape, schema, params)
        moved = mask_of(labels, params["classes"] or schema.foreground)
        after = warp_labels(labels, moved, pull, schema, nested=params.get("nested", False))
        channels, image = context.channels, context.image
        if channels is not None:
            channels = _move_channels(channels, labels, after, pull, params["classes"], schema)
        if image is not None:
            from scipy.ndimage import map_coordinates

            pulled = [map_coordinates(c, pull, order=1, mode="nearest") for c in image]
            image = np.stack(pulled).astype(np.float32)
        return EditResult(after, channels, image)


def maps_space(edit: Edit) -> TypeGuard[WarpEdit]:
    """Whether an edit moves labels and image alike, through one map of space."""
    return isinstance(edit, WarpEdit) and type(edit).apply is WarpEdit.apply


def warp_labels(
    labels: LabelArray, moved: Mask, pull: FloatArray, schema: Schema, *, nested: bool = False
) -> LabelArray:
    """Pull the voxels ``moved`` of a label map, whole classes, through a map of space.

    Foreground that a moved body wraps completely (a core in its oedema) stays unless the body lands
    on it. No gap opens around it. With ``nested``, voxels of a wrapped class that would touch
    background are cut off.
    """
    solid = np.where(moved, labels, np.int16(0))
    staying = (labels > 0) & ~moved
    if not staying.any():
        return keep_outside(pull_labels(solid, pull), labels)
    wrapped = filled(moved) & staying
    if wrapped.any():
        solid = np.where(wrapped, solid[nearest_voxels(moved, schema.spacing)], solid)
    landed = pull_labels(solid, pull)
    written = landed > 0
    if wrapped.any():
        index, within = nearest_index(pull, labels.shape)
        written &= ~(staying & within & wrapped.ravel()[index])
    left = close_left(labels, moved, schema.spacing, solid > 0)
    if nested:
        written &= ~_coming_out(labels, moved, left, landed)
    return keep_outside(np.where(written, landed, left), labels)


def _coming_out(labels: LabelArray, moved: Mask, left: LabelArray, landed: LabelArray) -> Mask:
    """Mark landed voxels of wrapped classes that are no longer wrapped."""
    inner = mask_of(labels, wrapped_classes(labels)) & moved
    if not inner.any() or (beside(inner) & moved & ~inner).any():  # its wrapper moves as well
        return np.zeros(labels.shape, bool)
    return mask_of(landed, np.unique(labels[inner]).tolist()) & beside(left == 0)


def _keeps_nested(before: LabelArray, after: LabelArray, moved: Mask, factor: float) -> bool:
    """Whether wrapped classes stay wrapped and keep enough voxels."""
    if not keeps_nesting(before, after):
        return False
    inner = [v for v in wrapped_classes(before) if mask_of(before[moved], (v,)).any()]
    least = NESTED_SHARE * min(factor, 1.0)
    return all((after == v).sum() >= least * (before == v).sum() for v in inner)


def _move_channels(
    channels: LabelArray,
    labels: LabelArray,
    after: LabelArray,
    pull: FloatArray,
    classes: Sequence[int] | None,
    schema: Schema,
) -> LabelArray:
    """Pull channels to the nearest voxel where it moves; others stay."""
    index, within = nearest_index(pull, labels.shape)
    moved = labels >= 0 if classes is None else mask_of(labels, classes)
    landed = labels != OUTSIDE if classes is None else mask_of(after, classes)
    carried = landed & within & moved.ravel()[index]
    out = np.where(carried, channels.ravel()[index], channels)
    if classes is None:
        return out
    return settle_channels(out, after, (moved | landed) & ~carried, schema.spacing)
