"""Boxes as text beside images: CSV in pixels, and YOLO's normalised lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from gansynth.core.schema import Boxes


def csv_text(boxes: Boxes, names: Sequence[str]) -> str:
    """``class,xmin,ymin,xmax,ymax`` (volumes: with z) in voxels; ``--boxes file:`` reads it.

    ``boxes``: (N, 4) or (N, 6). ``names``: of their classes; numbers stand for those without one.
    """
    axes = boxes.coords.shape[1] // 2
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["class", *(f"{axis}{end}" for end in ("min", "max") for axis in "xyz"[:axes])])
    for row, label in zip(boxes.coords, boxes.labels.tolist(), strict=True):
        name = names[label] if 0 <= label < len(names) else str(label)
        ends = [*row[:axes][::-1], *row[axes:][::-1]]  # array axes are the other way round
        table.writerow([name, *(f"{end:.9g}" for end in ends)])
    return stream.getvalue()


def yolo_lines(boxes: Boxes, size: Sequence[int]) -> str:
    """``class x_centre y_centre width height`` as shares of the image; empty for a background.

    ``boxes``: (N, 4).
    """
    height, width = size
    lines = []
    for (top, left, bottom, right), label in zip(
        boxes.coords.astype(float).tolist(), boxes.labels.tolist(), strict=True
    ):
        middle = (left + right) / 2 / width, (top + bottom) / 2 / height
        sides = (right - left) / width, (bottom - top) / height
        lines.append(" ".join([str(label), *(f"{value:.8g}" for value in (*middle, *sides))]))
    return "".join(f"{line}\n" for line in lines)
