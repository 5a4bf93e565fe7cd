"""Lesions into real slices: where there is room for one, and no seam around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gansynth.organ import organ_mask, share_inside
from gansynth.schema import Boxes, FloatArray
from gansynth_cpggan.roi import resampled, squares

TRIES = 200
"""Places that are tried for a lesion."""
MOSTLY = 0.9
"""Least share of a box that lies in the body."""

Window = tuple[int, int, int, int]


def places(
    asked: Boxes, present: Boxes, image: FloatArray, margin: float, rng: np.random.Generator
) -> tuple[Boxes, list[dict[str, Any]]]:
    """Where asked boxes have room: in the body, their surroundings clear of every other box.

    A box stays where it is asked for if there is room; else it moves to a place drawn at random, or
    is left out where none is found.

    Args:
        asked: (N, 4), in voxels of the slice.
        present: boxes that the slice has.
        image: float32 (C, H, W), the slice.
        margin: of the surroundings, see ``squares``.
        rng: the only source of randomness.

    Returns:
        The boxes that have a place, and for each asked one JSON: ``asked``, and ``moved`` by how
        many voxels along each axis, or None where it was left out.
    """
    body = organ_mask(image)
    shape = np.array(image.shape[1:], np.float64)
    rows, labels, told = [*present.coords.astype(np.float64)], [], []
    for box, label in zip(asked.coords.astype(np.float64), asked.labels, strict=True):
        sides, found = box[2:] - box[:2], None
        for attempt in range(TRIES):
            new = box
            if attempt:
                low = rng.random(2) * np.maximum(shape - sides, 0)
                new = np.concatenate((low, low + sides))
            if _has_room(new, rows, body, margin):
                found = new
                break
        told.append({"asked": box.tolist(), "moved": None})
        if found is not None:
            told[-1]["moved"] = (found - box)[:2].tolist()
            rows.append(found)
            labels.append(int(label))
    kept = np.array(rows[len(present.labels) :], np.float32).reshape(-1, 4)
    return Boxes(kept, np.array(labels, np.int16)), told


def _has_room(
    box: npt.NDArray[np.float64],
    others: list[npt.NDArray[np.float64]],
    body: npt.NDArray[np.bool_],
    margin: float,
) -> bool:
    around = _square(box, margin)
    clear = all(
        (np.maximum(around[:2], o[:2]) >= np.minimum(around[2:], o[2:])).any() for o in others
    )
    inside = (box[:2] >= 0).all() and (box[2:] <= np.array(body.shape)).all()
    return bool(clear and inside and share_inside(body, box) >= MOSTLY)


def _square(box: npt.NDArray[np.float64], margin: float) -> npt.NDArray[np.float64]:
    return squares(torch.from_numpy(box)[None], margin)[0].numpy()


def blend(
    image: FloatArray, lesion: FloatArray, box: npt.NDArray[np.floating], margin: float
) -> tuple[FloatArray, Window]:
    """A slice with a lesion in it.

    Inside the box there is the lesion alone; around it, up to the square's edge, it fades into the
    slice along a cosine. Its intensities are shifted by what differs, on average, where it fades.

    Args:
        image: float32 (C, H, W), the slice.
        lesion: float32 (C, edge, edge): the square around the box, as it was drawn.
        box: (4,), in voxels of the slice.
        margin: see ``squares``.

    Returns:
        A copy of the slice, and the rows and columns it differs in: ``ymin, xmin, ymax, xmax``. All
        other voxels are the slice's own, to the bit.
    """
    at: npt.NDArray[np.float64] = np.asarray(box, np.float64)
    around = _square(at, margin)
    low = np.maximum(np.floor(around[:2]).astype(int), 0)
    high = np.minimum(np.ceil(around[2:]).astype(int), image.shape[1:])
    edge = lesion.shape[-1]
    seen = (np.concatenate((low, high)) - np.tile(around[:2], 2)) * edge / np.ptp(around[::2])
    height, width = (high - low).tolist()
    drawn = resampled(
        torch.from_numpy(lesion)[None], torch.from_numpy(seen[None]).float(), height, width
    )[0].numpy()
    rows, columns = slice(low[0], high[0]), slice(low[1], high[1])
    under = image[:, rows, columns]
    share = _share(at, around, low, high)
    rim = share * (1 - share)
    if rim.sum() > 0:
        drawn = drawn + ((under - drawn) * rim).sum((1, 2), keepdims=True) / rim.sum()
    mixed = under + share * (drawn - under)
    found = image.copy()
    found[:, rows, columns] = np.where(share > 0, mixed, under)
    return found, (int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _share(
    box: npt.NDArray[np.float64],
    around: npt.NDArray[np.float64],
    low: npt.NDArray[np.int_],
    high: npt.NDArray[np.int_],
) -> FloatArray:
    """How much of each voxel is lesion, float32 (rows, columns): 1 in the box, 0 at the square."""
    past = []
    for axis in (0, 1):
        at = np.arange(low[axis], high[axis]) + 0.5
        width = max(box[axis] - around[axis], 1e-6)
        beyond = np.maximum(box[axis] - at, at - box[axis + 2]) / width
        past.append(np.clip(beyond, 0, 1))
    far = np.maximum(past[0][:, None], past[1][None])
    return np.asarray((1 + np.cos(np.pi * far)) / 2, np.float32)
