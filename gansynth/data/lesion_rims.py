"""Contrast between a lesion in a box and its rim, and boxes shrunk to their lesions.

Contrast is the largest gap between the two distributions of intensities (Kolmogorov and Smirnov),
signed: 0 if both are alike, 1 if all of the box is brighter than all of its rim. It does not depend
on the scale of intensities, and one bright vessel in the rim hardly counts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import Mask, organ_mask
from gansynth.core.schema import Boxes, FloatArray

Numbers = npt.NDArray[np.float64]

RIM = 0.2  # width of the rim beyond a box on each end, as a share of its side
LEAST_RIM = 1.5  # least width of the rim, in voxels
NOTICED = 0.15
"""Differences below this share of the body's deviation are nothing: noise-free images have many."""
LEAST = 1e-6  # least half side of a box, in voxels
FEW = 4  # least number of voxels for a distribution


def contrasts(image: FloatArray, boxes: Boxes, *, body: Mask | None = None) -> Numbers:
    """Contrast of lesions to their rims: (N, C), -1 (darker) to 1 (brighter); NaN without a rim.

    ``image``: float32 (C, D, H, W) or (C, H, W). ``boxes``: (N, 6) or (N, 4). ``body``: bool, where
    rims may lie; found if None.
    """
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
    """Return a window around a box, and bool masks of its lesion and its rim in it.

    The lesion is the ellipsoid that fits into the box. The rim lies around the box, in no other
    box. It is limited to the body, if enough of it lies there.
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
    for rival in range(len(boxes.labels)):
        if rival != row:
            a, b = boxes.coords[rival, :axes], boxes.coords[rival, axes:]
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


BRIGHT = 0.9
"""Quantile of the box that counts as its lesion's intensity: the lesion may be a part of it."""
BETWEEN = 0.4  # where the cut lies between the rim's intensity (0) and the lesion's (1)
STRAY = 0.2  # largest share of the rim that lies beyond the cut, if the lesion is to be a clear one
TOGETHER = 0.6  # least share of what lies beyond the cut in the box that one piece holds
LEAST_SIDE = 0.3  # a box is never shrunk below this share of a side, nor below two voxels


def tighten(image: FloatArray, boxes: Boxes) -> tuple[Boxes, list[float]]:
    """Shrink boxes to their lesions; return them, and the share of each that is left.

    The threshold lies between the intensities of the rim and of the box's brightest (or darkest)
    tenth. The largest piece near the middle is the lesion. The clearest cut of all channels counts.
    Without a clear cut the box stays. ``image``, ``boxes``: as in ``contrasts``.
    """
    body = organ_mask(image)
    noticed = [NOTICED * spread(channel[body]) for channel in image]
    coords, axes = boxes.coords.copy(), body.ndim
    for row in range(len(boxes.labels)):
        clearest = 0.0
        for channel, least in zip(image, noticed, strict=True):
            for bright in (channel, -channel):
                clear, tight = _cut(bright, boxes, row, body, least)
                if clear > clearest:
                    clearest, coords[row] = clear, tight
    sides = [c[:, axes:] - c[:, :axes] for c in (coords, boxes.coords)]
    shares = (sides[0] / sides[1]).astype(float).prod(axis=1)
    return Boxes(coords, boxes.labels), [round(float(share), 4) for share in shares]


def _cut(
    bright: FloatArray, boxes: Boxes, row: int, body: Mask, least: float
) -> tuple[float, npt.NDArray[np.float32]]:
    """How clear a lesion is that is brighter than its rim, 0 to 1, and its box, within its own."""
    from scipy.ndimage import binary_fill_holes, label

    axes, box = body.ndim, boxes.coords[row]
    window, inside, rim = regions(boxes, row, body)
    cut = bright[window]
    if not rim.any():
        return 0.0, box
    around, lesion = np.median(cut[rim]), np.quantile(cut[inside], BRIGHT)
    threshold = around + BETWEEN * (lesion - around)
    stray = float((cut[rim] > threshold).mean())
    if stray > STRAY or lesion - around <= least:
        return 0.0, box
    start = np.array([s.start for s in window])
    low, high = box[:axes] - start, box[axes:] - start
    part = tuple(slice(int(np.floor(a)), int(np.ceil(b))) for a, b in zip(low, high, strict=True))
    beyond = cut[part] > threshold
    pieces, count = label(binary_fill_holes(beyond))
    # Voxels near the middle count: a piece in a corner of the box is another lesion's.
    sizes = np.bincount(pieces[inside[part]], minlength=count + 1)[1:]
    if not count or sizes.max() < FEW:
        return 0.0, box
    piece = pieces == 1 + int(sizes.argmax())
    together = float((beyond & piece).sum() / beyond.sum())
    at, first = np.argwhere(piece), np.array([s.start for s in part]) + start
    tight = np.concatenate([at.min(axis=0) + first, at.max(axis=0) + 1 + first])
    tight = np.concatenate(
        [np.maximum(tight[:axes], box[:axes]), np.minimum(tight[axes:], box[axes:])]
    )
    sides = box[axes:] - box[:axes]
    shortest = np.maximum(LEAST_SIDE * sides, np.minimum(2, sides))
    if together < TOGETHER or (tight[axes:] - tight[:axes] < shortest).any():
        return 0.0, box
    return together * (1 - stray), tight.astype(np.float32)
