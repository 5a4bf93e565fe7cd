"""Perceptual fingerprints of an image, robust against changes of its encoding and its frame.

The first kind is of the whole image. Each channel is cropped to the body, averaged to a grid,
high-pass filtered, divided by the contrast around, z-scored and quantised to 4 bits a cell. Cells
of an even background, and those beside it, are left out: all heads without their skulls have nearly
one outline. Fingerprints are compared by correlation over all turns and flips, where both show
something.

The second kind is of landmarks: see ``gansynth.core.landmarks``.
``benchmarks/measure/bench_guard.py`` measured grids and thresholds.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import otsu
from gansynth.core.geometry import other_axes
from gansynth.core.landmarks import (
    AGREED,
    Landmarks,
    averaged,
    candidate_scores,
    landmarks,
    levelled,
    likely_pairs,
    read_landmarks,
    shown_in,
    span,
    unpadded,
)
from gansynth.core.panels import panels

Prints = tuple[str, ...]

CELLS = {2: 32, 3: 16}
"""Cells along each axis, by the number of axes; bodies of fewer voxels have no fingerprint."""
ALIKE = {2: 0.85, 3: 0.77}  # correlation from which two fingerprints count as one image
EARLIER = ("2:", "3:")  # what landmarks of earlier versions begin with; they are not read
LARGE = 1 << 21  # voxels
COPIED = 0.97  # of pictures: more alike than neighbouring slices
_SMOOTH = 1.0  # sigma, in cells, of the low-pass that is subtracted
_WINDOW, _FLOOR = 2.0, 0.2  # of the local contrast: sigma in cells, and what is added, in the whole
_STEPS = 2.0  # quantisation levels in a standard deviation; 15 levels in all
_BINS, _IN_PLANE = 128, 0.02
_ROWS = 2048
_BLOCK = 512  # prints of which all are compared with all of another such block at once
_HUGE = 1e15  # largest value whose squares float32 holds with ease
_LEAST_SHARED = 0.2  # share of all cells in which two images must both show something
_MAYBE = 0.5  # correlation, as a share of ``ALIKE``, from which the common cells are looked at


def prints_of(image: npt.NDArray[np.floating], spacing: Sequence[float]) -> Prints:
    """Return two fingerprints for each channel of (C, ...) and each of its panels.

    Those of a constant channel are empty.

    Of a large volume every other voxel along each axis is taken.

    ``spacing``: of the voxels; only the proportions of the axes matter.
    """
    if image.ndim == 4 and image[0].size > LARGE:
        image = image[:, ::2, ::2, ::2]
    kept = [mm for mm, length in zip(spacing, image.shape[1:], strict=True) if length > 1]
    channels = [_in_range(np.squeeze(channel)) for channel in image]
    shown = [
        unpadded(x) for x in channels if x.ndim in CELLS and np.isfinite(x).all() and np.ptp(x) > 0
    ]
    cells = [levelled(x, kept) for x in shown]
    for whole, its_cells in zip(tuple(shown), tuple(cells), strict=True):
        for panel in panels(whole, its_cells):
            shown.append(panel)
            cells.append(levelled(panel, kept))
    return (*map(_print, shown), *map(landmarks, cells))


def _in_range(channel: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return a channel as float32 whose squares are finite: prints are of any scale."""
    largest = float(np.abs(channel).max(initial=0))
    if np.isfinite(largest) and largest > _HUGE:
        channel = channel / largest
    return channel.astype(np.float32, copy=False)


def alike(
    first_images: Sequence[Prints],
    others: Sequence[Prints],
    axes: Sequence[int] = (2, 3),
    least: float = 0.0,
) -> dict[int, int]:
    """Map images of ``others`` to the first image that looks the same, in any channel.

    ``least``: correlation that is asked for, if it is more than ``ALIKE``.
    """
    nearest_of: dict[int, tuple[float, int]] = {}
    for ndim in axes:
        rows, first = _table(first_images, ndim)
        columns, second = _table(others, ndim)
        if not len(rows) or not len(columns):
            continue
        for start in range(0, len(columns), _ROWS):
            best = closeness(first, second[start : start + _ROWS], ndim)
            nearest = best.argmax(axis=0)
            for number, row in enumerate(nearest):
                score, index = float(best[row, number]), int(columns[start + number])
                if score >= max(least, ALIKE[ndim]) and score > nearest_of.get(index, (0.0, 0))[0]:
                    nearest_of[index] = score, int(rows[row])
    return {index: row for index, (_, row) in nearest_of.items()}


