"""Where segments are centred: as often in each class as asked for, within the region of interest.

As DeepMedic's ``dataManagement/samplingType.py`` and ``sampling.py`` (commit e10ba7c), but for a
region of interest with values beyond 1: each of its voxels counts once here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.engine.geometry import Geometry
from gansynth_deepmedic.keys import Keys

if TYPE_CHECKING:
    from gansynth_deepmedic.configs import TrainConfig

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
LESION, UNIFORM, WHOLE, CLASSES = range(4)
"""typeOfSampling: foreground and background; uniform; whole image (as uniform); per class."""
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
class Sampling:
    """What decides on centres."""

    kind: int = CLASSES  # ``LESION``, ``UNIFORM``, ``WHOLE`` or ``CLASSES``
    classes: int = 2  # background included
    # of the categories: foreground and background, or each class; None for equal
    proportions: tuple[float, ...] | None = None

    @classmethod
    def from_config(
        cls, config: TrainConfig, classes: int, which: Literal["train", "validation"] = "train"
    ) -> Sampling:
        """What a configuration says for training or for validation on samples.

        Raises:
            DataFault: weight maps, which are not sampled by here, or odd proportions.
        """
        kind = config.sampling if which == "train" else config.sampling_validation
        keys, (shares, maps) = Keys(config.path, config.values), _KEYS[which]
        if keys.has(maps):
            raise keys.odd(
                maps, "no weight maps where torch trains; leave it out, or use DeepMedic"
            )
        sampling = cls(kind, classes)
        if not keys.has(shares) or kind not in (LESION, CLASSES):
            return sampling
        found = keys.numbers(shares, count=sampling.categories, low=0)
        if sum(found) <= 0:
            raise keys.odd(shares, "a number above 0 among them")
        return cls(kind, classes, found)

    @property
    def categories(self) -> int:
        """What segments are shared out among."""
        return {LESION: 2, CLASSES: self.classes}.get(self.kind, 1)

    def places(self, labels: npt.NDArray[np.int16], allowed: BoolArray) -> list[IntArray]:
        """Flat indices of each category's voxels.

        Args:
            labels: (X, Y, Z).
            allowed: bool (X, Y, Z): where centres may be.
        """
        if self.kind == CLASSES:
            masks = [labels == label for label in range(self.classes)]
        elif self.kind == LESION:
            masks = [labels > 0, labels <= 0]
        else:
            return [np.flatnonzero(allowed)]
        return [np.flatnonzero(mask & allowed) for mask in masks]


@dataclass(frozen=True)
class Centres:
    """Centres within one case."""

    voxels: IntArray  # int64 (N, 3)
    categories: IntArray  # int64 (N,), which of the sampling's categories each was drawn for
    restricted: bool  # whether they were drawn where they had better be, see ``draw_centres``


def draw_centres(
    sampling: Sampling,
    geometry: Geometry,
    count: int,
    rng: np.random.Generator,
    *,
    labels: npt.NDArray[np.int16],
    roi: npt.NDArray[np.int16] | None,
    core: BoolArray | None = None,
    name: str = "case",
) -> Centres:
    """Draw centres, with replacement, so that whole segments lie in the volume.

    Args:
        labels: (X, Y, Z).
        roi: (X, Y, Z), where centres may be; None for everywhere.
        core: (X, Y, Z), where they had better be; where nothing can be, everywhere is good enough.

    Raises:
        DataFault: the volume is smaller than a segment, or there is nothing to draw.
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
        shares = _shares(sampling, [len(found) > 0 for found in places])
        if shares is not None:
            counts = _distribute(count, shares, rng)
            flat = [
                rng.choice(of, n) if n else of[:0] for of, n in zip(places, counts, strict=True)
            ]
            voxels = np.stack(np.unravel_index(np.concatenate(flat), inner.shape), axis=1)
            voxels = voxels.astype(np.int64) + [cut.start for cut in box]
            kinds = np.repeat(np.arange(len(counts)), counts)
            return Centres(voxels, kinds, core is None or limit is not None)
    raise DataFault(
        f"{name}: no voxel to centre a segment at: the region of interest, if there is one, or the "
        f"classes that are sampled are not to be found {geometry.segment} away from the border; "
        "leave the case out, or make segments smaller (segmentsDimTrain)"
    )


def _shares(sampling: Sampling, present: list[bool]) -> npt.NDArray[np.float64] | None:
    """Each category's share, those that are absent passing theirs on; None if nothing is left."""
    wanted = np.asarray(sampling.proportions or (1.0,) * sampling.categories)
    shares: npt.NDArray[np.float64] = np.where(present, wanted, 0.0)
    total = shares.sum()
    return shares / total if total > 0 else None


def _distribute(count: int, shares: npt.NDArray[np.float64], rng: np.random.Generator) -> IntArray:
    """Whole numbers that add up to ``count``; what is left over goes to categories at random."""
    counts: IntArray = np.floor(count * shares + _ROUNDING).astype(np.int64)
    rest = count - int(counts.sum())
    np.add.at(counts, rng.choice(len(shares), rest, p=shares), 1)
    return counts
