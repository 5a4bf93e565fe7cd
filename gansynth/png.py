"""Arrays as PNG files: nothing in them but pixels, so equal arrays are equal bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.schema import FloatArray, LabelArray


def png_bytes(pixels: npt.NDArray[Any]) -> bytes:
    """A PNG file of uint8 (H, W), uint16 (H, W) or uint8 (H, W, 3)."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG")
    return stream.getvalue()


def scaled(
    image: FloatArray, windows: Sequence[tuple[float, float]], bits: int
) -> tuple[npt.NDArray[Any], int]:
    """An image (C, H, W) as whole numbers, each channel's window from 0 to all that fits.

    Returns:
        uint8 or uint16 (C, H, W), and how many pixels lay beyond the window, which are clipped.
    """
    bounds = np.array(windows, np.float64).reshape(-1, 2, 1, 1)
    share = (image - bounds[:, 0]) / (bounds[:, 1] - bounds[:, 0])
    beyond = int(((share < 0) | (share > 1)).sum())
    largest = 2**bits - 1
    pixels = np.rint(np.clip(share, 0, 1) * largest)
    return pixels.astype(np.uint8 if bits == 8 else np.uint16), beyond


def outlined(
    grey: npt.NDArray[Any], labels: LabelArray | None, values: Sequence[int], *, edge: int
) -> npt.NDArray[Any]:
    """A picture in colour, with outlines of labels that are one pixel wide.

    Args:
        grey: uint8 (H, W).
        labels: int16 (H, W), or None.
        values: those that are outlined.
        edge: pixels along the longest edge: so many, about, or as many as it has.

    Returns:
        uint8 (H', W', 3), larger by a whole number.
    """
    from matplotlib.colors import to_rgb
    from scipy.ndimage import binary_erosion

    from gansynth.sheets import colour_of

    times = max(1, edge // max(grey.shape))
    picture = np.repeat(_enlarged(grey, times)[..., None], 3, axis=2)
    if labels is None:
        return picture
    large = _enlarged(labels, times)
    for index, value in enumerate(values):
        inside = large == value
        if inside.any():
            line = inside & ~binary_erosion(inside)
            picture[line] = np.rint(255 * np.array(to_rgb(colour_of(index))))
    return picture


def _enlarged(array: npt.NDArray[Any], times: int) -> npt.NDArray[Any]:
    return array.repeat(times, axis=0).repeat(times, axis=1)
