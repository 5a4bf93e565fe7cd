"""Volumes that the reference and the tests both make, and checksums of what comes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Size = Sequence[int]
MODULUS = 2003
"""A prime: values of neighbouring voxels differ, and all are exact in float32."""

GEOMETRIES = (
    # segment, receptive field, factor
    ((13, 13, 13), (7, 7, 7), (3, 3, 3)),
    ((25, 25, 25), (17, 17, 17), (3, 3, 3)),
    ((25, 25, 25), (17, 17, 17), (5, 5, 5)),
    ((25, 25, 25), (17, 17, 17), (2, 2, 2)),
    ((14, 15, 16), (7, 9, 5), (3, 5, 1)),
    ((12, 12, 12), (7, 7, 7), (4, 2, 3)),
    ((37, 37, 37), (17, 17, 17), (5, 5, 5)),
)


def volume(shape: Size, channels: int = 2) -> Array:
    """A volume (C, X, Y, Z) that a test can make again: float32, all whole numbers."""
    c, x, y, z = np.ogrid[:channels, : shape[0], : shape[1], : shape[2]]
    values = (c * 911 + x * 613 + y * 389 + z * 47 + x * y * 5 + y * z * 3) % MODULUS
    image: Array = values.astype(np.float32)
    return image


def label_map(shape: Size) -> Array:
    """Labels (X, Y, Z), 0 to 3, 3 in one corner only."""
    x, y, z = np.ogrid[: shape[0], : shape[1], : shape[2]]
    labels: Array = ((x // 5 + y // 7 + z // 3) % 3).astype(np.int16)
    labels[:9, :9, :9] = 3
    return labels


def digest(array: Any, kind: str = "f4") -> str:
    """Checksum of an array's values in C order."""
    return hashlib.sha256(np.ascontiguousarray(array, kind).tobytes()).hexdigest()[:20]


def sizes(segment: Size, receptive: Size, factor: Size) -> tuple[list[int], list[int]]:
    """Shapes of what is predicted, and of the context, as ``pathways.py`` computes them."""
    output = [s - r + 1 for s, r in zip(segment, receptive, strict=True)]
    low = [r + -(-o // f) - 1 for r, o, f in zip(receptive, output, factor, strict=True)]
    return output, low


def shape_for(segment: Size, receptive: Size, factor: Size) -> tuple[int, ...]:
    """Volumes in which some contexts lie within, and some reach over each border."""
    _, low = sizes(segment, receptive, factor)
    reach = [size * times for size, times in zip(low, factor, strict=True)]
    return tuple(max(n, m) + extra for n, m, extra in zip(segment, reach, (9, 12, 17), strict=True))