def same_looks(
    first_images: Sequence[Prints], others: Sequence[Prints], ndim: int
) -> dict[int, int]:
    """Map images of ``others`` to one that shares landmarks with them, or looks the same."""
    return sharing(first_images, others, (ndim,)) | alike(first_images, others, (ndim,))


def look_alikes(images: Sequence[Prints], ndim: int) -> set[tuple[int, int]]:
    """Return all pairs of images that share landmarks or look the same, the smaller index first."""
    rows, table = _table(images, ndim)
    found = set[tuple[int, int]]()
    for start in range(0, len(rows), _BLOCK):
        for later in range(start, len(rows), _BLOCK):
            first, second = table[start : start + _BLOCK], table[later : later + _BLOCK]
            close = closeness(first, second, ndim) >= ALIKE[ndim]
            for row, column in np.argwhere(close):
                found.add((int(rows[start + row]), int(rows[later + column])))
    del table
    everyone = _all_landmarks(images, ndim)
    for one, other in likely_pairs(everyone, ndim):
        found.add((everyone[one].image, everyone[other].image))
    return {(min(pair), max(pair)) for pair in found if pair[0] != pair[1]}


def sharing(
    first_images: Sequence[Prints], others: Sequence[Prints], axes: Sequence[int] = (2, 3)
) -> dict[int, int]:
    """Map images of ``others`` to the first image with the same landmarks, in any channel."""
    best: dict[int, tuple[float, int]] = {}
    for ndim in axes:
        known, there = _all_landmarks(first_images, ndim), _all_landmarks(others, ndim)
        for row, column, score in candidate_scores(known, there, ndim):
            other = there[column].image
            if score >= AGREED[ndim] and score > best.get(other, (0.0, 0))[0]:
                best[other] = score, known[row].image
    return {index: row for index, (_, row) in best.items()}


def _all_landmarks(images: Sequence[Prints], ndim: int) -> list[Landmarks]:
    return [
        read_landmarks(text, index)
        for index, prints in enumerate(images)
        for text in prints
        if text.startswith(f"{ndim}/")
    ]


def closeness(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], ndim: int
) -> npt.NDArray[np.float32]:
    """Return correlations of prints (N, cells), (M, cells), maximal over turns, flips: (N, M).

    Those that may matter are of the cells that both images show, in their best turn; else of all
    cells, where one that is left out counts as 0.
    """
    best, order_of = _closest_orders(first, second, ndim)
    turns = np.stack(_turns(ndim)).reshape(-1, 2**ndim, first.shape[1])
    for row, column in np.argwhere(best >= _MAYBE * ALIKE[ndim]):
        flipped = second[column][turns[order_of[row, column]]]
        one, other = first[row], flipped[(flipped @ first[row]).argmax()]
        both = (one != 0) & (other != 0)
        norms = float(np.linalg.norm(one[both]) * np.linalg.norm(other[both]))
        enough = both.mean() >= _LEAST_SHARED and norms > 0
        best[row, column] = one[both] @ other[both] / norms if enough else 0
    return best


