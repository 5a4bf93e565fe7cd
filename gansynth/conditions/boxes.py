"""The option ``--boxes``: a training case's own boxes, jittered ones, or those of a file; places.

The option is one text that command lines, runs and processes pass on: ``training`` (a case's own
boxes), ``jitter`` (moved, resized, one more or one less; the default),
``jitter:position=0.25,size=0.15``, ``file:boxes.csv`` (a user's own).

Jittered boxes (Han et al. 2019, 2.6) are moved and resized, and one may be added or removed. A box
keeps its class and stays in the image and, as a rule, in the body. It overlaps no new box.

The header of a CSV file is ``class,xmin,ymin,xmax,ymax`` (volumes:
``class,xmin,ymin,zmin,xmax,ymax,zmax``). A last column ``image`` groups rows with the same word on
one image. Without that column each row is an image of its own. A row with nothing but that word is
a background, an image without boxes. Coordinates are pixels of the generator's image, x along its
last axis, upper ends exclusive. A class is a name of ``Schema.box_classes`` or its number.
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from gansynth.conditions.location_prior import PlacementPrior, ball_in, depth_of, frame_of
from gansynth.core.body_mask import organ_mask, share_inside
from gansynth.core.case_pool import CaseContext
from gansynth.core.geometry import Matrix, Rng
from gansynth.core.schema import Boxes, Case, Mask, Schema
from gansynth.imaging.body_box import depths
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.options import OptionModel, read_options
from gansynth.runtime.tables import read_cell

TRIES, FULL = 16, 8
"""Tries for each box, and the number of tries after which each halves the strength."""
FARTHEST = 2.0  # deviations beyond which no draw goes
LEAST_SIDE = 2.0  # shortest side in voxels; shorter ones are not shortened
MOSTLY = 0.9  # least share of a box in the body, or its share before if that is less
OTHERS = 8  # training cases tried for a box to add to a case without any
Row = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BoxContext:
    """Inputs from which the boxes of one sample are drawn."""

    case: Case  # a training case in the generator's space, with its own boxes and its image
    schema: Schema  # of that space
    rng: Rng  # the only source of randomness
    index: int = 0  # the sample's number
    # draws another training case, of the same `rng`; None if there is none
    another: Callable[[], Case] | None = None


class BoxDrawer(ABC):
    """Draws the boxes of conditions: seeded and recorded."""

    @abstractmethod
    def draw(self, context: BoxContext) -> tuple[Boxes, dict[str, Any]]:
        """Boxes (N, 4) or (N, 6) within the case, N possibly 0, and their ``record``."""


class TrainingBoxes(BoxDrawer):
    """A training case's own boxes, unchanged."""

    def draw(self, context: BoxContext) -> tuple[Boxes, dict[str, Any]]:
        boxes = own_boxes(context.case)
        return boxes, record(boxes, "training")


class JitterOptions(OptionModel):
    """How far boxes may be from training ones."""

    position: float = Field(
        0.25,
        ge=0,
        le=10,
        description="deviation of a box's shift along each axis, as a share of its side",
    )
    size: float = Field(
        0.15, ge=0, le=1, description="deviation of the logarithm of each side's factor"
    )
    count: float = Field(
        0.2,
        ge=0,
        le=1,
        description="chance that the number of boxes follows another training case: one more (a "
        "box of that case, where it fits) if it has more, one less (never none) if it has fewer",
    )
    inside: bool = Field(True, description="`yes`: boxes stay within the body, found in the image")
    backgrounds: float = Field(
        0.0, ge=0, le=1, description="chance that a case without boxes gets one of another case's"
    )


class JitteredBoxes(BoxDrawer):
    """Draws boxes by jittering the training case's own."""

    def __init__(self, options: JitterOptions | None = None) -> None:
        self.options = options or JitterOptions.model_validate({})

    @classmethod
    def parse(cls, text: str) -> JitteredBoxes:
        """Read ``position=0.25,size=0.15``; other keys have their defaults."""
        options = ",".join(filter(None, text.split(",")))
        if not options:
            return cls()
        option = f"--boxes jitter:{text}"
        return cls(read_options(JitterOptions, options, option, "KEY=VALUE,KEY=VALUE,..."))

    def draw(self, context: BoxContext) -> tuple[Boxes, dict[str, Any]]:
        """See ``BoxDrawer.draw``; ``from`` names for each box the own one, or the other case."""
        case, rng = context.case, context.rng
        count = len(own_boxes(case).labels)
        target, donors = self._count(count, context.another, rng)
        dropped = int(rng.integers(count)) if target < count else -1
        place = _BoxPacking(case, [n for n in range(count) if n != dropped], self.options, rng)
        for number in place.waiting.copy():
            place.keep(number)
        if target > count:
            for donor in donors:
                if place.add(donor):
                    break
        boxes = place.boxes()
        provenance = record(boxes, "jitter", options=self.options.model_dump())
        provenance["from"] = place.origins
        return boxes, provenance

    def _count(
        self, count: int, another: Callable[[], Case] | None, rng: Rng
    ) -> tuple[int, list[Case]]:
        """Draw the number of boxes, and the cases that may lend another one."""
        chance = self.options.count if count else self.options.backgrounds
        if not rng.random() < chance or another is None:
            return count, []
        if count == 0:
            donors = []
            for _ in range(OTHERS):
                donor = another()
                if len(own_boxes(donor).labels):
                    donors.append(donor)
            return 1, donors
        donor = another()
        most = len(own_boxes(donor).labels)
        if most > count:
            count += 1
        elif most < count and count > 1:
            count -= 1
        return count, [donor]


