"""A label file of a YOLO data set: rows ``CLASS XC YC W H``, shares of the image's edges.

Both detectors skip invalid files with one warning among many. Here each bad line is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class LabelRows:
    """The content of a label file."""

    rows: Rows  # float64 (N, 5) as written, each once, in the file's order
    faults: tuple[DataFault, ...] = ()

    @classmethod
    def none(cls, *faults: DataFault) -> LabelRows:
        """Return labels without rows."""
        return cls(np.zeros((0, 5)), faults)


def read_labels(path: Path, names: Sequence[str], overshoot: float) -> LabelRows:
    """Read a label file, and return its faults instead of raising them.

    Boxes may reach beyond the image by ``overshoot``, a share of its width and height.
    """
    try:
        text = _text(path)
    except DataFault as fault:
        return LabelRows.none(fault)
    rows: dict[tuple[float, ...], None] = {}
    faults: list[DataFault] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        wrong = _wrong(words, names, overshoot)
        if wrong is not None:
            faults.append(DataFault(f"{path}: line {number}: {wrong}"))
            if len(faults) == MOST_FAULTS:
                break
            continue
        rows[tuple(float(word) for word in words)] = None
    return LabelRows(np.array(list(rows)).reshape(-1, 5), tuple(faults))


def clipped(rows: Rows) -> Rows:
    """Clip the boxes of rows to the image."""
    low = np.clip(rows[:, 1:3] - rows[:, 3:] / 2, 0, 1)
    high = np.clip(rows[:, 1:3] + rows[:, 3:] / 2, 0, 1)
    return np.hstack([rows[:, :1], (low + high) / 2, high - low])


def corners(rows: Rows, shape: Sequence[int]) -> FloatArray:
    """Return boxes clipped to the image: float32 (N, 4) ``ymin, xmin, ymax, xmax`` in pixels."""
    half = rows[:, 3:] / 2
    low, high = rows[:, 1:3] - half, rows[:, 1:3] + half
    shares = np.clip(np.hstack([low[:, ::-1], high[:, ::-1]]), 0, 1)
    return (shares * np.tile(np.array(shape, np.float64), 2)).astype(np.float32)


def label_text(rows: Rows) -> str:
    """Format rows as a label file; a background gives an empty text.

    Values have six digits, and rounding does not move boxes beyond the image.
    """
    lines = [[str(int(row[0])), *(f"{value:.6f}" for value in row[1:])] for row in rows]
    return "".join(f"{' '.join(words)}\n" for words in lines)


def _text(path: Path) -> str:
    with reading(path):
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise DataFault(
                f"{path}: {size} bytes, expected at most {MOST_BYTES} of rows CLASS XC YC W H; is "
                "it a label file?"
            )
        data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataFault(
            f"{path}: line {line}: byte {error.start} is not UTF-8, expected rows CLASS XC YC W "
            "H; save it as UTF-8"
        ) from error


def _wrong(words: Sequence[str], names: Sequence[str], overshoot: float) -> str | None:
    """Return why a line is not a valid box, or None."""
    if len(words) != 5:
        return _wrong_columns(len(words))
    for column, word in zip(COLUMNS, words, strict=True):
        if not NUMBER.fullmatch(word):
            return f"{column} is {word[:40]!r}, expected a finite number; correct the line"
    number, xc, yc, width, height = (float(word) for word in words)
    if number != int(min(max(number, -1), 2**31)) or not 0 <= number < len(names):
        examples = ", ".join(f"{n} {name}" for n, name in enumerate(names[:8]))
        return (
            f"class is {words[0]}, expected a whole number from 0 to {len(names) - 1} "
            f"({examples}); correct the line, or name the class in data.yaml"
        )
    if not (width > 0 and height > 0):
        return (
            f"w and h are {words[3]} and {words[4]}, expected both above 0; remove the line, or "
            "draw the box"
        )
    low, high = min(xc - width / 2, yc - height / 2), max(xc + width / 2, yc + height / 2)
    if low < -overshoot or high > 1 + overshoot:
        unit = "; are these pixels?" if high > 2 else ""
        return (
            f"the box reaches from x {xc - width / 2:.4g}, y {yc - height / 2:.4g} to x "
            f"{xc + width / 2:.4g}, y {yc + height / 2:.4g}, expected shares of the image, 0 to 1 "
            f"(and {overshoot:g} beyond){unit}; correct the line, or clip it: --read overshoot=0.5"
        )
    return None


def _wrong_columns(count: int) -> str:
    expected = "expected 5: CLASS XC YC W H"
    if count >= 7 and count % 2:
        return (
            f"{count} columns, a polygon of {(count - 1) // 2} points, {expected}; export boxes, "
            "or write the smallest box around each polygon"
        )
    if count == 6:
        return f"6 columns, {expected}; if the last is a confidence, remove that column"
    return f"{count} column(s), {expected}; correct the line"
