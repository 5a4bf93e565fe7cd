"""Training data of a host: crops of real cases and of samples of a bank, mixed by the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gansynth.bank.reader import BankSample
from gansynth.core.foreground import ForegroundIndex
from gansynth.core.geometry import mask_of
from gansynth.core.schema import (
    Case,
    FloatArray,
    LabelArray,
    known_labels,
)
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement, Space
from gansynth.data.batches import CaseCache
from gansynth.hosts.mixing.epoch_plan import EpochPlan, EpochTable
from gansynth.hosts.mixing.mixer import Mixer, MixerConfig
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.option_kinds import size_text

Pair = tuple[FloatArray, LabelArray]
Augment = Callable[[FloatArray, LabelArray, np.random.Generator], Pair]
_SAMPLES, _MOVED, _FOREGROUND = 2, 3, 4
"""Numbers in the seeds: numpy takes (1, 2) and (1, 2, 0) for the same."""


def training_space(source: CaseSource, patch: tuple[int, ...] | None) -> Space:
    """Return the source's own space, or that of crops of ``patch`` of cases as they are stored."""
    space = source.space
    if space.grid == "slice":
        raise UsageFault(
            "hosts.source-read-as-slices",
            f"{source.name}: is read as slices, expected volumes (or pictures of two axes): "
            "nifti:, msd:, h5:",
        )
    if space.grid == "native" and patch is None:
        raise UsageFault(
            "hosts.whole-cases-without-crop-size",
            f"{source.name}: cases are read whole, each of its own shape, expected a size of "
            "training crops for batches of them: --set patch=64",
        )
    if patch is None:
        return space
    if len(patch) != source.schema.ndim:
        raise UsageFault(
            "hosts.patch-edges-differ-from-axes",
            f"--set patch={size_text(patch)}: {len(patch)} edges, expected {source.schema.ndim}, "
            "as the cases have axes",
        )
    return replace(space, grid="crop", size=patch, frame=(), nearest=False)


def misfit(space: Space, shape: Sequence[int]) -> str:
    """Return why samples of this spatial shape, in the source's voxels, do not fit, or ""."""
    if space.grid == "resample":
        whole = tuple(space.frame) or tuple(shape)
        if tuple(shape) != whole:
            return f"samples have {tuple(shape)} voxels, expected whole ones of {whole}"
        return ""
    if any(n < least for n, least in zip(shape, space.size, strict=True)):
        return f"samples have {tuple(shape)} voxels, expected at least {tuple(space.size)}"
    return ""


class CentredCrops(Space):
    """Crops centred at a voxel of each class equally often, background too, as DeepMedic has them.

    They reach beyond the border of a case, so that a network without padding learns there too. A
    sample's crops do not: it is part of a case, and its border is not that of the case.
    """

    def place(self, case: Case | ForegroundIndex, rng: np.random.Generator) -> Placement:
        """Draw a crop; as the base class where cases are not cut."""
        if not self.cuts:
            return super().place(case, rng)
        outline = ForegroundIndex.of(case) if isinstance(case, Case) else case
        centre = outline.class_voxel(rng)
        corner = [int(c) - s // 2 for c, s in zip(centre, self.size, strict=True)]
        if isinstance(case, Case):
            last = [n - s for n, s in zip(outline.shape, self.size, strict=True)]
            corner = np.clip(corner, 0, last).tolist()
        return Placement(tuple(corner))


@dataclass(eq=False, repr=False)
class TrainingData:
    """A training's items in order: the same for the same seed, place and frozen bank.

    Item ``i`` is sample ``i % batch_size`` of step ``i // batch_size``. A map-style data set for
    ``torch.utils.data.DataLoader``: ``sampler=job.remaining`` gives the batches of the steps.

    Attributes:
        space: of the items; see ``training_space`` and ``CentredCrops``.
        augment: applied to every real item, and to samples if ``augment_synthetic``.
        foreground: share of the real samples drawn from training cases with a label above 0.
    """

    source: CaseSource
    space: Space
    plan: MixerConfig[str]
    _: KW_ONLY
    steps: int
    batch_size: int
    augment: Augment | None = None
    augment_synthetic: bool = True
    foreground: float = 0.0

    def __post_init__(self) -> None:
        self.cases, self.plan = tuple(self.source.train_ids), replace(self.plan, stream=())
        self._cache = CaseCache(self.source)
        self._tables = EpochPlan.of(self.plan, self.cases, self.batch_size)
        self._last_table: tuple[int, EpochTable] | None = None
        self._mixer = Mixer(self.plan, self._misfit)

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one item, in new arrays.

        Returns:
            ``image`` float32 (C, D, H, W) or (C, H, W), ``labels`` int16 (D, H, W) or (H, W), the
            schema's ignore value among them, and ``synthetic``, whether it is a sample.

        Raises:
            IndexError: beyond the training.
            TrainingFault: there is no sample where no real case may take its place.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        step, number = divmod(index, self.batch_size)
        table = self._table_of(step)
        rng = self._rng(_SAMPLES, step, number)
        slot = self._mixer.fill(
            self._real_case(int(table.real[number]), step, number),
            table.mix,
            synthetic=bool(table.synthetic[number]),
            rng=rng,
            place=(step, number),
            turn=table.turn(number),
        )
        if slot.sample is None:
            drawn = self._cache.place(slot.real, self.space, rng)
            case, placement = drawn.case, drawn.placement
        else:
            sample = slot.sample
            case = Case(sample.id, "", sample.image.astype(np.float32), sample.labels)
            placement = self.space.place(known_labels(case, self.source.schema), rng)
        placed = self.space.to_generator(case, placement)
        assert placed.labels is not None, "cases and samples without labels are refused"
        image = np.array(placed.image, np.float32)
        labels = np.array(placed.labels, np.int16)
        if self.augment is not None and (slot.sample is None or self.augment_synthetic):
            image, labels = self.augment(image, labels, self._rng(_MOVED, step, number))
        return {"image": image, "labels": labels, "synthetic": slot.sample is not None}

    def _table_of(self, step: int) -> EpochTable:
        last = self._last_table  # threads may read at once
        if last is None or last[0] != step:
            self._last_table = last = step, self._tables.table(step)
        return last[1]

    def _misfit(self, sample: BankSample) -> str:
        if sample.labels is None:
            return "sample without labels"
        return misfit(self.space, sample.image.shape[1:])

    def _real_case(self, turn: int, step: int, number: int) -> str:
        rng = self._rng(_FOREGROUND, step, number)
        if not self.foreground or rng.random() >= self.foreground or not self._labelled:
            return self.cases[turn]
        return self._labelled[rng.integers(len(self._labelled))]

    @cached_property
    def _labelled(self) -> tuple[str, ...]:
        """Cases with a label above background; reads all cases."""
        foreground = self.source.schema.foreground
        labelled = []
        for case in self.cases:
            found = self._cache(case).labels
            if found is not None and mask_of(found, foreground).any():
                labelled.append(case)
        return tuple(labelled)

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence((self.plan.seed, *key)))
