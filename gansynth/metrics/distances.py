"""Distances between two sets of images: of network features, of intensities, of power spectra.

KID: Binkowski et al. 2018 (arXiv:1801.01401), unbiased (Gretton et al. 2012, JMLR 13:723, lemma 6),
so it may be negative. Fréchet: as in FID (Heusel et al. 2017, arXiv:1706.08500, eq. 6). It is too
large for few images (Chong & Forsyth 2020, arXiv:1911.07023), so only equal numbers of images are
compared. Precision, recall: Kynkäänniemi et al. 2019 (arXiv:1904.06991, eqs. 1 to 3). Density,
coverage: Naeem et al. 2020 (arXiv:2002.09797, eqs. 4, 5). Volumes are read slice by slice. Power
spectra: a ratio near 1 is real texture, a decrease towards high frequencies is blur (Durall et al.
2020, arXiv:2003.01826).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Case, FloatArray, Sample, Schema
from gansynth.metrics.comparison import Comparison, Floats, Image, Indices, Metric, Quantity
from gansynth.metrics.features import KINDS, WORDS, AxisFeatures, Kind, features_of

# -- network features ------------------------------------------------------------------------------


NEAREST = 3
"""k: Kynkäänniemi et al. 2019 use 3. Five, as Naeem et al. use, are many for a dozen images."""
NAMES = {
    "precision": "share of samples within the real images' balls",
    "recall": "share of real images within the samples' balls",
    "density": "real images' balls around a sample, over k",
    "coverage": "share of real images with a sample in their ball",
}

Kept = dict[str, AxisFeatures]  # features by kind of network


class FeatureMetric(Metric):
    """A metric of network features; its figures are named by the networks."""

    kinds: ClassVar[Sequence[Kind]] = KINDS

    def prepare(self, images: Sequence[Image], comparison: Comparison) -> Kept:
        return {kind: features_of(comparison).of(images, kind) for kind in self.kinds}


class FeatureDistance(FeatureMetric):
    """One distance for each network: of features of slices, mean over axes."""

    description: ClassVar[str]
    lowest: ClassVar[float] = 0.0
    least = 8

    @abstractmethod
    def distance(self, x: Floats, y: Floats) -> float:
        """Distance between features (N, K) and real ones (M, K)."""

    def compute(self, samples: Kept, real: Kept, schema: Schema) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for kind in self.kinds:
            axes = zip(samples[kind].slices, real[kind].slices, strict=True)
            found[kind] = float(np.mean([self.distance(x, y) for x, y in axes]))
        return found

    def quantity(self, name: str) -> Quantity:
        return Quantity(f"{self.description} {WORDS[name]}", "lower", self.lowest)


class KID(FeatureDistance):
    """``kid``: squared maximum mean discrepancy (MMD); an unbiased estimate may be negative."""

    name = "kid"
    title = "Kernel inception distance (KID)"
    description = "squared MMD, cubic kernel, of features of slices"
    lowest = -math.inf

    def distance(self, x: Floats, y: Floats) -> float:
        """Squared MMD with a cubic kernel."""
        return kernel_distance(x, y)


class Frechet(FeatureDistance):
    """``frechet``: the Fréchet distance."""

    name = "frechet"
    title = "Fréchet distance"
    description = "Fréchet distance of features of slices"

    def distance(self, x: Floats, y: Floats) -> float:
        return frechet_distance(x, y)


class Manifold(FeatureMetric):
    """``manifold``: features of whole images, by the trained network."""

    name = "manifold"
    title = "Precision, recall, density, coverage"
    kinds = ("trained",)
    least = 4 * (NEAREST + 1)

    def compute(self, samples: Kept, real: Kept, schema: Schema) -> Mapping[str, float]:
        return manifold_shares(samples["trained"].whole, real["trained"].whole)

    def quantity(self, name: str) -> Quantity:
        what = f"{NAMES[name]} (k = {NEAREST}; features of the trained network)"
        return Quantity(what, "higher", 0.0, math.inf if name == "density" else 1.0)


def kernel_distance(x: Floats, y: Floats) -> float:
    """Squared MMD of features (N, K) and (M, K), unbiased, with a cubic kernel."""
    n, m = len(x), len(y)
    if min(n, m) < 2:
        return float("nan")
    first, second = cubic(x, x), cubic(y, y)
    first_mean = (first.sum() - np.trace(first)) / (n * (n - 1))
    second_mean = (second.sum() - np.trace(second)) / (m * (m - 1))
    return float(first_mean + second_mean - 2 * cubic(x, y).mean())


def cubic(x: Floats, y: Floats) -> Floats:
    """KID's cubic kernel (N, M) of features (N, K) and (M, K)."""
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def frechet_distance(x: Floats, y: Floats) -> float:
    """``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` of features (N, K) and (M, K)."""
    if min(len(x), len(y)) < 2:
        return float("nan")
    difference = x.mean(0) - y.mean(0)
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    # tr((C1 C2)^(1/2)) by the symmetric C1^(1/2) C2 C1^(1/2), whose eigenvalues are real.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ second @ root)
    cross = np.sqrt(np.maximum(mixed, 0)).sum()
    return max(0.0, float(difference @ difference + np.trace(first) + np.trace(second) - 2 * cross))


