"""A label file of a YOLO data set: rows ``CLASS XC YC W H``, shares of the image's edges.

Both detectors skip invalid files with one warning among many. Here each bad line is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import FloatArray
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import reading

Rows = npt.NDArray[np.float64]  # (N, 5): class, xc, yc, w, h
MOST_BYTES = 16 << 20
MOST_FAULTS = 20  # most faults reported of one file
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
COLUMNS = ("class", "xc", "yc", "w", "h")


def read_lines(path: Path, most: int, expected: str) -> list[str]:
    """Read the lines of a text file of at most so many bytes; DataFault: larger, or not UTF-8."""
    with reading(path):
        size = path.stat().st_size
        if size > most:
            raise DataFault(f"{path}: {size} bytes, expected at most {most} of {expected}")
        data = path.read_bytes()
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataFault(
            f"{path}: line {line}: byte {error.start} is not UTF-8, expected {expected}; save it "
            "as UTF-8"
        ) from error


def read_labels(path: Path, names: Sequence[str], overshoot: float) -> tuple[Rows, list[DataFault]]:
    """Read a label file: its rows as written, each once, and the faults of its lines.

    Boxes may reach beyond the image by ``overshoot``, a share of its width and height.
    """
    rows: dict[tuple[float, ...], None] = {}
    faults: list[DataFault] = []
    for number, line in enumerate(read_lines(path, MOST_BYTES, "rows CLASS XC YC W H"), start=1):
        words = line.split()
        wrong = _wrong(words, names, overshoot) if words else None
        if wrong is not None:
            faults.append(DataFault(f"{path}: line {number}: {wrong}"))
        elif words:
            rows[tuple(float(word) for word in words)] = None
        if len(faults) == MOST_FAULTS:
            break
    return np.array(list(rows)).reshape(-1, 5), faults


def corners(rows: Rows, shape: Sequence[int]) -> FloatArray:
    """Return boxes clipped to the image: float32 (N, 4) ``ymin, xmin, ymax, xmax`` in pixels."""
    half = rows[:, 3:] / 2
    low, high = rows[:, 1:3] - half, rows[:, 1:3] + half
    shares = np.clip(np.hstack([low[:, ::-1], high[:, ::-1]]), 0, 1)
    return (shares * np.tile(np.array(shape, np.float64), 2)).astype(np.float32)


def _wrong(words: Sequence[str], names: Sequence[str], overshoot: float) -> str | None:
    """Return why a line is not a valid box, or None."""
    count = len(words)
    if count != 5:
        kind = "; if the last is a confidence, remove it" if count == 6 else ""
        if count >= 7 and count % 2:
            kind = f"; a polygon of {count // 2} points? Write the smallest box around it"
        return f"{count} column(s), expected 5: CLASS XC YC W H{kind}"
    for column, word in zip(COLUMNS, words, strict=True):
        if not NUMBER.fullmatch(word):
            return f"{column} is {word[:40]!r}, expected a finite number; correct the line"
    number, xc, yc, width, height = map(float, words)
    if number not in range(len(names)):
        return (
            f"class is {words[0]}, expected a whole number from 0 to {len(names) - 1} "
            f"({', '.join(names[:8])}); correct the line, or name the class in data.yaml"
        )
    if not (width > 0 and height > 0):
        return f"w and h are {words[3]} and {words[4]}, expected both above 0; remove the line"
    left, top, right, bottom = xc - width / 2, yc - height / 2, xc + width / 2, yc + height / 2
    if min(left, top) < -overshoot or max(right, bottom) > 1 + overshoot:
        unit = "; are these pixels?" if max(right, bottom) > 2 else ""
        return (
            f"the box reaches from x {left:.4g}, y {top:.4g} to x {right:.4g}, y {bottom:.4g}, "
            f"expected shares of the image, 0 to 1 (and {overshoot:g} beyond){unit}; correct the "
            "line, or clip it: --read overshoot=0.5"
        )
    return None
