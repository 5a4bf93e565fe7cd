"""The metric ``histogram``: distance of intensity distributions, by channel and label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Case, FloatArray, LabelArray, Sample, Schema
from gansynth.metrics.comparison import Comparison, Image, Metric, Quantity
from gansynth.metrics.estimate import Floats, Indices

BINS = 512
"""Equal bins over a channel's intensity window, and one beyond each end for values outside, which
count as lying at the end."""
MARGIN = 1.0  # range of the bins beyond black and white, in windows
MOST = 1_000_000
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

    def told(self, name: str) -> Quantity:
        """Name the voxels."""
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
    pictures = [s.image for s in samples], [c.image for c in real]
    maps = _maps(samples), _maps(real)
    names = {name: value for name, value in schema.labels.items() if value != schema.ignore}
    numbers: dict[str, float] = {}
    for channel, title in enumerate(schema.channels):
        numbers[title] = distance(*(_values(side, channel) for side in pictures))
        if maps[0] is None or maps[1] is None:
            continue
        for name, value in names.items():
            where = ([labels == value for labels in side] for side in (maps[0], maps[1]))
            comparison = zip(pictures, where, strict=True)
            numbers[f"{title} {name}"] = distance(*(_values(i, channel, w) for i, w in comparison))
    return numbers


def _maps(cases: Sequence[Sample] | Sequence[Case]) -> list[LabelArray] | None:
    labels = [case.labels for case in cases if case.labels is not None]
    return labels if len(labels) == len(cases) else None


def _values(
    images: Sequence[FloatArray], channel: int, where: Sequence[npt.NDArray[np.bool_]] | None = None
) -> npt.NDArray[np.float32]:
    """Intensities of a channel of all images, or of a mask of each."""
    chosen = [image[channel].ravel() for image in images]
    if where is not None:
        chosen = [image[channel][w] for image, w in zip(images, where, strict=True)]
    return np.concatenate(chosen) if chosen else np.zeros(0, np.float32)


def distance(synthetic: npt.NDArray[np.float32], real: npt.NDArray[np.float32]) -> float:
    """1-Wasserstein distance of intensities in real standard deviations; NaN if that is zero."""
    from scipy.stats import wasserstein_distance

    if not synthetic.size or not real.size or not (spread := float(np.std(real, dtype=float))):
        return float("nan")
    return float(wasserstein_distance(_thinned(synthetic), _thinned(real))) / spread


def _thinned(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return values[:: -(-len(values) // MOST)]
