"""What edits share: nesting of classes, chosen classes, how much is kept, what goes along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from gansynth.core.edit import EditContext, EditResult
from gansynth.core.geometry import bounding_box, fill_nearest, mask_of, nearest_voxels, neighbours
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Mask, Schema
from gansynth.runtime.errors import UsageFault

# -- nesting of classes, and whether an edit keeps it ----------------------------------------------


Slices = tuple[slice, ...]


def wrapped_classes(labels: LabelArray) -> tuple[int, ...]:
    """Return classes that touch other foreground, and no background, by faces.

    ``OUTSIDE`` does not count. An example is an enhancing rim in a core in its oedema.
    """
    box = bounding_box(labels > 0, margin=1)
    cut = labels[box]
    bare: set[int] = set()
    within: set[int] = set()
    for here, there in facing(cut.ndim):
        solid, beside = cut[here], cut[there]
        bare.update(np.unique(solid[(solid > 0) & (beside == 0)]).tolist())
        within.update(np.unique(solid[(solid > 0) & (beside > 0) & (solid != beside)]).tolist())
    return tuple(sorted(within - bare))


def keeps_nesting(before: LabelArray, after: LabelArray) -> bool:
    """Whether no class that was wrapped in others has come to touch background."""
    wrapped = wrapped_classes(before)
    if not wrapped:
        return True
    inner = mask_of(after, wrapped)
    box = bounding_box(inner, margin=1)
    inner, bare = inner[box], after[box] == 0
    for here, there in facing(after.ndim):
        exposed = inner[here] & bare[there]
        if exposed.any():
            return False
    return True


def filled(mask: Mask) -> Mask:
    """A mask with its holes."""
    from scipy.ndimage import binary_fill_holes

    box, out = bounding_box(mask), mask.copy()
    out[box] = binary_fill_holes(mask[box])
    return out


def beside(mask: Mask) -> Mask:
    """A mask and all voxels that touch it, be it by a corner."""
    from scipy.ndimage import binary_dilation, generate_binary_structure

    around = generate_binary_structure(mask.ndim, mask.ndim)
    return np.asarray(binary_dilation(mask, around))


def nested_bodies(labels: LabelArray, bodies: npt.NDArray[np.integer]) -> Mask:
    """Which bodies have more than half of their faces on other foreground: bool, by number.

    ``bodies`` is the number of each voxel's body, 0 where there is none.
    """
    faces = np.zeros((2, int(bodies.max(initial=0)) + 1))
    for here, there in facing(labels.ndim):
        edge = (bodies[here] > 0) & (bodies[there] == 0) & (labels[there] != OUTSIDE)
        touched = (labels[there][edge] > 0).astype(np.intp)
        np.add.at(faces, (touched, bodies[here][edge]), 1)
    return np.asarray(faces[1] > faces[0])


def classes_around(labels: LabelArray, solid: Mask) -> list[int]:
    """Return classes around a body: they touch it with less than half of their faces.

    A class within an open ring has most of its faces on the ring.
    """
    box = bounding_box(labels > 0, margin=1)
    cut, body = np.where(solid, np.int16(0), labels)[box], solid[box]
    size = max(int(cut.max(initial=0)), 0) + 1
    all_, on_it = np.zeros(size), np.zeros(size)
    for here, there in facing(cut.ndim):
        edge = (cut[here] > 0) & (cut[here] != cut[there]) & (cut[there] != OUTSIDE)
        values = cut[here][edge]
        all_ += np.bincount(values, minlength=size)
        on_it += np.bincount(values[body[there][edge]], minlength=size)
    return np.flatnonzero((on_it > 0) & (2 * on_it < all_)).tolist()


def facing(ndim: int) -> Iterator[tuple[Slices, Slices]]:
    """Views of an array that pair each voxel with its neighbour, each axis both ways."""
    for axis in range(ndim):
        low, high = neighbours(axis)
        yield low, high
        yield high, low


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


def chosen_classes(edit: str, classes: Sequence[int] | None, schema: Schema) -> list[int] | None:
    """Return the label values of an edit's options, sorted; None for the whole foreground."""
    if classes is None:
        return None
    chosen = sorted(set(classes))
    unknown = sorted(set(chosen) - set(schema.foreground))
    if unknown:
        raise UsageFault(
            "conditions.edit-classes-unknown",
            f"edit {edit!r}: classes holds {unknown}, expected values among "
            f"{list(schema.foreground)}; leave classes out to take the whole foreground",
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
