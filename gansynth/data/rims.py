"""How a lesion in a box stands out of its rim.

Contrast is the largest gap between the two distributions of intensities (Kolmogorov and Smirnov),
with the sign of where the box lies: 0 if alike, 1 if all of the box is brighter than all of its
rim. No scale of intensities comes in, and one bright vessel in the rim hardly counts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import Mask, organ_mask
from gansynth.core.schema import Boxes, FloatArray

Numbers = npt.NDArray[np.float64]

RIM = 0.2
"""How far the rim reaches beyond a box on each end, as a share of its side."""
LEAST_RIM = 1.5
"""How far it reaches at least, in voxels."""
NOTICED = 0.15
"""Differences below this share of the body's deviation are nothing: noise-free images have many."""
LEAST = 1e-6
"""Half a box's side at least, in voxels: thinner ones are not told from nothing."""
FEW = 4
"""Fewer voxels than so many are no distribution."""


def contrast(image: FloatArray, boxes: Boxes, *, body: Mask | None = None) -> Numbers:
    """How lesions stand out of their rims, in the channel where each does most.

    ``image``: float32 (C, D, H, W) or (C, H, W). ``boxes``: (N, 6) or (N, 4). ``body``: bool, where
    rims may lie; found if None. Returns (N,), -1 (darker) to 1 (brighter); NaN without a rim.
    """
    found = contrasts(image, boxes, body=body)
    if not found.size:
        return np.zeros(len(boxes.labels))
    most = np.abs(np.nan_to_num(found)).argmax(axis=1)
    return np.asarray(np.take_along_axis(found, most[:, None], axis=1)[:, 0])


def contrasts(image: FloatArray, boxes: Boxes, *, body: Mask | None = None) -> Numbers:
    """As ``contrast``, of each channel: (N, C)."""
    body = organ_mask(image) if body is None else body
    noticed = [NOTICED * spread(channel[body]) for channel in image]
    out = np.full((len(boxes.labels), len(image)), np.nan)
    for row in range(len(boxes.labels)):
        window, inside, rim = regions(boxes, row, body)
        if not rim.any():
            continue
        for number, channel in enumerate(image):
            cut = channel[window]
            out[row, number] = gap(cut[inside], cut[rim], noticed[number])
    return out


def regions(boxes: Boxes, row: int, body: Mask) -> tuple[tuple[slice, ...], Mask, Mask]:
    """Where a box's lesion and its rim lie: the window looked at, and bool masks of both in it.

    The lesion is the ellipsoid that fits into the box. The rim lies around the box, within the
    body, in no other box; beyond the body it is taken as it is.
    """
    axes = body.ndim
    low, high = boxes.coords[row, :axes], boxes.coords[row, axes:]
    reach = np.maximum(RIM * (high - low), LEAST_RIM)
    start = np.clip(np.floor(low - reach), 0, np.array(body.shape) - 1).astype(int)
    stop = np.clip(np.ceil(high + reach), start + 1, body.shape).astype(int)
    window = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    ticks = [np.arange(a, b) for a, b in zip(start, stop, strict=True)]
    at = np.stack(np.meshgrid(*ticks, indexing="ij")) + 0.5
    middle = _column((low + high) / 2, axes)
    half = _column(np.maximum((high - low) / 2, LEAST), axes)
    off = np.abs(at - middle)
    inside = ((off / half) ** 2).sum(axis=0) < 1
    within = (off < half).all(axis=0)
    if inside.sum() < FEW:
        inside = within
    if not inside.any():
        inside = off.sum(axis=0) == off.sum(axis=0).min()
    ring = (off < half + _column(reach, axes)).all(axis=0) & ~within & ~inside
    for other in range(len(boxes.labels)):
        if other != row:
            a, b = boxes.coords[other, :axes], boxes.coords[other, axes:]
            ring &= ~((at >= _column(a, axes)) & (at < _column(b, axes))).all(axis=0)
    inner = ring & body[window]
    return window, inside, inner if inner.sum() >= FEW else ring


def _column(values: npt.NDArray[np.floating], axes: int) -> Numbers:
    return np.asarray(values, np.float64).reshape(-1, *(1,) * axes)


def spread(values: FloatArray) -> float:
    """A robust standard deviation."""
    low, high = np.percentile(values, (16, 84)) if values.size else (0.0, 0.0)
    return float(high - low) / 2


def gap(inside: FloatArray, rim: FloatArray, noticed: float) -> float:
    """The largest gap between two distributions, signed: above 0 if ``inside`` is brighter."""
    brighter = _ahead(inside, rim + noticed)
    darker = _ahead(-inside, noticed - rim)
    return max(brighter, 0.0) if brighter >= darker else -max(darker, 0.0)


def _ahead(values: FloatArray, others: FloatArray) -> float:
    """How much larger a share of ``others`` than of ``values`` lies at or below any threshold."""
    at = np.sort(others)
    below = np.searchsorted(np.sort(values), at, side="right") / len(values)
    return float((np.arange(1, len(at) + 1) / len(at) - below).max())