class _BoxPacking:
    """The boxes of one sample, placed one after the other where each has room."""

    def __init__(self, case: Case, numbers: list[int], options: JitterOptions, rng: Rng) -> None:
        self.own, self.options, self.rng = own_boxes(case), options, rng
        self.waiting = numbers
        self.shape = np.array(case.image.shape[1:], float)
        bounded = options.inside and (numbers or options.backgrounds > 0)
        self.body: Mask | None = organ_mask(case.image) if bounded else None
        self.rows: list[Row] = []
        self.labels: list[int] = []
        self.origins: list[int | str] = []

    def boxes(self) -> Boxes:
        """All placed boxes."""
        coords = np.array(self.rows, np.float32).reshape(-1, 2 * len(self.shape))
        return Boxes(coords, np.array(self.labels, np.int16))

    def keep(self, number: int) -> None:
        """Place one of the case's own boxes, jittered as far as there is room."""
        self.waiting.remove(number)
        row = self.own.coords[number].astype(float)
        waiting = [self.own.coords[n].astype(float) for n in self.waiting]
        before = [self.own.coords[n].astype(float) for n in self.origins if isinstance(n, int)]
        pairs = zip(self.rows + waiting, before + waiting, strict=True)
        others = [now for now, then in pairs if not _overlap(row, then)]
        least = 0.0 if self.body is None else min(MOSTLY, share_inside(self.body, row))
        new = self._near(row, others, least)
        self._put(row if new is None else new, int(self.own.labels[number]), number)

    def add(self, donor: Case) -> bool:
        """Place a box like one of another case's; return whether there was room."""
        theirs = own_boxes(donor)
        body = organ_mask(donor.image) if self.body is not None else None
        for number in self.rng.permutation(len(theirs.labels)).tolist():
            row = theirs.coords[number].astype(float)
            least = 0.0 if body is None else min(MOSTLY, share_inside(body, row))
            new = self._near(row, self.rows, least)
            if new is not None:
                self._put(new, int(theirs.labels[number]), donor.id)
                return True
        return False

    def _put(self, row: Row, label: int, origin: int | str) -> None:
        self.rows.append(row)
        self.labels.append(label)
        self.origins.append(origin)

    def _near(self, row: Row, others: list[Row], least: float) -> Row | None:
        """Jitter a box until it overlaps none of the others, with a least share in the body."""
        axes = len(self.shape)
        middle, sides = (row[:axes] + row[axes:]) / 2, row[axes:] - row[:axes]
        for number in range(TRIES):
            strength = 0.5 ** max(0, number - FULL + 1)
            shift, stretch = np.clip(self.rng.standard_normal((2, axes)), -FARTHEST, FARTHEST)
            longer = sides * np.exp(strength * self.options.size * stretch)
            longer = np.maximum(longer, np.minimum(sides, LEAST_SIDE))
            at = middle + strength * self.options.position * sides * shift
            new = np.concatenate([at - longer / 2, at + longer / 2])
            if self._fits(new, least) and not any(_overlap(new, rival) for rival in others):
                return new
        return None

    def _fits(self, row: Row, least: float) -> bool:
        axes = len(self.shape)
        if (row[:axes] < 0).any() or (row[axes:] > self.shape).any():
            return False
        return self.body is None or share_inside(self.body, row) >= least


def _overlap(first: Row, second: Row) -> bool:
    axes = len(first) // 2
    low, high = np.maximum(first[:axes], second[:axes]), np.minimum(first[axes:], second[axes:])
    return bool((low < high).all())


