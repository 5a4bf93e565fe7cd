"""Many small pictures side by side, drawn pixel by pixel: a large sheet takes no time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Case, Sample, Schema
from gansynth.report.png import outlined, png_bytes, scaled
from gansynth.report.sheets import boxes_at, middle_slice, windows_of
from gansynth.runtime.files import disk_errors, write_bytes_atomic

EDGE, GAP, LINE = 128, 4, 16
"""Pixels along a small picture, between pictures, and of a line of text."""

Cell = tuple[str, Sequence[Sample | Case]]
"""A caption, and what stands side by side below it."""


def write_mosaic(path: Path, cells: Sequence[Cell], schema: Schema, *, across: int = 1) -> Path:
    """Write a PNG of cells, each with a caption and a strip of pictures for each channel.

    Labels, or boxes without them, are outlined in the first channel. Of volumes the slice with most
    foreground is shown, of those of one cell the same one. All share a channel's window.

    Args:
        path: where to write; published atomically, its folder made.
        cells: of equally many items (C, D, H, W) or (C, H, W), all of one shape.
        schema: names channels and labels.
        across: cells in a line.

    Raises:
        EnvironmentFault: the disk refuses.
    """
    windows = windows_of([item for _, items in cells for item in items])
    drawn = [_cell(caption, items, windows, schema) for caption, items in cells]
    lines = [
        np.concatenate(_filled(drawn[first : first + across], across), axis=1)
        for first in range(0, len(drawn), across)
    ]
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, png_bytes(np.concatenate(lines)))
    return path


def _filled(cells: list[npt.NDArray[Any]], across: int) -> list[npt.NDArray[Any]]:
    """A line of cells, white where there are too few."""
    return cells + [np.full_like(cells[0], 255)] * (across - len(cells))


def _cell(
    caption: str,
    items: Sequence[Sample | Case],
    windows: Sequence[tuple[float, float]],
    schema: Schema,
) -> npt.NDArray[Any]:
    """uint8 (H, W, 3): a line of text above each channel's strip."""
    cut = middle_slice(items[0].labels, items[0].image.shape[1:], items[0].boxes)
    strips = []
    for channel, name in enumerate(schema.channels):
        panels = [_panel(item, cut, channel, windows[channel], schema) for item in items]
        strip = np.concatenate(panels, axis=1)
        text = caption if channel == 0 else ""
        if len(schema.channels) > 1:
            text = f"{text}  {name}".strip()
        strips += [_text(text, strip.shape[1]), strip]
    return np.concatenate(strips)


def _panel(
    item: Sample | Case,
    cut: int | None,
    channel: int,
    window: tuple[float, float],
    schema: Schema,
) -> npt.NDArray[Any]:
    """uint8 (H, W, 3), with a white margin right and below."""
    image, labels = item.image[channel], item.labels
    if cut is not None:
        image, labels = image[cut], None if labels is None else labels[cut]
    low, high = window
    grey = scaled(image[None], [(low, max(high, low + 1e-6))], 8)[0][0]
    boxes = boxes_at(item.boxes, cut) if labels is None and not channel else None
    shown = None if channel else labels
    picture = outlined(grey, shown, schema.foreground, edge=EDGE, boxes=boxes)
    margin: npt.NDArray[Any] = np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
    return margin


def _text(text: str, width: int) -> npt.NDArray[Any]:
    """A line of text, black on white: uint8 (LINE, width, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    line = Image.new("RGB", (width, LINE), "white")
    ImageDraw.Draw(line).text((2, 2), text, fill="black", font=ImageFont.load_default())
    return np.asarray(line)
