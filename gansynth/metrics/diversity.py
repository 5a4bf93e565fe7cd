"""Diversity: do samples differ from each other as real cases do, or is there mode collapse?

Odena et al. 2017 (arXiv:1610.09585), sec. 4.2: the mean MS-SSIM of random pairs of samples and of
real pairs. MS-SSIM (Wang et al. 2003) is implemented here for 2D and 3D.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from gansynth.core.schema import Case, FloatArray, Sample, Schema
from gansynth.metrics.comparison import (
    Comparison,
    Floats,
    Image,
    Indices,
    Metric,
    Quantity,
    Window,
    numbered,
    window_of,
)

MOST_PAIRS = 600  # most pairs compared on a side; about a quarter of them remain in each half
PAIRS = 256  # most pairs that are compared
AT_ONCE = 1 << 20  # voxels of images compared at once; more are slower
FEW_SUBJECTS = 8  # fewer subjects than this may form real pairs of one subject
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, fine to coarse: Wang et al. 2003, sec. 3.2."""
WINDOW, SIGMA = 11, 1.5
"""Edge and standard deviation in voxels of the Gaussian window: Wang et al. 2004, sec. III-B."""
K1, K2 = 0.01, 0.03  # stabilising shares of the data range, ibid


class Diversity(Metric):
    """MS-SSIM of pairs of different subjects (Odena et al. 2017)."""

    name = "diversity"
    title = "Diversity (MS-SSIM of pairs)"
    least = 8

    def measure(
        self, samples: Sequence[Sample], real: Sequence[Case], schema: Schema
    ) -> Mapping[str, float]:
        """Mean MS-SSIM of pairs of samples and of real cases, with errors, and within classes.

        ``{"ms_ssim samples": 0.31, "ms_ssim samples error": 0.02, ...}``; NaN where there is no
        pair.
        """
        window = window_of([case.image for case in real])
        drawn, true = (
            windowed([s.image for s in samples], window),
            windowed([c.image for c in real], window),
        )
        owners = np.array(owners_of(real))
        numbers: dict[str, float] = {}
        sample_classes = [s.provenance.get("class") for s in samples]
        real_classes = [
            None if c.label_class is None else schema.classes[c.label_class] for c in real
        ]
        for name in ("", *schema.classes):
            a = [i for i, kind in enumerate(sample_classes) if not name or kind == name]
            b = [i for i, kind in enumerate(real_classes) if not name or kind == name]
            rng = np.random.default_rng(0)
            comparison = {
                "samples": pairwise(drawn[a], PAIRS, rng),
                "real": pairwise(true[b], PAIRS, rng, owners=owners[b].tolist()),
            }
            for side, likeness in comparison.items():
                of = f"{side} {name}".rstrip()
                numbers |= {f"ms_ssim {of}": likeness.mean, f"ms_ssim {of} error": likeness.error}
        return numbers

    def prepare(self, images: Sequence[Image], comparison: Comparison) -> PairSimilarities:
        """MS-SSIM of pairs of images that belong to different subjects."""
        owners = comparison.people if images is comparison.real else comparison.drawn_of
        owner = numbered(owners)
        stacked = windowed([image.image for image in images], comparison.window)
        first, second = _pairs(owner[:, None] != owner, MOST_PAIRS, comparison.rng("pairs"))
        matrix = np.full((len(stacked), len(stacked)), np.nan)
        matrix[first, second] = _likeness(stacked, first, second)
        return PairSimilarities(matrix)

    def compute(
        self, samples: PairSimilarities, real: PairSimilarities, schema: Schema
    ) -> Mapping[str, float]:
        return {"ms_ssim": samples.mean}

    def quantity(self, name: str) -> Quantity:
        what = "mean MS-SSIM of pairs of different subjects; 1 if all images are the same"
        return Quantity(what, "real", 0.0, 1.0)


@dataclass(frozen=True)
class PairSimilarities:
    """MS-SSIM of pairs of images, (N, N), upper triangle; NaN where not computed."""

    matrix: Floats

    def __getitem__(self, index: Indices) -> PairSimilarities:
        return PairSimilarities(self.matrix[np.ix_(index, index)])

    @property
    def mean(self) -> float:
        """Mean over the remaining pairs."""
        finite = self.matrix[np.isfinite(self.matrix)]
        return float(finite.mean()) if finite.size else float("nan")


def owners_of(cases: Sequence[Case]) -> list[str]:
    """Subject of each case, or the case itself where there are less than eight subjects.

    A generator trained on few subjects may generate pairs of the same one, which is no fault.
    """
    subjects = [case.subject for case in cases]
    return subjects if len(set(subjects)) >= FEW_SUBJECTS else [case.id for case in cases]


@dataclass(frozen=True)
class MeanSimilarity:
    """Mean MS-SSIM of pairs, 0 to 1, and its standard error; NaN if unknown."""

    mean: float
    error: float
    pairs: int


