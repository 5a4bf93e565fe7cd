"""Cuts segments from a case as DeepMedic does: read, pad, normalise, rotate, cut, augment.

Padding comes first, so mirrored voxels count in the normalisation of intensities.
Centres are drawn as in its ``samplingType.py`` and ``sampling.py`` (commit e10ba7c). One
difference: voxels of a region of interest with values above 1 count once here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import read_nifti
from gansynth_deepmedic.engine.augment import SegmentAugmentation
from gansynth_deepmedic.engine.configs import (
    FORE_BACKGROUND,
    PER_CLASS,
    ConfigFile,
    Weight,
    category_masks,
)
from gansynth_deepmedic.engine.geometry import (
    Image,
    SegmentGeometry,
    corner_mean,
    high_segment,
    low_context,
    padded,
)
from gansynth_deepmedic.engine.volumes import RandomAffine, ZScore
from gansynth_deepmedic.insertion import LoadedCase

if TYPE_CHECKING:
    from gansynth_deepmedic.engine.configs import ModelConfig, TrainConfig

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_ROUNDING = 1e-9
_KEYS = {
    "train": (
        "proportionOfSamplesToExtractPerCategoryTraining",
        "weightedMapsForSamplingEachCategoryTrain",
    ),
    "validation": (
        "proportionOfSamplesToExtractPerCategoryVal",
        "weightedMapsForSamplingEachCategoryVal",
    ),
}


@dataclass(frozen=True)
class SegmentCutter:
    """Preprocessing of a case, sampling of segments, and their augmentation."""

    sampling: CentreSampling  # where segments are centred
    # whether volumes are padded by the margin that is not predicted (padInputImagesBool)
    pad: bool = True
    normalise: ZScore | None = None  # of intensities (norm_zscore_prms); None for none
    # rotation and zoom of volumes (augm_img_prms_tr); None for none
    affine: RandomAffine | None = None
    # augmentation of segments (augm_sample_prms_tr); None for none
    augment: SegmentAugmentation | None = None

    @classmethod
    def from_configs(cls, config: TrainConfig, model: ModelConfig) -> SegmentCutter:
        """Read the cutting of training cases from the configuration (DataFault: naming the key)."""
        path, values, channels = config.path, config.values, len(config.channels)
        augment = SegmentAugmentation.from_values(path, values)
        if augment is not None:
            augment.check(SegmentGeometry.from_model(model), path)
        return cls(
            CentreSampling.from_config(config, model.classes),
            config.pad,
            ZScore.from_values(path, values, channels),
            RandomAffine.from_values(path, values, channels),
            augment,
        )

    def for_validation(self, config: TrainConfig) -> SegmentCutter:
        """Return the cutting for validation segments: no augmentation, validation's centres."""
        sampling = CentreSampling.from_config(config, self.sampling.classes, "validation")
        return replace(self, sampling=sampling, affine=None, augment=None)


@dataclass(frozen=True)
class Segments:
    """Arrays of N segments."""

    high: Image  # float32 (N, C, *segment)
    low: tuple[Image, ...]  # float32 (N, C, *low), for each factor
    labels: npt.NDArray[np.int16]  # int16 (N, *output), of the predicted part

    @classmethod
    def empty(cls, count: int, channels: int, geometry: SegmentGeometry) -> Segments:
        """Allocate arrays for ``count`` segments."""
        return cls(
            np.empty((count, channels, *geometry.segment), np.float32),
            tuple(np.empty((count, channels, *shape), np.float32) for shape in geometry.low),
            np.empty((count, *geometry.output), np.int16),
        )


def prepared(
    case: LoadedCase,
    geometry: SegmentGeometry,
    cutting: SegmentCutter,
    rng: np.random.Generator | None = None,
) -> LoadedCase:
    """Pad, normalise, and randomly rotate a case.

    Raises:
        DataFault: labels beyond the network's classes, or shapes that differ.
    """
    _refuse_odd(case, cutting.sampling.classes)
    image, labels, roi, core = case.image, case.labels, case.roi, case.core
    if cutting.pad:
        widths = geometry.margin
        image, labels = padded(image, widths), padded(labels, widths)
        roi = None if roi is None else padded(roi, widths)
        core = None if core is None else np.pad(core, widths)
    if cutting.normalise is not None:
        image = cutting.normalise.apply(image, roi)
    change = None if cutting.affine is None or rng is None else cutting.affine.draw(rng)
    if cutting.affine is not None and change is not None:
        image, labels = (
            cutting.affine.of_image(image, change),
            cutting.affine.of_labels(labels, change),
        )
        roi = None if roi is None else cutting.affine.of_roi(roi, change)
        core = None if core is None else cutting.affine.of_mask(core, change)
    return replace(case, image=image, labels=labels, roi=roi, core=core)


