"""The option ``--boxes``: a training case's own boxes, jittered ones, or those of a file.

The option is one text that command lines, runs and processes pass on: ``training`` (a case's own
boxes), ``jitter`` (moved, resized, one more or one less; the default),
``jitter:position=0.25,size=0.15``, ``file:boxes.csv`` (a user's own).

The header of a CSV file is ``class,xmin,ymin,xmax,ymax`` (volumes:
``class,xmin,ymin,zmin,xmax,ymax,zmax``). A last column ``image`` groups rows with the same word on
one image. Without that column each row is an image of its own. A row with nothing but that word is
a background, an image without boxes. Coordinates are pixels of the generator's image, x along its
last axis, upper ends exclusive. A class is a name of ``Schema.box_classes`` or its number.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.conditions.box_drawers import (
    BoxContext,
    BoxDrawer,
    JitteredBoxes,
    TrainingBoxes,
    record,
)
from gansynth.core.schema import Boxes, Schema
from gansynth.runtime.errors import DataFault, UsageFault

USUAL = "jitter"  # default of the option
FILE = "file:"
AXES = {5: "xy", 7: "xyz"}
MOST_BYTES = 1 << 26  # largest file of boxes


def box_drawer(option: str) -> BoxDrawer:
    """Return the drawer of an option's boxes.

    Raises:
        UsageFault: an unknown text.
        DataFault: a file of boxes that cannot be used, naming it and the line.
    """
    kind, colon, options = option.partition(":")
    if option == "training":
        return TrainingBoxes()
    if kind == "jitter" and (options or not colon):
        return JitteredBoxes.parse(options)
    if kind == "file" and options:
        return BoxFile.read(Path(options))
    raise UsageFault(f"--boxes {option}: expected training, jitter[:KEY=VALUE,...] or file:PATH")


def anywhere(option: str | None) -> str | None:
    """Return the option with a file's absolute path, readable from any folder."""
    if option is None or not option.startswith(FILE):
        return option
    return f"{FILE}{Path(option.removeprefix(FILE)).absolute()}"


@dataclass(frozen=True)
class BoxRow:
    """One box as it stands in the file: ``min..., max...`` in the order of array axes."""

    number: int
    name: str
    coords: tuple[float, ...]


class BoxFile(BoxDrawer):
    """Images of boxes from a file, in its order and over again: sample ``i`` has image ``i``."""

    def __init__(self, path: Path, groups: Sequence[Sequence[BoxRow]]) -> None:
        self.path, self.groups = path, groups
        self._read: list[Boxes] | None = None

    @classmethod
    def read(cls, path: Path) -> BoxFile:
        """Read a file."""
        try:
            if path.stat().st_size > MOST_BYTES:
                raise DataFault(f"{path}: larger than {MOST_BYTES} bytes, expected a list of boxes")
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise UsageFault(
                f"--boxes file:{path}: {error.strerror}, expected a CSV file of boxes"
            ) from None
        except UnicodeDecodeError:
            raise DataFault(f"{path}: is no UTF-8 text, expected a CSV file of boxes") from None
        return cls(path, _groups(path, text))

    def draw(self, context: BoxContext) -> tuple[Boxes, dict[str, Any]]:
        """See ``BoxDrawer.draw``.

        Raises:
            DataFault: a class that the generator does not know, or a box outside of its image.
        """
        if self._read is None:
            size = context.case.image.shape[1:]
            self._read = [self._boxes(lines, context.schema, size) for lines in self.groups]
        number = context.index % len(self._read)
        boxes = self._read[number]
        return boxes, record(boxes, "file", file=self.path.name, image=number)

    def _boxes(self, lines: Sequence[BoxRow], schema: Schema, size: Sequence[int]) -> Boxes:
        rows, labels = [], []
        for line in lines:
            labels.append(self._number(line, schema))
            axes = len(line.coords) // 2
            high = line.coords[axes:]
            if axes != len(size):
                raise DataFault(
                    f"{self.path}, line {line.number}: a box of {axes} axes, expected {len(size)}, "
                    "as the generator's image has"
                )
            if min(line.coords) < 0 or any(h > n for h, n in zip(high, size, strict=True)):
                raise DataFault(
                    f"{self.path}, line {line.number}: the box leaves the generator's image of "
                    f"{' x '.join(map(str, size[::-1]))} pixels ({'xyz'[:axes]}), expected all of "
                    "it within; scale boxes of other images to that size"
                )
            rows.append(line.coords)
        coords = np.array(rows, np.float32).reshape(-1, 2 * len(size))
        return Boxes(coords, np.array(labels, np.int16))

    def _number(self, line: BoxRow, schema: Schema) -> int:
        names = schema.box_classes
        if line.name in names:
            return names.index(line.name)
        if line.name.isascii() and line.name.isdigit() and int(line.name) < len(names):
            return int(line.name)
        raise DataFault(
            f"{self.path}, line {line.number}: class {line.name!r} is unknown, expected one of "
            f"{', '.join(names)}, or its number"
        )


def _groups(path: Path, text: str) -> list[list[BoxRow]]:
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        header = [word.strip() for word in next(reader, [])]
        axes, grouped = _header(path, header)
        groups: dict[str, list[BoxRow]] = {}
        for row in reader:
            number, cells = reader.line_num, [cell.strip() for cell in row]
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise DataFault(
                    f"{path}, line {number}: {len(cells)} cells, expected {len(header)}: "
                    f"{','.join(header)}"
                )
            image = cells.pop() if grouped else str(number)
            if not image:
                raise DataFault(f"{path}, line {number}: no image, expected a word in that column")
            lines = groups.setdefault(image, [])
            if any(cells):
                lines.append(_line(path, number, cells, axes))
    except csv.Error as error:
        raise DataFault(f"{path}, line {reader.line_num}: {error}, expected CSV") from None
    if not groups:
        raise DataFault(f"{path}: holds no boxes, expected a line for each below the header")
    return list(groups.values())


def _header(path: Path, header: list[str]) -> tuple[int, bool]:
    """Number of axes, and whether there is a column ``image``."""
    grouped = header[-1:] == ["image"]
    names = header[:-1] if grouped else header
    for width, axes in AXES.items():
        if names == ["class", *(f"{axis}{end}" for end in ("min", "max") for axis in axes)]:
            return (width - 1) // 2, grouped
    raise DataFault(
        f"{path}, line 1: the header is {','.join(header) or 'empty'}, expected "
        "class,xmin,ymin,xmax,ymax or class,xmin,ymin,xmax,ymax,image (volumes: "
        "class,xmin,ymin,zmin,xmax,ymax,zmax)"
    )


def _line(path: Path, number: int, cells: list[str], axes: int) -> BoxRow:
    name, values = cells[0], []
    for cell in cells[1:]:
        try:
            values.append(float(cell))
        except ValueError:
            values.append(float("nan"))
        if not np.isfinite(values[-1]):
            raise DataFault(f"{path}, line {number}: {cell!r} is no number, expected pixels")
    # Array axes are the other way round, and coordinates float32 in the end.
    low, high = values[:axes][::-1], values[axes:][::-1]
    if not (np.array(low, np.float32) < np.array(high, np.float32)).all():
        raise DataFault(
            f"{path}, line {number}: the box is empty, expected min below max on every axis"
        )
    return BoxRow(number, name, (*low, *high))
