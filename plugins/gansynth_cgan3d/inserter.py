"""Insert lesions into real images (``cgan3d-lesion``).

*Coarse*: another case's lesion is faded into the background. *Refine*: the generator draws lesion
and rim. Beyond the rim the background is returned bit for bit. Training starts from a real case
whose lesion is mirrored and given the contrast of another case, on its unchanged label map. So no
sample depends on the other cases of its batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gansynth import (
    OUTSIDE,
    Batch,
    Case,
    Condition,
    Schema,
    TrainingStep,
    lesion_mask,
    paste_soft,
    rim_voxels,
)
from gansynth.imaging.blending import dress, fade, hole, steps_from
from gansynth_cgan3d.options import CGAN3DLesionOptions

LEAST_LESION_VOXELS = 4  # lesion voxels that a crop needs in its inner part to be used for training
MARGIN = 8  # a crop's border, which does not count, is its edge divided by this
ENLARGED = 3
"""Most voxels by which a hole is enlarged in training: what it shows is not always lesion."""
GRID = 4  # edge of the grid of random numbers that enlarges holes in training
SOFT = 0.2
"""Largest sub-voxel shift of a lesion in training, in voxels: it blurs as much as spline edits."""
GAIN = 0.15  # standard deviation of the logarithm of the random contrast factor in training


LEAST_DEVIATION = 1e-6  # deviation of an image below which it is even


@dataclass(frozen=True)
class ImageUnits:
    """Mean and deviation (B or 1, C, 1, ...) of real images, for the networks.

    Images with a drawn lesion have their own, of what lies around it. Whole images share those of
    the training cases. A source may hold grey values from 0 to 1.
    """

    mean: Tensor
    deviation: Tensor

    def of(self, channels: Sequence[int]) -> ImageUnits:
        """Return the units of some channels."""
        return ImageUnits(self.mean[:, channels], self.deviation[:, channels])

    def standardised(self, image: Tensor) -> Tensor:
        """Return images (B, C, ...) in these units."""
        return (image - self.mean) / self.deviation

    def restored(self, image: Tensor, *, residual: bool = False) -> Tensor:
        """Return images, or differences of images, in the source's units."""
        return image * self.deviation if residual else image * self.deviation + self.mean


@dataclass(frozen=True)
class LesionInsertion:
    """The images and masks of a batch of insertions.

    ``background``: float32 (B, C, ...). ``hole``: bool (B, 1, ...), the voxels that may change.
    ``weight``: float32 (B, 1, ...), 1 in the lesion, falling to 0 across the rim. ``start``:
    float32 (B, C, ...), the background with the generator's start image in the hole.
    """

    background: Tensor
    hole: Tensor
    weight: Tensor
    start: Tensor

    @cached_property
    def units(self) -> ImageUnits:
        """Units of each image; voxels of its hole do not count."""
        image, known = self.background.float(), (~self.hole).float()
        axes = tuple(range(2, image.ndim))
        count = known.sum(axes, keepdim=True).clamp_min(1)
        mean = (image * known).sum(axes, keepdim=True) / count
        square = ((image - mean).square() * known).sum(axes, keepdim=True) / count
        deviation = square.sqrt()
        return ImageUnits(mean, torch.where(deviation > LEAST_DEVIATION, deviation, 1.0))

    def composed(self, drawn: Tensor) -> Tensor:
        """Return generated lesions (B, C, ...) in their images; the rest is the background."""
        mixed = torch.lerp(self.background, drawn, self.weight)
        return torch.where(self.hole, mixed, self.background)


