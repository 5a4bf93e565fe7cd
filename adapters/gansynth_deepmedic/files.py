"""A training case as DeepMedic's files have it; plain values, for any process. Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gansynth.runtime.serialise import Document

MISSING = "-"
"""What a list of files says of a channel that a case lacks; DeepMedic fills it with zeros."""
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class HostCase(Document, whole=True):
    """One training case, and how its files lie to the arrays that gansynth works on."""

    id: str  # of the case
    # files, absolute, one for each channel; ``MISSING`` for one that it lacks
    channels: tuple[str, ...]
    labels: str  # file of the ground truth
    roi: str | None  # file of the region of interest; None where there is none
    shape: tuple[int, ...]  # (D, H, W) of gansynth's arrays
    # for each axis (x, y, z) of the files, the axis (x, y, z) of gansynth's arrays it has become
    # and the direction, 1 or -1, it is read in: nibabel's orientation. gansynth's arrays are z, y,
    # x
    stored: tuple[tuple[int, int], ...]
    # of each channel, (scale, offset): gansynth's values times scale plus offset are the file's
    units: tuple[tuple[float, float], ...]

    def view(self, array: npt.NDArray[T]) -> npt.NDArray[T]:
        """An array in the files' axes (..., X, Y, Z) as gansynth has it (..., D, H, W): a view.

        What is written into the view is written into the array.
        """
        lead = array.ndim - 3
        axis_of = {axis: place for place, (axis, _) in enumerate(self.stored)}
        turned = array.transpose(*range(lead), *(lead + axis_of[axis] for axis in (2, 1, 0)))
        steps = {axis: step for axis, step in self.stored}
        cut = [slice(None)] * lead + [slice(None, None, steps[axis]) for axis in (2, 1, 0)]
        view: npt.NDArray[T] = turned[tuple(cut)]
        return view
