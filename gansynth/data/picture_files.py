"""Read one PNG, TIFF or JPEG file safely; intensity windows and sizes of sources of 2D cases.

All checksums of PNG are compared. A damaged TIFF or JPEG that still decodes passes unnoticed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator

from gansynth.core.resample import resample
from gansynth.core.schema import Case, FloatArray
from gansynth.core.space import scale_boxes
from gansynth.data.read_options import positive
from gansynth.runtime.errors import DataFault, EnvironmentFault, GansynthError, UsageFault
from gansynth.runtime.files import reading
from gansynth.runtime.option_kinds import parts_of
from gansynth.runtime.volumes import COPY_AGAIN

SUFFIXES = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"}
MAX_PIXELS = 1 << 25  # largest picture that is decoded: 5793 x 5793
MAX_FILE_BYTES = 512 << 20
GREY = ("L", "I;16", "I;16B", "I;16L", "I;16N", "I", "F")
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""
PNG_BEGINS = b"\x89PNG\r\n\x1a\n"
_BITS_PER_SAMPLE, _ORIENTATION = 258, 274

Use = Literal["image", "mask"]


def read_picture(path: Path, use: Use = "image") -> npt.NDArray[Any]:
    """Decode a picture: (H, W) or (H, W, 3), dtype as stored.

    An image may be grey (8, 16, 32 bits, floats) or 8-bit RGB; a mask has whole numbers, of a
    palette its indices, and of RGB one number where all three are equal. Turned as its EXIF
    orientation says, and every viewer shows it. Raises DataFault: naming what was found and
    expected; EnvironmentFault: unreadable.
    """
    from PIL import ImageOps

    with reading(path):
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DataFault(
                "picture-files.file-too-large",
                f"{path}: {size} bytes, expected at most {MAX_FILE_BYTES}; {COPY_AGAIN}",
            )
        data = path.read_bytes()
    kind = SUFFIXES[path.suffix.lower()]
    try:
        with _open(data, kind) as picture:
            _refuse_other(path, picture, data, use)
            if kind == "PNG":
                picture.verify()  # compares every checksum, and cannot decode after that
        with _open(data, kind) as picture:
            array = np.asarray(ImageOps.exif_transpose(picture))
    except MemoryError as error:
        raise EnvironmentFault(
            "picture-files.out-of-memory", f"{path}: not enough memory to decode it; free some"
        ) from error
    except GansynthError:
        raise
    except Exception as error:  # decoders raise whatever they meet: SyntaxError, struct.error ...
        words = " ".join(str(error).replace(repr(data), "").split())[:200] or type(error).__name__
        raise DataFault(
            "picture-files.damaged",
            f"{path}: no {kind} file, or a damaged one: {words}; {COPY_AGAIN}",
        ) from error
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if use == "mask" and array.ndim == 3:
        coloured = array[(array != array[..., :1]).any(axis=-1)]
        if len(coloured):
            raise DataFault(
                "picture-files.mode-unsupported",
                f"{path}: mode RGB, with colours such as {tuple(coloured[0].tolist())}, expected "
                "one grey channel of label numbers; save it with a number for each colour",
            )
        array = array[..., 0]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataFault(
            "picture-files.not-finite",
            f"{path}: holds NaN or infinite pixels, expected finite ones; replace them",
        )
    return array


def _open(data: bytes, kind: str) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(data), formats=[kind])


def _refuse_other(path: Path, picture: Any, data: bytes, use: Use) -> None:
    """Refuse unsupported pictures by their header, before decoding."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise DataFault(
            "picture-files.too-many-pixels",
            f"{path}: {height} x {width} pixels in {len(data)} bytes, expected at most "
            f"{MAX_PIXELS} pixels: a decompression bomb? Cut it into tiles, or leave it out",
        )
    frames = getattr(picture, "n_frames", 1)
    if frames != 1:
        raise DataFault(
            "picture-files.several-pictures",
            f"{path}: holds {frames} pictures, expected one; write a file for each, or a volume as "
            "NIfTI",
        )
    deep = picture.mode == "RGB" and _bits(picture, data) > 8
    modes = (*GREY, "RGB") if use == "image" else ("1", "L", "P", *GREY[1:-1], "RGB")
    if picture.mode not in modes or deep:
        mode = "RGB of 16 bits, which Pillow cuts to 8" if deep else f"mode {picture.mode}"
        expected = "grey or 8-bit RGB" if use == "image" else "one grey channel of label numbers"
        raise DataFault(
            "picture-files.mode-unsupported", f"{path}: {mode}, expected {expected}; convert it"
        )


def _bits(picture: Any, data: bytes) -> int:
    """Bits per channel."""
    if picture.format == "PNG":
        return data[24]
    if picture.format == "TIFF":
        return int(max(picture.tag_v2.get(_BITS_PER_SAMPLE, (8,))))
    return 8


class PictureHeader(NamedTuple):
    """What a picture's file announces.

    ``shape``: of what ``read_picture`` returns. ``turned``: its EXIF orientation, 1 for none.
    """

    shape: tuple[int, int]
    mode: str
    turned: int


