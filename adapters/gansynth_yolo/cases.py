"""An image of a YOLO data set: header and pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import FloatArray
from gansynth.data.picture_files import AGAIN, MAX_PIXELS, SUFFIXES, read_picture
from gansynth.runtime.errors import DataFault, GansynthError
from gansynth.runtime.files import reading
from gansynth_yolo.labels import LabelRows, Rows, corners


@dataclass(frozen=True)
class YoloImage:
    """An image and its boxes."""

    case: str  # its id, the path below the data set's root without ending and last `images/`
    split: str  # `train`, `val` or `test`
    image: Path
    label: Path  # path of its label file, which may be missing
    header: ImageHeader
    labels: LabelRows  # content of the label file; no rows without a file
    labelled: bool

    @cached_property
    def rows(self) -> Rows:
        """The boxes as written, without repeats: float64 (N, 5) class, xc, yc, w, h."""
        return self.labels.rows

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the file's image."""
        return self.header.shape

    @cached_property
    def boxes(self) -> FloatArray:
        """The boxes, clipped to the image: float32 (N, 4) ``ymin, xmin, ymax, xmax`` in pixels."""
        return corners(self.rows, self.shape)


LEAST = 10  # least rows and columns; ultralytics skips smaller images
GREY = ("L", "I;16", "I;16B", "I;16L", "I;16N")
_TURNED = 274  # the EXIF tag of a picture's orientation


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image file."""

    shape: tuple[int, int]
    grey: bool  # one channel; else RGB
    bits: int  # of a channel, 8 or 16


def read_header(path: Path) -> ImageHeader:
    """Read a header without decoding the pixels.

    Raises:
        DataFault: the picture is damaged or of an unsupported kind.
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
    except Exception as error:  # decoders raise any exception
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
            f"{path}: its EXIF orientation is {turned}, expected 1 (no rotation), because boxes "
            "would be ambiguous; save it without"
        )
    return ImageHeader((height, width), mode != "RGB", 16 if mode.startswith("I;16") else 8)


def read_pixels(path: Path) -> npt.NDArray[Any]:
    """Decode an image whole: uint8 (H, W, 3), or uint8 or uint16 (H, W)."""
    pixels = read_picture(path)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataFault(
            f"{path}: pixels are {pixels.dtype}, expected whole numbers of 8 or 16 bits; convert it"
        )
    return pixels


def scaled(pixels: npt.NDArray[Any], *, grey: bool) -> FloatArray:
    """Scale pixels of ``read_pixels`` to float32 (C, H, W), 0 to 1 over the range of their type.

    Detectors read the upper byte of 16 bits. Rounding 255 times this value gives that byte.
    ``grey`` converts RGB to one channel with OpenCV's weights.
    """
    if grey and pixels.ndim == 3:
        red, green, blue = (pixels[..., n].astype(np.int32) for n in range(3))
        pixels = ((red * 4899 + green * 9617 + blue * 1868 + 8192) >> 14).astype(np.uint8)
    flat = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    if pixels.dtype == np.uint16:
        share = (flat.astype(np.float32) - np.float32(127.5)) / np.float32(256 * 255)
        return np.asarray(np.clip(share, 0, 1), np.float32)
    return np.ascontiguousarray(flat, np.float32) / np.float32(255)
