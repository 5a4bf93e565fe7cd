"""Prints of arrays by which an image is known again, turned, mirrored or rescaled though it is.

A print is of the values alone, wherever they lie: so neither the order of axes nor their direction
changes it. There are two of them. One is of the values to the bit. The other is of how often each
value comes, from the lowest to the highest: no rescaling changes that. It says something only where
values repeat, as those of scanners do; images of noise have the first one alone.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

Print = tuple[str, int, str]
"""Kind, number of values, hash."""

LEAST_VALUES, LEAST_LEVELS = 64, 12
"""Values, and different ones, that an array has at least; label maps and plain areas have fewer."""
REPEATS = 4
"""Different values are a quarter of all at most, for their counts to be told apart."""
_PROBE = 4096


def prints_of(array: npt.NDArray[Any], stack: int = 0) -> frozenset[Print]:
    """Prints of an array and of its parts.

    Args:
        array: numbers; anything else has no print.
        stack: leading axes whose entries may be images of their own.

    Returns:
        None at all for what is too small or too plain to be an image.
    """
    if array.dtype.kind not in "iufb":
        return frozenset()
    found = set(_own(array))
    if stack and array.ndim > 1:
        for part in array:
            found |= prints_of(part, stack - 1)
    return frozenset(found)


def _own(array: npt.NDArray[Any]) -> set[Print]:
    values = array.reshape(-1)
    if values.size < LEAST_VALUES:
        return set()
    step = max(1, values.size // _PROBE)
    probe = np.unique(values[::step])
    if len(probe) < LEAST_LEVELS:
        probe = np.unique(values)
        if len(probe) < LEAST_LEVELS:
            return set()
    found: set[Print] = {("values", values.size, _hash_of_values(values))}
    sampled = -(-values.size // step)
    if len(probe) <= max(LEAST_LEVELS, sampled // 2):
        counts = np.unique(values, return_counts=True)[1]
        if len(counts) * REPEATS <= values.size:
            digest = hashlib.sha256(counts.astype("<i8").tobytes()).hexdigest()
            found.add(("counts", values.size, digest))
    return found


def _hash_of_values(values: npt.NDArray[Any]) -> str:
    """A hash of float32 values that does not depend on their order; without sorting them."""
    bits = (values.astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    with np.errstate(over="ignore"):
        mixed = bits.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
        total, squares = mixed.sum(dtype=np.uint64), (mixed * mixed).sum(dtype=np.uint64)
    return f"{int(total):016x}{int(squares):016x}"