def manifold_shares(mine: Floats, real: Floats, nearest: int = NEAREST) -> dict[str, float]:
    """Precision, recall, density and coverage of features (N, K) against real ones (M, K)."""
    from scipy.spatial.distance import cdist

    between = cdist(real, mine)
    around_real, around_mine = _radii(real, nearest), _radii(mine, nearest)
    inside = between <= around_real[:, None]
    return {
        "precision": float(inside.any(0).mean()),
        "recall": float((between <= around_mine[None]).any(1).mean()),
        "density": float(inside.sum(0).mean() / nearest),
        "coverage": float(inside.any(1).mean()),
    }


def _radii(rows: Floats, nearest: int) -> Floats:
    """Distance of each row to its k-th nearest neighbour."""
    from scipy.spatial.distance import cdist

    within = cdist(rows, rows)
    return np.asarray(np.partition(within, nearest, axis=1)[:, nearest])


# -- intensities -----------------------------------------------------------------------------------


BINS = 512
"""Equal bins over a channel's intensity window, and one beyond each end for values outside, which
count as lying at the end."""
MARGIN = 1.0  # range of the bins beyond black and white, in windows
MOST_VOXELS = 1_000_000
"""Most voxels of a distribution, evenly spread over the images; more only cost time."""


@dataclass(frozen=True)
class IntensityHistograms:
    """Histograms: name of a channel (and label) -> counts (N, BINS), and the bins' edges."""

    counts: Mapping[str, Floats]
    edges: Mapping[str, Floats]

    def __getitem__(self, index: Indices) -> IntensityHistograms:
        return IntensityHistograms(
            {name: rows[index] for name, rows in self.counts.items()}, self.edges
        )


class HistogramMetric(Metric):
    """1-Wasserstein distances of intensities, in standard deviations of the real ones."""

    name = "histogram"
    title = "Intensities"
    least = 8

    def measure(
        self, samples: Sequence[Sample], real: Sequence[Case], schema: Schema
    ) -> Mapping[str, float]:
        """``distances`` of channels and labels, of all voxels without binning."""
        return distances(samples, real, schema)

    def prepare(self, images: Sequence[Image], comparison: Comparison) -> IntensityHistograms:
        """Histograms of each image, by channel, and by label where all images have label maps."""
        edges = edges_of(comparison)
        every: list[Image] = [*comparison.samples, *comparison.real]
        labelled = all(image.labels is not None for image in every)
        names = {k: v for k, v in comparison.schema.labels.items() if v != comparison.schema.ignore}
        counts: dict[str, list[Floats]] = {}
        bins: dict[str, Floats] = {}
        for image in images:
            for channel, title in enumerate(comparison.schema.channels):
                values, channel_edges = image.image[channel], edges[channel]
                parts = {title: values.ravel()}
                for name, value in names.items() if labelled else ():
                    parts[f"{title}, {name}"] = values[image.labels == value]
                for name, part in parts.items():
                    counts.setdefault(name, []).append(_counted(part, channel_edges))
                    bins[name] = channel_edges
        return IntensityHistograms({name: np.stack(rows) for name, rows in counts.items()}, bins)

    def compute(
        self, samples: IntensityHistograms, real: IntensityHistograms, schema: Schema
    ) -> Mapping[str, float]:
        """Distances by channel and label; NaN for a label that one side lacks."""
        return {
            name: _distance(rows.sum(0), real.counts[name].sum(0), samples.edges[name])
            for name, rows in samples.counts.items()
        }

    def quantity(self, name: str) -> Quantity:
        what = f"1-Wasserstein distance in deviations of the real ones, {name}"
        return Quantity(what, "lower", 0.0)


def edges_of(comparison: Comparison) -> Floats:
    """Edges of the bins of each channel: (C, BINS + 1)."""
    low, high = comparison.window.astype(np.float64).T
    wide = np.maximum(high - low, 1e-6) * MARGIN
    return np.linspace(low - wide, high + wide, BINS + 1, axis=1)


