"""What every edit that moves labels shares: drawing within bounds, moving, filling what is left.

``classes`` None moves the foreground as a whole: what it leaves becomes background. With chosen
classes the others stay; a chosen body overwrites what it lands on, and what it leaves is closed by
the class it was nested in, or becomes background. Neither ever touches ``OUTSIDE``. Chosen classes
that are wrapped in others stay wrapped, unless told otherwise.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.nesting import beside, keeps_nesting, nested_bodies, wrapped_classes
from gansynth.core.edit import Edit, EditOptions
from gansynth.core.geometry import (
    Mask,
    bounding_box,
    fill_nearest,
    mask_of,
    nearest_index,
    nearest_voxels,
    pull_labels,
)
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Schema, keep_outside
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import Needs

KEPT_SHARE = 0.3
"""Least share of its voxels that an edit must leave a class."""
SHRUNK_SHARE = 0.6
"""The same for a class asked to shrink, as a share of the volume asked for, if that is less."""
NESTED_SHARE = 0.8
"""Least share of the volume asked for that is left of a nested class once cut at its wrapper."""


class MoveOptions(EditOptions):
    """What every moving edit can be told."""

    needs: ClassVar[Needs] = {"nested": "classes"}

    classes: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, min_length=1, description="label values to move; None moves the whole foreground"
    )
    nested: bool = Field(
        True,
        description="of chosen classes, those that are wrapped in others here (a core in its "
        "oedema) stay within them: less is moved, and what still comes out is cut off",
    )


class Move(Edit):
    """An edit that is a map of space: draw it, keep every class alive, pull labels through it.

    ``draw`` tries up to ``len(STRENGTHS)`` times, each at half the strength of the one before, and
    keeps the first draw that leaves every class at least 30 % of its voxels (less only if a smaller
    volume was asked for). If none does, it returns ``strength`` 0: no change. The other
    parameters are final (nothing is to be multiplied by ``strength``) and complete: ``apply`` reads
    no options, so a recorded step replays whatever those are by then.
    """

    Options: ClassVar[type[EditOptions]] = MoveOptions
    STRENGTHS: ClassVar[tuple[float, ...]] = tuple(0.5**k for k in range(8))
    options: MoveOptions

    @abstractmethod
    def draw_move(
        self, moved: Mask, schema: Schema, rng: np.random.Generator, strength: float
    ) -> dict[str, Any]:
        """Draw the parameters of one move at a strength in (0, 1]; JSON values.

        Args:
            moved: bool (D, H, W) or (H, W), the voxels that would move; at least one.
            schema: gives the spacing in mm.
            rng: the only source of randomness.
            strength: 1 draws from the whole range of the options.
        """

    @abstractmethod
    def coordinates(
        self, shape: Sequence[int], schema: Schema, params: Mapping[str, Any]
    ) -> FloatArray:
        """Where each voxel of the result comes from: float32 (n, *shape), in voxels."""

    def volume_factor(self, schema: Schema, params: Mapping[str, Any]) -> float:
        """The change of volume that the move asks for; 1 unless it scales."""
        return 1.0

    def draw(self, labels: LabelArray, schema: Schema, rng: np.random.Generator) -> dict[str, Any]:
        """See ``Edit.draw``; the returned ``tries`` and ``strength`` say what was used.

        Raises:
            UsageFault: if the options name a class the schema lacks.
        """
        chosen = self._chosen(schema)
        moved = mask_of(labels, schema.foreground if chosen is None else chosen)
        if not moved.any():
            return {"strength": 0.0, "tries": 0}
        nested = chosen is not None and self.options.nested
        for tries, strength in enumerate(self.STRENGTHS, start=1):
            drawn = self.draw_move(moved, schema, rng, strength)
            params = {"strength": strength, "tries": tries, "classes": chosen, **drawn}
            if nested:
                params["nested"] = True
            after = self.apply(labels, schema, params)
            factor = self.volume_factor(schema, params)
            if not keeps_classes(labels, after, moved, factor):
                continue
            if not nested or _keeps_nested(labels, after, moved, factor):
                return params
        return {"strength": 0.0, "tries": len(self.STRENGTHS)}

    def apply(self, labels: LabelArray, schema: Schema, params: Mapping[str, Any]) -> LabelArray:
        """See ``Edit.apply``."""
        if params["strength"] == 0:
            return labels.copy()
        moved = mask_of(labels, params["classes"] or schema.foreground)
        pull = self.coordinates(labels.shape, schema, params)
        return move_labels(labels, moved, pull, schema, nested=params.get("nested", False))

    def apply_context(
        self, context: LabelArray, labels: LabelArray, schema: Schema, params: Mapping[str, Any]
    ) -> LabelArray:
        """Move the context: all of it with the whole foreground, else that of the chosen classes.

        Whole: the nearest voxel of the old context; voxels whose source lies beyond the array or
        in ``OUTSIDE`` keep their old value. Chosen classes: their context goes with them, and what
        they leave takes the context of the nearest voxel that has its new label and did not move.
        """
        if params["strength"] == 0:
            return context.copy()
        pull = self.coordinates(labels.shape, schema, params)
        if params["classes"] is None:
            return _move_context(context, labels, labels >= 0, pull)
        moved = mask_of(labels, params["classes"])
        after = move_labels(labels, moved, pull, schema, nested=params.get("nested", False))
        return _carry_context(context, moved, labels, after, pull, params["classes"], schema)

    def apply_image(
        self, image: FloatArray, labels: LabelArray, schema: Schema, params: Mapping[str, Any]
    ) -> FloatArray:
        """The whole image pulled through the same map, linearly; its border value beyond it."""
        if params["strength"] == 0:
            return image
        from scipy.ndimage import map_coordinates

        pull = self.coordinates(labels.shape, schema, params)
        moved = [map_coordinates(c, pull, order=1, mode="nearest") for c in image]
        return np.stack(moved).astype(np.float32)

    def _chosen(self, schema: Schema) -> list[int] | None:
        return chosen_classes(self.name, self.options.classes, schema)


def chosen_classes(
    edit: str, classes: Sequence[int] | None, schema: Schema, key: str = "classes"
) -> list[int] | None:
    """Label values that an edit's options name, sorted; None stands for the whole foreground.

    Raises:
        UsageFault: a class that the schema lacks.
    """
    if classes is None:
        return None
    chosen = sorted(set(classes))
    unknown = sorted(set(chosen) - set(schema.foreground))
    if unknown:
        raise UsageFault(
            f"edit {edit!r}: {key} holds {unknown}, expected values among "
            f"{list(schema.foreground)}; leave {key} out to take the whole foreground"
        )
    return chosen


def keeps_classes(
    before: LabelArray, after: LabelArray, moved: Mask | None = None, factor: float = 1.0
) -> bool:
    """Whether every class keeps at least ``KEPT_SHARE`` of its voxels, and at least one.

    Args:
        before: labels before the edit.
        after: labels after it.
        moved: voxels of the classes that were asked to change their volume by ``factor``.
        factor: those classes may fall to ``SHRUNK_SHARE`` of the volume that was asked for.
    """
    held = np.bincount(before[before > 0])
    share = np.full(held.size, KEPT_SHARE)
    if moved is not None:
        asked = np.bincount(before[moved], minlength=held.size) > 0
        share[asked] = min(KEPT_SHARE, SHRUNK_SHARE * factor)
    left = np.bincount(after[after > 0], minlength=held.size)[: held.size]
    return bool(((left >= np.maximum(share * held, 1)) | (held == 0)).all())


def move_labels(
    labels: LabelArray, moved: Mask, pull: FloatArray, schema: Schema, *, nested: bool = False
) -> LabelArray:
    """Pull the voxels ``moved`` of a label map through a map of space; the others stay.

    Args:
        labels: int16 (D, H, W) or (H, W); not written to.
        moved: bool of the same shape, voxels of whole classes above background.
        pull: float32 (n, *shape), where each voxel of the result comes from.
        schema: gives the spacing in mm.
        nested: cut off what of a wrapped class would come to touch background.

    Returns:
        New labels. Foreground that a moved body wraps completely (a core in its oedema) keeps its
        place unless the body itself lands on it, and no gap opens around it.
    """
    solid = np.where(moved, labels, np.int16(0))
    staying = (labels > 0) & ~moved
    if not staying.any():
        return keep_outside(pull_labels(solid, pull), labels)
    wrapped = _wrapped(moved) & staying
    if wrapped.any():
        solid = np.where(wrapped, solid[nearest_voxels(moved, schema.spacing)], solid)
    landed = pull_labels(solid, pull)
    written = landed > 0
    if wrapped.any():
        index, within = nearest_index(pull, labels.shape)
        written &= ~(staying & within & wrapped.ravel()[index])
    left = close_left(labels, moved, solid > 0, schema.spacing)
    if nested:
        written &= ~_coming_out(labels, moved, left, landed)
    return keep_outside(np.where(written, landed, left), labels)


def _coming_out(labels: LabelArray, moved: Mask, left: LabelArray, landed: LabelArray) -> Mask:
    """Landed voxels of wrapped classes that what stays behind no longer wraps."""
    inner = mask_of(labels, wrapped_classes(labels)) & moved
    if not inner.any() or (beside(inner) & moved & ~inner).any():  # its wrapper moves as well
        return np.zeros(labels.shape, bool)
    return mask_of(landed, np.unique(labels[inner]).tolist()) & beside(left == 0)


def _keeps_nested(before: LabelArray, after: LabelArray, moved: Mask, factor: float) -> bool:
    """Whether wrapped classes stay so, and not because little is left of them."""
    if not keeps_nesting(before, after):
        return False
    inner = [v for v in wrapped_classes(before) if mask_of(before[moved], (v,)).any()]
    least = NESTED_SHARE * min(factor, 1.0)
    return all((after == v).sum() >= least * (before == v).sum() for v in inner)


def _wrapped(moved: Mask) -> Mask:
    from scipy.ndimage import binary_fill_holes

    box = bounding_box(moved)
    out = np.zeros(moved.shape, bool)
    out[box] = binary_fill_holes(moved[box]) & ~moved[box]
    return out


def close_left(
    labels: LabelArray, moved: Mask, solid: Mask, spacing: Sequence[float]
) -> LabelArray:
    """Labels without the moved voxels: nested bodies become the nearest label that stays.

    A body counts as nested if more than half of its faces touch foreground that stays; where a
    side of it is open, background competes for being the nearest.
    """
    from scipy.ndimage import label

    out = np.where(moved, np.int16(0), labels)
    box = bounding_box(solid, margin=1)
    cut, body = labels[box], label(solid[box])[0]
    nested = nested_bodies(cut, body)
    fill = nested[body] & moved[box]
    stays = (body == 0) & (cut != OUTSIDE)
    if fill.any():
        out[box][fill] = cut[nearest_voxels(stays, spacing)][fill]
    return out


def _move_context(
    context: LabelArray, labels: LabelArray, source: Mask, pull: FloatArray
) -> LabelArray:
    """Context pulled to the nearest voxel where that lies in ``source``, else as it was."""
    index, within = nearest_index(pull, labels.shape)
    takes = within & source.ravel()[index] & (labels != OUTSIDE)
    return np.where(takes, context.ravel()[index], context)


def _carry_context(
    context: LabelArray,
    moved: Mask,
    labels: LabelArray,
    after: LabelArray,
    pull: FloatArray,
    classes: Sequence[int],
    schema: Schema,
) -> LabelArray:
    index, within = nearest_index(pull, labels.shape)
    landed = mask_of(after, classes)
    carried = landed & within & moved.ravel()[index]
    out = np.where(carried, context.ravel()[index], context)
    return settle_context(out, after, (moved | landed) & ~carried, schema.spacing)


def settle_context(
    context: LabelArray, after: LabelArray, open_: Mask, spacing: Sequence[float]
) -> LabelArray:
    """A copy whose open voxels hold the context of the nearest other voxel of their label.

    Args:
        context: int16 (D, H, W) or (H, W).
        after: labels after an edit.
        open_: voxels whose context is not known; where no other has their label, it stays.
        spacing: voxel size in mm.
    """
    out = context.copy()
    for value in np.unique(after[open_]).tolist():
        gap, known = open_ & (after == value), ~open_ & (after == value)
        out = fill_nearest(out, gap, known, spacing)
    return out


def settle_image(
    image: FloatArray, after: LabelArray, open_: Mask, spacing: Sequence[float]
) -> FloatArray:
    """A copy whose open voxels show what their label looks like nearby.

    It is mirrored at the border of the known voxels of that label, which keeps its texture; where
    that falls beyond them, the nearest one is repeated.

    Args:
        image: float32 (C, D, H, W) or (C, H, W).
        after: labels after an edit.
        open_: voxels of which the image shows something else.
        spacing: voxel size in mm.
    """
    out = image.copy()
    limits = np.array(after.shape)[:, None] - 1
    for value in np.unique(after[open_]).tolist():
        gap, known = open_ & (after == value), ~open_ & (after == value)
        if not known.any():
            continue
        near = np.stack([axis[gap] for axis in nearest_voxels(known, spacing)])
        mirrored = np.clip(2 * near - np.stack(np.nonzero(gap)), 0, limits)
        use = np.where(known[tuple(mirrored)], mirrored, near)
        out[:, gap] = image[(slice(None), *use)]
    return out