def cut(
    case: LoadedCase,
    geometry: SegmentGeometry,
    cutting: SegmentCutter,
    rng: np.random.Generator,
    into: Segments,
    rows: IntArray,
    *,
    augment: bool = True,
) -> SegmentCentres:
    """Cut random segments of a case.

    Args:
        rows: int64 (N,), the indices in ``into`` to fill; N segments are cut.

    Returns:
        Their centres in the padded volume.

    Raises:
        DataFault: the case is invalid, or no segment can be cut from it.
    """
    case = prepared(case, geometry, cutting, rng if augment else None)
    centres = draw_centres(
        cutting.sampling,
        geometry,
        len(rows),
        rng,
        labels=case.labels,
        roi=case.roi,
        core=case.core,
        name=case.case,
    )
    outside = corner_mean(case.image)
    for row, centre in zip(rows, centres.voxels, strict=True):
        start = geometry.start(centre)
        high = high_segment(case.image, start, geometry)
        low = [low_context(case.image, start, f, geometry, outside) for f in geometry.factors]
        labels = case.labels[geometry.predicted(start)]
        if augment and cutting.augment is not None:
            change = cutting.augment.draw(len(case.image), rng)
            high, labels = change.of_image(high), change.of_labels(labels)
            low = [change.of_image(context) for context in low]
        into.high[row], into.labels[row] = high, labels
        for of_factor, context in zip(into.low, low, strict=True):
            of_factor[row] = context
    return centres


def _refuse_odd(case: LoadedCase, classes: int) -> None:
    shapes = {case.image.shape[1:], case.labels.shape}
    shapes |= set() if case.roi is None else {case.roi.shape}
    if len(shapes) > 1:
        raise DataFault(
            f"{case.case}: channels, labels and region of interest have shapes {sorted(shapes)}, "
            "expected the same; bring them to one grid, or leave the case out"
        )
    low, high = int(case.labels.min()), int(case.labels.max())
    if low < 0 or high >= classes:
        raise DataFault(
            f"{case.case}: labels from {low} to {high}, expected 0 to {classes - 1}, the network's "
            "classes; correct them, or numberOfOutputClasses"
        )


def read_volume(file: str) -> npt.NDArray[Any]:
    """Return the scaled array (X, Y, Z) of a NIfTI file as stored; the affine is ignored.

    An image of two axes has Z of 1. A fourth axis must have length 1 and is dropped.

    Raises:
        DataFault: the file is damaged, missing, or has more than three axes.
        EnvironmentFault: reading is not permitted.
    """
    array = read_nifti(file, ndim=(2, 3, 4)).array
    if array.ndim == 2:
        return array[..., None]
    if array.ndim == 4 and array.shape[3] != 1:
        raise DataFault(
            f"{file}: image is 4D of shape {array.shape}, expected three axes; write one file per "
            "channel"
        )
    return array[..., 0] if array.ndim == 4 else array


