"""Panels of an image that shows several: an export side by side, a mosaic, a contact sheet.

Two panels meet where nearly all lines that cross a place jump there, or lie in empty space. A line
jumps where neighbouring cells differ more than any others near by do. In one image, that is so of
few lines at one place, unless it shows two things apart, which may be panels as well.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from gansynth.core.landmarks import shown_in, unpadded

Floats = npt.NDArray[np.float32]

_LEAST_CELLS = {2: 24, 3: 12}  # of a panel along an axis; an image's longest has 128, or 64
_LEAST_CONTENT = 0.1  # share of the cells that show something, on either side
_NEAR = (-4, -3, -2, 2, 3, 4)  # where else a line may jump: as far as a resized seam is wide
_JUMP = 0.02  # of the range of the cells
_JUMPING = {2: 0.6, 3: 0.42}  # share of the lines through something that jump, at a seam
_CLEAR = 0.7  # share of the lines through something that do not go on, of those elsewhere


def panels(image: Floats, cells: Floats) -> list[Floats]:
    """Return the panels of an image, without constant borders; none if it shows one thing.

    ``cells``: of ``levelled``.
    """
    voxels = np.array(image.shape) / cells.shape
    found = list(_parts(cells, np.zeros(cells.ndim, int)))
    if len(found) < 2:
        return []
    parts = []
    for start, stop in found:
        # The cell at a seam may hold both.
        first = np.where(start > 0, np.ceil((start + 0.5) * voxels), 0).astype(int)
        last = np.where(stop < cells.shape, np.floor((stop - 0.5) * voxels), image.shape)
        parts.append(image[tuple(map(slice, first, last.astype(int)))])
    return [unpadded(part) for part in parts if part.size and np.ptp(part) > 0]


def _parts(
    cells: Floats, start: npt.NDArray[np.intp]
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Yield the first and last corner of each part of cells, of which ``start`` is the first."""
    seam = _seam(cells)
    if seam is None:
        yield start, start + cells.shape
        return
    axis, place = seam
    further = start + place * np.eye(cells.ndim, dtype=int)[axis]
    before, behind = np.split(cells, [place], axis)
    yield from _parts(before, start)
    yield from _parts(behind, further)


def _seam(cells: Floats) -> tuple[int, int] | None:
    """Return the axis along which two parts of cells lie, and where the second begins."""
    best, found = 0.0, None
    shown = shown_in(cells, 0)
    for axis, length in enumerate(cells.shape):
        least = _LEAST_CELLS[cells.ndim]
        if length < 2 * least:
            continue
        lines = np.moveaxis(cells, axis, 0).reshape(length, -1)
        filled = np.moveaxis(shown, axis, 0).reshape(length, -1)
        steps = np.abs(np.diff(lines, axis=0))
        places = np.arange(least - 1, length - least)  # of the cell before a seam
        near = steps[np.clip(places[:, None] + _NEAR, 0, length - 2)].max(axis=1)
        jumps = steps[places] > near + _JUMP
        crossing = filled[places] | filled[places + 1]
        going_on = (crossing & ~jumps).sum(axis=1)
        content = filled.sum(axis=1)
        before = content.cumsum()[places] / max(content.sum(), 1)
        between = (before >= _LEAST_CONTENT) & (before <= 1 - _LEAST_CONTENT)
        clear = np.where(between, 1 - going_on / max(content.max(), 1), 0)
        clearest = np.flatnonzero(clear == clear.max())
        here = clearest[len(clearest) // 2]
        jumping = 1 - going_on[here] / max(crossing[here].sum(), 1)
        enough = clear[here] >= _CLEAR or (clear[here] > 0 and jumping >= _JUMPING[cells.ndim])
        if enough and clear[here] > best:
            best, found = float(clear[here]), (axis, int(places[here]) + 1)
    return found
