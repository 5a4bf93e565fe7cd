"""Boxes shrunk to the lesions that are really in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import Mask, organ_mask
from gansynth.core.schema import Boxes, FloatArray
from gansynth.data.rims import FEW, NOTICED, regions, spread

BRIGHT = 0.9
"""Quantile of the box that counts as its lesion's intensity: the lesion may be a part of it."""
BETWEEN = 0.4
"""Where the cut lies between the rim's intensity (0) and the lesion's (1)."""
STRAY = 0.2
"""Largest share of the rim that lies beyond the cut, if the lesion is to be a clear one."""
TOGETHER = 0.6
"""Least share of what lies beyond the cut in the box that one piece holds."""
LEAST_SIDE = 0.3
"""A box is never shrunk below this share of a side, nor below two voxels."""


def tighten(
    image: FloatArray, boxes: Boxes, *, body: Mask | None = None
) -> tuple[Boxes, list[float]]:
    """Boxes shrunk to the lesions that are really in them, and the share of each that is left.

    A box is cut between the intensity of its rim and that of its brightest (or darkest) tenth; the
    largest piece near the middle is the lesion. The clearest cut of all channels counts; where none
    is clear, the box stays. ``image``: float32 (C, D, H, W) or (C, H, W). ``boxes``: (N, 6) or (N,
    4). ``body``: bool, where rims may lie; found if None.
    """
    body = organ_mask(image) if body is None else body
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

    axes, own = body.ndim, boxes.coords[row]
    window, inside, rim = regions(boxes, row, body)
    cut = bright[window]
    if not rim.any():
        return 0.0, own
    around, lesion = np.median(cut[rim]), np.quantile(cut[inside], BRIGHT)
    threshold = around + BETWEEN * (lesion - around)
    stray = float((cut[rim] > threshold).mean())
    if stray > STRAY or lesion - around <= least:
        return 0.0, own
    start = np.array([s.start for s in window])
    low, high = own[:axes] - start, own[axes:] - start
    part = tuple(slice(int(np.floor(a)), int(np.ceil(b))) for a, b in zip(low, high, strict=True))
    beyond = cut[part] > threshold
    pieces, count = label(binary_fill_holes(beyond))
    # Voxels near the middle count: a piece in a corner of the box is somebody else's.
    sizes = np.bincount(pieces[inside[part]], minlength=count + 1)[1:]
    if not count or sizes.max() < FEW:
        return 0.0, own
    piece = pieces == 1 + int(sizes.argmax())
    together = float((beyond & piece).sum() / beyond.sum())
    at, first = np.argwhere(piece), np.array([s.start for s in part]) + start
    tight = np.concatenate([at.min(axis=0) + first, at.max(axis=0) + 1 + first])
    tight = np.concatenate(
        [np.maximum(tight[:axes], own[:axes]), np.minimum(tight[axes:], own[axes:])]
    )
    sides = own[axes:] - own[:axes]
    shortest = np.maximum(LEAST_SIDE * sides, np.minimum(2, sides))
    if together < TOGETHER or (tight[axes:] - tight[:axes] < shortest).any():
        return 0.0, own
    return together * (1 - stray), tight.astype(np.float32)
