"""Radial power spectrum of synthetic over real images: is there texture, or only blur?

A ratio near 1 is real texture. A decrease towards high frequencies is blur (Durall et al. 2020,
arXiv:2003.01826, for the measure).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import FloatArray, Schema
from gansynth.metrics.comparison import Comparison, Image, Metric, Quantity
from gansynth.metrics.estimate import Floats

BANDS = 8


def radial_power(image: FloatArray, spacing: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Mean power (C, BANDS) in bands of frequency from 0 to the coarsest axis' Nyquist frequency.

    ``image``: (C, D, H, W) or (C, H, W). ``spacing``: mm. NaN in a band without a frequency.
    """
    axes = tuple(range(1, image.ndim))
    centred = image - image.mean(axis=axes, keepdims=True)
    # A Hann window prevents spectral leakage of the crop's edges.
    for axis, n in zip(axes, image.shape[1:], strict=True):
        shape = [1] * image.ndim
        shape[axis] = n
        centred = centred * np.hanning(n + 2)[1:-1].reshape(shape)
    power = np.abs(np.fft.fftn(centred, axes=axes)) ** 2 / np.prod(image.shape[1:])
    return by_band(power, spacing, BANDS)


def by_band(power: Floats, spacing: Sequence[float], bands: int) -> Floats:
    """Mean (C, bands) of a power spectrum (C, ...), as ``fftn`` orders it; see ``radial_power``."""
    grids = [np.fft.fftfreq(n, d=mm) for n, mm in zip(power.shape[1:], spacing, strict=True)]
    radius = np.sqrt(sum(g**2 for g in np.meshgrid(*grids, indexing="ij")))
    nyquist = 0.5 / max(spacing)
    band = np.minimum((radius / nyquist * bands).astype(int), bands)
    counts = np.bincount(band.ravel(), minlength=bands + 1)[:bands]
    sums = [np.bincount(band.ravel(), p.ravel(), minlength=bands + 1)[:bands] for p in power]
    result: Floats = np.stack(sums) / np.where(counts, counts, np.nan)
    return result


def spectrum_ratio(
    synthetic: Iterable[FloatArray], real: Iterable[FloatArray], spacing: tuple[float, ...]
) -> npt.NDArray[np.float64]:
    """Mean power of synthetic over real images, per channel and band: (C, BANDS), or NaN."""
    top = np.mean([radial_power(i, spacing) for i in synthetic], axis=0)
    bottom = np.mean([radial_power(i, spacing) for i in real], axis=0)
    ratio: npt.NDArray[np.float64] = top / np.maximum(bottom, 1e-12)
    return ratio


class Spectrum(Metric):
    """``spectrum``: power ratio per channel and band, mean distance from 1, and high bands."""

    name = "spectrum"
    title = "Radial power spectrum"
    least = 8

    def prepare(self, images: Sequence[Image], comparison: Comparison) -> Floats:
        """Radial power (N, C, bands) of each image."""
        return np.array([radial_power(image.image, comparison.schema.spacing) for image in images])

    def compute(self, samples: Floats, real: Floats, schema: Schema) -> Mapping[str, float]:
        """Distance, power of the highest third of the bands, and all ratios.

        NaN in bands without a frequency in small images.
        """
        ratio = samples.mean(0) / np.maximum(real.mean(0), 1e-12)
        ratios = {
            f"{channel} band {band}": float(value)
            for channel, row in zip(schema.channels, ratio, strict=True)
            for band, value in enumerate(row, 1)
        }
        logs = np.log(np.maximum(list(ratios.values()), 1e-12)).reshape(-1, BANDS)
        high = logs[:, -(-2 * BANDS // 3) :]
        summed = {
            "distance": float(np.nanmean(np.abs(logs))),
            "high": float(np.exp(np.nanmean(high))),
        }
        return {**summed, **ratios}

    def told(self, name: str) -> Quantity:
        """Bands are plotted as curves, not listed."""
        if name == "distance":
            what = "mean over channels and bands of |log of the power's ratio to real|"
            return Quantity(what, "lower", 0.0)
        if name == "high":
            what = "power in the highest third of frequencies, as a ratio to real"
            return Quantity(what, "real", 0.0)
        return Quantity(f"power as a ratio to real, {name}", "real", 0.0, headline=False)


def frequencies(spacing: Sequence[float]) -> list[float]:
    """The centre of each band in 1/mm."""
    nyquist = 0.5 / max(spacing)
    return [(band + 0.5) * nyquist / BANDS for band in range(BANDS)]
