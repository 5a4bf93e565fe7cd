"""An image of a YOLO data set, as filed or cropped to the brain; its header and its pixels."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Boxes, FloatArray
from gansynth.data.picture_files import AGAIN, MAX_PIXELS, SUFFIXES, read_picture
from gansynth.data.skull import WHOLE, Brain, find_brain
from gansynth.runtime.errors import DataFault, GansynthError
from gansynth.runtime.files import reading
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


LEAST = 10
"""Rows and columns; ultralytics passes over smaller images."""
GREY = ("L", "I;16", "I;16B", "I;16L", "I;16N")
_TURNED = 274
"""The EXIF tag of how a picture is to be turned."""


@dataclass(frozen=True)
class Header:
    """What an image file announces.

    Attributes:
        grey: one channel; else RGB.
        bits: of a channel, 8 or 16.
    """

    shape: tuple[int, int]
    grey: bool
    bits: int


def read_header(path: Path) -> Header:
    """Read a header; nothing is decoded.

    Raises:
        DataFault: no such picture, or one of a kind that is not read.
        EnvironmentFault: the file may not be read.
    """
    from PIL import Image

    kind = SUFFIXES[path.suffix.lower()]
    try:
        with reading(path), open(path, "rb"):
            pass  # not what follows: Pillow's own complaints are OSErrors too
        with Image.open(path, formats=[kind]) as picture:
            (width, height), mode = picture.size, picture.mode
            turned = picture.getexif().get(_TURNED, 1)
    except GansynthError:
        raise
    except Exception as error:  # decoders raise whatever they meet
        words = " ".join(str(error).split())[:200]
        raise DataFault(f"{path}: no {kind} file, or a damaged one: {words}; {AGAIN}") from error
    if min(width, height) < LEAST or width * height > MAX_PIXELS:
        raise DataFault(
            f"{path}: {height} x {width} pixels, expected at least {LEAST} x {LEAST} and at most "
            f"{MAX_PIXELS} pixels; leave it out"
        )
    if mode not in (*GREY, "RGB"):
        raise DataFault(
            f"{path}: mode {mode}, expected grey of 8 or 16 bits or RGB of 8 bits; convert it"
        )
    if turned not in (0, 1):
        raise DataFault(
            f"{path}: its EXIF orientation is {turned}, expected pixels that need no turning "
            "(1): its boxes could mean either; save it without"
        )
    return Header((height, width), mode != "RGB", 16 if mode.startswith("I;16") else 8)


def read_pixels(path: Path) -> npt.NDArray[Any]:
    """Decode an image whole: uint8 (H, W, 3), or uint8 or uint16 (H, W).

    Raises:
        DataFault: damaged, or of a kind that is not read.
    """
    pixels = read_picture(path)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataFault(
            f"{path}: pixels are {pixels.dtype}, expected whole numbers of 8 or 16 bits; convert it"
        )
    return pixels


def scaled(pixels: npt.NDArray[Any], *, grey: bool) -> FloatArray:
    """Pixels of ``read_pixels`` as float32 (C, H, W), 0 to 1 over all that their type holds.

    Detectors read 16 bits by their upper byte; rounding 255 times this gives that very byte.
    ``grey`` makes one channel of RGB, weighted as OpenCV does it.
    """
    if grey and pixels.ndim == 3:
        red, green, blue = (pixels[..., n].astype(np.int32) for n in range(3))
        pixels = ((red * 4899 + green * 9617 + blue * 1868 + 8192) >> 14).astype(np.uint8)
    flat = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    if pixels.dtype == np.uint16:
        share = (flat.astype(np.float32) - np.float32(127.5)) / np.float32(256 * 255)
        return np.asarray(np.clip(share, 0, 1), np.float32)
    return np.ascontiguousarray(flat, np.float32) / np.float32(255)
