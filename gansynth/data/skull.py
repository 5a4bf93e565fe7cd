"""Skull-stripping of single axial slices by thresholds and morphology, and the crop to the brain.

Han et al. 2019, sec. 3.1, do not say how. This is for T1-weighted slices whose scalp is brighter
than the brain and whose bone is dark. At the skull base it keeps some non-brain and loses temporal
poles; of two of three subjects it left face or skull base. A lesion that has grown into the bone
may be cut.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import Mask, otsu
from gansynth.core.schema import Boxes, FloatArray
from gansynth.core.space import cut_boxes

Depth = npt.NDArray[np.floating[Any]]

WORKING_SIDE = 200  # pixels of the longer side, about, that the brain is looked for at
# Intensities are parts of the median of the head's inner half, lengths parts of twice its depth.
DARK = 0.5  # below it there is bone or air
BRIGHT = 1.5  # above it, and joined to the skin, there is scalp
SKIN = 0.035
OUTER = 0.07  # layer in which a scalp is bright somewhere; the skin itself is blurred with air
SCALP = 0.2  # how deep the scalp reaches at most
NECK = 0.025  # half the width of a bridge that does not join two parts
PART = 0.1  # least weight of a part, by depth and beside the heaviest: brain is in several fossae
CLOSE = 0.14  # half the width of a bay that belongs to the brain: the sella, a dark cyst at the rim
RING = 0.15  # share of the outer layer that is bright where there is a scalp at all
WHOLE = 0.9  # share of a box that has to be brain for its lesion to be kept whole


@dataclass(frozen=True)
class BrainMask:
    """Where the brain is in a slice of ``size`` (rows, columns)."""

    size: tuple[int, int]
    packed: bytes

    @classmethod
    def of(cls, mask: Mask) -> BrainMask:
        """Of a mask (H, W) that is true somewhere."""
        return cls((mask.shape[0], mask.shape[1]), np.packbits(mask).tobytes())

    @property
    def mask(self) -> Mask:
        """Bool (H, W); all of the slice where no brain was found."""
        rows, columns = self.size
        bits = np.unpackbits(np.frombuffer(self.packed, np.uint8), count=rows * columns)
        return bits.astype(np.bool_).reshape(self.size)

    @cached_property
    def crop(self) -> tuple[slice, slice]:
        """Rows and columns that hold all of it."""
        mask = self.mask
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the crop."""
        rows, columns = self.crop
        return rows.stop - rows.start, columns.stop - columns.start

    def strip(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The crop of an image (H, W), (H, W, C) or (C, H, W), 0 where there is no brain."""
        mask, crop = self.mask, self.crop
        if image.shape[:2] == self.size:
            inside = mask[crop].reshape(*self.shape, *[1] * (image.ndim - 2))
            return np.where(inside, image[crop], image.dtype.type(0))
        return np.where(mask[crop], image[..., *crop], image.dtype.type(0))

    def move(self, boxes: Boxes) -> Boxes:
        """Boxes of the slice in pixels of the crop, clipped; none that lie beyond it."""
        return cut_boxes(boxes, [part.start for part in self.crop], self.shape)

    def shares(self, coords: FloatArray) -> npt.NDArray[np.float64]:
        """How much of each box (N, 4) in pixels of the slice is brain, 0 to 1."""
        mask, shares = self.mask, []
        for box in coords:
            low, high = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
            inside = mask[low[0] : high[0], low[1] : high[1]]
            shares.append(float(inside.mean()) if inside.size else 0.0)
        return np.array(shares, np.float64)


@cache
def warn_of_limits(name: str) -> None:
    """Say what is left where a data set's skulls are stripped, once in a process."""
    logging.getLogger("gansynth").warning(
        "%s: skull_strip goes by thresholds (Han et al. do not say how they strip); on many slices "
        "it leaves face or skull base. Look at the slices; volumes: strip them first by a trained "
        "tool, HD-BET or SynthStrip",
        name,
    )


def find_brain(image: npt.NDArray[Any]) -> BrainMask:
    """Find the brain in an axial slice (H, W), (H, W, 3) or (3, H, W); dark is low.

    What has no scalp is taken to be stripped already. Where nothing is found, all of the slice is.
    """
    from scipy import ndimage

    grey = _grey(image)
    step = max(1, max(grey.shape) // WORKING_SIDE)
    small = ndimage.gaussian_filter(grey, step / 2 + 0.25)[::step, ::step]
    mask = _mask(np.pad(small, 1))[1:-1, 1:-1]
    if not mask.any():
        return BrainMask.of(np.ones(grey.shape, np.bool_))
    rows, columns = grey.shape
    return BrainMask.of(mask.repeat(step, 0).repeat(step, 1)[:rows, :columns])


def _grey(image: npt.NDArray[Any]) -> FloatArray:
    if image.ndim == 3:
        image = image.mean(axis=-1 if image.shape[-1] == 3 else 0)
    return np.asarray(image, np.float32)


def _mask(small: FloatArray) -> Mask:
    from scipy import ndimage

    head = ndimage.binary_fill_holes(_largest(small > 0.6 * otsu(small)))
    depth = ndimage.distance_transform_edt(head)
    across = 2 * float(depth.max())
    if across == 0:
        return np.zeros(small.shape, np.bool_)
    usual = float(np.median(small[depth > across / 4]))
    scalp = _scalp(head, depth / across, small > BRIGHT * usual)
    if scalp[head & (depth <= max(1, OUTER * across))].mean() < RING:
        return np.asarray(head, np.bool_)
    inner = head & ~scalp & (depth >= SKIN * across)
    tissue = inner & (small > DARK * usual)
    middle = _parts(_eroded(tissue, NECK * across), depth, PART)
    brain = _dilated(middle, 1.3 * NECK * across) & tissue
    around = int(CLOSE * across) + 2
    brain = _dilated(np.pad(brain, around), CLOSE * across)
    closed = ndimage.binary_fill_holes(_eroded(brain, CLOSE * across))
    closed = closed[around:-around, around:-around] & inner
    return _dilated(ndimage.binary_fill_holes(_largest(_eroded(closed, 1.5))), 1.5) & closed


def _scalp(head: Mask, depth: Depth, bright: Mask) -> Mask:
    """What is bright and joined to the skin."""
    from scipy import ndimage

    parts, _ = ndimage.label(head & bright & (depth < SCALP))
    touching = np.unique(parts[(depth < OUTER) & (parts > 0)])
    return np.asarray(np.isin(parts, touching), np.bool_)


def _largest(mask: Mask) -> Mask:
    return _parts(mask, np.ones(mask.shape, np.float32), 1)


def _parts(mask: Mask, weights: Depth, least: float) -> Mask:
    """The connected parts that weigh so much at least, as a share of the heaviest one."""
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel(), weights.ravel())
    sizes[0] = 0
    return np.asarray(np.isin(parts, np.flatnonzero(sizes >= least * sizes.max())), np.bool_)


def _eroded(mask: Mask, radius: float) -> Mask:
    from scipy import ndimage

    return np.asarray(ndimage.distance_transform_edt(mask) > radius, np.bool_)


def _dilated(mask: Mask, radius: float) -> Mask:
    from scipy import ndimage

    if not mask.any():
        return mask
    return np.asarray(ndimage.distance_transform_edt(~mask) <= radius, np.bool_)
