"""Arrays as PNG files, and outlines drawn into them pixel by pixel.

A file holds only pixels and a text that says what it is, so equal arrays give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Boxes, FloatArray, LabelArray
from gansynth.core.space import boxes_of_slice
from gansynth.core.synthetic import MARK

COLOURS = ("#e6550d", "#31a354", "#3182bd", "#756bb1", "#dd1c77", "#8c6d31")
GOLDEN = 0.618033988749895
"""Step around the circle of hues, in turns, that separates any number of colours."""
GRID = "gansynth grid of images: may show and name patients, not to be shared"
"""The text in a grid's file, which the audit of what is to be shared finds."""
LINE = 16
"""Pixels of a line of text."""
THUMBNAIL = 96
"""Pixels of a thumbnail's longest edge."""
Pixels = npt.NDArray[Any]
Plane = tuple[int, int] | None
"""Axis and index of a plane of a volume; None for an image, which is one."""


def png_bytes(pixels: Pixels, *, synthetic: bool = False, grid: bool = False) -> bytes:
    """Encode uint8 (H, W), uint16 (H, W) or uint8 (H, W, 3) as PNG, marked if synthetic or a grid.

    A grid's mark says that it is not to be shared.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    stream, text = io.BytesIO(), PngInfo()
    if synthetic or grid:
        text.add_text("Source", MARK if synthetic else GRID)
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG", pnginfo=text)
    return stream.getvalue()


def scaled(
    image: FloatArray, windows: Sequence[tuple[float, float]], bits: int
) -> tuple[Pixels, int]:
    """Convert an image (C, H, W) to integers; each channel's window becomes the full range.

    Returns:
        uint8 or uint16 (C, H, W), and how many pixels were outside the window and are clipped.
    """
    bounds = np.array(windows, np.float64).reshape(-1, 2, 1, 1)
    share = (image - bounds[:, 0]) / (bounds[:, 1] - bounds[:, 0])
    beyond = int(((share < 0) | (share > 1)).sum())
    largest = 2**bits - 1
    pixels = np.rint(np.clip(share, 0, 1) * largest)
    return pixels.astype(np.uint8 if bits == 8 else np.uint16), beyond


# -- the slice that is shown -----------------------------------------------------------------------


def middle_slice(
    labels: LabelArray | None, shape: Sequence[int], boxes: Boxes | None = None
) -> int | None:
    """Return the slice along the first axis with most foreground, or through the largest box.

    None for 2D arrays.
    """
    if len(shape) == 2:
        return None
    if labels is not None and (labels > 0).any():
        return int((labels > 0).sum(axis=(1, 2)).argmax())
    if boxes is not None and len(boxes.labels):
        low, high = boxes.coords[:, :3], boxes.coords[:, 3:]
        largest = int((high - low).prod(axis=1).argmax())
        return int(np.clip((low[largest, 0] + high[largest, 0]) // 2, 0, shape[0] - 1))
    return shape[0] // 2


def three_planes(
    labels: LabelArray | None, shape: Sequence[int], boxes: Boxes | None = None
) -> Sequence[Plane]:
    """Return the slice of ``middle_slice``, and the planes across it that hold most foreground.

    Of a volume of one slice, that one alone.
    """
    cut = middle_slice(labels, shape, boxes)
    if cut is None:
        return (None,)
    if shape[0] == 1:
        return ((0, 0),)
    row, column = shape[1] // 2, shape[2] // 2
    inside = None if labels is None else labels[cut] > 0
    if inside is not None and inside.any():
        row, column = int(inside.sum(axis=1).argmax()), int(inside.sum(axis=0).argmax())
    return ((0, cut), (1, row), (2, column))


def plane_of(volume: Pixels, plane: Plane, spacing: Sequence[float]) -> Pixels:
    """Return a plane of (D, H, W) with about square pixels, later slices above earlier ones."""
    if plane is None:
        return volume
    axis, index = plane
    flat: Pixels = np.take(volume, index, axis=axis)[:: -1 if axis else 1]
    sides = [side for number, side in enumerate(spacing) if number != axis]
    for number, side in enumerate(sides):
        flat = flat.repeat(max(1, round(side / min(sides))), axis=number)
    return flat


def radiological(picture: Pixels, plane: Plane) -> Pixels:
    """Turn the picture of a plane of oriented arrays (``Space.oriented``) as a reader looks at it.

    The head or the front is up. The patient's left is on the right, of sagittal planes the back.
    """
    head_up = plane is not None and plane[0] > 0  # by ``plane_of``
    return picture[:: 1 if head_up else -1, ::-1]


def boxes_at(boxes: Boxes | None, cut: int | None) -> Boxes | None:
    """Return the boxes of an image; for a slice of a volume, those that intersect it."""
    return boxes if boxes is None or cut is None else boxes_of_slice(boxes, cut)


# -- outlines --------------------------------------------------------------------------------------


def colour_of(index: int) -> str:
    """Return the colour of the ``index``-th foreground label; colours are distinct."""
    if index < len(COLOURS):
        return COLOURS[index]
    from colorsys import hsv_to_rgb

    red, green, blue = hsv_to_rgb((index * GOLDEN) % 1, 0.85, 0.9 if index % 2 else 0.65)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def rgb(colour: str) -> npt.NDArray[np.uint8]:
    """Convert a colour ``#rrggbb`` to uint8 (3,)."""
    return np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)