def own_boxes(case: Case) -> Boxes:
    """The boxes of a case."""
    if case.boxes is None:
        raise DataFault(
            "conditions.case-without-boxes",
            f"case {case.id!r}: has no boxes, expected a list of them, which may be empty; leave "
            "it out of the training cases",
        )
    return case.boxes


def record(boxes: Boxes, by: str, **details: Any) -> dict[str, Any]:
    """Return the provenance of drawn boxes as JSON: coordinates, labels and method."""
    coords = [[float(c) for c in row] for row in boxes.coords]
    axes = boxes.coords.shape[1] // 2
    provenance = {"by": by, "axes": axes, "coords": coords, "labels": boxes.labels.tolist()}
    provenance.update(details)
    return provenance


# -- a user's own boxes ----------------------------------------------------------------------------


DEFAULT_BOXES = "jitter"  # default of the option
AXES = {5: "xy", 7: "xyz"}
MOST_BYTES = 1 << 26  # largest file of boxes


def box_drawer(option: str) -> BoxDrawer:
    """Return the drawer of an option's boxes."""
    kind, colon, options = option.partition(":")
    if option == "training":
        return TrainingBoxes()
    if kind == "jitter" and (options or not colon):
        return JitteredBoxes.parse(options)
    if kind == "file" and options:
        return BoxFile.read(Path(options))
    raise UsageFault(
        "conditions.boxes-option-malformed",
        f"--boxes {option}: expected training, jitter[:KEY=VALUE,...] or file:PATH",
    )


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
        try:
            if path.stat().st_size > MOST_BYTES:
                raise DataFault(
                    "conditions.box-file-too-large",
                    f"{path}: larger than {MOST_BYTES} bytes, expected a list of boxes",
                )
            text = path.read_text(encoding="utf-8-sig")
        except PermissionError:
            raise
        except OSError as error:
            raise UsageFault(
                "conditions.box-file-not-readable",
                f"--boxes file:{path}: {error.strerror}, expected a CSV file of boxes",
            ) from None
        except UnicodeDecodeError:
            raise DataFault(
                "conditions.box-file-not-utf8",
                f"{path}: is no UTF-8 text, expected a CSV file of boxes",
            ) from None
        return cls(path, _groups(path, text))

    def draw(self, context: BoxContext) -> tuple[Boxes, dict[str, Any]]:
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
                    "conditions.box-axes-differ",
                    f"{self.path}, line {line.number}: a box of {axes} axes, expected {len(size)}, "
                    "as the generator's image has",
                )
            if min(line.coords) < 0 or any(h > n for h, n in zip(high, size, strict=True)):
                raise DataFault(
                    "conditions.box-leaves-image",
                    f"{self.path}, line {line.number}: the box leaves the generator's image of "
                    f"{' x '.join(map(str, size[::-1]))} pixels ({'xyz'[:axes]}), expected all of "
                    "it within; scale boxes of other images to that size",
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
            "conditions.box-class-unknown",
            f"{self.path}, line {line.number}: class {line.name!r} is unknown, expected one of "
            f"{', '.join(names)}, or its number",
        )


def _groups(path: Path, text: str) -> list[list[BoxRow]]:
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        header = [word.strip() for word in next(reader, [])]
        axes, grouped = _header(path, header)
        groups: dict[str, list[BoxRow]] = {}
        for row in reader:
            number, cells = reader.line_num, [read_cell(text.strip()) for text in row]
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise DataFault(
                    "conditions.box-line-cells-differ",
                    f"{path}, line {number}: {len(cells)} cells, expected {len(header)}: "
                    f"{','.join(header)}",
                )
            image = cells.pop() if grouped else str(number)
            if not image:
                raise DataFault(
                    "conditions.box-line-without-image",
                    f"{path}, line {number}: no image, expected a word in that column",
                )
            lines = groups.setdefault(image, [])
            if any(cells):
                lines.append(_line(path, number, cells, axes))
    except csv.Error as error:
        raise DataFault(
            "conditions.box-file-not-csv", f"{path}, line {reader.line_num}: {error}, expected CSV"
        ) from None
    if not groups:
        raise DataFault(
            "conditions.box-file-empty",
            f"{path}: holds no boxes, expected a line for each below the header",
        )
    return list(groups.values())


def _header(path: Path, header: list[str]) -> tuple[int, bool]:
    """Number of axes, and whether there is a column ``image``."""
    grouped = header[-1:] == ["image"]
    names = header[:-1] if grouped else header
    for width, axes in AXES.items():
        columns = [f"{axis}{end}" for end in ("min", "max") for axis in axes]
        if names == ["class", *columns]:
            return (width - 1) // 2, grouped
    raise DataFault(
        "conditions.box-header-unknown",
        f"{path}, line 1: the header is {','.join(header) or 'empty'}, expected "
        "class,xmin,ymin,xmax,ymax or class,xmin,ymin,xmax,ymax,image (volumes: "
        "class,xmin,ymin,zmin,xmax,ymax,zmax)",
    )


