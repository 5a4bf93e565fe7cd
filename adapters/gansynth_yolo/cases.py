"""An image of a YOLO data set: as filed, or cropped to the brain (``skull_strip=yes``)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Boxes, FloatArray
from gansynth.data.skull import WHOLE, Brain, find_brain
from gansynth_yolo.headers import Header, read_pixels
from gansynth_yolo.labels import Labels, Rows, as_rows, corners

log = logging.getLogger("gansynth")


@dataclass(frozen=True)
class YoloImage:
    """An image and its boxes.

    Attributes:
        case: its id: its path below the data set's root, without ending and last ``images/``.
        split: ``train``, ``val`` or ``test``.
        label: where its label file is, or would be.
        labels: what the label file says; no rows where there is none.
    """

    case: str
    split: str
    image: Path
    label: Path
    header: Header
    labels: Labels
    labelled: bool

    @cached_property
    def rows(self) -> Rows:
        """Float64 (N, 5) as written: class, xc, yc, w, h; repeated ones once."""
        return self.labels.rows

    @property
    def as_filed(self) -> bool:
        """Whether image and boxes are those of the files."""
        return True

    def pixels(self) -> npt.NDArray[Any]:
        """Uint8 or uint16 (H, W), or uint8 (H, W, 3).

        Raises:
            DataFault: the file is damaged.
        """
        return read_pixels(self.image)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the file's image."""
        return self.header.shape

    @cached_property
    def boxes(self) -> FloatArray:
        """Float32 (N, 4), ``ymin, xmin, ymax, xmax`` in the file's pixels, within the image."""
        return corners(self.rows, self.shape)


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
