"""Radial power spectrum of synthetic over real images: is there grain, or is everything smooth?

A ratio near 1 at all frequencies means the samples have the real images' texture; a fall towards
the high ones is the blur that a segmenter notices before any eye does (Durall et al. 2020,
arXiv:2003.01826, for the measure).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gansynth.schema import Case, FloatArray, Sample, Schema

BANDS = 8


def radial_power(
    image: FloatArray, spacing: tuple[float, ...], bands: int = BANDS
) -> npt.NDArray[np.float64]:
    """Mean power in bands of spatial frequency, from 0 to the coarsest axis' Nyquist frequency.

    Args:
        image: (C, D, H, W) or (C, H, W).
        spacing: mm per axis.
        bands: number of bands of equal width.

    Returns:
        Power (C, bands); NaN in a band that a small image has no frequency in.
    """
    axes = tuple(range(1, image.ndim))
    centred = image - image.mean(axis=axes, keepdims=True)
    # A Hann window keeps the crop's edges from leaking into every frequency.
    for axis, n in zip(axes, image.shape[1:], strict=True):
        shape = [1] * image.ndim
        shape[axis] = n
        centred = centred * np.hanning(n + 2)[1:-1].reshape(shape)
    power = np.abs(np.fft.fftn(centred, axes=axes)) ** 2 / np.prod(image.shape[1:])
    grids = [np.fft.fftfreq(n, d=mm) for n, mm in zip(image.shape[1:], spacing, strict=True)]
    radius = np.sqrt(sum(g**2 for g in np.meshgrid(*grids, indexing="ij")))
    nyquist = 0.5 / max(spacing)
    band = np.minimum((radius / nyquist * bands).astype(int), bands)
    counts = np.bincount(band.ravel(), minlength=bands + 1)[:bands]
    sums = [np.bincount(band.ravel(), p.ravel(), minlength=bands + 1)[:bands] for p in power]
    result: npt.NDArray[np.float64] = np.stack(sums) / np.where(counts, counts, np.nan)
    return result


def spectrum_ratio(
    synthetic: Iterable[FloatArray],
    real: Iterable[FloatArray],
    spacing: tuple[float, ...],
    bands: int = BANDS,
) -> npt.NDArray[np.float64]:
    """Mean power of synthetic over real images, per channel and band: (C, bands), or NaN."""
    top = np.mean([radial_power(i, spacing, bands) for i in synthetic], axis=0)
    bottom = np.mean([radial_power(i, spacing, bands) for i in real], axis=0)
    ratio: npt.NDArray[np.float64] = top / np.maximum(bottom, 1e-12)
    return ratio


def spectrum_metric(
    samples: Sequence[Sample], real: Sequence[Case], schema: Schema
) -> Mapping[str, float]:
    """The metric ``spectrum``: ``spectrum_ratio`` per channel and band, 1 at the lowest.

    Returns:
        ``{"T1 band 1": 0.98, ...}``; NaN in a band that small images have no frequency in.
    """
    ratio = spectrum_ratio([s.image for s in samples], [c.image for c in real], schema.spacing)
    return {
        f"{channel} band {band}": float(value)
        for channel, row in zip(schema.channels, ratio, strict=True)
        for band, value in enumerate(row, 1)
    }
