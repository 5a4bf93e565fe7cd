"""Blend lesions into real slices without boundary artefacts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from gansynth.core.body_mask import Mask
from gansynth.core.schema import FloatArray
from gansynth_cpggan.boxes import resampled, squares

SOFT = 3  # voxels over which a lesion fades out towards protected voxels

Window = tuple[int, int, int, int]


def _square(box: npt.NDArray[np.float64], margin: float) -> npt.NDArray[np.float64]:
    return squares(torch.from_numpy(box)[None], margin)[0].numpy()


def bounded(
    body: Mask | None, box: npt.NDArray[np.floating], boxes: FloatArray, shape: tuple[int, ...]
) -> Mask:
    """Return where a lesion may change a slice, bool (H, W): in the body, in no other box."""
    free = np.ones(shape, bool) if body is None else body.copy()
    for neighbour in boxes[(boxes != box).any(1)]:
        low, high = np.floor(neighbour[:2]).astype(int), np.ceil(neighbour[2:]).astype(int)
        free[low[0] : high[0], low[1] : high[1]] = False
    return free


def blend(
    image: FloatArray, lesion: FloatArray, box: npt.NDArray[np.floating], margin: float, free: Mask
) -> tuple[FloatArray, Window]:
    """Blend a lesion (C, edge, edge: the square around its box) into a slice (C, H, W).

    Inside the box only the lesion is visible. It fades along a cosine up to the square's edge, and
    within ``SOFT`` voxels of those that are not free. The lesion's mean is matched in that rim.
    Returns a copy, and the changed window ``ymin, xmin, ymax, xmax``; voxels beyond are unchanged.
    """
    at: npt.NDArray[np.float64] = np.asarray(box, np.float64)
    around = _square(at, margin)
    low = np.maximum(np.floor(around[:2]).astype(int), 0)
    high = np.minimum(np.ceil(around[2:]).astype(int), image.shape[1:])
    edge = lesion.shape[-1]
    window = (np.concatenate((low, high)) - np.tile(around[:2], 2)) * edge / np.ptp(around[::2])
    height, width = (high - low).tolist()
    drawn = resampled(
        torch.from_numpy(lesion)[None], torch.from_numpy(window[None]).float(), height, width
    )[0].numpy()
    rows, columns = slice(low[0], high[0]), slice(low[1], high[1])
    under = image[:, rows, columns]
    share = _share(at, around, low, high) * _fading(free)[rows, columns]
    rim = share * (1 - share)
    if rim.sum() > 0:
        drawn = drawn + ((under - drawn) * rim).sum((1, 2), keepdims=True) / rim.sum()
    mixed = under + share * (drawn - under)
    out = image.copy()
    out[:, rows, columns] = np.where(share > 0, mixed, under)
    return out, (int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _share(
    box: npt.NDArray[np.float64],
    around: npt.NDArray[np.float64],
    low: npt.NDArray[np.int_],
    high: npt.NDArray[np.int_],
) -> FloatArray:
    """Return lesion weights, float32 (rows, columns): 1 in the box, 0 at the square's edge."""
    past = []
    for axis in (0, 1):
        at = np.arange(low[axis], high[axis]) + 0.5
        width = max(box[axis] - around[axis], 1e-6)
        beyond = np.maximum(box[axis] - at, at - box[axis + 2]) / width
        past.append(np.clip(beyond, 0, 1))
    far = np.maximum(past[0][:, None], past[1][None])
    return np.asarray((1 + np.cos(np.pi * far)) / 2, np.float32)


def _fading(free: Mask) -> FloatArray:
    """Return weights, float32 (H, W): 0 where not free, 1 more than ``SOFT`` voxels away."""
    from scipy.ndimage import distance_transform_edt

    if free.all():
        return np.ones(free.shape, np.float32)
    near = np.clip(distance_transform_edt(free) / (SOFT + 1), 0, 1)
    return np.asarray((1 - np.cos(np.pi * near)) / 2, np.float32)