def enlarged(array: Pixels, edge: int) -> tuple[Pixels, int]:
    """Enlarge an array (H, W) until its longest edge is about ``edge``; never shrinks.

    Returns:
        The array, and its integer factor.
    """
    times = max(1, edge // max(array.shape))
    return array.repeat(times, axis=0).repeat(times, axis=1), times


def outlined(
    grey: Pixels,
    labels: LabelArray | None,
    values: Sequence[int],
    *,
    edge: int,
    boxes: Boxes | None = None,
) -> npt.NDArray[np.uint8]:
    """Return a colour image with outlines of labels and boxes that are one pixel wide.

    Args:
        grey: uint8 (H, W).
        labels: int16 (H, W), or None.
        edge: approximate pixels along the longest edge; larger images keep their size.
        boxes: (N, 4), or None.

    Returns:
        uint8 (H', W', 3), enlarged by an integer factor.
    """
    from scipy.ndimage import binary_erosion

    large, times = enlarged(grey, edge)
    picture = np.repeat(large[..., None], 3, axis=2)
    if labels is not None:
        large, _ = enlarged(labels, edge)
        for index, value in enumerate(values):
            inside = large == value
            if inside.any():
                picture[inside & ~binary_erosion(inside)] = rgb(colour_of(index))
    rows = [] if boxes is None else zip(boxes.coords, boxes.labels.tolist(), strict=True)
    for row, label in rows:
        _frame(picture, row * times, rgb(colour_of(max(0, label))))
    return picture


def _frame(picture: Pixels, box: npt.NDArray[np.floating], colour: Pixels) -> None:
    """Draw the outline of a box, ``min..., max...`` in pixels, along its outermost pixels."""
    most = np.array(picture.shape[:2])
    top, left = np.clip(np.floor(box[:2]), 0, most - 1).astype(int)
    bottom, right = np.clip(np.ceil(box[2:]) - 1, (top, left), most - 1).astype(int)
    picture[[top, bottom], left : right + 1] = colour
    picture[top : bottom + 1, [left, right]] = colour


def text_line(text: str, width: int) -> npt.NDArray[np.uint8]:
    """Draw a line of text, black on white: uint8 (LINE, width, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    line = Image.new("RGB", (width, LINE), "white")
    ImageDraw.Draw(line).text((2, 2), text, fill="black", font=ImageFont.load_default())
    return np.array(line)


def text_width(text: str) -> int:
    """Return the width of a line of text in pixels."""
    from PIL import ImageFont

    return 2 + round(ImageFont.load_default().getlength(text))


def thumbnail(
    image: FloatArray,
    windows: Pixels | Sequence[tuple[float, float]],
    labels: LabelArray | None = None,
    *,
    edge: int = THUMBNAIL,
    oriented: bool = False,
) -> bytes:
    """Encode an image as PNG; of a volume the slice with most foreground, else the middle one.

    Two channels are side by side; of more only the first is shown. The first has outlines of
    labels, in the colours of preview grids where label values are 1, 2, 3.

    Args:
        image: (C, D, H, W) or (C, H, W).
        windows: (C, 2), values of black and white in each channel.
        labels: int16 (D, H, W) or (H, W), or None.
        edge: pixels of a channel's longest edge; up to half fewer where pixels are repeated.
        oriented: shows it as ``radiological`` does.
    """
    cut = middle_slice(labels, image.shape[1:])
    plane = image if cut is None else image[:, cut]
    plane_labels = labels if labels is None or cut is None else labels[cut]
    count = 2 if len(plane) == 2 else 1
    bounds = [(low, max(high, low + 1e-6)) for low, high in np.asarray(windows, float)[:count]]
    grey, plane_labels = _shrunk(scaled(plane[:count], bounds, 8)[0], plane_labels, edge)
    values = range(1, 1 + (0 if plane_labels is None else int(plane_labels.max(initial=0))))
    parts = [
        outlined(pixels, None if channel else plane_labels, values, edge=edge)
        for channel, pixels in enumerate(grey)
    ]
    if oriented:
        parts = [radiological(part, None) for part in parts]
    return png_bytes(np.concatenate(parts, axis=1))


def _shrunk(grey: Pixels, labels: LabelArray | None, edge: int) -> tuple[Pixels, LabelArray | None]:
    """Shrink channels (C, H, W) and labels (H, W) until no edge exceeds ``edge`` pixels."""
    shape = grey.shape[1:]
    if max(shape) <= edge:
        return grey, labels
    from PIL import Image

    height, width = [max(1, round(n * edge / max(shape))) for n in shape]
    box = Image.Resampling.BOX
    small = np.stack(
        [np.asarray(Image.fromarray(channel).resize((width, height), box)) for channel in grey]
    )
    if labels is None:
        return small, None
    rows = ((np.arange(height) + 0.5) * shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * shape[1] / width).astype(int)
    return small, labels[np.ix_(rows, columns)]
