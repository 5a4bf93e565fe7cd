"""t-SNE of samples and real subjects: of images, and of network features.

Han et al. 2019 use both, including "features extracted from the last layer of each trained
classifier". Here that is the fold's own segmenter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from gansynth.core.schema import Case, FloatArray, Sample
from gansynth.metrics.comparison import Comparison, Floats, Image
from gansynth.metrics.features import features_of
from gansynth.metrics.nearest import GRID, pool
from gansynth.report.png import thumbnail
from gansynth.runtime.errors import DataFault
from gansynth.sampling.evaluation_data import EvaluationData

if TYPE_CHECKING:
    from gansynth.metrics.faithfulness import EvaluationSegmenter

MOST_POINTS = 120  # most points of a side


@dataclass(frozen=True)
class MapImages:
    """Images on a map."""

    images: Sequence[Image]
    comparison: Sequence[str]
    names: Sequence[str]
    kinds: Sequence[str | None]  # class of each, if it has one
    oriented: bool  # whether it is known which way their arrays run (``Space.oriented``)

    @classmethod
    def of(cls, gathered: EvaluationData, comparison: Comparison) -> MapImages:
        """Select images of each side, including held-out subjects."""
        cases, rng = gathered.known, np.random.default_rng((comparison.seed, 4))
        others: Sequence[Case] = ()
        if cases.members and cases.others:
            others = gathered.real(cases.others, min(MOST_POINTS, len(comparison.real)), rng)
        real = list(comparison.real)[:MOST_POINTS]
        images: list[Image] = [*list(comparison.samples)[:MOST_POINTS], *real, *others]
        count = len(images) - len(real) - len(others)
        crops: dict[str, int] = {}
        names = [f"sample {n}" for n in range(count)]
        for case in (*real, *others):
            crops[case.id] = crops.get(case.id, 0) + 1
            names.append(f"{case.id} #{crops[case.id]}")
        named = ["synthetic"] * count + ["training"] * len(real) + ["held-out"] * len(others)
        kinds, oriented = [_kind(image, comparison) for image in images], gathered.space.oriented
        return cls(images, named, names, kinds, oriented)

    def points(self, places: npt.NDArray[np.floating]) -> list[dict[str, Any]]:
        """Points as JSON for the document."""
        return [
            {"x": round(float(x), 4), "y": round(float(y), 4), "side": s, "kind": k, "name": n}
            for (x, y), s, k, n in zip(places, self.comparison, self.kinds, self.names, strict=True)
        ]

    def pictures(self, comparison: Comparison) -> dict[str, bytes]:
        """Name -> PNG."""
        return {
            name: thumbnail(image.image, comparison.window, image.labels, oriented=self.oriented)
            for name, image in zip(self.names, self.images, strict=True)
        }


def _kind(image: Image, comparison: Comparison) -> str | None:
    if isinstance(image, Sample):
        name = image.provenance.get("class")
        return None if name is None else str(name)
    return None if image.label_class is None else comparison.schema.classes[image.label_class]


def draw_maps(
    gathered: EvaluationData,
    comparison: Comparison,
    mapped: MapImages,
    *,
    segmenter: EvaluationSegmenter | None = None,
) -> list[dict[str, Any]]:
    """``maps`` of the document; with the fold's segmenter if there is one."""
    rows: list[tuple[str, str, str, Floats]] = [
        (
            "images",
            "t-SNE of images",
            f"intensities on a grid of at most {GRID} blocks an axis",
            _coarse(mapped.images, comparison),
        ),
        (
            "features",
            "t-SNE of features",
            "features of a network trained without labels on the fold's images",
            features_of(comparison).of(mapped.images, "trained").whole,
        ),
    ]
    if segmenter is not None:
        words = "input of the last layer of the fold's segmenter, mean of each image"
        rows.append(
            ("segmenter", "t-SNE of a segmenter's features", words, _last(segmenter, mapped))
        )
    return [
        {
            "key": key,
            "title": title,
            "what": description,
            "points": mapped.points(embed(features, seed=comparison.seed)),
        }
        for key, title, description, features in rows
    ]


