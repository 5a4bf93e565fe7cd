"""Shared parts of sources of 2D cases: intensity windows, and resampling to one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

from gansynth.core.resample import resample
from gansynth.core.schema import Case, FloatArray
from gansynth.core.space import scale_boxes
from gansynth.data.read_options import positive, words
from gansynth.runtime.errors import UsageFault


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
        f"--read window: {len(windows)} for {channels} channel(s), expected one for all, or one "
        "for each"
    )


def rescale(image: FloatArray, bounds: Sequence[tuple[float, float]]) -> FloatArray:
    """Clip each channel of an image (C, ...) to its bounds, and map them to 0 and 1."""
    table = np.array(bounds, np.float32).reshape(len(image), 2, *[1] * (image.ndim - 1))
    low, high = table[:, 0], table[:, 1]
    scaled: FloatArray = np.clip((image - low) / (high - low), 0, 1).astype(np.float32)
    return scaled


def _windows(value: Any) -> Any:
    return tuple(map(_window, words(value))) if isinstance(value, str) else value


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
