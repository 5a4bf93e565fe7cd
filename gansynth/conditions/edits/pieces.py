"""Lesions one by one, or all as one: which move, and how an image goes along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.moving import close_left
from gansynth.core.edit import EditOptions
from gansynth.core.geometry import Mask, Matrix, bounding_box, nearest_voxels
from gansynth.core.scene import Scene
from gansynth.core.schema import FloatArray, LabelArray, Schema
from gansynth.data.lesion_parts import Part, parts

LEAST = 4
"""Lesions of fewer voxels are left as they are."""
CRUMB = 0.01
"""And those of less than that share of the largest: what fell off it is no lesion of its own."""
MOST = 64
"""Lesions that an edit changes, the largest first; more stay as they are."""
Pull = tuple[Matrix, Sequence[float]]
"""A matrix (n, n + 1) about a centre: see ``geometry.affine_coordinates``."""


class PieceOptions(EditOptions):
    """Which lesions."""

    classes: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, min_length=1, description="label values of lesions; None takes the whole foreground"
    )


def lesions(
    labels: LabelArray, schema: Schema, classes: Sequence[int] | None, each: bool
) -> list[Part]:
    """Connected pieces of chosen classes, the largest first, or all of them as one.

    Args:
        labels: int16 (D, H, W) or (H, W).
        schema: gives the spacing in mm.
        classes: label values; None takes the whole foreground.
        each: one by one; at most ``MOST``, of at least ``LEAST`` voxels, and no crumbs.
    """
    if each:
        pieces = parts(labels, schema, classes, least=LEAST)[:MOST]
        return [part for part in pieces if part.voxels >= CRUMB * pieces[0].voxels]
    found = parts(labels, schema, classes)
    if not found:
        return []
    mask = np.zeros(labels.shape, bool)
    for part in found:
        mask[part.box] |= part.mask
    box = bounding_box(mask)
    cut = np.where(mask[box], labels[box], np.int16(0))
    return [Part(cut, box, labels.shape, schema.spacing)]


def cut_by_crop(part: Part, scene: Scene) -> bool:
    """Whether a lesion may go on beyond the crop: how it looks there is not known."""
    return bool(scene.placement.corner) and part.cut_off


def taken(labels: LabelArray, part: Part) -> LabelArray:
    """Labels without a part; what it was nested in closes around it.

    Args:
        labels: int16 (D, H, W) or (H, W); not written to.
        part: of these labels.
    """
    mask = np.zeros(labels.shape, bool)
    mask[part.box] = part.mask
    return close_left(labels, mask, mask, part.spacing)


def pull_image(
    image: FloatArray, landed: LabelArray, pulls: Sequence[Pull], spacing: Sequence[float]
) -> FloatArray:
    """An image that goes along with its lesions: every voxel with the lesion nearest to it.

    Args:
        image: float32 (C, D, H, W) or (C, H, W); not written to.
        landed: int16, the number (from 1) of the lesion that has come to lie at each voxel.
        pulls: of each lesion, where its voxels come from.
        spacing: voxel size in mm.

    Returns:
        float32 of the image's shape, interpolated linearly; its border's values beyond it.
    """
    from scipy.ndimage import map_coordinates

    out = image.copy()
    if not landed.any():
        return out
    nearest = landed[nearest_voxels(landed > 0, spacing)]
    for number, (matrix, centre) in enumerate(pulls, start=1):
        mine: Mask = nearest == number
        middle = np.asarray(centre)[:, None]
        n = len(middle)
        there = matrix[:, :n] @ (np.array(np.nonzero(mine)) - middle) + middle + matrix[:, n:]
        for channel, source in zip(out, image, strict=True):
            channel[mine] = map_coordinates(source, there, order=1, mode="nearest")
    return out


def unchanged(why: str) -> dict[str, Any]:
    """Parameters of no change."""
    return {"strength": 0.0, "why": why}
