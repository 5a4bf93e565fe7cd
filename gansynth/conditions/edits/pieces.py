"""Select lesions one by one, or all as one, and move an image along with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.shared import Classes, close_left
from gansynth.core.case_pool import CaseContext
from gansynth.core.edit import EditContext, EditOptions
from gansynth.core.geometry import Mask, Matrix, bounding_box, nearest_voxels
from gansynth.core.schema import FloatArray, LabelArray, Schema
from gansynth.data.lesions import LesionPart, parts

LEAST = 4  # lesions of fewer voxels are left as they are
CRUMB = 0.01
"""Share of the largest lesion; smaller pieces are fragments and no lesions of their own."""
MOST = 64  # lesions that an edit changes, the largest first; more stay as they are
Landing = tuple[tuple[slice, ...], Mask, Matrix, Sequence[float]]
"""A lesion's box in the array, its voxels there, and where they come from: a matrix (n, n + 1)
about a centre (see ``geometry.affine_coordinates``)."""


class PieceOptions(EditOptions):
    """Which lesions."""

    classes: Classes = Field(
        None, min_length=1, description="label values of lesions; None takes the whole foreground"
    )


def lesions(
    labels: LabelArray, schema: Schema, classes: Sequence[int] | None, each: bool
) -> list[LesionPart]:
    """Return connected pieces of chosen classes, the largest first, or all of them as one.

    With ``each`` there are at most ``MOST``, of at least ``LEAST`` voxels, without fragments.
    """
    if each:
        pieces = parts(labels, schema, classes, least=LEAST)[:MOST]
        return [part for part in pieces if part.voxels >= CRUMB * pieces[0].voxels]
    components = parts(labels, schema, classes)
    if not components:
        return []
    mask = np.zeros(labels.shape, bool)
    for part in components:
        mask[part.box] |= part.mask
    box = bounding_box(mask)
    cut = np.where(mask[box], labels[box], np.int16(0))
    return [LesionPart(cut, box, labels.shape, schema.spacing)]


def cut_by_crop(part: LesionPart, case_context: CaseContext) -> bool:
    """Whether a lesion may go on beyond the crop, where its shape is unknown."""
    return bool(case_context.placement.corner) and part.cut_off


def taken(labels: LabelArray, part: LesionPart) -> LabelArray:
    """Remove a part from labels; the class it was nested in fills the gap."""
    mask = np.zeros(labels.shape, bool)
    mask[part.box] = part.mask
    return close_left(labels, mask, part.spacing)


def pull_image(context: EditContext, landings: Iterable[Landing]) -> FloatArray | None:
    """Move the context's image along: each voxel moves with the lesion nearest to it.

    The image is interpolated linearly; its border's values lie beyond it.
    """
    from scipy.ndimage import map_coordinates

    image = context.image
    if image is None:
        return None
    landed, pulls = np.zeros(context.labels.shape, np.int16), []
    for number, (box, mask, matrix, centre) in enumerate(landings, start=1):
        landed[box][mask] = number
        pulls.append((matrix, np.asarray(centre)[:, None]))
    out = image.copy()
    if not landed.any():
        return out
    nearest = landed[nearest_voxels(landed > 0, context.schema.spacing)]
    for number, (matrix, middle) in enumerate(pulls, start=1):
        mine, n = nearest == number, len(middle)
        there = matrix[:, :n] @ (np.array(np.nonzero(mine)) - middle) + middle + matrix[:, n:]
        for channel, source in zip(out, image, strict=True):
            channel[mine] = map_coordinates(source, there, order=1, mode="nearest")
    return out
