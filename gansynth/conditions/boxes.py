"""Which boxes a sample is asked to have: a training case's own, or others like them.

What is asked for is one text, so that a command line, a run and a producer process can hand it on:
``training`` (a case's own boxes), ``jitter`` (moved, resized, one more or one less; the default),
``jitter:position=0.25,size=0.15``, ``file:boxes.csv`` (a user's own).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.schema import Boxes, Case, Schema
from gansynth.runtime.errors import DataFault, UsageFault

USUAL = "jitter"
"""What is asked for where the user says nothing."""
FILE = "file:"


class BoxDrawer(ABC):
    """Draws the boxes of conditions: seeded, recorded, replayable."""

    @abstractmethod
    def draw(
        self,
        case: Case,
        schema: Schema,
        rng: np.random.Generator,
        *,
        index: int = 0,
        another: Callable[[], Case] | None = None,
    ) -> tuple[Boxes, dict[str, Any]]:
        """Draw the boxes of one sample.

        Args:
            case: a training case in the generator's space, with its own boxes and its image.
            schema: of that space.
            rng: the only source of randomness.
            index: the sample's number.
            another: draws another training case, of the same ``rng``; None if there is none.

        Returns:
            Boxes (N, 4) or (N, 6) within the case, N possibly 0, and JSON that says how they came
            about, which ``replay`` reads.
        """


class TrainingBoxes(BoxDrawer):
    """A training case's own boxes, unchanged."""

    def draw(
        self,
        case: Case,
        schema: Schema,
        rng: np.random.Generator,
        *,
        index: int = 0,
        another: Callable[[], Case] | None = None,
    ) -> tuple[Boxes, dict[str, Any]]:
        """The case's own boxes."""
        boxes = own_boxes(case)
        return boxes, record(boxes, "training")


def own_boxes(case: Case) -> Boxes:
    """The boxes of a case.

    Raises:
        DataFault: it has no list of boxes, not even an empty one.
    """
    if case.boxes is None:
        raise DataFault(
            f"case {case.id!r}: has no boxes, expected a list of them, which may be empty; leave "
            "it out of the training cases"
        )
    return case.boxes


def record(boxes: Boxes, by: str, **more: Any) -> dict[str, Any]:
    """JSON of drawn boxes: all of them, and how they came about."""
    coords = [[float(c) for c in row] for row in boxes.coords]
    axes = boxes.coords.shape[1] // 2
    return {"by": by, "axes": axes, "coords": coords, "labels": boxes.labels.tolist(), **more}


def replay(told: Mapping[str, Any]) -> Boxes:
    """The boxes that a record stands for, to the bit; it may have been through JSON."""
    coords = np.array(told["coords"], np.float32).reshape(-1, 2 * int(told["axes"]))
    return Boxes(coords, np.array(told["labels"], np.int16))


def box_drawer(asked: str) -> BoxDrawer:
    """What draws the boxes that are asked for.

    Raises:
        UsageFault: a text that says nothing known.
        DataFault: a file of boxes that cannot be used, naming it and the line.
    """
    from gansynth.conditions.box_file import BoxFile
    from gansynth.conditions.box_jitter import JitteredBoxes

    kind, colon, rest = asked.partition(":")
    if asked == "training":
        return TrainingBoxes()
    if kind == "jitter" and (rest or not colon):
        return JitteredBoxes.parse(rest)
    if kind == "file" and rest:
        return BoxFile.read(Path(rest))
    raise UsageFault(f"--boxes {asked}: expected training, jitter[:KEY=VALUE,...] or file:PATH")


def anywhere(asked: str | None) -> str | None:
    """What is asked for, as it can be read in another folder: a file by its whole path."""
    if asked is None or not asked.startswith(FILE):
        return asked
    return f"{FILE}{Path(asked.removeprefix(FILE)).absolute()}"
