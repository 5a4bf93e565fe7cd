"""Points of a t-SNE map.

Maaten and Hinton 2008. Near points are images that features say are alike; how far groups lie
apart, and how large they are, says nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import FloatArray
from gansynth.runtime.errors import DataFault, UsageFault

Floats = npt.NDArray[np.floating[Any]]

LEAST = 10
"""Images that a map needs."""
COMPONENTS = 50
"""Principal components that are kept: what lies beyond is noise for the most part."""
USUAL = 30.0
"""Perplexity, as far as there are three times as many neighbours."""
JITTER = 1e-3
"""By how much images are moved, in deviations of the first component: of equal ones, which crops of
small data sets are, scikit-learn's tree of neighbours makes nonsense (a divergence below 0)."""
NOISE = 1e-6
"""Spread, as a share of the largest value, below which features are all the same."""


def embed(features: Floats, *, seed: int = 0, perplexity: float | None = None) -> FloatArray:
    """Places on a plane where images lie near each other whose features are alike.

    The same features and seed give the same places. Features may be of any scale, which is the same
    for all of them: they are not brought to one deviation each.

    Args:
        features: (N, K), a row for each image.
        perplexity: about how many neighbours each image has; 30 if None, or a third of the others.

    Returns:
        float32 (N, 2).

    Raises:
        DataFault: fewer than 10 images, values that are not finite, or the same for all images.
        UsageFault: a perplexity that is not between 0 and the number of the other images.
    """
    from sklearn.manifold import TSNE

    reduced = _reduced(_checked(features))
    others = len(reduced) - 1
    wanted = min(USUAL, others / 3) if perplexity is None else perplexity
    if not 0 < wanted < others:
        raise UsageFault(
            f"t-SNE: perplexity {wanted:g} for {len(reduced)} images, expected more than 0 and "
            f"fewer than {others}; leave it out"
        )
    reduced += JITTER * np.random.default_rng(seed).standard_normal(reduced.shape)
    tsne = TSNE(n_components=2, init="pca", perplexity=wanted, random_state=seed, n_jobs=1)
    return np.asarray(tsne.fit_transform(reduced), np.float32)


def _checked(features: Floats) -> npt.NDArray[np.float64]:
    if features.ndim != 2 or features.shape[1] < 1:
        raise DataFault(
            f"t-SNE: features have shape {features.shape}, expected a row of numbers for each image"
        )
    if len(features) < LEAST:
        raise DataFault(
            f"t-SNE: {len(features)} images, fewer than {LEAST}, expected at least as many for a "
            "map; draw more samples"
        )
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
        raise DataFault(
            f"t-SNE: features of image {bad[0]} and {bad.size - 1} more are not finite, expected "
            "numbers; did what makes them diverge?"
        )
    values = features.astype(np.float64)
    if np.ptp(values, axis=0).max() <= NOISE * np.abs(values).max():
        raise DataFault(
            f"t-SNE: features of all {len(values)} images are the same, expected some spread; does "
            "what makes them see anything?"
        )
    return values


def _reduced(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Principal components (N, up to 50, at least 2), the first of deviation 1."""
    from sklearn.decomposition import PCA

    centred = values - values.mean(axis=0)
    centred /= np.abs(centred).max()
    pca = PCA(min(COMPONENTS, *centred.shape), svd_solver="full")
    found: npt.NDArray[np.float64] = pca.fit_transform(centred)
    if found.shape[1] == 1:  # a map that begins with two components needs a second one
        found = np.pad(found, ((0, 0), (0, 1)))
    return np.asarray(found / found[:, 0].std(), np.float64)
