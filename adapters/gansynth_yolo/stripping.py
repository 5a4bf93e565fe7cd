"""Images of a YOLO data set skull-stripped and cropped to the brain: ``skull_strip=yes``."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Boxes
from gansynth.data.skull import WHOLE, Brain, find_brain
from gansynth_yolo.headers import read_pixels
from gansynth_yolo.images import YoloImage
from gansynth_yolo.labels import Rows, as_rows, corners

log = logging.getLogger("gansynth")


@dataclass(frozen=True)
class StrippedImage(YoloImage):
    """An image of which the brain is left; ``shape``, ``rows`` and ``boxes`` are of the crop."""

    @cached_property
    def brain(self) -> Brain:
        """Where it is in the file's image.

        Raises:
            DataFault: the file is damaged.
        """
        return find_brain(read_pixels(self.image))

    @property
    def annotated(self) -> Boxes:
        """The boxes of the label file, in the file's pixels."""
        classes = self.labels.rows[:, 0].astype(np.int16)
        return Boxes(corners(self.labels.rows, self.header.shape), classes)

    @cached_property
    def rows(self) -> Rows:
        """Float64 (N, 5): class, xc, yc, w, h, in shares of the crop."""
        whole, left = self.annotated, self.brain.move(self.annotated)
        if len(left.labels) < len(whole.labels):
            log.warning(
                "%s: skull_strip cuts off %d of %d box(es); they are left out",
                *(self.image, len(whole.labels) - len(left.labels), len(whole.labels)),
            )
        return as_rows(left.coords, left.labels, self.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the crop."""
        return self.brain.shape

    @property
    def as_filed(self) -> bool:
        """No: the file holds the skull, too."""
        return False

    def pixels(self) -> npt.NDArray[Any]:
        """The crop as the file has it, 0 where there is no brain."""
        return self.brain.strip(read_pixels(self.image))

    @property
    def cut(self) -> int:
        """How many of its boxes are less than ``WHOLE`` brain."""
        return int((self.brain.shares(self.annotated.coords) < WHOLE).sum())
