"""What an image file announces, and its pixels as both detectors see them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import FloatArray
from gansynth.data.picture_files import AGAIN, MAX_PIXELS, SUFFIXES, read_picture
from gansynth.runtime.errors import DataFault, GansynthError
from gansynth.runtime.files import reading

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
    """Pixels as float32 (C, H, W), 0 to 1 over all that their type holds.

    Detectors read 16 bits by their upper byte; rounding 255 times what this returns gives that very
    byte.

    Args:
        pixels: what ``read_pixels`` returns.
        grey: RGB becomes one channel, weighted as OpenCV does it.
    """
    if grey and pixels.ndim == 3:
        red, green, blue = (pixels[..., n].astype(np.int32) for n in range(3))
        pixels = ((red * 4899 + green * 9617 + blue * 1868 + 8192) >> 14).astype(np.uint8)
    flat = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    if pixels.dtype == np.uint16:
        share = (flat.astype(np.float32) - np.float32(127.5)) / np.float32(256 * 255)
        return np.asarray(np.clip(share, 0, 1), np.float32)
    return np.ascontiguousarray(flat, np.float32) / np.float32(255)
