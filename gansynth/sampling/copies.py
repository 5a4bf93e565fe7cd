"""Copies of real images in samples: measured where a sample is drawn, searched for before sharing.

Both compare blocks of voxels by the square of their correlation, so gain and shift do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from gansynth.core.schema import FloatArray

REPEATED = "repeats_real"
"""Provenance key of ``repeated_share``, which samples for sharing need."""
EDGE, EDGE_2D = 6, 10  # edge of a block in voxels, and in pixels of slices
TEXTURED = 0.1
"""A block counts if its deviation is at least this share of the whole image's ..."""
FILLED = 0.1
"""... and at most this share of it has the image's most frequent value (air, padding)."""
EQUAL = 0.99  # squared correlation above which one block repeats another
SOUGHT = 7  # blocks of a sample that are searched for


def repeated_share(image: FloatArray, real: Iterable[npt.NDArray[np.generic]]) -> float:
    """Return the share of a real image's textured blocks that a sample repeats at their places.

    0 to 1; the largest share of all real images and their channels.

    Args:
        image: the sample's, (C, D, H, W) or (C, H, W).
        real: images on the same grid, with or without an axis of channels.
    """
    edges, shares = _edges(image.shape[1:]), [0.0]
    drawn = _unit(np.stack([_blocks(channel, edges) for channel in image]))
    for channels in real:
        for channel in channels.reshape(-1, *image.shape[1:]):
            blocks = _blocks(channel, edges)
            textured = _textured(channel, blocks)
            equal = np.einsum("cnv,nv->cn", drawn, _unit(blocks)) ** 2 > EQUAL
            if textured.any():
                shares.append(float(equal.any(axis=0)[textured].mean()))
    return max(shares)


class CopySearch:
    """Searches at every place of real images for blocks of samples."""

    def __init__(self) -> None:
        self._blocks: list[FloatArray] = []
        self._best: list[FloatArray] = []

    def add(self, image: FloatArray) -> None:
        """Take some textured blocks of a sample's image, (C, D, H, W) or (C, H, W)."""
        self.edges = _edges(image.shape[1:])
        found = []
        for channel in image:
            blocks = _blocks(channel, self.edges)
            found.append(_unit(blocks[_textured(channel, blocks)]))
        every = np.concatenate(found)
        chosen = np.linspace(0, len(every) - 1, min(SOUGHT, len(every))).round().astype(int)
        self._blocks.append(every[chosen])
        self._best.append(np.zeros(len(chosen), np.float32))

    def look_in(self, image: FloatArray) -> None:
        """Compare with a real image, (C, D, H, W) or (C, H, W), each channel with each."""
        sought, best = np.concatenate(self._blocks).T, np.concatenate(self._best)
        fits = all(n >= edge for n, edge in zip(image.shape[1:], self.edges, strict=True))
        for channel in image if fits else ():
            least = TEXTURED * float(channel.std())
            for slab in sliding_window_view(channel, self.edges):
                windows = slab.reshape(-1, sought.shape[0])
                windows = _unit(windows[windows.std(axis=1) > least])
                if len(windows):
                    np.maximum(best, np.abs(windows @ sought).max(axis=0), out=best)
        self._best = np.split(best, np.cumsum([len(part) for part in self._best])[:-1])

    def similarities(self) -> list[float]:
        """Return for each sample the median of its blocks' best squared correlations; 0 to 1."""
        return [float(np.median(best) ** 2) if len(best) else 0.0 for best in self._best]


def _edges(shape: Sequence[int]) -> tuple[int, ...]:
    edge = EDGE_2D if len(shape) == 2 or min(shape) == 1 else EDGE
    return tuple(min(edge, length) for length in shape)


def _blocks(channel: npt.NDArray[np.generic], edges: Sequence[int]) -> FloatArray:
    """Cut (D, H, W) or (H, W) into blocks: float32 (blocks, voxels); the rest is left out."""
    windows = sliding_window_view(channel, edges)[tuple(slice(None, None, e) for e in edges)]
    return windows.reshape(-1, int(np.prod(edges))).astype(np.float32)


def _textured(channel: npt.NDArray[np.generic], blocks: FloatArray) -> npt.NDArray[np.bool_]:
    some = channel.ravel()[:: max(1, channel.size // 50_000)]
    values, counts = np.unique(some, return_counts=True)
    filled = (blocks == values[counts.argmax()].astype(np.float32)).mean(axis=1) > FILLED
    return np.asarray((blocks.std(axis=1) > TEXTURED * float(channel.std())) & ~filled)


def _unit(blocks: FloatArray) -> FloatArray:
    """Shift and scale blocks (..., voxels) to mean 0 and length 1; constant ones become 0."""
    centred = blocks - blocks.mean(axis=-1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=-1, keepdims=True)
    return np.asarray(centred / np.where(lengths > 0, lengths, np.inf), np.float32)
