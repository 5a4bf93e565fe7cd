"""Distances between the features of two sets of images: KID, Fréchet, manifold.

KID: Binkowski et al. 2018 (arXiv:1801.01401), unbiased (Gretton et al. 2012, JMLR 13:723, lemma 6),
so it may be negative. Fréchet: as in FID (Heusel et al. 2017, arXiv:1706.08500, eq. 6). It is too
large for few images (Chong & Forsyth 2020, arXiv:1911.07023), so only equal numbers of images are
compared. Precision, recall: Kynkäänniemi et al. 2019 (arXiv:1904.06991, eqs. 1 to 3). Density,
coverage: Naeem et al. 2020 (arXiv:2002.09797, eqs. 4, 5). Volumes are read slice by slice.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from gansynth.core.schema import Schema
from gansynth.metrics.comparison import Comparison, Image, Metric, Quantity
from gansynth.metrics.estimate import Floats
from gansynth.metrics.features import KINDS, WORDS, AxisFeatures, Kind, features_of

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
        """Features of the networks."""
        return {kind: features_of(comparison).of(images, kind) for kind in self.kinds}


class FeatureDistance(FeatureMetric):
    """One distance for each network: of features of slices, mean over axes."""

    quantity: ClassVar[str]
    lowest: ClassVar[float] = 0.0
    least = 8

    @abstractmethod
    def distance(self, x: Floats, y: Floats) -> float:
        """Distance between features (N, K) and real ones (M, K)."""

    def compute(self, samples: Kept, real: Kept, schema: Schema) -> Mapping[str, float]:
        """Distances by network."""
        return {
            kind: float(
                np.mean(
                    [
                        self.distance(x, y)
                        for x, y in zip(samples[kind].slices, real[kind].slices, strict=True)
                    ]
                )
            )
            for kind in self.kinds
        }

    def told(self, name: str) -> Quantity:
        """Name the network."""
        return Quantity(f"{self.quantity} {WORDS[name]}", "lower", self.lowest)


class KID(FeatureDistance):
    """``kid``: squared maximum mean discrepancy (MMD); an unbiased estimate may be negative."""

    name = "kid"
    title = "Kernel inception distance (KID)"
    quantity = "squared MMD, cubic kernel, of features of slices"
    lowest = -math.inf

    def distance(self, x: Floats, y: Floats) -> float:
        """Squared MMD with a cubic kernel."""
        return kernel_distance(x, y)


class Frechet(FeatureDistance):
    """``frechet``: the Fréchet distance."""

    name = "frechet"
    title = "Fréchet distance"
    quantity = "Fréchet distance of features of slices"

    def distance(self, x: Floats, y: Floats) -> float:
        """Fréchet distance."""
        return frechet_distance(x, y)


class Manifold(FeatureMetric):
    """``manifold``: features of whole images, by the trained network."""

    name = "manifold"
    title = "Precision, recall, density, coverage"
    kinds = ("trained",)
    least = 4 * (NEAREST + 1)

    def compute(self, samples: Kept, real: Kept, schema: Schema) -> Mapping[str, float]:
        """The four shares."""
        return manifold_shares(samples["trained"].whole, real["trained"].whole)

    def told(self, name: str) -> Quantity:
        """All but density are shares."""
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