def _line(path: Path, number: int, cells: list[str], axes: int) -> BoxRow:
    name, values = cells[0], []
    for cell in cells[1:]:
        try:
            values.append(float(cell))
        except ValueError:
            values.append(float("nan"))
        if not np.isfinite(values[-1]):
            raise DataFault(
                "conditions.box-coordinate-not-number",
                f"{path}, line {number}: {cell!r} is no number, expected pixels",
            )
    # Array axes are the other way round, and coordinates float32 in the end.
    low, high = values[:axes][::-1], values[axes:][::-1]
    if not (np.array(low, np.float32) < np.array(high, np.float32)).all():
        raise DataFault(
            "conditions.box-empty",
            f"{path}, line {number}: the box is empty, expected min below max on every axis",
        )
    return BoxRow(number, name, (*low, *high))


# -- boxes in a real image: where their class occurs, away from the body's outline -----------------


PLACES = 200  # places that are tried for a box
CLEARANCE = 0.25  # distance kept from other boxes, as a share of the longer side


@dataclass(frozen=True)
class PlacedBoxes:
    """Boxes at their places in a scene."""

    boxes: Boxes  # those that have room
    present: Boxes  # the scene's own, without those that new boxes cover
    body: Mask  # bool, where lesions of the new ones' classes may lie
    # shift of each requested box in voxels along each axis; None where it was left out
    moved: list[list[float] | None]


def place_boxes(
    requested: Boxes, case_context: CaseContext, rng: Rng, *, as_asked: bool
) -> PlacedBoxes:
    """Place boxes where training cases have those of their class (``PlacementPrior``).

    A box lies in the body. Its lesion is at least as far from the body's outline as nine in ten of
    its class. It comes near no other box, but may cover one of the scene's own. With ``as_asked``,
    it stays at its requested place if there is room.
    """
    frame = frame_of(case_context)
    deep = depths(case_context.body, frame)
    n = deep.ndim
    present = case_context.case.boxes
    if present is None:
        present = Boxes(np.zeros((0, 2 * n), np.float32), np.zeros(0, np.int16))
    body, labels = np.zeros(deep.shape, bool), []
    rows: list[Matrix] = []
    moved: list[list[float] | None] = []
    for box, label in zip(
        requested.coords.astype(np.float64), requested.labels.tolist(), strict=True
    ):
        prior = PlacementPrior.learn_boxes(case_context.case_pool, label)
        allowed, middle = prior.allowed(deep), (box[:n] + box[n:]) / 2
        places = frame.voxels(prior.spread(PLACES, n, rng, depth=depth_of(case_context))) + 0.5
        shifts = np.concatenate([np.zeros((int(as_asked), n)), places - middle])
        moved.append(None)
        for shift in shifts:
            new = box + np.tile(shift, 2)
            if not _lies_inside(new, case_context.body, allowed):
                continue
            left = ~_covered(new, present)
            others = [*rows, *present.coords[left]]
            if any(_near(new, other) for other in others):
                continue
            moved[-1] = shift.tolist()
            rows.append(new)
            labels.append(label)
            present = Boxes(present.coords[left], present.labels[left])
            body |= allowed
            break
    coords = np.array(rows, np.float32).reshape(-1, 2 * n)
    return PlacedBoxes(Boxes(coords, np.array(labels, np.int16)), present, body, moved)


def _lies_inside(box: Matrix, body: Mask, allowed: Mask) -> bool:
    n = body.ndim
    if (box[:n] < 0).any() or (box[n:] > body.shape).any():
        return False
    at, lesion = ball_in(box, body.shape)
    return bool(allowed[at][lesion].all()) and share_inside(body, box) == 1


def _covered(box: Matrix, boxes: Boxes) -> Mask:
    """Mark the boxes that lie within another one."""
    n = len(box) // 2
    low, high = boxes.coords[:, :n], boxes.coords[:, n:]
    return np.asarray((low >= box[:n]).all(axis=1) & (high <= box[n:]).all(axis=1))


def _near(box: Matrix, rival: Matrix) -> bool:
    n = len(box) // 2
    clearance = CLEARANCE * (box[n:] - box[:n]).max()
    low, high = box[:n] - clearance, box[n:] + clearance
    return bool((np.maximum(low, rival[:n]) < np.minimum(high, rival[n:])).all())
