"""Grain of a lesion: measured in bands of frequency, and drawn as noise of the same bands.

It is measured in each class of a lesion, with the contrast to the tissue around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gansynth.core.geometry import Mask, Matrix, bounding_box
from gansynth.core.schema import FloatArray
from gansynth.data.connected_components import LesionPart

NEAR, FAR = 1.5, 4.5  # distances in voxels between which the tissue around a lesion is measured
WIDTHS = (0.7, 1.4, 2.8, 5.6)  # Gaussians, voxels, between the bands of a texture
LEAST = 8  # least voxels to measure a texture in
ROUNDS, LOUDEST = 20, 6.0
"""Rounds in which noise is fitted to its spread within a mask; limit of a band's gain."""


def tissue_around(
    part: LesionPart, image: FloatArray, free: Mask
) -> tuple[tuple[slice, ...], Matrix]:
    """Return a box around a lesion, and the mean (C,) of the free voxels near it.

    ``image``: (C, ...). ``free``: bool, tissue without lesions; all around it where none is near.
    """
    box, near = ring_around(part)
    ring = free[box] & near
    held = ring if ring.any() else np.ones_like(ring)
    return box, image[(slice(None), *box)][:, held].mean(axis=1)


def ring_around(part: LesionPart) -> tuple[tuple[slice, ...], Mask]:
    """Return a box around a lesion, and the voxels in it that are near the lesion, bool."""
    from scipy.ndimage import distance_transform_edt

    mask = part.whole() > 0
    box = bounding_box(mask, margin=int(FAR) + 1)
    away = distance_transform_edt(~mask[box])
    return box, (away > NEAR) & (away <= FAR)


def value_limits(images: Iterable[FloatArray]) -> Matrix:
    """Least and largest value of each channel, (2, C), over images (C, ...)."""
    rows = [image.reshape(len(image), -1) for image in images]
    ends = [[row.min(axis=1) for row in rows], [row.max(axis=1) for row in rows]]
    return np.stack([np.min(ends[0], axis=0), np.max(ends[1], axis=0)]).astype(np.float64)


def within(image: Matrix | FloatArray, limits: Matrix) -> Any:
    """Clip an image (C, ...) to limits (2, C)."""
    return np.clip(image, *limits.reshape(2, -1, *[1] * (image.ndim - 1)))


def measured(image: FloatArray, mask: Mask, tissue: Matrix) -> Matrix:
    """Measure a class of a lesion; NaN with too few voxels.

    Returns contrast of its mean to ``tissue`` (C,), then of its interior, without the outermost
    voxels if enough are left: log spread of each band (bands, C), correlation (C, C). All flat.
    """
    count = len(image)
    if mask.sum() < LEAST:
        return np.full(count * (2 + len(WIDTHS) + count), np.nan)
    inner = _interior(mask)
    centred = image[:, inner] - image[:, inner].mean(axis=1, keepdims=True)
    scores = centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-6)
    spreads = np.sqrt(np.square(_bands_in(image, inner)).mean(axis=2))
    grain = np.log(spreads + 1e-6).ravel(), (scores @ scores.T / inner.sum()).ravel()
    return np.concatenate([image[:, mask].mean(axis=1) - tissue, *grain])


def drawn_grain(measures: Matrix, count: int, mask: Mask, rng: np.random.Generator) -> Matrix:
    """Draw noise of mean 0 for a mask's N voxels, (count, N), with what ``measured`` returned."""
    spreads = np.exp(measures[count : -count * count].reshape(-1, count))
    values, axes = np.linalg.eigh(measures[-count * count :].reshape(count, count))
    white = rng.standard_normal((count, *mask.shape))
    noise = np.einsum("ij,j...->i...", axes * np.sqrt(np.maximum(values, 0)), white)
    bands = _bands(noise, np.ones_like(mask))
    bands /= np.maximum(bands.std(axis=tuple(range(2, bands.ndim)), keepdims=True), 1e-6)
    inner, gains = _interior(mask), spreads
    weights = _weights(inner)
    seen = np.stack([_bands_in(band, inner, weights) for band in bands])  # measuring is linear
    products = np.einsum("ibcn,jbcn->ijbc", seen, seen) / inner.sum()
    for _ in range(ROUNDS):
        now = np.sqrt(np.maximum(np.einsum("ic,jc,ijbc->bc", gains, gains, products), 1e-12))
        gains = np.minimum(gains * spreads / now, LOUDEST * spreads)
    field = np.einsum("bc,bc...->c...", gains, bands)[:, mask]
    return np.asarray(field - field.mean(axis=1, keepdims=True))


def _interior(mask: Mask) -> Mask:
    """A mask without its outermost voxels, if enough are left."""
    from scipy.ndimage import binary_erosion

    inner = np.asarray(binary_erosion(mask))
    return inner if inner.sum() >= LEAST else mask


def _weights(mask: Mask) -> list[Matrix]:
    """Shares of a mask around each voxel, for each of the widths."""
    from scipy.ndimage import gaussian_filter

    return [np.maximum(gaussian_filter(mask.astype(float), width), 1e-6) for width in WIDTHS]


def _bands(image: Matrix, mask: Mask, weights: Sequence[Matrix] | None = None) -> Matrix:
    """Part an image (C, ...) within a mask into bands (bands, C, ...), the finest first."""
    from scipy.ndimage import gaussian_filter

    levels = [np.where(mask, image, 0)]
    for width, weight in zip(WIDTHS, weights or _weights(mask), strict=True):
        smooth = [gaussian_filter(channel, width) / weight for channel in levels[0]]
        levels.append(np.where(mask, smooth, 0))
    return np.array([*(fine - coarse for fine, coarse in pairwise(levels)), levels[-1]])


def _bands_in(
    image: Matrix | FloatArray, mask: Mask, weights: Sequence[Matrix] | None = None
) -> Matrix:
    """Part what deviates from the mean in a mask's N voxels into bands, (bands, C, N)."""
    mean = image[:, mask].mean(axis=1).reshape(-1, *[1] * mask.ndim)
    return _bands(image - mean, mask, weights)[:, :, mask]
