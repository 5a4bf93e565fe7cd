"""How far samples are from real images in spectrum and intensities, beside what is not real."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import FloatArray, LabelArray, Schema
from gansynth.metrics.distances import radial_power
from gansynth.metrics.faithfulness import EvaluationSegmenter, mean_dice

Floats = npt.NDArray[np.float64]
Pair = tuple[FloatArray, LabelArray]

MEASURES = ("spectrum", "histogram")
BINS = 2048
MEAN_OF, BLUR = 8, 1.0
"""Images that are averaged, and the standard deviation in voxels of the blur."""


@dataclass(frozen=True)
class Distance:
    """A distance to real images with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class _Parts:
    """What distances are made of, image by image, so that a bootstrap is quick."""

    power: Floats
    shares: Floats

    @classmethod
    def of(cls, images: Sequence[FloatArray], spacing: tuple[float, ...], edges: Floats) -> _Parts:
        power = [radial_power(image, spacing) for image in images]
        shares = [
            [np.histogram(c, e)[0] / c.size for c, e in zip(i, edges, strict=True)] for i in images
        ]
        return cls(np.array(power), np.array(shares))

    def means(self, rng: np.random.Generator | None) -> tuple[Floats, Floats]:
        """Mean power and mean shares, of the images or of as many drawn from them."""
        n = len(self.power)
        chosen = np.arange(n) if rng is None else rng.integers(n, size=n)
        return self.power[chosen].mean(0), self.shares[chosen].mean(0)


def distances(
    sides: Mapping[str, Sequence[FloatArray]],
    real: Sequence[FloatArray],
    spacing: tuple[float, ...],
    draws: int = 500,
) -> dict[str, dict[str, Distance]]:
    """Distances of several sides, (C, D, H, W) or (C, H, W) by name, to real images.

    ``spectrum``: mean over channels and bands of |log of the ratio of mean radial powers|.
    ``histogram``: 1-Wasserstein distance in standard deviations of the real ones. ``spacing``: mm.
    """
    edges, widths = _bins(sides, real)
    reference = _Parts.of(real, spacing, edges)
    found: dict[str, dict[str, Distance]] = {}
    for name, images in sides.items():
        side, rng = _Parts.of(images, spacing, edges), np.random.default_rng(0)
        value = _distances(side.means(None), reference.means(None), widths)
        drawn = [_distances(side.means(rng), reference.means(rng), widths) for _ in range(draws)]
        bounds = np.percentile(drawn, [2.5, 97.5], axis=0)
        found[name] = {
            measure: Distance(float(v), float(low), float(high))
            for measure, v, low, high in zip(MEASURES, value, *bounds, strict=True)
        }
    return found


def _bins(
    sides: Mapping[str, Sequence[FloatArray]], real: Sequence[FloatArray]
) -> tuple[Floats, Floats]:
    """Edges (C, BINS + 1) around all intensities; widths (C,) in real standard deviations."""
    flat = [i.reshape(len(i), -1) for images in (*sides.values(), real) for i in images]
    low, high = np.min([f.min(1) for f in flat], axis=0), np.max([f.max(1) for f in flat], axis=0)
    edges = np.linspace(low, high, BINS + 1, axis=1, dtype=np.float64)
    return edges, (edges[:, 1] - edges[:, 0]) / _deviation(np.stack(real)).ravel()


def _distances(side: tuple[Floats, Floats], real: tuple[Floats, Floats], widths: Floats) -> Floats:
    spectrum = np.nanmean(np.abs(np.log(side[0] / real[0])))
    # Between distributions on a line, the distance is the area between their cumulated shares.
    area = np.abs(np.cumsum(side[1] - real[1], axis=-1)).sum(-1)
    return np.array([spectrum, (area * widths).mean()])


# -- what is not real ------------------------------------------------------------------------------


def white_noise(
    real: Sequence[FloatArray], number: int, rng: np.random.Generator
) -> list[FloatArray]:
    """Images of white noise with the real mean and standard deviation of each channel."""
    return _matched(rng.standard_normal((number, *real[0].shape)).astype(np.float32), real)


def blurred_mean(
    real: Sequence[FloatArray], number: int, rng: np.random.Generator
) -> list[FloatArray]:
    """Means of eight random real images, blurred by a Gaussian of one voxel.

    They have the real mean and standard deviation of each channel.
    """
    from scipy.ndimage import gaussian_filter

    means = [
        np.mean([real[i] for i in rng.choice(len(real), MEAN_OF, replace=False)], axis=0)
        for _ in range(number)
    ]
    blur = (0, *[BLUR] * (real[0].ndim - 1))
    return _matched(np.stack([gaussian_filter(mean, blur) for mean in means]), real)


def _matched(made: FloatArray, real: Sequence[FloatArray]) -> list[FloatArray]:
    true = np.stack(real)
    unit = (made - _mean(made)) / _deviation(made)
    return list((unit * _deviation(true) + _mean(true)).astype(np.float32))


def _mean(images: FloatArray) -> Floats:
    """Of each channel of (N, C, ...), as (1, C, 1, ...)."""
    axes = (0, *range(2, images.ndim))
    return np.asarray(images.mean(axes, dtype=np.float64, keepdims=True))


def _deviation(images: FloatArray) -> Floats:
    axes = (0, *range(2, images.ndim))
    return np.asarray(images.std(axes, dtype=np.float64, keepdims=True))


# -- faithfulness ---------------------------------------------------------------------------------


def label_recovery(
    segmenter: EvaluationSegmenter, real: Iterable[Pair], synthetic: Iterable[Pair], schema: Schema
) -> dict[str, Any]:
    """Dice of the judge on real held-out pairs, on samples, and on samples with shuffled labels.

    ``real``, ``synthetic``: (image, labels) in the generator's space. Returns mean foreground Dice
    of each (``shuffled``: each sample against every other's labels), their ratios, and counts.
    """
    classes = schema.foreground
    real_scores = [mean_dice(segmenter.predict(i), t, classes) for i, t in real]
    pairs = list(synthetic)
    predictions = [segmenter.predict(image) for image, _ in pairs]
    own = [mean_dice(p, t, classes) for p, (_, t) in zip(predictions, pairs, strict=True)]
    others = [
        mean_dice(p, t, classes)
        for i, p in enumerate(predictions)
        for j, (_, t) in enumerate(pairs)
        if i != j
    ]
    figures = {
        "real": _mean_of(real_scores),
        "synthetic": _mean_of(own),
        "shuffled": _mean_of(others),
    }
    return {
        **figures,
        "synthetic_over_real": figures["synthetic"] / max(figures["real"], 1e-9),
        "synthetic_over_shuffled": figures["synthetic"] / max(figures["shuffled"], 1e-9),
        "real_cases": len(real_scores),
        "samples": len(pairs),
    }


def _mean_of(scores: Sequence[float]) -> float:
    values: npt.NDArray[np.float64] = np.array(scores, np.float64)
    return float(np.nanmean(values)) if values.size else float("nan")
