"""Context of label maps: what they leave out of the surroundings, as clusters or the body."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth import OUTSIDE, Case, ChannelStatistics, FloatArray, LabelArray, Placement
from gansynth.core.body_mask import body_mask
from gansynth.data.label_statistics import label_share
from gansynth_cgan3d.options import CGAN3DOptions

SMOOTHING, REACH = 1.0, 4
"""Standard deviation in voxels of the blur before clustering, which removes fine texture, and the
voxels to each side that it reaches."""
VOXELS_PER_CASE = 2000
BLOCK = 1 << 13  # voxels whose distances are computed at once, in a core's own cache


EXPLAINED, CLUSTERS = 0.4, 4
"""Share of variance below which labels say too little of the surroundings; clusters used then."""
DEVIATIONS = 0.5, 2.0
"""Deviations of images that networks learn well from as they are; others are standardised."""


def automatic(options: CGAN3DOptions, cases: Iterable[Case]) -> tuple[CGAN3DOptions, str]:
    """Return options with values for ``context`` and ``standardise``, and why they are on."""
    crops = list(cases)
    chosen: dict[str, int | bool] = {}
    reasons = []
    if options.context is None:
        share = 1.0 if options.given else label_share((case.image, case.labels) for case in crops)
        chosen["context"] = CLUSTERS if share < EXPLAINED else 0  # NaN: nothing in the body
        if chosen["context"]:
            reasons.append(
                f"context={CLUSTERS}: labels explain {share:.0%} of the images' variance, less "
                f"than {EXPLAINED:.0%}, so intensity clusters of the background are conditions, "
                "too; labels alone: --set context=0"
            )
    if options.standardise is None:
        found = _deviation(crops) if options.output == "linear" else 1.0
        chosen["standardise"] = not DEVIATIONS[0] <= found <= DEVIATIONS[1]
        if chosen["standardise"]:
            reasons.append(
                f"standardise=yes: the images' standard deviation is {found:.2g}, and networks "
                "learn best near 1; images as they are: --set standardise=no"
            )
    return options.model_copy(update=chosen), "; ".join(reasons)


def _deviation(crops: Sequence[Case]) -> float:
    """Return the standard deviation of crops, the geometric mean over channels."""
    statistics = ChannelStatistics(len(crops[0].image))
    for case in crops:
        statistics.add(case.image)
    return float(np.exp(np.log(statistics.deviation).mean()))


Clusters = npt.NDArray[np.int8]


class ContextClusters:
    """K-means clusters of intensities over all channels; a count of 0 switches them off."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.centres: npt.NDArray[np.float64] | None = None

    def fit(self, cases: Iterable[Case]) -> None:
        """Fit the centres to background voxels of the training cases (fixed seed)."""
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
        """Return clusters 1..K of the background, int16 (D, H, W); 0 on foreground and outside."""
        return _of_surroundings(case, self.of_image(case.image))

    def of_image(self, image: FloatArray) -> Clusters:
        """Return clusters 1..K of all voxels of an image (C, D, H, W), int8 (D, H, W)."""
        return self._of_part(image, tuple([slice(0, n) for n in image.shape[1:]]))

    def cut(self, case: Case, whole: Clusters, corner: Sequence[int]) -> LabelArray:
        """Return what ``map`` returns of a crop, bit for bit, from the clusters of its whole case.

        Anew is only what the blur reaches from where the image was cut, or begins to be padding.

        Args:
            case: the crop.
            whole: ``of_image`` of the case that it was cut from.
            corner: the crop's first voxel in that case; negative where it begins beyond it.
        """
        size = case.image.shape[1:]
        clusters = Placement(tuple(corner)).cut(whole, size, 0)
        inner = [slice(0, n) for n in size]
        for axis, (first, n, of_whole) in enumerate(zip(corner, size, whole.shape, strict=True)):
            low = 0 if first == 0 else max(-first, 0) + REACH
            high = n if first + n == of_whole else min(n, of_whole - first) - REACH
            if low >= high:
                return self.map(case)
            for rim in (slice(0, low), slice(high, n)):
                if rim.start < rim.stop:
                    part = (*inner[:axis], rim, *inner[axis + 1 :])
                    clusters[part] = self._of_part(case.image, part)
            inner[axis] = slice(low, high)
        return _of_surroundings(case, clusters)

    def _of_part(self, image: FloatArray, part: tuple[slice, ...]) -> Clusters:
        """Return the clusters of a part of an image: the nearest centre, the first of several.

        Squares are added channel by channel: a matrix product would round by the kind of the CPU.
        """
        assert self.centres is not None, "context clusters are fitted by observe() first"
        smooth = _smooth(image, part)
        shape = smooth.shape[1:]
        values = smooth.reshape(len(smooth), -1)
        clusters = np.ones(values.shape[1], np.int8)
        for start in range(0, len(clusters), BLOCK):
            block, found = values[:, start : start + BLOCK], clusters[start : start + BLOCK]
            least = np.full(block.shape[1], np.inf)
            for number, centre in enumerate(self.centres, 1):
                distance = np.zeros(block.shape[1])
                for channel, value in zip(block, centre, strict=True):
                    gap = channel - value
                    gap *= gap
                    distance += gap
                found[distance < least] = number
                np.minimum(least, distance, out=least)
        return clusters.reshape(shape)

    def to_json(self) -> dict[str, Any]:
        """Return cluster centres per channel, in the generator's intensity units."""
        return {"centres": None if self.centres is None else self.centres.tolist()}

    def load_json(self, state: Mapping[str, Any]) -> None:
        """Restore what ``to_json`` wrote."""
        centres = state.get("centres")
        self.centres = None if centres is None else np.array(centres, np.float64)


class BodyChannel:
    """Body mask of images; the last mask is cached, as each image is requested twice."""

    def __init__(self) -> None:
        self._last: tuple[FloatArray, npt.NDArray[np.bool_]] | None = None

    def __call__(self, image: FloatArray) -> npt.NDArray[np.bool_]:
        """Return the mask, bool (D, H, W), of an image (C, D, H, W)."""
        last = self._last
        if last is None or last[0] is not image:
            last = self._last = image, body_mask(image)
        return last[1]


def body_map(case: Case, body_of: BodyChannel) -> LabelArray:
    """Return 1 in the body outside the foreground, else 0: int16 (D, H, W).

    Doncenco 2022 (sec. 2.3) and Sun et al. 2020 (MM-GAN, sec. V-A) give the brain around the tumour
    its own class.
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


def _of_surroundings(case: Case, clusters: Clusters) -> LabelArray:
    return np.where(_surroundings(case), clusters, np.int16(0))


def _smooth(image: FloatArray, part: tuple[slice, ...] | None = None) -> FloatArray:
    """Return a part of the blurred image, blurring no more of it than that depends on."""
    from scipy.ndimage import gaussian_filter1d

    part = part or tuple([slice(0, n) for n in image.shape[1:]])
    begin = [max(wanted.start - REACH, 0) for wanted in part]
    near = [slice(first, wanted.stop + REACH) for first, wanted in zip(begin, part, strict=True)]
    image = image[(slice(None), *near)]
    for axis, (first, wanted) in enumerate(zip(begin, part, strict=True), 1):
        image = gaussian_filter1d(image, SMOOTHING, axis=axis)
        of_axis = slice(wanted.start - first, wanted.stop - first)
        image = image[(slice(None),) * axis + (of_axis,)]
    return image
