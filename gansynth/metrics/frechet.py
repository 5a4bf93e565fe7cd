"""Fréchet distance of features, as FID has it (Heusel et al. 2017, arXiv:1706.08500, eq. 6).

Its estimate is too large for few images, and the more so the fewer there are (Chong & Forsyth 2020,
arXiv:1911.07023). So it is compared with that of as many real images, never with a published one.
"""

from __future__ import annotations

import numpy as np

from gansynth.metrics.estimate import Floats
from gansynth.metrics.features import Kind, Looked
from gansynth.metrics.kernels import Distance
from gansynth.metrics.sides import Sides


def frechet_distance(one: Floats, other: Floats) -> float:
    """Distance of the normal distributions that fit two sets of features (N, K) and (M, K) best.

    Returns:
        ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``, at least 0; NaN of less than two rows.
    """
    if min(len(one), len(other)) < 2:
        return float("nan")
    apart = one.mean(0) - other.mean(0)
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    # tr((C1 C2)^(1/2)) by the symmetric C1^(1/2) C2 C1^(1/2), whose eigenvalues are real.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ second @ root)
    cross = np.sqrt(np.maximum(mixed, 0)).sum()
    return max(0.0, float(apart @ apart + np.trace(first) + np.trace(second) - 2 * cross))


class Frechet(Distance):
    """``frechet``: slices, mean of the axes."""

    title = "Fréchet distance"
    said = "Fréchet distance of features of slices"

    def between(self, one: Looked, other: Looked, kind: Kind, sides: Sides) -> float:
        """See the title."""
        pairs = zip(one.slices, other.slices, strict=True)
        return float(np.mean([frechet_distance(a, b) for a, b in pairs]))


frechet_metric = Frechet()