def picture_header(path: Path) -> PictureHeader:
    """Read a header without decoding the pixels; DataFault as ``read_picture``."""
    from PIL import Image

    kind = SUFFIXES[path.suffix.lower()]
    try:
        with reading(path), open(path, "rb"):
            pass  # not what follows: Pillow's own complaints are OSErrors too
        with Image.open(path, formats=[kind]) as picture:
            (width, height), mode = picture.size, str(picture.mode)
            turned = int(picture.getexif().get(_ORIENTATION, 1)) if _has_exif(path, kind) else 1
            if turned in SIDEWAYS and kind != "TIFF":  # of which Pillow tells the turned size
                width, height = height, width
    except GansynthError:
        raise
    except Exception as error:  # as above
        words = " ".join(str(error).split())[:200]
        raise DataFault(
            "picture-files.damaged",
            f"{path}: no {kind} file, or a damaged one: {words}; {COPY_AGAIN}",
        ) from error
    return PictureHeader((int(height), int(width)), mode, turned)


def frames_of(path: Path) -> int:
    """Return how many pictures a TIFF file holds; 1 of other files, and of damaged ones."""
    from PIL import Image

    if SUFFIXES[path.suffix.lower()] == "TIFF":
        with suppress(OSError, SyntaxError, ValueError), Image.open(path) as picture:
            return int(getattr(picture, "n_frames", 1))
    return 1


def _has_exif(path: Path, kind: str) -> bool:
    """Whether a file may say how it is turned; Pillow would decode a whole PNG to find out."""
    if kind != "PNG":
        return True
    with open(path, "rb") as file:
        file.seek(len(PNG_BEGINS))
        chunk = file.read(8)
        while len(chunk) == 8:
            if chunk[4:] == b"eXIf":
                return True
            file.seek(int.from_bytes(chunk[:4], "big") + 4, io.SEEK_CUR)
            chunk = file.read(8)
    return False


def full_range(array: npt.NDArray[Any]) -> tuple[float, float]:
    """Intensities that become 0 and 1 without a window: what the dtype, 8 or 16 bits, holds."""
    if array.dtype in (np.uint8, np.uint16):
        return 0.0, float(np.iinfo(array.dtype).max)
    return 0.0, 1.0


# -- intensity windows, and resampling to one size -------------------------------------------------


@dataclass(frozen=True)
class IntensityWindow:
    """The intensities, or percentiles, of a channel that become 0 and 1, clipped."""

    low: float
    high: float
    percent: bool = False

    def bounds(self, channel: FloatArray | None) -> tuple[float, float]:
        """The intensities that become 0 and 1; percentiles are the channel's, of any shape."""
        if not self.percent or channel is None:
            return self.low, self.high
        low, high = np.percentile(channel, (self.low, self.high))
        return float(low), float(max(high, low + 1e-6))


def per_channel(
    windows: Sequence[IntensityWindow] | None, channels: int
) -> tuple[IntensityWindow, ...] | None:
    """A window for each channel, one alone for all; UsageFault: another number of them."""
    if windows is None or len(windows) == channels:
        return None if windows is None else tuple(windows)
    if len(windows) == 1:
        return tuple(windows) * channels
    raise UsageFault(
        "picture-files.window-count-differs",
        f"--read window: {len(windows)} for {channels} channel(s), expected one for all, or one "
        "for each",
    )


def rescale(image: FloatArray, bounds: Sequence[tuple[float, float]]) -> FloatArray:
    """Clip each channel of an image (C, ...) to its bounds, and map them to 0 and 1."""
    table = np.array(bounds, np.float32).reshape(len(image), 2, *[1] * (image.ndim - 1))
    low, high = table[:, 0], table[:, 1]
    scaled: FloatArray = np.clip((image - low) / (high - low), 0, 1).astype(np.float32)
    return scaled


def _windows(value: Any) -> Any:
    return tuple(map(_window, parts_of(value))) if isinstance(value, str) else value


def _window(text: str) -> IntensityWindow:
    low, colon, high = text.partition(":")
    percent = low.endswith("%") and high.endswith("%")
    try:
        pair = (float(low[:-1]), float(high[:-1])) if percent else (float(low), float(high))
    except ValueError:
        pair = (0.0, 0.0)
    end = 100.0 if percent else float("inf")
    start = 0.0 if percent else -float("inf")
    inside = start <= pair[0] < pair[1] <= end and np.isfinite(pair).all()
    if not colon or not inside:
        raise ValueError(
            "expected LOW:HIGH, for example -100:240 (intensities) or 1%:99% (percentiles)"
        )
    return IntensityWindow(*pair, percent)


def _spacing(value: Any) -> Any:
    return positive(value, 2, "expected one positive number, or two: y,x")


Windows = Annotated[tuple[IntensityWindow, ...], BeforeValidator(_windows)]
PixelSpacing = Annotated[tuple[float, float], BeforeValidator(_spacing)]
"""Pixel size in mm along y,x; one number for both."""


def resize(case: Case, size: Sequence[int]) -> Case:
    """Bring a 2D case, (C, H, W), to a size, boxes included; see ``core.resample.resample``."""
    shape = case.image.shape[1:]
    if tuple(size) == shape:
        return case
    image, labels = resample(case.image, case.labels, size)
    boxes = None if case.boxes is None else scale_boxes(case.boxes, shape, size)
    return replace(case, image=image, labels=labels, boxes=boxes)
