"""Body masks derived from images alone: voxels that differ from the image border."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from gansynth.core.geometry import slabs
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Mask

EVEN = 0.2
"""A border is background if its interquartile range is below this share of all values' range."""
MASKED = 0.9
"""Masked images: least share of voxels off the outer value that must exceed the threshold."""
BINS = 256  # of the histogram that a threshold is found in
HALF = 0.5  # factor on Otsu's threshold: dark tissue is body, too
GAP = 2  # half of the widest gap in a body that is closed, in voxels
PADDED = 0.1  # least share of a border that has one value where a picture is padded
SAME = 0.01  # share of all values' range by which padding differs from that value at most


def organ_mask(image: FloatArray) -> Mask:
    """Return the body in an image: the largest component that differs from the border, filled.

    Deviations from the border are summed over channels and cut at half of Otsu's threshold (Otsu
    1979). So backgrounds may be dark, bright or intermediate. Without a uniform border, all but
    the padding is body. (C, D, H, W) or (C, H, W) -> bool, never empty.
    """
    border = _rim(np.ones(image.shape[1:], bool))
    body = _off_border(image, border)
    return _unpadded(image, border) if body is None else body


def _off_border(image: FloatArray, border: Mask) -> Mask | None:
    """Return the largest component that differs from a border, filled; None: it is not uniform."""
    from scipy.ndimage import label

    cuts = []
    for channel in image:
        low, middle, high = np.percentile(channel[border], (25, 50, 75))
        reach = np.subtract(*np.percentile(channel, (99.5, 0.5)))
        if np.ptp(channel) == 0:  # constant
            continue
        if not high - low < EVEN * reach:
            return None
        cuts.append((channel, middle, reach))
    if not cuts:
        return np.ones(image.shape[1:], bool)

    def differences() -> Iterator[npt.NDArray[np.float64]]:
        for part in slabs(image.shape[1:]):
            yield sum(np.abs(channel[part] - middle) / reach for channel, middle, reach in cuts)

    ends = [(each.min(), each.max()) for each in differences()]
    reach = min(low for low, _ in ends), max(high for _, high in ends)
    counts = np.sum([np.histogram(each, BINS, reach)[0] for each in differences()], axis=0)
    least = HALF * _otsu(counts, np.histogram_bin_edges(np.array(reach), BINS, reach))
    body = _without_holes(_closed(np.concatenate([each > least for each in differences()])))
    pieces, count = label(body)
    if count == 0:
        return np.ones(image.shape[1:], bool)
    if count > 1:
        body = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return np.asarray(body, bool)


def body_mask(image: FloatArray) -> Mask:
    """Return the body in a skull-stripped or masked image: all voxels but its constant outside.

    Holes are filled. Without a constant outside it is ``organ_mask``. (C, D, H, W) or (C, H, W) ->
    bool, never empty.
    """
    border = _rim(np.ones(image.shape[1:], bool))
    outer = [np.unique(channel[border]) for channel in image]
    if any(len(values) > 1 for values in outer):
        return organ_mask(image)
    body = np.zeros(image.shape[1:], bool)
    for channel, values in zip(image, outer, strict=True):
        body |= channel != values[0]
    return _without_holes(body) if body.any() else organ_mask(image)


def shown_body(image: FloatArray, labels: LabelArray | None = None) -> Mask:
    """Return the visible body: exact to the voxel in masked images, else by threshold.

    ``body_mask``, or what ``labels`` do not call outside, is used if nearly all of it exceeds the
    threshold: air also differs from one value, and a scanner's or a registration's frame leaves
    air inside. (C, D, H, W) or (C, H, W) -> bool, never empty.
    """
    if labels is None or (labels == OUTSIDE).all() or not (labels == OUTSIDE).any():
        organ, inside = organ_mask(image), body_mask(image)
    else:
        inside = np.asarray(labels != OUTSIDE)
        organ = _organ_within(image, inside, labels > 0)
    return inside if organ[inside].mean() >= MASKED else organ


