"""Volumes as slices along each axis (2.5D), for networks and measures that look at pictures.

Networks for volumes want more cases than there are. Slices across all three axes show all that a
volume does, and there are many of them (2.5D, as Guo et al. 2025, arXiv:2409.11169, measure FID).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gansynth.core.schema import FloatArray

SLICES = 3
"""Slices across each axis of a volume, at equal distances."""


def slices_of(images: Sequence[FloatArray], count: int = SLICES) -> list[FloatArray]:
    """Slices of images, by the axis they are cut across.

    Args:
        images: (C, D, H, W), or pictures (C, H, W).
        count: slices across each axis; fewer of short ones.

    Returns:
        Of volumes three arrays (N, S, C, rows, columns), across D, H and W; of pictures one, of
        one slice each.
    """
    if images[0].ndim == 3:
        return [np.stack(images)[:, None]]
    stacked, found = np.stack(images), []
    for axis in (2, 3, 4):
        length = stacked.shape[axis]
        many = min(count, length)
        places = [int((n + 1) * length / (many + 1)) for n in range(many)]
        cut = np.take(stacked, places, axis=axis)
        found.append(np.moveaxis(cut, axis, 1))
    return found
