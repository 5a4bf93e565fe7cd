"""Draw boxes from training cases: their own, or jittered ones.

Jittered boxes (Han et al. 2019, 2.6) are moved and resized, and one may be added or removed. A box
keeps its class and stays in the image and, as a rule, in the body. It overlaps no new box.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from gansynth.core.body_mask import Mask, organ_mask, share_inside
from gansynth.core.schema import Boxes, Case, Schema
from gansynth.runtime.errors import DataFault
from gansynth.runtime.options import OptionModel, read_options

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
    rng: np.random.Generator  # the only source of randomness
    index: int = 0  # the sample's number
    # draws another training case, of the same `rng`; None if there is none
    another: Callable[[], Case] | None = None


class BoxDrawer(ABC):
    """Draws the boxes of conditions: seeded, recorded, replayable."""

    @abstractmethod
    def draw(self, context: BoxContext) -> tuple[Boxes, dict[str, Any]]:
        """Boxes (N, 4) or (N, 6) within the case, N possibly 0, and their ``record``."""


class TrainingBoxes(BoxDrawer):
    """A training case's own boxes, unchanged."""

    def draw(self, context: BoxContext) -> tuple[Boxes, dict[str, Any]]:
        """The case's own boxes."""
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
        """Read ``position=0.25,size=0.15``; other keys have their defaults.

        Raises:
            UsageFault: an unknown key, with the nearest one, or a value that does not fit.
        """
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
        for donor in donors if target > count else ():
            if place.add(donor):
                break
        boxes = place.boxes()
        provenance = record(
            boxes, "jitter", options=self.options.model_dump(), **{"from": place.origins}
        )
        return boxes, provenance

    def _count(
        self, count: int, another: Callable[[], Case] | None, rng: np.random.Generator
    ) -> tuple[int, list[Case]]:
        """Draw the number of boxes, and the cases that may lend another one."""
        chance = self.options.count if count else self.options.backgrounds
        if not rng.random() < chance or another is None:
            return count, []
        if count:
            donor = another()
            most = len(own_boxes(donor).labels)
            return count + (most > count) - (most < count and count > 1), [donor]
        cases = (another() for _ in range(OTHERS))
        return 1, [donor for donor in cases if len(own_boxes(donor).labels)]


class _BoxPacking:
    """The boxes of one sample, placed one after the other where each has room."""

    def __init__(
        self, case: Case, numbers: list[int], options: JitterOptions, rng: np.random.Generator
    ) -> None:
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
            f"case {case.id!r}: has no boxes, expected a list of them, which may be empty; leave "
            "it out of the training cases"
        )
    return case.boxes


def record(boxes: Boxes, by: str, **details: Any) -> dict[str, Any]:
    """Return the provenance of drawn boxes as JSON: coordinates, labels and method."""
    coords = [[float(c) for c in row] for row in boxes.coords]
    axes = boxes.coords.shape[1] // 2
    return {"by": by, "axes": axes, "coords": coords, "labels": boxes.labels.tolist(), **details}