def _coarse(images: Sequence[Image], comparison: Comparison) -> Floats:
    """Windowed intensities of blocks, flat: (N, blocks)."""
    factors = [-(-n // GRID) for n in images[0].image.shape[1:]]
    low, high = [bound.reshape(-1, *[1] * len(factors)) for bound in comparison.window.T]
    spread = np.maximum(high - low, 1e-6)
    rows = [pool((image.image - low) / spread, factors).ravel() for image in images]
    return np.stack(rows).astype(np.float64)


def _last(segmenter: EvaluationSegmenter, mapped: MapImages) -> Floats:
    """Mean input of the last layer: (N, K)."""
    entered: list[Floats] = []

    def keep(layer: nn.Module, entering: tuple[Tensor, ...]) -> None:
        entered.append(entering[0].detach().float().flatten(2).mean(2)[0].cpu().numpy())

    hook, rows = segmenter.last_layer.register_forward_pre_hook(keep), []
    try:
        for image in mapped.images:
            segmenter.predict(image.image)
            rows.append(entered[-1])
    finally:
        hook.remove()
    return np.stack(rows).astype(np.float64)


# -- places on a map -------------------------------------------------------------------------------

FEWEST_IMAGES = 10  # fewest images for a map
COMPONENTS = 50  # principal components kept; the others are mostly noise
USUAL_PERPLEXITY = 30.0  # perplexity, reduced for fewer than three times as many neighbours
JITTER = 1e-3
"""Jitter in deviations of the first component. Identical images, such as crops of small data sets,
give an invalid result in scikit-learn's neighbour tree (a divergence below 0)."""
NOISE = 1e-6  # smallest spread of features, as a share of the largest value


def embed(features: Floats, *, seed: int = 0) -> FloatArray:
    """Embed features in the plane by t-SNE; similar images are close.

    The same features and seed give the same positions. Features need one common scale: they are not
    standardised one by one.

    Args:
        features: (N, K), a row for each image.

    Returns:
        float32 (N, 2).
    """
    from sklearn.manifold import TSNE

    reduced = _reduced(_checked(features))
    perplexity = min(USUAL_PERPLEXITY, (len(reduced) - 1) / 3)
    reduced += JITTER * np.random.default_rng(seed).standard_normal(reduced.shape)
    tsne = TSNE(n_components=2, init="pca", perplexity=perplexity, random_state=seed, n_jobs=1)
    return np.asarray(tsne.fit_transform(reduced), np.float32)


def _checked(features: Floats) -> npt.NDArray[np.float64]:
    if features.ndim != 2 or features.shape[1] < 1:
        raise DataFault(
            "evaluate.map-features-not-rows",
            f"t-SNE: features have shape {features.shape}, "
            f"expected a row of numbers for each image",
        )
    if len(features) < FEWEST_IMAGES:
        raise DataFault(
            "evaluate.map-too-few-images",
            f"t-SNE: {len(features)} images, fewer than {FEWEST_IMAGES}, expected at least as many "
            "for a map; generate more samples",
        )
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
        raise DataFault(
            "evaluate.map-features-not-finite",
            f"t-SNE: features of image {bad[0]} and {bad.size - 1} more are not finite, expected "
            "numbers; has the network diverged?",
        )
    values = features.astype(np.float64)
    if np.ptp(values, axis=0).max() <= NOISE * np.abs(values).max():
        raise DataFault(
            "evaluate.map-features-all-same",
            f"t-SNE: features of all {len(values)} images are the same, expected some spread; "
            "check the network",
        )
    return values


def _reduced(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Principal components (N, up to 50, at least 2), the first with deviation 1."""
    from sklearn.decomposition import PCA

    centred = values - values.mean(axis=0)
    centred /= np.abs(centred).max()
    pca = PCA(min(COMPONENTS, *centred.shape), svd_solver="full")
    components: npt.NDArray[np.float64] = pca.fit_transform(centred)
    if components.shape[1] == 1:  # t-SNE's initialisation needs two components
        components = np.pad(components, ((0, 0), (0, 1)))
    return np.asarray(components / components[:, 0].std(), np.float64)