def pairwise(
    images: Tensor,
    pairs: int,
    rng: np.random.Generator,
    *,
    owners: Sequence[Hashable] | None = None,
    kinds: Sequence[Hashable] | None = None,
) -> MeanSimilarity:
    """Mean MS-SSIM of random pairs of images, float32 (N, C, D, H, W) or (N, C, H, W), 0 to 1.

    Pairs have different ``owners`` and equal ``kinds``. Pairs share images, so they are not
    independent: the standard error is a jackknife over owners.
    """
    owner = _numbered(range(len(images)) if owners is None else owners)
    which = _numbered([0] * len(images) if kinds is None else kinds)
    fit = (owner[:, None] != owner) & (which[:, None] == which)
    first, second = _pairs(fit, pairs, rng)
    if not len(first):
        return MeanSimilarity(float("nan"), float("nan"), 0)
    scores = _likeness(images, first, second)
    return MeanSimilarity(
        float(scores.mean()), _error(scores, owner[first], owner[second]), len(scores)
    )


def _pairs(fit: npt.NDArray[np.bool_], most: int, rng: np.random.Generator) -> tuple[Indices, ...]:
    """Indices of at most ``most`` pairs of images allowed by ``fit`` (N, N), each pair once."""
    first, second = np.nonzero(np.triu(fit, 1))
    if len(first) > most:
        chosen = rng.choice(len(first), most, replace=False)
        first, second = first[chosen], second[chosen]
    return first, second


def _likeness(images: Tensor, first: Indices, second: Indices) -> Floats:
    """MS-SSIM of each pair (P,)."""
    at_once = max(1, AT_ONCE // images[0].numel())
    parts = [
        ms_ssim(images[first[i : i + at_once]], images[second[i : i + at_once]], 1.0)
        for i in range(0, len(first), at_once)
    ]
    return torch.cat([torch.zeros(0), *parts]).double().numpy()


def _numbered(names: Sequence[Hashable]) -> npt.NDArray[np.int64]:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def _error(
    scores: npt.NDArray[np.float64], first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> float:
    """Standard error of the mean over pairs, by a jackknife over owners."""
    without = []
    for owner in np.union1d(first, second):
        others = scores[(first != owner) & (second != owner)]
        if not len(others):
            return float("nan")
        without.append(float(others.mean()))
    n = len(without)
    return float(np.sqrt((n - 1) * np.var(without)))


def windowed(images: Sequence[FloatArray], window: Window) -> Tensor:
    """Stack images as float32 (N, C, ...), scaled so that the window is 0 to 1, and clip them."""
    stacked = torch.from_numpy(np.stack(images))
    shape = (-1, *[1] * (stacked.ndim - 2))
    low, high = [torch.from_numpy(bound.copy()).reshape(shape) for bound in window.T]
    return ((stacked - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)


def weights_for(size: Sequence[int]) -> tuple[float, ...]:
    """Weights, summing to 1, of those of the five scales that fit into an image size."""
    count = 1
    while count < len(WEIGHTS) and min(size) >> count >= WINDOW:
        count += 1
    total = sum(WEIGHTS[:count])
    return tuple([weight / total for weight in WEIGHTS[:count]])


def ms_ssim(first: Tensor, second: Tensor, data_range: float) -> Tensor:
    """MS-SSIM of pairs of images, float32 (B, C, D, H, W) or (B, C, H, W): (B,), 0 to 1.

    Contrasts are averaged over positions and channels.
    """
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    weights = weights_for(first.shape[2:])
    images = torch.stack([first, second]).flatten(1, 2)  # (2, B * C, ...)
    pool = F.avg_pool3d if first.ndim == 5 else F.avg_pool2d
    count, result = len(first), torch.ones(len(first), device=first.device)
    for scale, weight in enumerate(weights):
        x, y = images
        mean_x, mean_y, xx, yy, xy = _smooth(torch.stack([x, y, x * x, y * y, x * y]))
        product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
        likeness = (2 * (xy - product) + c2) / (xx + yy - squares + c2)
        if scale == len(weights) - 1:  # brightness counts at the coarsest scale alone
            likeness = likeness * (2 * product + c1) / (squares + c1)
        # One below zero (an image and its negative) has no fractional power.
        result = result * likeness.reshape(count, -1).mean(1).clamp(min=0) ** weight
        images = pool(images, 2)
    return result


def _smooth(images: Tensor) -> Tensor:
    """Gaussian means of images (N, M, ...) wherever the whole window fits."""
    least = min(images.shape[2:])
    window = min(WINDOW, least - 1 + least % 2)
    places = [math.exp(-0.5 * ((i - window // 2) / SIGMA) ** 2) for i in range(window)]
    # Axis by axis and place by place: measured 6 to 14 times as fast here as torch's convolutions.
    for axis in range(2, images.ndim):
        n = images.shape[axis] - window + 1
        mean = torch.zeros_like(images.narrow(axis, 0, n))
        for index, value in enumerate(places):
            mean.add_(images.narrow(axis, index, n), alpha=value / sum(places))
        images = mean
    return images
