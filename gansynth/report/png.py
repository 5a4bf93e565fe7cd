"""Arrays as PNG files: nothing in them but pixels, and the mark of drawn ones, so equal arrays are
equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Boxes, FloatArray, LabelArray
from gansynth.core.synthetic import MARK


def png_bytes(pixels: npt.NDArray[Any], *, synthetic: bool = False) -> bytes:
    """A PNG file of uint8 (H, W), uint16 (H, W) or uint8 (H, W, 3), marked if it is synthetic."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    stream, text = io.BytesIO(), PngInfo()
    if synthetic:
        text.add_text("Source", MARK)
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG", pnginfo=text)
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
    grey: npt.NDArray[Any],
    labels: LabelArray | None,
    values: Sequence[int],
    *,
    edge: int,
    boxes: Boxes | None = None,
) -> npt.NDArray[Any]:
    """A picture in colour, with outlines of labels and boxes that are one pixel wide.

    Args:
        grey: uint8 (H, W).
        labels: int16 (H, W), or None.
        values: those that are outlined.
        edge: pixels along the longest edge: so many, about, or as many as it has.
        boxes: (N, 4), or None.

    Returns:
        uint8 (H', W', 3), larger by a whole number.
    """
    from matplotlib.colors import to_rgb
    from scipy.ndimage import binary_erosion

    from gansynth.report.sheets import colour_of

    times = max(1, edge // max(grey.shape))
    picture = np.repeat(_enlarged(grey, times)[..., None], 3, axis=2)

    def colour(index: int) -> npt.NDArray[np.uint8]:
        return np.asarray(np.rint(255 * np.array(to_rgb(colour_of(index)))), np.uint8)

    large = None if labels is None else _enlarged(labels, times)
    for index, value in enumerate(values):
        inside = np.zeros(1, bool) if large is None else large == value
        if inside.any():
            picture[inside & ~binary_erosion(inside)] = colour(index)
    rows = [] if boxes is None else zip(boxes.coords, boxes.labels.tolist(), strict=True)
    for row, label in rows:
        _frame(picture, row * times, colour(max(0, label)))
    return picture


def _frame(
    picture: npt.NDArray[Any], box: npt.NDArray[np.floating], colour: npt.NDArray[Any]
) -> None:
    """Draw the outline of a box, ``min..., max...`` in pixels, along its outermost pixels."""
    most = np.array(picture.shape[:2])
    top, left = np.clip(np.floor(box[:2]), 0, most - 1).astype(int)
    bottom, right = np.clip(np.ceil(box[2:]) - 1, (top, left), most - 1).astype(int)
    picture[[top, bottom], left : right + 1] = colour
    picture[top : bottom + 1, [left, right]] = colour


def _enlarged(array: npt.NDArray[Any], times: int) -> npt.NDArray[Any]:
    return array.repeat(times, axis=0).repeat(times, axis=1)