def _closest_orders(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], ndim: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Return the correlations (N, M) of the best turn or flip, and its order of the axes.

    A flip changes but the signs of a print's odd parts. So the products of all parts, 2 along each
    axis, make the correlations of all flips at the cost of one.
    """
    best = np.full((len(first), len(second)), -1, np.float32)
    order_of = np.zeros(best.shape, np.uint8)
    grid = [CELLS[ndim]] * ndim
    known = _parities(first.reshape(-1, *grid))
    others = second.reshape(-1, *grid)
    for number, order in enumerate(itertools.permutations(range(ndim))):
        parts = _parities(others.transpose(0, *[1 + axis for axis in order]))
        found = np.matmul(known, parts.transpose(0, 2, 1))  # (parts, N, M)
        for axis in range(ndim):  # sums and differences, of all flips along one axis
            even, odd = np.moveaxis(found.reshape(2**axis, 2, -1, *best.shape), 1, 0)
            even += odd
            odd *= -2
            odd += even
        closest = found.max(axis=0)
        order_of[closest > best] = number
        np.maximum(best, closest, out=best)
    return best, order_of


def _parities(cells: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the parts of prints (N, ...) that are even or odd along each axis: (parts, N, cells).

    Their products add up to that of the prints.
    """
    parts = cells[None]
    for axis in range(2, parts.ndim):
        half = parts.shape[axis] // 2
        near, far = np.split(parts, [half], axis)
        far = np.flip(far, axis)
        parts = np.concatenate([near + far, near - far]) * np.float32(np.sqrt(0.5))
    return np.ascontiguousarray(parts.reshape(len(parts), len(cells), -1))


def unpacked(text: str) -> npt.NDArray[np.float32]:
    """Return a fingerprint as a vector of unit length, 0 for the cells that are left out."""
    packed = np.frombuffer(base64.b64decode(text), np.uint8)
    levels = np.stack([packed >> 4, packed & 15], axis=1).ravel()
    shown = levels > 0
    cells = np.zeros(len(levels), np.float32)
    # A cell that is shown is never exactly 0.
    cells[shown] = levels[shown] - levels[shown].mean(dtype=np.float32) + np.float32(1e-6)
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
    turns = []
    for order in itertools.permutations(range(ndim)):
        for flips in itertools.product((False, True), repeat=ndim):
            flipped = [axis for axis in range(ndim) if flips[axis]]
            turns.append(np.flip(cells.transpose(order), tuple(flipped)).ravel())
    return tuple(turns)


# -- making one ------------------------------------------------------------------------------------


def _print(image: npt.NDArray[np.float32]) -> str:
    body = _body(image)
    if body.size < CELLS[image.ndim] ** image.ndim or np.ptp(body) == 0:
        return ""
    cells = averaged(body, [CELLS[image.ndim]] * image.ndim)
    shown = shown_in(cells)
    cells = shown * (cells - _mean_around(cells, shown, _SMOOTH))
    # A bright rim, such as a skull, must not outweigh what is inside.
    contrast = np.sqrt(_mean_around(cells**2, shown, _WINDOW))
    floor = _FLOOR * float(np.sqrt((cells[shown] ** 2).mean()))
    cells = (cells / np.maximum(contrast + floor, 1e-9))[shown]
    spread = float(cells.std())
    if spread <= 1e-6 * float(np.ptp(body)):
        return ""
    levels = np.zeros(shown.shape, np.uint8)  # those of cells that are left out
    levels[shown] = np.clip(np.rint((cells - cells.mean()) / spread * _STEPS), -7, 7) + 8
    pairs = levels.reshape(-1, 2)
    return base64.b64encode((pairs[:, 0] << 4 | pairs[:, 1]).tobytes()).decode()


def _mean_around(
    cells: npt.NDArray[np.float64], shown: npt.NDArray[np.bool_], sigma: float
) -> npt.NDArray[np.float64]:
    """Return weighted means of the cells around each that are shown."""
    from scipy.ndimage import gaussian_filter

    weights = gaussian_filter(shown.astype(np.float64), sigma, mode="nearest")
    means = gaussian_filter(cells * shown, sigma, mode="nearest")
    return np.asarray(means / np.maximum(weights, 1e-9))


def _body(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Crop an image of constant borders, then of voxels below Otsu's threshold."""
    image = unpadded(image)
    image = np.clip(image, *np.percentile(image[_thinned(image)], (1, 99)))
    bright = image > otsu(image, _BINS)
    body = [span(bright.mean(axis=plane) > _IN_PLANE) for plane in other_axes(image.ndim)]
    return image[tuple(body)]


def _thinned(image: npt.NDArray[np.float32]) -> tuple[slice, ...]:
    """Return every other voxel along each axis of a large image, enough for percentiles."""
    return (slice(None, None, 2 if image.size > 1 << 20 else 1),) * image.ndim