def _organ_within(image: FloatArray, inside: Mask, foreground: Mask) -> Mask:
    """Return the body that differs from air at the rim of what is inside; all without such air.

    The foreground is body, and the contrast of lesions tells nothing of where tissue ends.
    """
    rim = _rim(inside) & ~foreground
    tissue = inside & ~foreground
    if not rim.any():
        return inside
    bare = image.copy()
    for channel in bare:
        low, high = np.percentile(channel[tissue], (0.5, 99.5))
        level = np.median(channel[rim])
        if level - low > EVEN * (high - low):  # air is dark
            return inside
        channel[~tissue] = level
    organ = _off_border(bare, rim)
    return inside if organ is None else (organ & inside) | foreground


def share_inside(body: Mask, row: npt.NDArray[np.floating]) -> float:
    """Return the share of a box's voxels that lie in the body, bool (D, H, W) or (H, W)."""
    axes = body.ndim
    low = np.clip(np.floor(row[:axes]), 0, np.array(body.shape) - 1).astype(int)
    high = np.maximum(np.ceil(row[axes:]).astype(int), low + 1)
    box = [slice(first, last) for first, last in zip(low, high, strict=True)]
    return float(body[tuple(box)].mean())


def otsu(values: npt.NDArray[np.floating], bins: int = BINS) -> float:
    """Return the threshold of least variance within the two classes (Otsu 1979)."""
    return _otsu(*np.histogram(values, bins))


def _otsu(counts: npt.NDArray[np.intp], edges: npt.NDArray[np.floating]) -> float:
    middle = (edges[1:] + edges[:-1]) / 2
    weight, total = np.cumsum(counts), np.cumsum(counts * middle)
    parted = weight * (weight[-1] - weight)
    between_classes = (total * weight[-1] - total[-1] * weight) ** 2 / np.maximum(parted, 1)
    return float(middle[int(np.argmax(between_classes[:-1]))])


def _closed(mask: Mask) -> Mask:
    """Dilate by ``GAP`` voxels along the axes, then erode; no voxel of the mask is lost.

    As scipy's ``binary_closing``, in a twentieth of its time, but at faces of the array, where that
    removes what lies less than ``GAP`` voxels from them: all of a volume of four slices.
    """
    mask = np.pad(mask, GAP)
    for _ in range(GAP):
        mask = ~_eroded(~mask, beyond=True)
    for _ in range(GAP):
        mask = _eroded(mask, beyond=False)
    return mask[(slice(GAP, -GAP),) * mask.ndim]


def _rim(mask: Mask) -> Mask:
    """Return the outermost voxels within each slice, of the first and last slice too."""
    return np.asarray(mask & ~_eroded(mask, beyond=False, axes=range(mask.ndim)[-2:]))


def _eroded(mask: Mask, *, beyond: bool, axes: Sequence[int] | None = None) -> Mask:
    out = mask.copy()
    for axis in range(mask.ndim) if axes is None else axes:
        lead = (slice(None),) * axis
        out[(*lead, slice(1, None))] &= mask[(*lead, slice(None, -1))]
        out[(*lead, slice(None, -1))] &= mask[(*lead, slice(1, None))]
        for end in (0, -1):
            out[(*lead, end)] &= beyond
    return out


def _without_holes(mask: Mask) -> Mask:
    """Fill what no path along the axes joins to the array's border."""
    from scipy.ndimage import label

    pieces, count = label(~mask)
    holes = np.ones(count + 1, bool)
    for axis in range(mask.ndim):
        for end in (0, -1):
            holes[np.take(pieces, end, axis)] = False
    holes[0] = True  # the mask itself
    return holes[pieces]


def _unpadded(image: FloatArray, border: Mask) -> Mask:
    """Return all but the voxels that continue a border of one value, as pictures made square have.

    That value need not surround the picture: (C, D, H, W) or (C, H, W) -> bool, never empty.
    """
    from scipy.ndimage import binary_propagation

    flat = np.ones(image.shape[1:], bool)
    for channel in image:
        values, counts = np.unique(channel[border], return_counts=True)
        flat &= np.abs(channel - values[counts.argmax()]) <= SAME * np.ptp(channel)
    if flat[border].mean() < PADDED or flat.all():
        return np.ones(image.shape[1:], bool)
    return np.asarray(~binary_propagation(flat & border, mask=flat))
