"""Kernel two-sample distances of features: MMD with a Gaussian kernel, and KID.

Gretton et al. 2012 (JMLR 13:723), lemma 6, the unbiased estimate: it is 0 on average where both
sides are alike, and may be negative. KID is the same with a cubic kernel (Binkowski et al. 2018,
arXiv:1801.01401).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from gansynth.metrics.comparison import Halved, Image
from gansynth.metrics.estimate import Better, Floats
from gansynth.metrics.features import KINDS, WORDS, Kind, Looked
from gansynth.metrics.sides import Sides

MOST = 500
"""Rows from which a kernel's width is learnt at most."""


def unbiased_mmd2(within: Floats, other: Floats, between: Floats) -> float:
    """Squared maximum mean discrepancy from kernel matrices.

    Args:
        within: (N, N), kernel of the one side.
        other: (M, M), of the other side.
        between: (N, M).
    """
    n, m = len(within), len(other)
    if min(n, m) < 2:
        return float("nan")
    one = (within.sum() - np.trace(within)) / (n * (n - 1))
    two = (other.sum() - np.trace(other)) / (m * (m - 1))
    return float(one + two - 2 * between.mean())


def gaussian(one: Floats, other: Floats, width: float) -> Floats:
    """Kernel (N, M) of features (N, K) and (M, K)."""
    return np.asarray(np.exp(-_squares(one, other) / (2 * width**2)))


def cubic(one: Floats, other: Floats) -> Floats:
    """KID's kernel (N, M) of features (N, K) and (M, K)."""
    return np.asarray((one @ other.T / one.shape[1] + 1) ** 3)


def median_width(rows: Floats) -> float:
    """The median distance of pairs of rows (N, K): Gretton et al. 2012, sec. 8."""
    few = rows[:: -(-len(rows) // MOST)]
    apart = _squares(few, few)[np.triu_indices(len(few), 1)]
    return float(np.sqrt(np.median(apart))) if apart.size else 1.0


def _squares(one: Floats, other: Floats) -> Floats:
    found = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
    return np.asarray(np.maximum(found, 0))


def distance_of_kernels(one: Floats, other: Floats, width: float | None) -> float:
    """Squared discrepancy of two sets of rows; Gaussian kernel of a width, or cubic if None."""

    def kernel(a: Floats, b: Floats) -> Floats:
        return cubic(a, b) if width is None else gaussian(a, b, width)

    return unbiased_mmd2(kernel(one, one), kernel(other, other), kernel(one, other))


class Kept:
    """Features by kind of network, indexed as one."""

    def __init__(self, looked: Mapping[str, Looked]) -> None:
        self.looked = dict(looked)

    def __getitem__(self, index: Any) -> Kept:
        return Kept({kind: looked[index] for kind, looked in self.looked.items()})


class OfFeatures(Halved):
    """A metric of what networks see; its figures are named by the networks.

    Attributes:
        said: what the number is.
    """

    said: ClassVar[str]
    better: ClassVar[Better] = "lower"
    kinds: ClassVar[Sequence[Kind]] = KINDS

    def prepare(self, images: Sequence[Image], sides: Sides) -> Kept:
        """Features of both networks."""
        return Kept({kind: sides.features.of(images, kind) for kind in self.kinds})

    def told(self, name: str) -> tuple[str, Better]:
        """Of which network."""
        return f"{self.said} {WORDS[name]}", self.better


class Distance(OfFeatures):
    """One number a network."""

    def compare(self, one: Kept, other: Kept, sides: Sides) -> Mapping[str, float]:
        """By network."""
        return {
            kind: self.between(one.looked[kind], other.looked[kind], kind, sides)
            for kind in self.kinds
        }

    @abstractmethod
    def between(self, one: Looked, other: Looked, kind: Kind, sides: Sides) -> float:
        """How far features of some images are from those of others, of one network."""


class Unbiased(Distance):
    """A distance whose estimate may be negative."""

    def bounds(self, name: str) -> tuple[float, float]:
        """Any number."""
        return -math.inf, math.inf


class MMD(Unbiased):
    """``mmd``: images whole."""

    title = "Maximum mean discrepancy (MMD)"
    said = "squared MMD, Gaussian kernel of the median width, of features"

    def between(self, one: Looked, other: Looked, kind: Kind, sides: Sides) -> float:
        """See the title; the width is that of all real images."""
        width = sides.once(
            f"width {kind}", lambda: median_width(sides.features.of(sides.real, kind).whole)
        )
        return distance_of_kernels(one.whole, other.whole, width)


class KID(Unbiased):
    """``kid``: slices, mean of the axes."""

    title = "Kernel inception distance (KID)"
    said = "squared MMD, cubic kernel, of features of slices"

    def between(self, one: Looked, other: Looked, kind: Kind, sides: Sides) -> float:
        """See the title."""
        pairs = zip(one.slices, other.slices, strict=True)
        return float(np.mean([distance_of_kernels(a, b, None) for a, b in pairs]))


kid_metric, mmd_metric = KID(), MMD()
