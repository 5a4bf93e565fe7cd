"""A coarse perceptual fingerprint of an image, robust against changes of its encoding.

Each channel is cropped to the body, averaged to a grid, high-pass filtered, z-scored and quantised
to 4 bits a cell. Fingerprints are compared by correlation over all turns and flips.
``benchmarks/bench_guard.py`` measured grids and thresholds.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import otsu

Prints = tuple[str, ...]

CELLS = {2: 32, 3: 16}
"""Cells along each axis, by the number of axes; bodies of fewer voxels have no fingerprint."""
ALIKE = {2: 0.85, 3: 0.77}  # correlation from which two fingerprints count as one image
_SMOOTH = 1.0  # sigma, in cells, of the low-pass that is subtracted
_STEPS = 2.0  # quantisation levels in a standard deviation; 15 levels in all
_BINS, _IN_PLANE = 128, 0.02
_ROWS = 2048


def prints_of(image: npt.NDArray[np.floating]) -> Prints:
    """Return one fingerprint for each channel of (C, ...), empty for a constant channel."""
    return tuple(_print(np.squeeze(channel)) for channel in image)


def alike(
    first_images: Sequence[Prints], others: Sequence[Prints], axes: Sequence[int] = (2, 3)
) -> dict[int, int]:
    """Map images of ``others`` to the image of ``seen`` that looks the same, in any channel."""
    nearest_of: dict[int, tuple[float, int]] = {}
    for ndim in axes:
        (rows, first), (columns, second) = (
            _table(prints, ndim) for prints in (first_images, others)
        )
        if not len(rows) or not len(columns):
            continue
        for start in range(0, len(columns), _ROWS):
            best = closeness(first, second[start : start + _ROWS], ndim)
            nearest = best.argmax(axis=0)
            for number, row in enumerate(nearest):
                score, index = float(best[row, number]), int(columns[start + number])
                if score >= ALIKE[ndim] and score > nearest_of.get(index, (0.0, 0))[0]:
                    nearest_of[index] = score, int(rows[row])
    return {index: row for index, (_, row) in nearest_of.items()}


def closeness(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], ndim: int
) -> npt.NDArray[np.float32]:
    """Return correlations of prints (N, cells), (M, cells), maximal over turns, flips: (N, M)."""
    best = np.full((len(first), len(second)), -1, np.float32)
    for turn in _turns(ndim):
        np.maximum(best, first @ second[:, turn].T, out=best)
    return best


def unpacked(text: str) -> npt.NDArray[np.float32]:
    """Return a fingerprint as a vector of unit length and mean 0."""
    packed = np.frombuffer(base64.b64decode(text), np.uint8)
    cells = np.stack([packed >> 4, packed & 15], axis=1).ravel().astype(np.float32)
    cells -= cells.mean()
    return cells / max(float(np.linalg.norm(cells)), 1e-9)


def _table(
    images: Sequence[Prints], ndim: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return the image index and the vector of each fingerprint with so many axes."""
    length = 4 * -(-(CELLS[ndim] ** ndim // 2) // 3)  # base64 of half a byte for each cell
    of_size = [
        (i, text) for i, prints in enumerate(images) for text in prints if len(text) == length
    ]
    vectors = [unpacked(text) for _, text in of_size]
    table = np.stack(vectors) if vectors else np.zeros((0, CELLS[ndim] ** ndim), np.float32)
    return np.array([i for i, _ in of_size], np.intp), table


@cache
def _turns(ndim: int) -> tuple[npt.NDArray[np.intp], ...]:
    """Return for each turn and flip of a grid the permutation of its cells."""
    cells = np.arange(CELLS[ndim] ** ndim).reshape([CELLS[ndim]] * ndim)
    return tuple(
        np.flip(cells.transpose(order), tuple(axis for axis in range(ndim) if flips[axis])).ravel()
        for order in itertools.permutations(range(ndim))
        for flips in itertools.product((False, True), repeat=ndim)
    )


# -- making one ------------------------------------------------------------------------------------


def _print(image: npt.NDArray[np.floating]) -> str:
    from scipy.ndimage import gaussian_filter

    if image.ndim not in CELLS or not np.isfinite(image).all():
        return ""
    body = _body(image.astype(np.float32, copy=False))
    if body.size < CELLS[image.ndim] ** image.ndim or np.ptp(body) == 0:
        return ""
    cells = _averaged(body, CELLS[image.ndim])
    cells -= gaussian_filter(cells, _SMOOTH, mode="nearest")
    spread = float(cells.std())
    if spread <= 1e-6 * float(np.ptp(body)):
        return ""
    levels = np.clip(np.rint((cells - cells.mean()) / spread * _STEPS), -7, 7).astype(np.int8) + 8
    pairs = levels.astype(np.uint8).reshape(-1, 2)
    return base64.b64encode((pairs[:, 0] << 4 | pairs[:, 1]).tobytes()).decode()


def _body(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Crop an image of constant borders, then of voxels below Otsu's threshold."""
    planes = [tuple(i for i in range(image.ndim) if i != axis) for axis in range(image.ndim)]
    image = image[tuple(_span(np.ptp(image, axis=plane) > 0) for plane in planes)]
    if not image.size:
        return image
    image = np.clip(image, *np.percentile(image[_thinned(image)], (1, 99)))
    bright = image > otsu(image, _BINS)
    return image[tuple(_span(bright.mean(axis=plane) > _IN_PLANE) for plane in planes)]


def _thinned(image: npt.NDArray[np.float32]) -> tuple[slice, ...]:
    """Return every other voxel along each axis of a large image, enough for percentiles."""
    return (slice(None, None, 2 if image.size > 1 << 20 else 1),) * image.ndim


def _span(inside: npt.NDArray[np.bool_]) -> slice:
    """Return the slice from the first to the last true element; all if there is none."""
    indices = np.flatnonzero(inside)
    return slice(int(indices[0]), int(indices[-1]) + 1) if len(indices) else slice(None)


def _averaged(image: npt.NDArray[np.float32], cells: int) -> npt.NDArray[np.float64]:
    """Return means over a grid of cells of fractional size in voxels."""
    means = image.astype(np.float64)
    for axis in range(image.ndim):
        length = image.shape[axis]
        sums = np.insert(np.cumsum(means, axis), 0, 0, axis)
        edges = np.linspace(0, length, cells + 1)
        lower = np.minimum(edges.astype(int), length - 1)
        share = (edges - lower).reshape([-1 if i == axis else 1 for i in range(image.ndim)])
        at_edges = sums.take(lower, axis) * (1 - share) + sums.take(lower + 1, axis) * share
        means = np.diff(at_edges, axis=axis) * (cells / length)
    return means
