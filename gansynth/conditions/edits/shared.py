"""Shared parts of edits: chosen classes, how much of them is kept, and what moves with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.nesting import nested_bodies
from gansynth.core.edit import EditContext, EditResult
from gansynth.core.geometry import Mask, bounding_box, fill_nearest, nearest_voxels
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Schema
from gansynth.runtime.errors import UsageFault

KEPT_SHARE = 0.3  # least share of its voxels that an edit must leave a class
SHRUNK_SHARE = 0.6
"""The same for a shrinking class, as a share of the requested volume, if that is less."""
NESTED_SHARE = 0.8
"""Least share of the requested volume of a nested class after it is cut at its wrapper."""
Classes = tuple[Annotated[int, Field(ge=1)], ...] | None
"""Label values that an option names; None for the whole foreground."""
Ranged = TypeVar("Ranged", bound=Any)


def ordered(options: Ranged) -> Ranged:
    """Refuse a range whose ``low`` is above its ``high``."""
    low, high = options.low, options.high
    if low > high:
        raise ValueError(f"low {low} is above high {high}, expected low <= high")
    return options


def chosen_classes(
    edit: str, classes: Sequence[int] | None, schema: Schema, key: str = "classes"
) -> list[int] | None:
    """Return the label values of an edit's options, sorted; None for the whole foreground."""
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


def unchanged(why: str) -> dict[str, Any]:
    """Parameters of no change."""
    return {"strength": 0.0, "why": why}


# -- labels ---------------------------------------------------------------------------------------


def keeps_classes(
    before: LabelArray, after: LabelArray, moved: Mask | None = None, factor: float = 1.0
) -> bool:
    """Whether every class keeps at least ``KEPT_SHARE`` of its voxels, and at least one.

    Classes with voxels in ``moved`` change their volume by ``factor``. They may fall to
    ``SHRUNK_SHARE`` of the requested volume.
    """
    held = np.bincount(before[before > 0])
    share = np.full(held.size, KEPT_SHARE)
    if moved is not None:
        changing = np.bincount(before[moved], minlength=held.size) > 0
        share[changing] = min(KEPT_SHARE, SHRUNK_SHARE * factor)
    left = np.bincount(after[after > 0], minlength=held.size)[: held.size]
    return bool(((left >= np.maximum(share * held, 1)) | (held == 0)).all())


def close_left(
    labels: LabelArray, moved: Mask, spacing: Sequence[float], solid: Mask | None = None
) -> LabelArray:
    """Remove the moved voxels from labels: nested bodies become the nearest label that stays.

    A body counts as nested if more than half of its faces touch foreground that stays. On an open
    side, background may be the nearest label. ``solid`` marks the moved bodies with what they wrap.
    """
    from scipy.ndimage import label

    solid = moved if solid is None else solid
    out = np.where(moved, np.int16(0), labels)
    box = bounding_box(solid, margin=1)
    cut, body = labels[box], label(solid[box])[0]
    nested = nested_bodies(cut, body)
    fill = nested[body] & moved[box]
    stays = (body == 0) & (cut != OUTSIDE)
    if fill.any():
        out[box][fill] = cut[nearest_voxels(stays, spacing)][fill]
    return out


# -- what goes along ------------------------------------------------------------------------------


def settled(context: EditContext, after: LabelArray, open_: Mask) -> EditResult:
    """Return new labels, with channels and image filled to fit them at open voxels.

    Args:
        context: before the edit, but with channels and image that have moved.
        open_: voxels whose channels and image do not fit the new labels.
    """
    spacing, channels, image = context.schema.spacing, context.channels, context.image
    return EditResult(
        after,
        None if channels is None else settle_channels(channels, after, open_, spacing),
        None if image is None else settle_image(image, after, open_, spacing),
    )


def settle_channels(
    channels: LabelArray, after: LabelArray, open_: Mask, spacing: Sequence[float]
) -> LabelArray:
    """Fill open voxels of channels with the value of the nearest other voxel of their label."""
    out = channels.copy()
    for value in np.unique(after[open_]).tolist():
        gap, source = open_ & (after == value), ~open_ & (after == value)
        out = fill_nearest(out, gap, source, spacing)
    return out


def settle_image(
    image: FloatArray, after: LabelArray, open_: Mask, spacing: Sequence[float]
) -> FloatArray:
    """Fill open voxels of an image with the texture of their label nearby.

    Known voxels of that label are mirrored at their border, which keeps the texture. Where the
    mirrored voxel is unknown, the nearest known one is repeated.
    """
    out = image.copy()
    limits = np.array(after.shape)[:, None] - 1
    for value in np.unique(after[open_]).tolist():
        gap, source = open_ & (after == value), ~open_ & (after == value)
        if not source.any():
            continue
        near = np.stack([axis[gap] for axis in nearest_voxels(source, spacing)])
        mirrored = np.clip(2 * near - np.stack(np.nonzero(gap)), 0, limits)
        use = np.where(source[tuple(mirrored)], mirrored, near)
        out[:, gap] = image[(slice(None), *use)]
    return out


def replaced(
    context: EditContext, after: LabelArray, image: FloatArray | None = None
) -> EditResult:
    """Return new labels, with channels 0 on foreground, where they are unknown.

    New background takes the nearest value on background.
    """
    channels = context.channels
    if channels is None:
        return EditResult(after, None, image)
    bare = (after == 0) & (channels == 0)
    source = (after == 0) & (channels > 0)
    cleared = np.where(after <= 0, channels, 0)
    return EditResult(after, fill_nearest(cleared, bare, source, context.schema.spacing), image)
