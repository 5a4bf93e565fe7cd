"""Whether the files of a case fit together, and what their labels are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import LabelArray
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import Volume

AFFINE_TOLERANCE = 1e-3
"""Largest difference of affine entries (mm) between the files of a case."""
LABELS = 256
"""More different values than this are no label map."""


def mismatches(file: Path, volume: Volume, other: Path, reference: Volume) -> list[str]:
    """How a file's grid differs from that of another file of its case; empty if it does not."""
    found = other_shape(file, volume.array.shape, other, reference.array.shape)
    difference = affine_difference(volume.affine, reference.affine)
    if difference > AFFINE_TOLERANCE:
        found.append(
            f"{file}: affine differs from that of {other.name} by up to {difference:.3g} mm, "
            f"expected at most {AFFINE_TOLERANCE}; resample, or copy the header if only that is off"
        )
    return found


def other_shape(
    file: Path, shape: tuple[int, ...], other: Path, expected: tuple[int, ...]
) -> list[str]:
    """How a file's shape (x, y, z) differs from that of another file of its case."""
    if shape[:3] == expected[:3]:
        return []
    return [
        f"{file}: shape is {shape[:3]}, but {expected[:3]} in {other.name}; expected equal; "
        "resample one to the other"
    ]


def affine_difference(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Largest difference of two affines' entries, in mm."""
    return float(np.abs(one - other).max())


def odd_labels(values: set[int]) -> str | None:
    """What is wrong with label values that nobody has named; None if they are 0, 1, 2, ..."""
    if max(values, default=0) == len(values | {0}) - 1 and min(values, default=0) >= 0:
        return None
    shown = sorted(values)[:16]
    named = ",".join(f"label {v}:{v}" for v in shown if v > 0)
    return (
        f"label values are {shown}, expected 0, 1, 2, ... without a gap; renumber them, or name "
        f"them all: --read labels='{named}'"
    )


def likely_labels(
    values: set[int], likely: Iterable[Mapping[str, int]]
) -> Mapping[str, int] | None:
    """The first naming that values found in files fit: all are named, and the largest occurs."""
    for naming in likely:
        if values <= set(naming.values()) and max(naming.values()) in values:
            return naming
    return None


def whole_labels(file: Path, labels: npt.NDArray[Any]) -> LabelArray:
    """Labels as int16. Raises DataFault: fractions, or numbers that int16 cannot hold."""
    with np.errstate(invalid="ignore"):
        whole: LabelArray = labels.astype(np.int16)
    if not np.array_equal(whole, labels):
        odd = labels[whole != labels].flat[0].item()
        raise DataFault(
            f"{file}: holds label {odd}, expected whole numbers from 0 to 32767; is it a label map?"
        )
    return whole