@dataclass(frozen=True)
class CentreSampling:
    """The distribution of centres."""

    kind: int = PER_CLASS  # one of ``configs.SAMPLINGS``
    classes: int = 2  # background included
    # of the categories: foreground and background, or each class; None for equal
    proportions: tuple[float, ...] | None = None

    @classmethod
    def from_config(
        cls, config: TrainConfig, classes: int, which: Literal["train", "validation"] = "train"
    ) -> CentreSampling:
        """Read the sampling of a configuration, for training or for validation on samples.

        Raises:
            DataFault: weight maps, which are not supported here, or invalid proportions.
        """
        kind = config.sampling if which == "train" else config.sampling_validation
        file, (shares, maps) = ConfigFile(config.path, config.values), _KEYS[which]
        if file.values.get(maps) is not None:
            expected = "no weight maps where torch trains; leave it out, or use DeepMedic"
            raise file.odd(maps, expected)
        sampling = cls(kind, classes)
        proportions = file.get(shares, tuple[Weight, ...], None)
        if proportions is None or kind not in (FORE_BACKGROUND, PER_CLASS):
            return sampling
        if len(proportions) != sampling.categories or sum(proportions) <= 0:
            raise file.odd(shares, f"{sampling.categories} numbers, one above 0 among them")
        return cls(kind, classes, proportions)

    @property
    def categories(self) -> int:
        """Number of categories among which segments are divided."""
        return {FORE_BACKGROUND: 2, PER_CLASS: self.classes}.get(self.kind, 1)

    def places(self, labels: npt.NDArray[np.int16], allowed: BoolArray) -> list[IntArray]:
        """Return the flat indices of each category's voxels.

        Args:
            labels: (X, Y, Z).
            allowed: bool (X, Y, Z), the allowed centres.
        """
        masks = category_masks(self.kind, labels, self.classes)
        return [np.flatnonzero(mask & allowed) for mask in masks]


@dataclass(frozen=True)
class SegmentCentres:
    """Centres of segments in one case."""

    voxels: IntArray  # int64 (N, 3)
    categories: IntArray  # int64 (N,), category of each centre
    restricted: bool  # whether they are preferred centres, see ``draw_centres``


def draw_centres(
    sampling: CentreSampling,
    geometry: SegmentGeometry,
    count: int,
    rng: np.random.Generator,
    *,
    labels: npt.NDArray[np.int16],
    roi: npt.NDArray[np.int16] | None,
    core: BoolArray | None = None,
    name: str = "case",
) -> SegmentCentres:
    """Draw centres with replacement whose segments lie in the volume.

    Args:
        labels: (X, Y, Z).
        roi: (X, Y, Z), the allowed centres; None for everywhere.
        core: (X, Y, Z), the preferred centres; without a possible one, ``roi`` alone counts.
    """
    box = geometry.centres(labels.shape)
    if any(cut.start >= cut.stop for cut in box):
        raise DataFault(
            f"{name}: padded, it has shape {labels.shape}, expected at least a segment's "
            f"{geometry.segment}; leave the case out, or make segments smaller (segmentsDimTrain)"
        )
    inner = labels[box]
    within = np.ones(inner.shape, np.bool_) if roi is None else roi[box] > 0
    for limit in (None,) if core is None else (core, None):
        allowed = within if limit is None else within & limit[box]
        places = sampling.places(inner, allowed)
        shares = _shares(sampling, [len(voxels) > 0 for voxels in places])
        if shares is not None:
            counts = _distribute(count, shares, rng)
            flat = [
                rng.choice(of, n) if n else of[:0] for of, n in zip(places, counts, strict=True)
            ]
            voxels = np.stack(np.unravel_index(np.concatenate(flat), inner.shape), axis=1)
            voxels = voxels.astype(np.int64) + [cut.start for cut in box]
            kinds = np.repeat(np.arange(len(counts)), counts)
            return SegmentCentres(voxels, kinds, core is None or limit is not None)
    raise DataFault(
        f"{name}: no voxel to centre a segment at. The region of interest, or the sampled classes, "
        f"have no voxel far enough from the border for segments of {geometry.segment}. Leave the "
        "case out, or make segments smaller (segmentsDimTrain)"
    )


def _shares(sampling: CentreSampling, present: list[bool]) -> npt.NDArray[np.float64] | None:
    """Return each category's share without absent ones, or None if all are absent."""
    proportions = np.asarray(sampling.proportions or (1.0,) * sampling.categories)
    shares: npt.NDArray[np.float64] = np.where(present, proportions, 0.0)
    total = shares.sum()
    return shares / total if total > 0 else None


def _distribute(count: int, shares: npt.NDArray[np.float64], rng: np.random.Generator) -> IntArray:
    """Return whole numbers that add up to ``count``; the remainder is assigned at random."""
    counts: IntArray = np.floor(count * shares + _ROUNDING).astype(np.int64)
    remainder = count - int(counts.sum())
    np.add.at(counts, rng.choice(len(shares), remainder, p=shares), 1)
    return counts