def _counted(values: FloatArray, edges: Floats) -> Floats:
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    return counts.astype(np.float64)


def _distance(counts: Floats, real_counts: Floats, edges: Floats) -> float:
    if not counts.sum() or not real_counts.sum():
        return float("nan")
    middles, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    mine, real = counts / counts.sum(), real_counts / real_counts.sum()
    deviation = np.sqrt(real @ (middles - real @ middles) ** 2)
    if not deviation:
        return float("nan")
    # Between distributions on a line, the distance is the area between their cumulated shares.
    return float(np.abs(np.cumsum(mine - real)).sum() * width / deviation)


def distances(
    samples: Sequence[Sample], real: Sequence[Case], schema: Schema
) -> Mapping[str, float]:
    """``distance`` per channel, and per label where both sides have label maps; else NaN."""
    labelled = all(image.labels is not None for side in (samples, real) for image in side)
    names = {name: value for name, value in schema.labels.items() if value != schema.ignore}
    numbers: dict[str, float] = {}
    for channel, title in enumerate(schema.channels):
        drawn, seen = _values(samples, channel, None), _values(real, channel, None)
        numbers[title] = distance(drawn, seen)
        for name, value in names.items() if labelled else ():
            drawn, seen = _values(samples, channel, value), _values(real, channel, value)
            numbers[f"{title} {name}"] = distance(drawn, seen)
    return numbers


def _values(images: Sequence[Image], channel: int, label: int | None) -> npt.NDArray[np.float32]:
    """Intensities of a channel of all images, of a label or of all voxels."""
    chosen = [
        i.image[channel].ravel() if label is None else i.image[channel][i.labels == label]
        for i in images
    ]
    return np.concatenate(chosen) if chosen else np.zeros(0, np.float32)


def distance(synthetic: npt.NDArray[np.float32], real: npt.NDArray[np.float32]) -> float:
    """1-Wasserstein distance of intensities in real standard deviations; NaN if that is zero."""
    from scipy.stats import wasserstein_distance

    spread = float(np.std(real, dtype=float)) if synthetic.size and real.size else 0.0
    if not spread:
        return float("nan")
    return float(wasserstein_distance(_thinned(synthetic), _thinned(real))) / spread


def _thinned(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return values[:: -(-len(values) // MOST_VOXELS)]


# -- power spectra ---------------------------------------------------------------------------------


BANDS = 8


def radial_power(image: FloatArray, spacing: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Mean power (C, BANDS) in bands of frequency from 0 to the coarsest axis' Nyquist frequency.

    ``image``: (C, D, H, W) or (C, H, W). ``spacing``: mm. NaN in a band without a frequency.
    """
    from scipy.fft import fftn

    axes = tuple(range(1, image.ndim))
    image = np.asarray(image, np.float32)
    centred = image - image.mean(axis=axes, keepdims=True)
    # A Hann window prevents spectral leakage of the crop's edges.
    for axis, n in zip(axes, image.shape[1:], strict=True):
        shape = [1] * image.ndim
        shape[axis] = n
        centred = centred * np.hanning(n + 2)[1:-1].reshape(shape).astype(image.dtype)
    power = np.abs(fftn(centred, axes=axes)) ** 2 / np.prod(image.shape[1:])
    return by_band(power, spacing, BANDS)


def by_band(power: Floats, spacing: Sequence[float], bands: int) -> Floats:
    """Mean (C, bands) of a power spectrum (C, ...), as ``fftn`` orders it; see ``radial_power``."""
    band = _bands(power.shape[1:], tuple(spacing), bands)
    counts = np.bincount(band, minlength=bands + 1)[:bands]
    sums = [np.bincount(band, p.ravel(), minlength=bands + 1)[:bands] for p in power]
    result: Floats = np.stack(sums) / np.where(counts, counts, np.nan)
    return result


@lru_cache(maxsize=2)
def _bands(shape: tuple[int, ...], spacing: tuple[float, ...], bands: int) -> npt.NDArray[np.intp]:
    """The band of each frequency, flat; the last one is beyond the coarsest axis' Nyquist's."""
    grids = [np.fft.fftfreq(n, d=mm) for n, mm in zip(shape, spacing, strict=True)]
    radius = np.sqrt(sum([grid**2 for grid in np.meshgrid(*grids, indexing="ij")]))
    nyquist = 0.5 / max(spacing)
    return np.asarray(np.minimum((radius / nyquist * bands).astype(np.intp), bands).ravel())


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
        return summed | ratios

    def quantity(self, name: str) -> Quantity:
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
