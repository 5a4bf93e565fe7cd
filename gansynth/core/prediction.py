"""Predictions of a trained host for held-out cases: predicted and true label maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True)
class SlicePosition:
    """Position of a 2D case among the others of its subject; None where unknown.

    ``stack``: the volume, or the subject. ``thickness``: from slice to slice, in the source's unit.
    """

    stack: str
    index: int | None = None
    thickness: float | None = None


@dataclass(frozen=True)
class LabelMaps:
    """Both label maps of a case, (D, H, W) or (H, W), axes in any order, and their spacing."""

    predicted: npt.NDArray[Any]
    truth: npt.NDArray[Any]
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class Prediction:
    """One held-out case after a training; ``file``: None without a file of its label map.

    ``read`` reads both label maps, or raises ``DataFault`` if they cannot be compared. ``unit``:
    of the spacing, ``mm`` or ``px``. ``position``: of a 2D case. ``levels`` reads how many of
    ``gansynth.metrics.segmentation.THRESHOLDS`` the foreground's probability exceeds, on the grid
    of the label maps; None where the host kept no probabilities.
    """

    subject: str
    file: Path | None
    read: Callable[[], LabelMaps] = field(repr=False)
    unit: str = "mm"
    position: SlicePosition | None = None
    levels: Callable[[], npt.NDArray[Any]] | None = field(default=None, repr=False)
