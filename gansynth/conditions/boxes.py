"""Which boxes a sample is asked to have: a training case's own, or others like them.

What is asked for is one text, so that a command line, a run and a producer process can hand it on:
``training`` (a case's own boxes), ``jitter`` (moved, resized, one more or one less; the default),
``jitter:position=0.25,size=0.15``, ``file:boxes.csv`` (a user's own).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from gansynth.errors import DataFault, UsageFault
from gansynth.schema import Boxes, Case, Schema

USUAL = "jitter"
"""What is asked for where the user says nothing."""


class BoxDrawer(ABC):
    """Draws the boxes of conditions: seeded, recorded."""

    @abstractmethod
    def draw(
        self, case: Case, schema: Schema, rng: np.random.Generator
    ) -> tuple[Boxes, dict[str, Any]]:
        """Draw the boxes of one sample.

        Args:
            case: a training case in the generator's space, with its own boxes and its image.
            schema: of that space.
            rng: the only source of randomness.

        Returns:
            Boxes (N, 4) or (N, 6) within the case, N possibly 0, and JSON that says how they came
            about.
        """


class TrainingBoxes(BoxDrawer):
    """A training case's own boxes, unchanged."""

    def draw(
        self, case: Case, schema: Schema, rng: np.random.Generator
    ) -> tuple[Boxes, dict[str, Any]]:
        """The case's own boxes."""
        return own_boxes(case), {"by": "training"}


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


def box_drawer(asked: str) -> BoxDrawer:
    """What draws the boxes that are asked for.

    Raises:
        UsageFault: a text that says nothing known.
    """
    if asked in ("training", USUAL):
        return TrainingBoxes()
    raise UsageFault(f"--boxes {asked!r}: expected training, jitter[:KEY=VALUE,...] or file:PATH")
