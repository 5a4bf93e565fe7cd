"""Context channels: intensity clusters of the surroundings, for labels that say nothing about them.

They tell the generator where bright and dark tissue lies, without showing it any texture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import body_mask
from gansynth.core.schema import OUTSIDE, Case, FloatArray, LabelArray

SMOOTHING = 1.0
"""Standard deviation in voxels of the blur before clustering: coarse enough to hide the grain."""
VOXELS_PER_CASE = 2000


class ContextClusters:
    """K intensity clusters over all channels.

    ``count``: number of clusters; 0 turns everything off.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.centres: npt.NDArray[np.float64] | None = None

    def fit(self, cases: Iterable[Case]) -> None:
        """Fit the centres to background voxels of the training cases (k-means, fixed seed)."""
        if not self.count:
            return
        from sklearn.cluster import KMeans

        rng = np.random.default_rng(0)
        voxels = []
        for case in cases:
            inside = _surroundings(case)
            values = _smooth(case.image)[:, inside].T
            take = rng.choice(len(values), min(VOXELS_PER_CASE, len(values)), replace=False)
            voxels.append(values[take])
        model = KMeans(self.count, n_init=3, random_state=0).fit(np.concatenate(voxels))
        order = np.argsort(model.cluster_centers_.mean(axis=1))
        self.centres = model.cluster_centers_[order].astype(np.float64)

    def map(self, case: Case) -> LabelArray:
        """Clusters 1..K of the surroundings, 0 on foreground and outside: int16 (D, H, W)."""
        assert self.centres is not None, "context clusters are fitted by observe() first"
        smooth = _smooth(case.image)
        distance = np.stack(
            [
                np.square(smooth - c.reshape(-1, *[1] * (smooth.ndim - 1))).sum(0)
                for c in self.centres
            ]
        )
        clusters = (distance.argmin(0) + 1).astype(np.int16)
        return np.where(_surroundings(case), clusters, np.int16(0))

    def to_json(self) -> dict[str, Any]:
        """Cluster centres per channel, in the generator's intensity units."""
        return {"centres": None if self.centres is None else self.centres.tolist()}

    def load_json(self, state: Mapping[str, Any]) -> None:
        """Read back ``to_json``."""
        centres = state.get("centres")
        self.centres = None if centres is None else np.array(centres, np.float64)


class Body:
    """The body in images; that of the last image is kept, which is asked about twice."""

    def __init__(self) -> None:
        self._last: tuple[FloatArray, npt.NDArray[np.bool_]] | None = None

    def __call__(self, image: FloatArray) -> npt.NDArray[np.bool_]:
        """Bool (D, H, W) of an image (C, D, H, W)."""
        last = self._last
        if last is None or last[0] is not image:
            last = self._last = image, body_mask(image)
        return last[1]


def body_map(case: Case, body_of: Body) -> LabelArray:
    """1 in the body but for its foreground, else 0: int16 (D, H, W).

    Doncenco 2022 (sec. 2.3) and Sun et al. 2020 (MM-GAN, sec. V-A) give the rest of the brain a
    class of its own.
    """
    labels = case.labels
    if labels is None:
        return body_of(case.image).astype(np.int16)
    body = labels != OUTSIDE
    if body.all():
        body = body_of(case.image)
    return np.asarray(body & (labels == 0), np.int16)


def _surroundings(case: Case) -> npt.NDArray[np.bool_]:
    if case.labels is None:
        return np.ones(case.image.shape[1:], bool)
    background: npt.NDArray[np.bool_] = (case.labels == 0) & (case.labels != OUTSIDE)
    return background


def _smooth(image: FloatArray) -> FloatArray:
    from scipy.ndimage import gaussian_filter

    return np.stack([gaussian_filter(channel, SMOOTHING) for channel in image])
