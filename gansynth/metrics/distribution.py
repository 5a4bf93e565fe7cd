"""Distances between two sets of images, of features (MMD, KID, Fréchet, manifold) or patches (SWD).

MMD: Gretton et al. 2012 (JMLR 13:723), lemma 6, unbiased, Gaussian kernel; it may be negative. KID:
the same with a cubic kernel (Binkowski et al. 2018, arXiv:1801.01401). Fréchet: as in FID (Heusel
et al. 2017, arXiv:1706.08500, eq. 6). It is too large for few images (Chong & Forsyth 2020,
arXiv:1911.07023), so only equal numbers of images are compared. Precision, recall: Kynkäänniemi et
al. 2019 (arXiv:1904.06991, eqs. 1 to 3). Density, coverage: Naeem et al. 2020 (arXiv:2002.09797,
eqs. 4, 5). SWD: Karras et al. 2018 (arXiv:1710.10196, sec. 5), 7 x 7 patches of a Laplacian pyramid
on random directions. Volumes are read slice by slice.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gansynth.metrics.comparison import Comparison, Image, SplitHalfMetric
from gansynth.metrics.estimate import Better, Floats
from gansynth.metrics.features import KINDS, WORDS, AxisFeatures, Kind, features_of, pictures

MOST = 500  # most rows used to estimate a kernel's width
NEAREST = 3
"""k: Kynkäänniemi et al. 2019 use 3. Five, as Naeem et al. use, are many for a dozen images."""
NAMES = {
    "precision": "share of samples within the real images' balls",
    "recall": "share of real images within the samples' balls",
    "density": "real images' balls around a sample, over k",
    "coverage": "share of real images with a sample in their ball",
}
PATCH, PATCHES, DIRECTIONS = 7, 24, 64  # edge of a patch, patches of a slice, and directions
SMALLEST = 16  # least edge in pixels of a level


Kept = dict[str, AxisFeatures]  # features by kind of network


class FeatureMetric(SplitHalfMetric):
    """A metric of network features; its figures are named by the networks."""

    quantity: ClassVar[str]
    better: ClassVar[Better] = "lower"
    kinds: ClassVar[Sequence[Kind]] = KINDS

    def prepare(self, images: Sequence[Image], comparison: Comparison) -> Kept:
        """Features of both networks."""
        return {kind: features_of(comparison).of(images, kind) for kind in self.kinds}

    def told(self, name: str) -> tuple[str, Better]:
        """Name the network."""
        return f"{self.quantity} {WORDS[name]}", self.better


class FeatureDistance(FeatureMetric):
    """One distance for each network."""

    def compare(self, prepared: Kept, real: Kept, comparison: Comparison) -> Mapping[str, float]:
        """Distances by network."""
        return {
            kind: self.between(prepared[kind], real[kind], kind, comparison) for kind in self.kinds
        }

    @abstractmethod
    def between(
        self, features: AxisFeatures, real: AxisFeatures, kind: Kind, comparison: Comparison
    ) -> float:
        """Distance between the features of some images and of real ones, of one network."""


class UnbiasedDistance(FeatureDistance):
    """A distance whose estimate may be negative."""

    def bounds(self, name: str) -> tuple[float, float]:
        """Any number."""
        return -math.inf, math.inf


class MMD(UnbiasedDistance):
    """``mmd``: features of whole images."""

    title = "Maximum mean discrepancy (MMD)"
    quantity = "squared MMD, Gaussian kernel of the median width, of features"

    def between(
        self, features: AxisFeatures, real: AxisFeatures, kind: Kind, comparison: Comparison
    ) -> float:
        """Squared MMD; the kernel width is that of all real images."""
        width = comparison.once(
            f"width {kind}",
            lambda: median_width(features_of(comparison).of(comparison.real, kind).whole),
        )
        return distance_of_kernels(features.whole, real.whole, width)


class KID(UnbiasedDistance):
    """``kid``: features of slices, mean over axes."""

    title = "Kernel inception distance (KID)"
    quantity = "squared MMD, cubic kernel, of features of slices"

    def between(
        self, features: AxisFeatures, real: AxisFeatures, kind: Kind, comparison: Comparison
    ) -> float:
        """Squared MMD with a cubic kernel."""
        pairs = zip(features.slices, real.slices, strict=True)
        return float(np.mean([distance_of_kernels(a, b, None) for a, b in pairs]))


class Frechet(FeatureDistance):
    """``frechet``: features of slices, mean over axes."""

    title = "Fréchet distance"
    quantity = "Fréchet distance of features of slices"

    def between(
        self, features: AxisFeatures, real: AxisFeatures, kind: Kind, comparison: Comparison
    ) -> float:
        """Fréchet distance."""
        pairs = zip(features.slices, real.slices, strict=True)
        return float(np.mean([frechet_distance(a, b) for a, b in pairs]))


class Manifold(FeatureMetric):
    """``manifold``: features of whole images, by the trained network."""

    title = "Precision, recall, density, coverage"
    kinds = ("trained",)
    least = 4 * (NEAREST + 1)

    def compare(self, prepared: Kept, real: Kept, comparison: Comparison) -> Mapping[str, float]:
        """The four shares."""
        return manifold_shares(prepared["trained"].whole, real["trained"].whole)

    def bounds(self, name: str) -> tuple[float, float]:
        """All but density are shares."""
        return 0.0, math.inf if name == "density" else 1.0

    def told(self, name: str) -> tuple[str, Better]:
        """Describe a share."""
        return f"{NAMES[name]} (k = {NEAREST}; features of the trained network)", "higher"


def unbiased_mmd2(first: Floats, second: Floats, between: Floats) -> float:
    """Squared maximum mean discrepancy from kernels (N, N), (M, M) and between both (N, M)."""
    n, m = len(first), len(second)
    if min(n, m) < 2:
        return float("nan")
    first_mean = (first.sum() - np.trace(first)) / (n * (n - 1))
    second_mean = (second.sum() - np.trace(second)) / (m * (m - 1))
    return float(first_mean + second_mean - 2 * between.mean())


def gaussian(x: Floats, y: Floats, width: float) -> Floats:
    """Gaussian kernel (N, M) of features (N, K) and (M, K)."""
    return np.asarray(np.exp(-_squares(x, y) / (2 * width**2)))


def cubic(x: Floats, y: Floats) -> Floats:
    """KID's cubic kernel (N, M) of features (N, K) and (M, K)."""
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def median_width(rows: Floats) -> float:
    """Median distance of pairs of rows (N, K): Gretton et al. 2012, sec. 8."""
    subset = rows[:: -(-len(rows) // MOST)]
    apart = _squares(subset, subset)[np.triu_indices(len(subset), 1)]
    return float(np.sqrt(np.median(apart))) if apart.size else 1.0


def _squares(x: Floats, y: Floats) -> Floats:
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    return np.asarray(np.maximum(squares, 0))


def distance_of_kernels(x: Floats, y: Floats, width: float | None) -> float:
    """Squared MMD of two sets of rows; Gaussian kernel of a width, or cubic if None."""

    def kernel(a: Floats, b: Floats) -> Floats:
        return cubic(a, b) if width is None else gaussian(a, b, width)

    return unbiased_mmd2(kernel(x, x), kernel(y, y), kernel(x, y))


def frechet_distance(x: Floats, y: Floats) -> float:
    """``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` of features (N, K) and (M, K)."""
    if min(len(x), len(y)) < 2:
        return float("nan")
    apart = x.mean(0) - y.mean(0)
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    # tr((C1 C2)^(1/2)) by the symmetric C1^(1/2) C2 C1^(1/2), whose eigenvalues are real.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ second @ root)
    cross = np.sqrt(np.maximum(mixed, 0)).sum()
    return max(0.0, float(apart @ apart + np.trace(first) + np.trace(second) - 2 * cross))


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


Projected = dict[str, Floats]
"""Patches on random directions: name of a level -> float32 (N, patches, DIRECTIONS)."""


class SlicedWasserstein(SplitHalfMetric):
    """``sliced-wasserstein``: by level, fine to coarse, and their mean."""

    title = "Sliced Wasserstein distance (SWD)"

    def prepare(self, images: Sequence[Image], comparison: Comparison) -> Projected:
        """Projected patches of every slice, in standard deviations of the real ones."""
        real = comparison.once("real patches", lambda: self._patches(comparison.real, comparison))
        mine = real if images is comparison.real else self._patches(images, comparison)
        channels = len(comparison.schema.channels)
        return {
            name: _projected(rows, real[name], channels, comparison.seed)
            for name, rows in mine.items()
        }

    def _patches(self, images: Sequence[Image], comparison: Comparison) -> dict[str, Tensor]:
        """Name of a level -> float32 (N, patches, C * PATCH * PATCH)."""
        levels: dict[str, list[Tensor]] = {}
        for axis, plane in enumerate(pictures([i.image for i in images], comparison.window)):
            rng = np.random.default_rng((comparison.seed, axis))
            for level, picture in enumerate(pyramid(plane.flatten(0, 1))):
                rows = cut_patches(picture, rng).reshape(len(images), -1, plane.shape[2] * PATCH**2)
                levels.setdefault(f"level {level + 1}", []).append(rows)
        # A level that is too large for an axis uses the other axes.
        return {name: torch.cat(rows, 1) for name, rows in levels.items()}

    def compare(
        self, prepared: Projected, real: Projected, comparison: Comparison
    ) -> Mapping[str, float]:
        """Distances by level."""
        distances = {
            name: sliced_wasserstein(_flat(rows), _flat(real[name]))
            for name, rows in prepared.items()
        }
        return {"mean": float(np.mean(list(distances.values()))), **distances}

    def told(self, name: str) -> tuple[str, Better]:
        """Describe the scale."""
        scale = {"mean": "mean of all levels", "level 1": "level 1, the finest"}.get(name, name)
        return f"distance of 7 x 7 patches of a Laplacian pyramid, in deviations; {scale}", "lower"


def pyramid(pictures: Tensor) -> list[Tensor]:
    """Laplacian pyramid of (N, C, H, W), coarsest last, with edges of ``SMALLEST`` or more."""
    levels = []
    while min(pictures.shape[-2:]) >= 2 * SMALLEST:
        small = F.avg_pool2d(pictures, 2)
        large = F.interpolate(small, pictures.shape[-2:], mode="bilinear", align_corners=False)
        levels.append(pictures - large)
        pictures = small
    return [*levels, pictures]


def cut_patches(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Patches at random positions of (N, C, H, W): (N, PATCHES, C * PATCH * PATCH)."""
    short = [max(0, PATCH - n) for n in pictures.shape[-2:]]
    wide = F.pad(pictures, (0, short[1], 0, short[0]), mode="replicate") if any(short) else pictures
    views = wide.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
    rows = torch.arange(len(views))[:, None].expand(-1, PATCHES)
    tops, lefts = (
        torch.from_numpy(rng.integers(n, size=(len(views), PATCHES))) for n in views.shape[2:4]
    )
    return views[rows, :, tops, lefts].flatten(2)


def _projected(rows: Tensor, real: Tensor, channels: int, seed: int) -> Floats:
    """Project patches (N, P, C * PATCH * PATCH), in real deviations, on random directions."""
    shaped = real.reshape(-1, channels, PATCH**2)
    mean, deviation = (f((0, 2), keepdim=True) for f in (shaped.mean, shaped.std))
    unit = (rows.reshape(-1, channels, PATCH**2) - mean) / deviation.clamp(min=1e-6)
    rng = torch.Generator().manual_seed(seed)
    directions = torch.randn(channels * PATCH**2, DIRECTIONS, generator=rng)
    directions /= directions.norm(dim=0)
    on = (unit.flatten(1) @ directions).reshape(*rows.shape[:2], DIRECTIONS)
    return on.double().numpy()


def sliced_wasserstein(x: Floats, y: Floats) -> float:
    """Mean over directions of the 1-Wasserstein distance of projections (N, D) and (N, D)."""
    return float(np.abs(np.sort(x, axis=0) - np.sort(y, axis=0)).mean())


def _flat(rows: Floats) -> Floats:
    return rows.reshape(-1, rows.shape[-1])


kid_metric, mmd_metric = KID(), MMD()
frechet_metric = Frechet()
manifold_metric = Manifold()
sliced_metric = SlicedWasserstein()
