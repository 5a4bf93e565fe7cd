"""What a trained host has left of a held-out case: its label map, and the true one beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True)
class SlicePosition:
    """Where a 2D case lies among the others of its subject.

    ``stack``: what it is a slice of: a volume, or the subject where no more is known. ``index``:
    its number in the volume; None where nobody knows. ``thickness``: from the centre of one slice
    of the volume to that of the next, in the source's unit; None where nobody knows.
    """

    stack: str
    index: int | None = None
    thickness: float | None = None


@dataclass(frozen=True)
class LabelMaps:
    """Both label maps of a case, on one grid.

    ``predicted``: (D, H, W) or (H, W), axes in any order. ``spacing``: along these axes.
    """

    predicted: npt.NDArray[Any]
    truth: npt.NDArray[Any]
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class Prediction:
    """One held-out case after a training.

    ``file``: the predicted label map; None where it is in no file. ``read``: reads both label maps.
    It raises ``DataFault`` where they cannot be compared. ``unit``: of the spacing: ``mm``, or
    ``px`` where nobody knows how large pixels are. ``position``: of a 2D case among the others of
    its subject; None of a volume.
    """

    subject: str
    file: Path | None
    read: Callable[[], LabelMaps] = field(repr=False)
    unit: str = "mm"
    position: SlicePosition | None = None
