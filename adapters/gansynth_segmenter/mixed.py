"""Training data of the network: real cases and samples of a bank, mixed by the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gansynth.core.mix_config import MixerConfig
from gansynth.core.schema import Case, FloatArray, LabelArray, replace_ignored
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.data.cache import CaseCache
from gansynth.hosts.epoch_plan import EpochPlan
from gansynth.hosts.mixer import BatchItem, Mixer
from gansynth.runtime.errors import UsageFault
from gansynth_segmenter.options import SegmenterOptions

if TYPE_CHECKING:
    from gansynth.bank.reader import BankSample
    from gansynth.core.generator import Batch, Stage
    from gansynth_segmenter.augmentation import AugmentationWarp

Pair = tuple[FloatArray, LabelArray]
_SAMPLES, _MOVED, _FOREGROUND = 2, 3, 4
"""Numbers in the seeds: numpy takes (1, 2) and (1, 2, 0) for the same."""


def training_space(source: CaseSource, options: SegmenterOptions) -> Space:
    """Return the space of a segmenter: the source's own, with crops of the requested size."""
    space = source.space
    patch = options.patch_of(source.schema.ndim)
    if space.grid == "slice":
        raise UsageFault(
            f"{source.name}: is read as slices, expected volumes (or pictures of two axes): "
            "nifti:, msd:, nnunet-raw:, h5:"
        )
    if space.grid == "native" and patch is None:
        raise UsageFault(
            f"{source.name}: cases are read whole, each of its own shape, expected a size of "
            "training crops for batches of them: --set patch=64"
        )
    if patch is None:
        return space
    if space.grid == "resample":
        text = ",".join(map(str, options.patch or ()))
        raise UsageFault(
            f"--set patch={text}: cases are brought to {space.size} voxels as a whole (--read "
            "whole=), expected no crops of them; leave one of them out"
        )
    return replace(space, grid="crop", size=patch)


class TrainingCrops:
    """Crops real cases and samples to new arrays of the training size."""

    def __init__(self, source: CaseSource, space: Space) -> None:
        self.source, self.space = source, space
        self.cache = CaseCache(source)
        self.schema = space.generator_schema(source.schema)

    @property
    def fill(self) -> tuple[float, ...]:
        """The padding value of each channel."""
        nothing = np.zeros((len(self.schema.channels), *[1] * self.schema.ndim), np.float32)
        bare = replace(self.space, grid="native", size=(), frame=(), nearest=False)
        return tuple(bare.to_generator(Case("", "", nothing)).image.ravel().tolist())

    def real(self, case_id: str, rng: np.random.Generator) -> Pair:
        """Return a real training case, cropped at random."""
        drawn = self.cache.place(case_id, self.space, rng)
        return self._arrays(self.space.to_generator(drawn.case, drawn.placement))

    def synthetic(self, sample: BankSample, rng: np.random.Generator) -> Pair:
        """Return a sample, cropped at random if it is larger than the training size."""
        assert sample.labels is not None, "others are refused"
        case = Case(sample.id, "", sample.image.astype(np.float32), sample.labels)
        return self._arrays(self.space.to_generator(case, self.space.place(case, rng)))

    def filled(self, slot: BatchItem[str], rng: np.random.Generator) -> Pair:
        """Return the arrays of a slot."""
        if slot.sample is None:
            return self.real(slot.real, rng)
        return self.synthetic(slot.sample, rng)

    def _arrays(self, case: Case) -> Pair:
        labels = case.labels
        assert labels is not None, "a source of unlabelled cases is refused"
        labels = replace_ignored(labels, self.schema)
        return np.array(case.image, np.float32), np.array(labels, np.int16)

    def misfit(self, sample: BankSample) -> str:
        """Return why a sample cannot be trained on, or ""."""
        if sample.labels is None:
            return "sample without labels"
        return misfit(self.space, sample.image.shape[1:])


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


class MixedCases:
    """Slots of batches in the order of access, for a user's training loop."""

    def __init__(
        self, cutter: TrainingCrops, plan: MixerConfig[str], cases: Sequence[str], batch_size: int
    ) -> None:
        self.cutter, self.cases, self.batch_size = cutter, tuple(cases), batch_size
        self.mixer = Mixer(plan, cutter.misfit)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Pair:
        """Return the next slot: the real case of this index, or the plan's sample in its place.

        Returns:
            image float32 (C, D, H, W) and labels int16 (D, H, W), both new arrays.

        Raises:
            IndexError: there is no such case.
            TrainingFault: a sample is missing, and no real case may replace it.
        """
        slot = self.mixer.slot(self.cases[index], self.batch_size)
        return self.cutter.filled(slot, self.mixer.rng)


class SegmenterBatches:
    """Batches for ``gansynth.training.loop.train``: the same for the same seed, step and bank.

    ``foreground``: share of the real samples drawn from training cases with a label above 0.
    """

    def __init__(
        self,
        cutter: TrainingCrops,
        plan: MixerConfig[str],
        cases: Sequence[str],
        *,
        batch_size: int,
        warp: AugmentationWarp | None = None,
        augment_synthetic: bool = True,
        foreground: float = 0.0,
    ) -> None:
        self.foreground = foreground
        self.cutter, self.plan, self.cases = cutter, replace(plan, stream=()), tuple(cases)
        chosen = tuple(self.cases.index(case) for case in plan.chosen)
        # Not another type of plan: the mixer names cases by id, a table of places by number.
        numbered = cast(MixerConfig[int], replace(cast(Any, self.plan), chosen=chosen))
        self.places = EpochPlan(numbered, len(self.cases), batch_size)
        self.warp, self.augment_synthetic = warp, augment_synthetic
        self.mixer = Mixer(self.plan, cutter.misfit)

    def __call__(self, step: int, stage: Stage, which: range) -> Batch:
        """Return the samples of one step on the CPU: image (B, C, D, H, W), labels (B, D, H, W).

        Raises:
            TrainingFault: there is no sample where no real case may take its place.
        """
        import torch

        from gansynth.core.generator import Batch

        table = self.places.table(step)
        pairs = []
        for number in which:
            rng = self._rng(_SAMPLES, step, number)
            slot = self.mixer.fill(
                self._real(int(table.real[number]), step, number),
                table.mix,
                synthetic=bool(table.synthetic[number]),
                rng=rng,
                turn=table.turn(number),
            )
            pair = self.cutter.filled(slot, rng)
            if self.warp is not None and (slot.sample is None or self.augment_synthetic):
                pair = self.warp(*pair, self._rng(_MOVED, step, number))
            pairs.append(pair)
        image = torch.from_numpy(np.stack([image for image, _ in pairs]))
        labels = torch.from_numpy(np.stack([labels for _, labels in pairs]).astype(np.int64))
        return Batch(image, labels)

    def _real(self, turn: int, step: int, number: int) -> str:
        """Return the case whose turn it is, or one with foreground in its place."""
        rng = self._rng(_FOREGROUND, step, number)
        if not self.foreground or rng.random() >= self.foreground or not self._labelled:
            return self.cases[turn]
        return self._labelled[rng.integers(len(self._labelled))]

    @cached_property
    def _labelled(self) -> tuple[str, ...]:
        """Cases with a label above background; reads all cases."""
        labels = {case: self.cutter.cache(case).labels for case in self.cases}
        return tuple(
            case for case, found in labels.items() if found is not None and found.max() > 0
        )

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence((self.plan.seed, *key)))
