"""``DeepMedicSegments``: real and synthetic segments of a subepoch as a torch data set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gansynth.core.mix_config import MixerConfig
from gansynth.core.ratio import Ratio
from gansynth.hosts.epoch_plan import count_places
from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.engine.augment import SegmentAugmentation
from gansynth_deepmedic.engine.cutting import CentreSampling, IntArray, SegmentCutter, Segments, cut
from gansynth_deepmedic.engine.geometry import SegmentGeometry
from gansynth_deepmedic.engine.subepochs import Read, SegmentJob, SubepochCase, Subepochs
from gansynth_deepmedic.insertion import OUTSIDE, HostCase

_SHARE, _SHUFFLE, _CUT = 30, 31, 32
logger = logging.getLogger("gansynth")
Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any] | None]
"""Image (C, D, H, W), labels (D, H, W), and region of interest (D, H, W) or None.

Sources set labels outside the region to -1. Without a region these labels define it.
"""
_AS_THEY_ARE = ((2, 1), (1, 1), (0, 1))  # `HostCase.stored` of files whose axes are z, y, x


@dataclass(frozen=True)
class SubepochSegments:
    """All segments of a subepoch, shuffled."""

    subepoch: int  # counted from 0
    segments: Segments  # arrays of N of them
    synthetic: npt.NDArray[np.bool_]  # bool (N,), whether each is of a synthetic case
    jobs: tuple[SegmentJob, ...]  # the cases of the segments


class DeepMedicSegments(Dataset[dict[str, Tensor]]):
    """The segments of one subepoch; ``set_subepoch`` changes to another.

    An item is ``{"high": float32 (C, X, Y, Z), "low_0": float32 (C, X', Y', Z'), ...,
    "labels": int64 (X'', Y'', Z''), "synthetic": bool ()}``: the segment, one context for each
    factor, and the labels of the part that a network without padding predicts. Items are shuffled
    and in memory, so workers or shuffling of a ``DataLoader`` are of no use.

    All cases of a subepoch give equal numbers of segments, up to one. So R:S of the cases is R:S of
    the segments. Random numbers depend on the seeds only, not on the order of subepochs. Volumes
    are released once they are cut.

    Args:
        subepochs: the cases of each subepoch.
        read: a function that reads a file: ``cutting.read_volume``.
        geometry: geometry of the segments.
        cutting: their sampling and augmentation: ``SegmentCutter.from_configs``.
        segments: segments of a subepoch, at least one for each case.
        seed: seed of sampling and augmentation, beside that of the subepochs.
        augment: whether segments are augmented.
        augment_synthetic: whether synthetic ones are augmented too.
        tell: called with ``job=...`` for each case when its subepoch begins: ``Progress.tell``.
    """

    def __init__(
        self,
        subepochs: Subepochs,
        read: Read,
        geometry: SegmentGeometry,
        cutting: SegmentCutter,
        *,
        segments: int,
        seed: int = 0,
        augment: bool = True,
        augment_synthetic: bool = True,
        tell: Callable[..., None] | None = None,
    ) -> None:
        if segments < len(subepochs):
            raise ValueError(f"{segments} segments, expected one for each of {len(subepochs)}")
        if cutting.augment is not None and augment:
            cutting.augment.check(geometry)
        self.subepochs, self.read = subepochs, read
        self.geometry, self.cutting = geometry, cutting
        self.segments, self.seed = segments, seed
        self.augment, self.augment_synthetic = augment, augment_synthetic
        self._tell = tell
        self._now: SubepochSegments | None = None

    @classmethod
    def of(
        cls,
        cases: Mapping[str, Arrays],
        bank: Path | None = None,
        ratio: str = "1:1",
        *,
        segment: int = 25,
        receptive: int = 17,
        factors: Sequence[int] = (3,),
        segments: int = 1000,
        cases_per_subepoch: int | None = None,
        classes: int | None = None,
        units: Sequence[tuple[float, float]] | None = None,
        augment: bool = True,
        seed: int = 0,
    ) -> DeepMedicSegments:
        """Return the segments of cases in memory, for a user's training loop.

        DeepMedic's defaults apply: equal numbers of segments of each class, slightly shifted and
        scaled intensities, and mirroring of the last axis with probability 0.5. The network's paths
        have no padding, and a receptive field of ``receptive``::

            bank = gansynth.fill_bank("runs/g0", "bank", samples=64)
            data = DeepMedicSegments.of({"pat1": (image, labels, roi), ...}, bank, "1:2")
            for subepoch in range(100):
                data.set_subepoch(subepoch)
                for batch in DataLoader(data, batch_size=10):
                    logits = network(batch["high"], [batch["low_0"]])
                    loss = cross_entropy(logits, batch["labels"])

        Args:
            cases: id -> image (C, D, H, W), labels (D, H, W), and region of interest (D, H, W) or
                None. Ids and axes are those to which the bank's generator was fitted. Labels of -1
                are outside the region, as from a source's ``load``.
            bank: sample bank of crops of these cases, from ``gansynth.fill_bank`` or ``live_bank``;
                None for real cases only.
            ratio: real:synthetic.
            segment: voxels along each axis of the input of the path at full resolution.
            receptive: receptive field, in voxels.
            factors: factors of the subsampled paths.
            segments: segments of a subepoch.
            cases_per_subepoch: None for every real case once, and the synthetic ones of the ratio.
            classes: number of classes with background; None for that of the labels.
            units: (scale, offset) of each channel from the bank's samples to these images.
            augment: whether segments are augmented at random.
            seed: seed of all random numbers.

        Raises:
            DataFault: shapes that do not fit.
            UsageFault: a ratio that is none.
        """
        hosts, read = in_memory(cases, units)
        mixed = Ratio.parse(ratio if bank is not None else "1:0")
        count = cases_per_subepoch or count_places(mixed, len(hosts))
        top = max(int(labels.max()) for _, labels, _ in cases.values()) + 1
        return cls(
            Subepochs(MixerConfig(bank, mixed, seed=seed), hosts, count),
            read,
            SegmentGeometry.cubes(segment, receptive, factors),
            SegmentCutter(
                CentreSampling(classes=max(2, classes or top)),
                augment=SegmentAugmentation.usual(axis=2),
            ),
            segments=segments,
            seed=seed,
            augment=augment,
        )

    def __len__(self) -> int:
        return self.segments

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"segment {index} of {len(self)}")
        index %= len(self)
        return {name: values[0] for name, values in self.batch(index, index + 1).items()}

    def batch(self, begin: int, end: int) -> dict[str, Tensor]:
        """Return the items from ``begin`` to before ``end`` as a batch: (B, C, X, Y, Z) ...

        Images share their memory with the data set.
        """
        if self._now is None:
            self.set_subepoch(0)
        assert self._now is not None, "drawn above"
        segments, rows = self._now.segments, slice(begin, end)
        arrays = {"high": segments.high}
        arrays |= {f"low_{number}": low for number, low in enumerate(segments.low)}
        return {
            **{name: torch.from_numpy(array[rows]) for name, array in arrays.items()},
            "labels": torch.from_numpy(segments.labels[rows].astype(np.int64)),
            "synthetic": torch.from_numpy(self._now.synthetic[rows].copy()),
        }

    @property
    def jobs(self) -> tuple[SegmentJob, ...]:
        """The cases of the current segments."""
        return () if self._now is None else self._now.jobs

    def set_subepoch(self, k: int, drawn: SubepochSegments | None = None) -> None:
        """Change to a subepoch (DataFault, TrainingFault: see ``draw``)."""
        if drawn is None:
            self._now = None  # two subepochs need twice the memory
            drawn = self.draw(k)
        if drawn.subepoch != k:
            raise ValueError(f"segments of subepoch {drawn.subepoch}, expected {k}")
        self._now = drawn
        for job in drawn.jobs if self._tell is not None else ():
            assert self._tell is not None
            self._tell(job=job.to_json())

    def draw(self, k: int) -> SubepochSegments:
        """Return the segments of subepoch k without changing state; another thread may draw ahead.

        Raises:
            DataFault: a case cannot be used.
            TrainingFault: there is no sample where no real case may take its place.
        """
        places = self.subepochs.order(k)
        channels = len(self.subepochs.cases[0].channels)
        segments = Segments.empty(self.segments, channels, self.geometry)
        synthetic = np.zeros(self.segments, np.bool_)
        rows = np.split(
            self._rng(_SHUFFLE, k).permutation(self.segments), np.cumsum(self._counts(places))[:-1]
        )
        jobs = []
        for place, indices in zip(places, rows, strict=True):
            jobs.append(self._fill(place, segments, indices))
            synthetic[indices] = bool(jobs[-1].sample)
        return SubepochSegments(k, segments, synthetic, tuple(jobs))

    def _fill(self, place: SubepochCase, segments: Segments, rows: IntArray) -> SegmentJob:
        """Cut the segments of one slot, and release its volume."""
        case = self.subepochs.load(place, self.read)
        augment = self.augment and (self.augment_synthetic or not case.sample)
        rng = self._rng(_CUT, place.subepoch, place.number)
        where = cut(case, self.geometry, self.cutting, rng, segments, rows, augment=augment)
        if not where.restricted:
            logger.warning(
                "%s: no segment can be centred on what of %s is synthetic: too near the border for "
                "segments of %s, or of no class that is sampled; centred anywhere in the case",
                case.case,
                case.sample,
                self.geometry.segment,
            )
        return SegmentJob.of(place, case, len(rows), spread=not where.restricted)

    def _counts(self, places: Sequence[SubepochCase]) -> list[int]:
        """Return the segments of each slot; a remainder is shared to keep R:S of the segments."""
        each, remainder = divmod(self.segments, len(places))
        counts = [each] * len(places)
        rng = self._rng(_SHARE, places[0].subepoch)
        kinds: dict[bool, list[int]] = {False: [], True: []}
        for number in rng.permutation(len(places)):
            kinds[places[number].synthetic].append(int(number))
        drawn = (2 * remainder * len(kinds[True]) + len(places)) // (2 * len(places))
        for number in (*kinds[True][:drawn], *kinds[False][: remainder - drawn]):
            counts[number] += 1
        return counts

    def _rng(self, *key: int) -> np.random.Generator:
        return self.subepochs.rng(*key, self.seed)


def in_memory(
    cases: Mapping[str, Arrays], units: Sequence[tuple[float, float]] | None = None
) -> tuple[list[HostCase], Read]:
    """Return cases whose files are names, and a function that reads these."""
    files: dict[str, npt.NDArray[Any]] = {}
    hosts = []
    for case, (image, labels, roi) in cases.items():
        _check(case, image, labels, roi)
        if (labels == OUTSIDE).any():
            inside = labels != OUTSIDE
            roi = inside.astype(np.int16) if roi is None else roi
            labels = np.where(inside, labels, 0)
        channels = {f"{case}/{number}": channel for number, channel in enumerate(image)}
        files |= {**channels, f"{case}/labels": labels}
        if roi is not None:
            files[f"{case}/roi"] = roi
        scales = tuple(units) if units is not None else ((1.0, 0.0),) * len(image)
        if len(scales) != len(image):
            raise DataFault(f"{case}: {len(image)} channel(s), expected units for each of them")
        hosts.append(
            HostCase(
                case,
                tuple(channels),
                f"{case}/labels",
                None if roi is None else f"{case}/roi",
                tuple(labels.shape),
                _AS_THEY_ARE,
                scales,
            )
        )
    if len({len(host.channels) for host in hosts}) != 1:
        raise DataFault("no cases, or cases of different numbers of channels; expected the same")
    return hosts, files.__getitem__


def _check(
    case: str, image: npt.NDArray[Any], labels: npt.NDArray[Any], roi: npt.NDArray[Any] | None
) -> None:
    shape = image.shape[1:]
    others = [labels.shape] if roi is None else [labels.shape, roi.shape]
    if len(shape) != 3 or any(size != shape for size in others):
        raise DataFault(
            f"{case}: image has shape {image.shape}, labels and region of interest {others}; "
            "expected (C, D, H, W) and (D, H, W)"
        )
    if not np.isfinite(image).all():
        raise DataFault(f"{case}: image holds values that are not finite; replace them")