class LesionInserter:
    """Makes insertions from conditions or real cases; UsageFault: an unknown lesion label."""

    def __init__(self, schema: Schema, options: CGAN3DLesionOptions) -> None:
        self.schema, self.options = schema, options
        self.values = schema.lesion_values(options.lesions)
        self.rim = rim_voxels(options.rim_mm, schema.spacing)
        self.statistics = LesionStatistics(self.values, len(schema.channels))

    # -- training cases --------------------------------------------------------------------------

    def accepts(self, case: Case) -> bool:
        """Return whether a crop shows a lesion in its inner part, not only at its border."""
        if case.labels is None:
            return False
        inner = tuple(slice(n // MARGIN, n - n // MARGIN) for n in case.labels.shape)
        return int(np.isin(case.labels[inner], self.values).sum()) >= LEAST_LESION_VOXELS

    def of_step(self, step: TrainingStep) -> LesionInsertion:
        """Return the insertion in a step's real cases, which the generator learns to undo."""
        batch = step.batch
        assert batch.labels is not None, "training cases have labels"
        background, labels = batch.image, batch.labels
        lesion = self._lesion(labels)
        mask = self._enlarged(step, lesion)
        beyond = self._unknown(batch, labels)
        start = None
        if self.options.stage == "both":
            donor = self._disguised(step, background, torch.where(lesion[:, 0], labels, 0))
            start = paste_soft(background, donor, mask, self.rim)
        return self._insertion(background, mask, beyond, start)

    def of_real(self, batch: Batch) -> LesionInsertion:
        """Return insertions of real cases: the hole is the case's lesion and stays empty."""
        assert batch.labels is not None, "training cases have labels"
        beyond = self._unknown(batch, batch.labels)
        return self._insertion(batch.image, self._lesion(batch.labels), beyond, None)

    @staticmethod
    def _unknown(batch: Batch, labels: Tensor) -> Tensor:
        """Return voxels outside the body or the case, bool (B, 1, ...), where nothing changes."""
        beyond = (labels == OUTSIDE)[:, None]
        return beyond if batch.padding is None else beyond | batch.padding[:, None]

    def _enlarged(self, step: TrainingStep, lesion: Tensor) -> Tensor:
        """Return lesions, half of them enlarged at random, by less than ``ENLARGED`` voxels."""
        shape = lesion.shape[2:]
        amount = (2 * step.rand(1, *[1] * len(shape)) - 1).clamp_min(0)
        coarse = step.rand(1, *[min(GRID, n) for n in shape])
        mode = "trilinear" if len(shape) == 3 else "bilinear"
        reach = F.interpolate(coarse, shape, mode=mode, align_corners=True) * 2 * amount
        widest = rim_voxels(ENLARGED * min(self.schema.spacing), self.schema.spacing)
        return lesion | (steps_from(lesion, widest) < reach.clamp_max(1))

    def _disguised(self, step: TrainingStep, image: Tensor, lesion: Tensor) -> Tensor:
        """Return real lesions mirrored and with another contrast, on their own label map."""
        pull = _mirror(step, lesion > 0)
        donor, donor_lesion = pulled(image, pull), pulled(lesion[:, None], pull)[:, 0]
        statistics = self.statistics.to(image.device)
        noise = step.randn(*image.shape[1:])
        dressed = dress(
            lesion,
            donor,
            donor_lesion,
            self.values,
            statistics["means"],
            deviations=statistics["deviations"],
            noise=noise,
        )
        trailing, spread = [1] * (image.ndim - 2), statistics["between"]
        gain = torch.exp(GAIN * step.randn(1, *trailing))
        shift = step.randn(len(spread), image.shape[1]) * spread
        changed = dressed * gain
        for row, value in enumerate(self.values):
            moved = changed + shift[:, row].reshape(*shift[:, row].shape, *trailing)
            changed = torch.where((lesion == value)[:, None], moved, changed)
        return _softened(step, changed)

    # -- conditions ------------------------------------------------------------------------------

    def of_conditions(
        self, conditions: Sequence[Condition], device: torch.device
    ) -> LesionInsertion:
        """Return the insertions of conditions; DataFault: no background, lesion or donor."""

        def stacked(key: str) -> Tensor:
            return torch.from_numpy(np.stack([c.required(key) for c in conditions])).to(device)

        background, labels = stacked("background").float(), stacked("labels")
        mask = torch.from_numpy(np.stack([lesion_mask(c) for c in conditions])).to(device)[:, None]
        start = None
        if self.options.stage != "refine":
            start = paste_soft(background, stacked("donor").float(), mask, self.rim)
        return self._insertion(background, mask, self._beyond(conditions, labels), start)

    @staticmethod
    def _beyond(conditions: Sequence[Condition], labels: Tensor) -> Tensor:
        """Return voxels outside the case or the body, bool (B, 1, ...), where nothing changes."""
        beyond = labels == OUTSIDE
        for row, condition in enumerate(conditions):
            if condition.body is not None:
                drawable = condition.body | lesion_mask(condition)
                beyond[row] |= ~torch.from_numpy(drawable).to(labels.device)
        return beyond[:, None]

    # -- both ------------------------------------------------------------------------------------

    def _insertion(
        self, background: Tensor, mask: Tensor, beyond: Tensor, start: Tensor | None
    ) -> LesionInsertion:
        """Return an insertion; ``beyond`` is left out of its hole, no start means neutral."""
        region = hole(mask, self.rim) & ~beyond
        if start is None:
            neutral = self.statistics.to(background.device)["neutral"]
            start = neutral.reshape(1, -1, *[1] * (background.ndim - 2))
        weight = torch.where(region, fade(mask, self.rim), 0.0)
        return LesionInsertion(background, region, weight, torch.where(region, start, background))

    def _lesion(self, labels: Tensor) -> Tensor:
        """Return the voxels of lesions, bool (B, 1, ...)."""
        return torch.isin(labels, self.statistics.to(labels.device)["values"])[:, None]


def _mirror(step: TrainingStep, mask: Tensor) -> list[Tensor]:
    """Return source indices of a mirroring about a mask's centroid, int64 (B, n) per axis."""
    axes = mask.ndim - 1
    flipped = step.rand(axes) < 0.5
    fallback = (step.rand(1) * axes).long().clamp_max(axes - 1)
    lone = torch.zeros_like(flipped).scatter_(1, fallback, True)
    flipped = flipped | (lone & ~flipped.any(1, keepdim=True))
    pull = []
    for axis, length in enumerate(mask.shape[1:]):
        at = torch.arange(length, device=mask.device)
        middle = centroid(mask, axis)
        mirrored = (2 * middle).round().long()[:, None] - at
        source = torch.where(flipped[:, axis, None], mirrored, at)
        pull.append(source.clamp(0, length - 1))
    return pull


def centroid(mask: Tensor, axis: int) -> Tensor:
    """Return masks' (B, ...) mean position on an axis, float32 (B,); the middle if empty."""
    others = [a + 1 for a in range(mask.ndim - 1) if a != axis]
    counts = mask.float().sum(others) if others else mask.float()
    at = torch.arange(counts.shape[1], device=mask.device, dtype=torch.float32)
    volume = counts.sum(1)
    middle = (counts.shape[1] - 1) / 2
    return torch.where(volume > 0, (counts * at).sum(1) / volume.clamp_min(1), middle)


def pulled(x: Tensor, pull: Sequence[Tensor]) -> Tensor:
    """Return (B, C, ...) with voxels taken from the indices in ``pull``, axis by axis."""
    for axis, index in enumerate(pull, start=2):
        shape = [len(index), *[1] * (x.ndim - 1)]
        shape[axis] = index.shape[1]
        x = torch.take_along_dim(x, index.reshape(shape), axis)
    return x


def _softened(step: TrainingStep, x: Tensor) -> Tensor:
    """Return (B, C, ...) shifted along each axis by up to ``SOFT`` voxels, interpolated."""
    axes = x.ndim - 2
    off = SOFT * step.rand(axes)
    for axis in range(2, x.ndim):
        last = x.shape[axis] - 1
        ends = [x.narrow(axis, 1, last), x.narrow(axis, last, 1)]
        share = off[:, axis - 2].reshape(-1, *[1] * (axes + 1))
        x = torch.lerp(x, torch.cat(ends, axis), share)
    return x


class LesionStatistics:
    """Intensities of each lesion class, float32 (values, C), and of the body around, (C,)."""

    def __init__(self, values: Sequence[int], channels: int) -> None:
        self.values = tuple(values)
        shape = (len(self.values), channels)
        self.means, self.deviations = torch.zeros(shape), torch.zeros(shape)
        self.between, self.neutral = torch.zeros(shape), torch.zeros(channels)
        self._on: dict[torch.device, Mapping[str, Tensor]] = {}

    def fit(self, cases: Iterable[Case]) -> None:
        """Fit to crops; a class that no crop shows gets the statistics of all lesions."""
        self._on.clear()
        moments: dict[int, list[tuple[Any, Any]]] = {value: [] for value in self.values}
        bodies = []
        for case in cases:
            labels = case.labels
            assert labels is not None, "training cases have labels"
            body = (labels != OUTSIDE) & ~np.isin(labels, self.values)
            if body.any():
                bodies.append(case.image[:, body].mean(1, dtype=np.float64))
            for value in self.values:
                voxels = case.image[:, labels == value]
                if voxels.size:
                    moments[value].append((voxels.mean(1, dtype=np.float64), voxels.std(1)))
        if bodies:
            self.neutral = _tensor(np.mean(bodies, axis=0))
        all_moments = [pair for pairs in moments.values() for pair in pairs]
        if not all_moments:
            return
        for row, value in enumerate(self.values):
            shown = moments[value] or all_moments
            means = np.array([mean for mean, _ in shown])
            deviations = np.array([deviation for _, deviation in shown])
            self.means[row] = _tensor(means.mean(0))
            self.deviations[row] = _tensor(deviations.mean(0))
            self.between[row] = _tensor(means.std(0))

    def to(self, device: torch.device) -> Mapping[str, Tensor]:
        """Return all statistics and the label values on a device, brought there once."""
        if device not in self._on:
            on = {key: getattr(self, key).to(device) for key in _KEYS}
            on["values"] = torch.tensor(self.values, device=device)
            self._on[device] = on
        return self._on[device]

    def to_json(self) -> dict[str, Any]:
        """Return lists of numbers by attribute name."""
        return {key: getattr(self, key).tolist() for key in _KEYS}

    def load_json(self, doc: Mapping[str, Any]) -> None:
        """Restore what ``to_json`` wrote; an empty document changes nothing."""
        self._on.clear()
        for key in _KEYS:
            if key in doc:
                setattr(self, key, torch.tensor(doc[key], dtype=torch.float32))


_KEYS = ("means", "deviations", "between", "neutral")


def _tensor(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)
